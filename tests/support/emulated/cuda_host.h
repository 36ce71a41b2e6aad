// CUDA C++ on the host: what a kernel source needs to be compiled, unchanged, by g++ or clang++.
//
// The threads of a block are fibers. Each runs until it meets a barrier, a warp primitive or its
// end; which one runs next is drawn anew, from a seed, after every barrier. Blocks run one after
// another in a drawn order. A thread that ends hands its stack to the next one that has not
// begun, so that a kernel without barriers is a plain loop.
//
// The state is global: one launch at a time in each library built with this header.

#ifndef PDEX_GPU_EMULATED_CUDA_HOST_H
#define PDEX_GPU_EMULATED_CUDA_HOST_H

#ifndef PDEX_GPU_EMULATED
#define PDEX_GPU_EMULATED 1
#endif

#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATED_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATED_ASAN 1
#endif
#endif
#ifdef EMULATED_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__)) && \
    !defined(EMULATED_UCONTEXT)
#define EMULATED_FAST_SWITCH 1
#else
#undef EMULATED_UCONTEXT
#define EMULATED_UCONTEXT 1
#include <ucontext.h>
#endif

// ---------------------------------------------------------------------------------- keywords

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define DYNAMIC_SHARED(name) unsigned char* name = ::emulated::dynamic_shared

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

#define EMULATED_VECTOR(type, name, bytes2, bytes4)                                        \
  struct alignas(bytes2) name##2 { type x, y; };                                           \
  struct alignas(bytes4) name##4 { type x, y, z, w; };                                     \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                         \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTOR(int, int, 8, 16)
EMULATED_VECTOR(unsigned, uint, 8, 16)
EMULATED_VECTOR(float, float, 8, 16)
EMULATED_VECTOR(double, double, 16, 16)
EMULATED_VECTOR(long long, longlong, 16, 16)
EMULATED_VECTOR(unsigned long long, ulonglong, 16, 16)
#undef EMULATED_VECTOR

namespace emulated {

// -------------------------------------------------------------------------------------- state

constexpr unsigned most_threads = 1024;
constexpr size_t most_static_shared = 4096;  // arrays, over all kernels of a source
constexpr size_t page = 4096;
#ifdef EMULATED_ASAN
constexpr size_t stack_bytes = 256 << 10;
#else
constexpr size_t stack_bytes = 64 << 10;
#endif
// Tops of stacks are spread, or all of them would compete for the same lines of the cache.
constexpr size_t spread_bytes = 16 << 10;

enum Op : int {
  op_none,
  op_ended,
  op_syncthreads,
  op_syncwarp,
  op_shfl,
  op_shfl_up,
  op_shfl_down,
  op_shfl_xor,
  op_ballot,
  op_any,
  op_all,
  op_match_any,
};

inline const char* name_of(Op op) {
  switch (op) {
    case op_none: return "running";
    case op_ended: return "ended";
    case op_syncthreads: return "__syncthreads";
    case op_syncwarp: return "__syncwarp";
    case op_shfl: return "__shfl_sync";
    case op_shfl_up: return "__shfl_up_sync";
    case op_shfl_down: return "__shfl_down_sync";
    case op_shfl_xor: return "__shfl_xor_sync";
    case op_ballot: return "__ballot_sync";
    case op_any: return "__any_sync";
    case op_all: return "__all_sync";
    case op_match_any: return "__match_any_sync";
  }
  return "?";
}

struct Stack {
  void* sp;
  char* bottom;
  size_t size;
  void* fake;  // of the address sanitizer
  char* mapped;
#ifdef EMULATED_UCONTEXT
  ucontext_t context;
#endif
};

struct Thread {
  Stack* stack;  // null before the thread began
  uint64_t value;
  uint64_t result;
  unsigned mask;
  int source;
  int line;
  Op op;
};

struct Kernel {
  const char* name;
  const char* parameters;
  unsigned bound;  // of __launch_bounds__; 0: none
  void (*call)(const uint64_t* values);
  std::string (*signature)();
};

struct Region {
  char* begin;
  size_t size;
};

static uint3 thread_index, block_index;
static dim3 block_shape, grid_shape;
static unsigned char* dynamic_shared;

static Thread threads[most_threads];
static unsigned warp_waiting[most_threads / 32];
static unsigned n_threads;
static unsigned n_ended;

static unsigned n_arrived;  // at the barrier
static int barrier_line;
static int barrier_count;   // of predicates that hold, so far
static int released_count;

// Threads not yet resumed since the barrier, in a drawn order; lanes woken by a warp primitive.
static uint16_t orders[2][most_threads];
static const uint16_t* order;
static unsigned position, stride, n_remaining;
static uint16_t ready[most_threads];
static unsigned ready_head, n_ready;
static bool ready_first;

static Stack stacks[most_threads];
static Stack* free_stacks[most_threads];
static unsigned n_stacks, n_free;
static Stack launcher;
static Stack* running;
static Stack* left;

static const Kernel* kernel;
static const uint64_t* values;
static uint64_t seed;
static size_t dynamic_bytes;
static Region static_shared[most_static_shared];
static size_t n_static_shared;
static uint64_t next_block_index, block_stride, n_blocks_left;
static bool failed;
static char* message;
static size_t message_room;
static uint64_t n_switches;

inline uint64_t draw() {
  seed ^= seed >> 12;
  seed ^= seed << 25;
  seed ^= seed >> 27;
  return seed * 0x2545F4914F6CDD1Du;
}

inline unsigned below(unsigned n) { return static_cast<unsigned>(((draw() >> 32) * n) >> 32); }

// ------------------------------------------------------------------------- switching of stacks

[[noreturn]] inline void stack_main();

#ifdef EMULATED_FAST_SWITCH
// Saves what a function must preserve on the stack, and the stack pointer; then the reverse for
// the other stack. The rounding mode is left alone: nothing here changes it.
extern "C" __attribute__((visibility("hidden"))) void emulated_switch(void** save, void* sp);
#if defined(__x86_64__)
asm(R"(
    .text
    .p2align 4
    .type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulated_switch, . - emulated_switch
)");
inline void* first_sp(char* top) {
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;  // where stack_main would return to
  *--sp = reinterpret_cast<void*>(&stack_main);
  return sp - 6;
}
#else
asm(R"(
    .text
    .p2align 4
    .type emulated_switch, %function
emulated_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size emulated_switch, . - emulated_switch
)");
inline void* first_sp(char* top) {
  char* sp = top - 160;
  *reinterpret_cast<void**>(sp + 88) = reinterpret_cast<void*>(&stack_main);  // x30
  return sp;
}
#endif
#endif

inline void arrived() {
#ifdef EMULATED_ASAN
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(running->fake, &bottom, &size);
  if (left == &launcher) {
    launcher.bottom = const_cast<char*>(static_cast<const char*>(bottom));
    launcher.size = size;
  }
#endif
}

inline void jump(Stack* to) {
  Stack* from = running;
  running = to;
  left = from;
  ++n_switches;
#ifdef EMULATED_ASAN
  __sanitizer_start_switch_fiber(&from->fake, to->bottom, to->size);
#endif
#ifdef EMULATED_FAST_SWITCH
  emulated_switch(&from->sp, to->sp);
#else
  swapcontext(&from->context, &to->context);
#endif
  arrived();
}

inline Stack* take_stack() {
  if (n_free) return free_stacks[--n_free];
  unsigned index = n_stacks++;
  Stack* stack = &stacks[index];
  size_t size = page + stack_bytes + spread_bytes;
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED || mprotect(mapped, page, PROT_NONE)) {
    perror("stack of an emulated thread");
    abort();
  }
  stack->mapped = static_cast<char*>(mapped);
  stack->bottom = stack->mapped + page;
  stack->size = stack_bytes + spread_bytes - (index * 832) % spread_bytes;
  stack->fake = nullptr;
#ifdef EMULATED_FAST_SWITCH
  stack->sp = first_sp(stack->bottom + stack->size);
#else
  getcontext(&stack->context);
  stack->context.uc_stack.ss_sp = stack->bottom;
  stack->context.uc_stack.ss_size = stack->size;
  stack->context.uc_link = nullptr;
  makecontext(&stack->context, reinterpret_cast<void (*)()>(&stack_main), 0);
#endif
  return stack;
}

// After an error: threads were left in the middle of their stacks.
inline void drop_stacks() {
  for (unsigned i = 0; i < n_stacks; ++i) {
#ifdef EMULATED_ASAN
    __asan_unpoison_memory_region(stacks[i].bottom, stack_bytes + spread_bytes);
#endif
    munmap(stacks[i].mapped, page + stack_bytes + spread_bytes);
  }
  n_stacks = n_free = 0;
}

// -------------------------------------------------------------------------------------- errors

[[noreturn]] __attribute__((cold)) inline void leave() {
  failed = true;
  running = &launcher;
#ifdef EMULATED_ASAN
  __sanitizer_start_switch_fiber(nullptr, launcher.bottom, launcher.size);
#endif
#ifdef EMULATED_FAST_SWITCH
  void* unused;
  emulated_switch(&unused, launcher.sp);
#else
  setcontext(&launcher.context);
#endif
  abort();
}

[[noreturn]] __attribute__((cold, format(printf, 1, 2))) inline void fail(const char* format, ...) {
  int n = snprintf(message, message_room, "kernel %s, block %u", kernel->name, block_index.x);
  va_list list;
  va_start(list, format);
  vsnprintf(message + n, message_room - static_cast<size_t>(n), format, list);
  va_end(list);
  leave();
}

#define EMULATED_FAIL_HERE(format, ...) \
  ::emulated::fail(", thread %u: " format, ::emulated::thread_index.x, __VA_ARGS__)

// What every thread of the block does, those that do the same together.
__attribute__((cold)) inline std::string where_all_are() {
  std::string text;
  bool told[most_threads] = {};
  for (unsigned i = 0; i < n_threads; ++i) {
    if (told[i]) continue;
    std::string members;
    unsigned count = 0;
    for (unsigned j = i; j < n_threads; ++j) {
      const Thread &a = threads[i], &b = threads[j];
      bool warp = a.op > op_syncthreads;
      if (told[j] || a.op != b.op || (a.op != op_ended && a.line != b.line)) continue;
      if (warp && (a.mask != b.mask || i / 32 != j / 32)) continue;
      told[j] = true;
      ++count;
      if (count <= 4) members += (count > 1 ? ", " : "") + std::to_string(j);
      if (count == 5) members += ", ...";
    }
    char part[160];
    const Thread& a = threads[i];
    const char* name = name_of(a.op);
    const char* wait = count > 1 ? "wait" : "waits";
    int n = snprintf(part, sizeof part, "%s%u thread%s (", text.empty() ? "" : "; ", count,
                     count > 1 ? "s" : "");
    text.append(part, static_cast<size_t>(n));
    text += members + ") ";
    if (a.op == op_ended) {
      snprintf(part, sizeof part, "ended");
    } else if (a.op == op_syncthreads) {
      snprintf(part, sizeof part, "%s in %s (line %d)", wait, name, a.line);
    } else {
      snprintf(part, sizeof part, "%s in %s (line %d, mask 0x%08x)", wait, name, a.line, a.mask);
    }
    text += part;
  }
  return text;
}

[[noreturn]] __attribute__((cold)) inline void stuck() {
  const char* kind = "divergent barrier";
  unsigned first = most_threads;
  for (unsigned i = 0; i < n_threads; ++i) {
    if (threads[i].op > op_syncthreads) {
      kind = "warp primitive that not all lanes of its mask reach";
      first = i;
      break;
    }
    if (threads[i].op == op_syncthreads && first == most_threads) first = i;
  }
  {
    std::string all = where_all_are();
    snprintf(message, message_room, "kernel %s, block %u, thread %u: %s: %s", kernel->name,
             block_index.x, first, kind, all.c_str());
  }  // `leave` never comes back to destroy a string
  leave();
}

// ---------------------------------------------------------------------------------- scheduling

inline void new_phase() {
  // All are prime and larger than any block, so a walk with such a stride meets every thread.
  constexpr unsigned primes[16] = {1031, 1129, 1237, 1361, 1471, 1559, 1669, 1801,
                                   1949, 2083, 2221, 2377, 2551, 2707, 2851, 3001};
  uint64_t drawn = draw() >> 8;
  ready_first = drawn & 1;
  unsigned kind = (drawn >> 1) & 3;
  order = orders[kind >> 1];
  stride = kind == 0 ? 1 : kind == 1 ? n_threads - 1 : primes[(drawn >> 3) & 15] % n_threads;
  position = static_cast<unsigned>(((drawn >> 8 & 0xffffffff) * n_threads) >> 32);
  n_remaining = n_threads;
}

// The next thread to run, or -1.
inline int pick() {
  if (n_ready && (ready_first || !n_remaining)) {
    int next = ready[ready_head];
    ready_head = (ready_head + 1) % most_threads;
    --n_ready;
    return next;
  }
  if (n_remaining) {
    --n_remaining;
    int next = order[position];
    position += stride;
    if (position >= n_threads) position -= n_threads;
    return next;
  }
  return -1;
}

// Let others run until this thread is picked again.
inline void wait() {
  int next = pick();
  if (__builtin_expect(next < 0, 0)) stuck();
  if (static_cast<unsigned>(next) == thread_index.x) return;
  thread_index.x = static_cast<unsigned>(next);
  Thread& thread = threads[next];
  if (!thread.stack) thread.stack = take_stack();
  jump(thread.stack);
}

// Different bytes in every block: a kernel that relies on zeros, or on the block before, fails.
inline void fill(char* bytes, size_t size) {
  uint64_t word = draw();
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    memcpy(bytes + i, &word, 8);
    word += 0x9E3779B97F4A7C15u;
  }
  memcpy(bytes + i, &word, size - i);
}

// Declares a static array to be shared memory, with nothing in the `gap` bytes in front of it.
inline void add_static_shared(char* begin, size_t size, [[maybe_unused]] size_t gap) {
#ifdef EMULATED_ASAN
  __asan_poison_memory_region(begin - gap, gap);  // of itself it guards only what is behind
#endif
  if (n_static_shared == most_static_shared) abort();
  static_shared[n_static_shared++] = {begin, size};
}

inline bool next_block() {
  if (!n_blocks_left) return false;
  --n_blocks_left;
  block_index.x = static_cast<unsigned>(next_block_index);
  next_block_index += block_stride;
  if (next_block_index >= grid_shape.x) next_block_index -= grid_shape.x;
  for (size_t i = 0; i < n_static_shared; ++i) fill(static_shared[i].begin, static_shared[i].size);
  if (dynamic_bytes) fill(reinterpret_cast<char*>(dynamic_shared), dynamic_bytes);
  for (unsigned i = 0; i < n_threads; ++i) {
    threads[i].stack = nullptr;
    threads[i].op = op_none;
  }
  n_ended = 0;
  new_phase();
  return true;
}

[[noreturn]] inline void stack_main() {
  arrived();
  Stack* self = running;
  for (;;) {
    kernel->call(values);
    threads[thread_index.x].op = op_ended;
    ++n_ended;
    int next = pick();
    if (next < 0) {
      if (n_ended != n_threads) stuck();
      if (!next_block()) {
        free_stacks[n_free++] = self;
        jump(&launcher);
        continue;
      }
      next = pick();
    }
    thread_index.x = static_cast<unsigned>(next);
    Thread& thread = threads[next];
    if (thread.stack) {
      free_stacks[n_free++] = self;
      jump(thread.stack);  // and back, with another thread to begin
    } else {
      thread.stack = self;
    }
  }
}

// ------------------------------------------------------------------------ barriers, primitives

__attribute__((noinline)) inline int barrier(int predicate, int line) {
  Thread& me = threads[thread_index.x];
  me.op = op_syncthreads;
  me.line = line;
  if (n_arrived && __builtin_expect(line != barrier_line, 0)) {
    EMULATED_FAIL_HERE(
        "divergent barrier: waits in __syncthreads (line %d) while others of the block wait in "
        "the one of line %d", line, barrier_line);
  }
  barrier_line = line;
  barrier_count += predicate != 0;
  if (++n_arrived == n_threads) {
    released_count = barrier_count;
    n_arrived = 0;
    barrier_count = 0;
    new_phase();
  }
  wait();
  me.op = op_none;
  return released_count;
}

// All lanes of the mask are there: give each its result.
inline void complete(Thread* lanes, Op op, unsigned mask) {
  switch (op) {
    case op_shfl:
    case op_shfl_up:
    case op_shfl_down:
    case op_shfl_xor:
      for (unsigned rest = mask; rest; rest &= rest - 1) {
        Thread& lane = lanes[__builtin_ctz(rest)];
        if (__builtin_expect(!(mask >> lane.source & 1), 0)) {
          fail(", thread %u: %s (line %d) reads lane %d, which is not in its mask 0x%08x",
               static_cast<unsigned>(&lane - threads), name_of(op), lane.line, lane.source, mask);
        }
        lane.result = lanes[lane.source].value;
      }
      break;
    case op_ballot:
    case op_any:
    case op_all: {
      unsigned holds = 0;
      for (unsigned rest = mask; rest; rest &= rest - 1) {
        int i = __builtin_ctz(rest);
        holds |= static_cast<unsigned>(lanes[i].value != 0) << i;
      }
      unsigned result = op == op_ballot ? holds : op == op_any ? holds != 0 : holds == mask;
      for (unsigned rest = mask; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].result = result;
      break;
    }
    case op_match_any:
      for (unsigned rest = mask; rest; rest &= rest - 1) {
        Thread& lane = lanes[__builtin_ctz(rest)];
        unsigned same = 0;
        for (unsigned other = mask; other; other &= other - 1) {
          int i = __builtin_ctz(other);
          same |= static_cast<unsigned>(lanes[i].value == lane.value) << i;
        }
        lane.result = same;
      }
      break;
    default: break;
  }
}

__attribute__((noinline)) inline uint64_t meet(Op op, unsigned mask, uint64_t value, int source,
                                               int line) {
  unsigned index = thread_index.x, me = index % 32, warp = index / 32;
  Thread* lanes = &threads[warp * 32];
  Thread& lane = lanes[me];
  lane.op = op;
  lane.mask = mask;
  lane.value = value;
  lane.source = source;
  lane.line = line;
  if (__builtin_expect(!(mask >> me & 1), 0)) {
    EMULATED_FAIL_HERE("%s (line %d) with mask 0x%08x, which does not name its own lane %u",
                       name_of(op), line, mask, me);
  }
  unsigned waiting = warp_waiting[warp] |= 1u << me;
  bool all = (waiting & mask) == mask;
  if (all) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const Thread& other = lanes[__builtin_ctz(rest)];
      if (other.mask != mask) {
        all = false;  // it has still to come out of another primitive
      } else if (__builtin_expect(other.op != op, 0)) {
        EMULATED_FAIL_HERE("%s (line %d) with mask 0x%08x meets %s (line %d) of thread %u",
                           name_of(op), line, mask, name_of(other.op), other.line,
                           static_cast<unsigned>(&other - threads));
      }
    }
  }
  if (all) {
    complete(lanes, op, mask);
    warp_waiting[warp] = waiting & ~mask;
    unsigned turn = static_cast<unsigned>(draw() >> 32) % 32;
    for (unsigned i = 0; i < 32; ++i) {
      unsigned other = i ^ turn;
      if (other == me || !(mask >> other & 1)) continue;
      ready[(ready_head + n_ready) % most_threads] = static_cast<uint16_t>(warp * 32 + other);
      ++n_ready;
    }
  } else {
    wait();
  }
  lane.op = op_none;
  return lane.result;
}

template <class T>
inline T shuffle(Op op, unsigned mask, T value, int by, int width, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if (width < 1 || width > 32 || (width & (width - 1))) {
    EMULATED_FAIL_HERE("%s (line %d): width %d is not a power of two up to 32", name_of(op), line,
                       width);
  }
  int lane = static_cast<int>(thread_index.x % 32), first = lane & ~(width - 1);
  int last = first + width - 1;
  unsigned u = static_cast<unsigned>(by);
  int source = lane;
  switch (op) {
    case op_shfl: source = first + (by & (width - 1)); break;
    case op_shfl_up: source = u <= static_cast<unsigned>(lane - first) ? lane - by : lane; break;
    case op_shfl_down: source = u <= static_cast<unsigned>(last - lane) ? lane + by : lane; break;
    default: source = ((lane ^ by) & ~31) == 0 && (lane ^ by) <= last ? lane ^ by : lane;
  }
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = meet(op, mask, bits, source, line);
  memcpy(&value, &bits, sizeof value);
  return value;
}

// ------------------------------------------------------------------------- launches, arguments

template <class T>
std::string code_of() {
  using V = std::remove_cv_t<T>;
  const char* kind = "v";
  if (std::is_same_v<V, bool>) kind = "b";
  else if (std::is_floating_point_v<V>) kind = "f";
  else if (std::is_integral_v<V>) kind = std::is_signed_v<V> ? "i" : "u";
  if constexpr (std::is_void_v<V>) return "v0";
  else return kind + std::to_string(sizeof(V));
}

template <class T>
std::string parameter_code() {
  if constexpr (std::is_pointer_v<T>) return "p" + code_of<std::remove_pointer_t<T>>();
  else return code_of<T>();
}

template <class T>
inline T value_at(const uint64_t* slot) {
  static_assert(sizeof(T) <= sizeof *slot && std::is_trivially_copyable_v<T>,
                "arguments of kernels are pointers and numbers");
  std::remove_cv_t<T> value;
  memcpy(&value, slot, sizeof value);
  return value;
}

template <auto function, class Type = decltype(function)>
struct Arguments;
template <auto function, class... A>
struct Arguments<function, void (*)(A...)> {
  template <size_t... I>
  static void unpack([[maybe_unused]] const uint64_t* slots, std::index_sequence<I...>) {
    function(value_at<A>(slots + I)...);
  }
  static void call(const uint64_t* slots) { unpack(slots, std::index_sequence_for<A...>()); }
  static std::string signature() {
    std::string text;
    ((text += (text.empty() ? "" : ",") + parameter_code<A>()), ...);
    return text;
  }
};

inline int launch(const Kernel* what, unsigned blocks, unsigned threads_a_block, size_t shared,
                  uint64_t launch_seed, const uint64_t* slots, char* text, size_t room) {
  kernel = what;
  values = slots;
  seed = launch_seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u;
  if (!seed) seed = 1;
  message = text;
  message_room = room;
  failed = false;
  if (n_threads != threads_a_block) {
    n_threads = threads_a_block;
    for (unsigned i = 0; i < n_threads; ++i) orders[0][i] = orders[1][i] = static_cast<uint16_t>(i);
  }
  for (unsigned i = n_threads - 1; i; --i) std::swap(orders[1][i], orders[1][below(i + 1)]);
  block_shape.x = n_threads;
  grid_shape.x = blocks;
  n_blocks_left = blocks;
  next_block_index = below(blocks);
  block_stride = 1;
  if (blocks > 2) {  // a stride without a common divisor meets every block
    for (;;) {
      block_stride = 1 + below(blocks - 1);
      uint64_t a = blocks, b = block_stride;
      while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
      }
      if (a == 1) break;
    }
  }
  n_arrived = n_ready = ready_head = 0;
  barrier_count = 0;
  memset(warp_waiting, 0, sizeof warp_waiting);
  dynamic_bytes = shared;
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, shared)) abort();
  dynamic_shared = static_cast<unsigned char*>(memory);
  next_block();
  unsigned first = static_cast<unsigned>(pick());
  thread_index.x = first;
  threads[first].stack = take_stack();
  running = &launcher;
  jump(threads[first].stack);
  free(memory);
  if (failed) drop_stacks();
  return failed;
}

}  // namespace emulated

// -------------------------------------------------------------------------- built-in variables

[[maybe_unused]] static const uint3& threadIdx = ::emulated::thread_index;
[[maybe_unused]] static const uint3& blockIdx = ::emulated::block_index;
[[maybe_unused]] static const dim3& blockDim = ::emulated::block_shape;
[[maybe_unused]] static const dim3& gridDim = ::emulated::grid_shape;
constexpr int warpSize = 32;

// -------------------------------------------------------------------- barriers, warp primitives

#define EMULATED_LINE int line = __builtin_LINE()

inline void __syncthreads(EMULATED_LINE) { ::emulated::barrier(0, line); }
inline int __syncthreads_count(int predicate, EMULATED_LINE) {
  return ::emulated::barrier(predicate, line);
}
inline int __syncthreads_or(int predicate, EMULATED_LINE) {
  return ::emulated::barrier(predicate, line) != 0;
}
inline int __syncthreads_and(int predicate, EMULATED_LINE) {
  return ::emulated::barrier(predicate, line) == static_cast<int>(::emulated::n_threads);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_LINE) {
  ::emulated::meet(::emulated::op_syncwarp, mask, 0, 0, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATED_LINE) {
  bool holds = predicate != 0;
  return static_cast<unsigned>(::emulated::meet(::emulated::op_ballot, mask, holds, 0, line));
}
inline int __any_sync(unsigned mask, int predicate, EMULATED_LINE) {
  bool holds = predicate != 0;
  return static_cast<int>(::emulated::meet(::emulated::op_any, mask, holds, 0, line));
}
inline int __all_sync(unsigned mask, int predicate, EMULATED_LINE) {
  bool holds = predicate != 0;
  return static_cast<int>(::emulated::meet(::emulated::op_all, mask, holds, 0, line));
}

#define EMULATED_FOR(T)                                                                     \
  inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATED_LINE) { \
    return ::emulated::shuffle(::emulated::op_shfl, mask, value, source, width, line);      \
  }                                                                                         \
  inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,           \
                          EMULATED_LINE) {                                                  \
    return ::emulated::shuffle(::emulated::op_shfl_up, mask, value,                         \
                               static_cast<int>(delta), width, line);                       \
  }                                                                                         \
  inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,         \
                            EMULATED_LINE) {                                                \
    return ::emulated::shuffle(::emulated::op_shfl_down, mask, value,                       \
                               static_cast<int>(delta), width, line);                       \
  }                                                                                         \
  inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,               \
                           EMULATED_LINE) {                                                 \
    return ::emulated::shuffle(::emulated::op_shfl_xor, mask, value, lanes, width, line);   \
  }                                                                                         \
  inline unsigned __match_any_sync(unsigned mask, T value, EMULATED_LINE) {                 \
    uint64_t bits = 0;                                                                      \
    memcpy(&bits, &value, sizeof value);                                                    \
    return static_cast<unsigned>(                                                           \
        ::emulated::meet(::emulated::op_match_any, mask, bits, 0, line));                   \
  }
EMULATED_FOR(int)
EMULATED_FOR(unsigned)
EMULATED_FOR(long)
EMULATED_FOR(unsigned long)
EMULATED_FOR(long long)
EMULATED_FOR(unsigned long long)
EMULATED_FOR(float)
EMULATED_FOR(double)
#undef EMULATED_FOR
#undef EMULATED_LINE

inline void __threadfence() {}
inline void __threadfence_block() {}
[[noreturn]] inline void __trap() { EMULATED_FAIL_HERE("%s", "__trap was called"); }

// ------------------------------------------------------------------------------------- atomics

// Fibers switch only at barriers and warp primitives, so plain operations are atomic. Sums of
// floating-point numbers are left out on purpose: their order would differ from run to run.
#define EMULATED_ATOMIC(T, name, expression) \
  inline T name(T* address, T value) {       \
    T old = *address;                        \
    *address = expression;                   \
    return old;                              \
  }
#define EMULATED_ATOMICS(T)                                          \
  EMULATED_ATOMIC(T, atomicMin, value < old ? value : old)           \
  EMULATED_ATOMIC(T, atomicMax, value > old ? value : old)           \
  EMULATED_ATOMIC(T, atomicAnd, old & value)                         \
  EMULATED_ATOMIC(T, atomicOr, old | value)                          \
  EMULATED_ATOMIC(T, atomicXor, old ^ value)                         \
  inline T atomicCAS(T* address, T compare, T value) {               \
    T old = *address;                                                \
    if (old == compare) *address = value;                            \
    return old;                                                      \
  }                                                                  \
  EMULATED_ATOMIC(T, atomicExch, value)
EMULATED_ATOMICS(int)
EMULATED_ATOMICS(unsigned)
EMULATED_ATOMICS(unsigned long long)
EMULATED_ATOMIC(long long, atomicMin, value < old ? value : old)
EMULATED_ATOMIC(long long, atomicMax, value > old ? value : old)
EMULATED_ATOMIC(int, atomicAdd,
                static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
EMULATED_ATOMIC(int, atomicSub,
                static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)))
EMULATED_ATOMIC(unsigned, atomicAdd, old + value)
EMULATED_ATOMIC(unsigned, atomicSub, old - value)
EMULATED_ATOMIC(unsigned long long, atomicAdd, old + value)
#undef EMULATED_ATOMICS
#undef EMULATED_ATOMIC

// A literal 0 or a float would otherwise convert without a word.
float atomicAdd(float*, float) = delete;
double atomicAdd(double*, double) = delete;

// ---------------------------------------------------------------------------------------- bits

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned long long __brevll(unsigned long long x) {
  unsigned long long reversed = 0;
  for (int i = 0; i < 64; ++i) reversed |= (x >> i & 1) << (63 - i);
  return reversed;
}
inline unsigned __brev(unsigned x) { return static_cast<unsigned>(__brevll(x) >> 32); }
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>((static_cast<unsigned long long>(x) * y) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  __extension__ using wide = unsigned __int128;
  return static_cast<unsigned long long>((static_cast<wide>(x) * y) >> 64);
}

#define EMULATED_BITS(name, From, To)             \
  inline To name(From x) {                        \
    static_assert(sizeof(From) == sizeof(To));    \
    To bits;                                      \
    memcpy(&bits, &x, sizeof bits);               \
    return bits;                                  \
  }
EMULATED_BITS(__float_as_uint, float, unsigned)
EMULATED_BITS(__float_as_int, float, int)
EMULATED_BITS(__uint_as_float, unsigned, float)
EMULATED_BITS(__int_as_float, int, float)
EMULATED_BITS(__double_as_longlong, double, long long)
EMULATED_BITS(__longlong_as_double, long long, double)
#undef EMULATED_BITS

// -------------------------------------------------------------------------------- loads, stores

template <class T> inline T __ldg(const T* address) { return *address; }
template <class T> inline T __ldcs(const T* address) { return *address; }
template <class T> inline T __ldcg(const T* address) { return *address; }
template <class T> inline void __stcs(T* address, T value) { *address = value; }
template <class T> inline void __stcg(T* address, T value) { *address = value; }

// --------------------------------------------------------------------------------- arithmetic

// Rounded one by one: the build forbids the compiler to contract a product and a sum.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline double __ull2double_rn(unsigned long long x) { return static_cast<double>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline long long __double2ll_rn(double x) { return llrint(x); }
inline long long __double2ll_rz(double x) { return static_cast<long long>(x); }
inline int __double2int_rn(double x) { return static_cast<int>(lrint(x)); }
inline int __double2int_rz(double x) { return static_cast<int>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(lrintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }

// Mixed signs are unsigned, and mixed precisions double, as CUDA has them.
#define EMULATED_ORDER(T, A, B)                                                            \
  inline T min(A a, B b) { T x = static_cast<T>(a), y = static_cast<T>(b); return y < x ? y : x; } \
  inline T max(A a, B b) { T x = static_cast<T>(a), y = static_cast<T>(b); return x < y ? y : x; }
EMULATED_ORDER(int, int, int)
EMULATED_ORDER(unsigned, unsigned, unsigned)
EMULATED_ORDER(unsigned, int, unsigned)
EMULATED_ORDER(unsigned, unsigned, int)
EMULATED_ORDER(long, long, long)
EMULATED_ORDER(unsigned long, unsigned long, unsigned long)
EMULATED_ORDER(unsigned long, long, unsigned long)
EMULATED_ORDER(unsigned long, unsigned long, long)
EMULATED_ORDER(long long, long long, long long)
EMULATED_ORDER(unsigned long long, unsigned long long, unsigned long long)
EMULATED_ORDER(unsigned long long, long long, unsigned long long)
EMULATED_ORDER(unsigned long long, unsigned long long, long long)
#undef EMULATED_ORDER
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }
inline double min(float x, double y) { return fmin(x, y); }
inline double max(float x, double y) { return fmax(x, y); }
inline double min(double x, float y) { return fmin(x, y); }
inline double max(double x, float y) { return fmax(x, y); }

// ---------------------------------------------------------------------------- the table of it

#define EMULATED_KERNEL(name, bound, parameters)                       \
  {#name, parameters, static_cast<unsigned>(bound),                    \
   &::emulated::Arguments<&name>::call, &::emulated::Arguments<&name>::signature}

#define EMULATED_TABLE(...)                                                                     \
  static const ::emulated::Kernel emulated_table[] = {__VA_ARGS__};                             \
  extern "C" {                                                                                  \
  __attribute__((visibility("default"))) int emulated_count() {                                 \
    return sizeof emulated_table / sizeof emulated_table[0];                                    \
  }                                                                                             \
  __attribute__((visibility("default"))) const char* emulated_name(int i) {                     \
    return emulated_table[i].name;                                                              \
  }                                                                                             \
  __attribute__((visibility("default"))) const char* emulated_parameters(int i) {               \
    return emulated_table[i].parameters;                                                        \
  }                                                                                             \
  __attribute__((visibility("default"))) unsigned emulated_bound(int i) {                       \
    return emulated_table[i].bound;                                                             \
  }                                                                                             \
  __attribute__((visibility("default"))) size_t emulated_signature(int i, char* text,           \
                                                                   size_t room) {               \
    return static_cast<size_t>(                                                                 \
        snprintf(text, room, "%s", emulated_table[i].signature().c_str()));                     \
  }                                                                                             \
  __attribute__((visibility("default"))) void emulated_static_shared(char* begin, size_t size,  \
                                                                     size_t gap) {              \
    ::emulated::add_static_shared(begin, size, gap);                                            \
  }                                                                                             \
  __attribute__((visibility("default"))) uint64_t emulated_switches() {                         \
    return ::emulated::n_switches;                                                              \
  }                                                                                             \
  __attribute__((visibility("default"))) int emulated_launch(                                   \
      int i, unsigned blocks, unsigned threads, size_t shared, uint64_t seed,                   \
      const uint64_t* slots, char* text, size_t room) {                                         \
    return ::emulated::launch(&emulated_table[i], blocks, threads, shared, seed, slots, text,   \
                              room);                                                            \
  }                                                                                             \
  }

#endif
