// Kernels that are right, one for each thing that the emulated device provides.
#include "shared.cuh"

extern "C" __global__ void __launch_bounds__(256)
    add(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    c[i] = __ldg(&a[i]) + __ldg(b + i);
  }
}

// The same with everything a launch can pass, a macro that makes a kernel, and a null pointer.
#define SCALED(name, T)                                                                  \
  extern "C" __global__ __launch_bounds__(min(64 * 2, 256)) void name(                   \
      const T* a, T* out, const double* missing, T by, bool negate, long long n,         \
      unsigned char shift) {                                                             \
    long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;         \
    if (i >= n) return;                                                                  \
    T scaled = a[i] * by + (missing == nullptr ? 1 : 0) + static_cast<T>(shift);         \
    out[i] = negate ? -scaled : scaled;                                                  \
  }
SCALED(scaled_float, float)
SCALED(scaled_double, double)

extern "C" __global__ void block_sums(const int* values, long long* sums, double* means) {
  int value = values[blockIdx.x * 1024 + threadIdx.x];
  long long sum = block_sum<long long, 1024>(value);
  double mean = block_sum<double, 1024>(value) / blockDim.x;
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    means[blockIdx.x] = mean;
  }
}

extern "C" __global__ void bitonic_sort(unsigned* keys, int n) {
  DYNAMIC_SHARED(bytes);
  unsigned* sorted = reinterpret_cast<unsigned*>(bytes);
  int i = threadIdx.x;
  sorted[i] = i < n ? keys[i] : 0xffffffffu;
  for (int size = 2; size <= blockDim.x; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      int other = i ^ step;
      if (other > i) {
        unsigned low = min(sorted[i], sorted[other]), high = max(sorted[i], sorted[other]);
        bool up = (i & size) == 0;
        sorted[i] = up ? low : high;
        sorted[other] = up ? high : low;
      }
    }
  }
  __syncthreads();
  if (i < n) keys[i] = sorted[i];
}

// Sum, and number of odd values, of each warp, and of each half of it.
extern "C" __global__ void warp_sums(
    const double* values, const unsigned long long* keys, double* sums, unsigned long long* most,
    unsigned* odd, unsigned* odd_low) {
  int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  double sum = values[i];
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(FULL, sum, by);
  unsigned long long top = keys[i];
  for (int by = 16; by > 0; by /= 2) top = max(top, __shfl_xor_sync(FULL, top, by));
  unsigned bits = __ballot_sync(FULL, keys[i] & 1);
  unsigned low = 0;
  if (lane < 16) low = __popc(__ballot_sync(0xffffu, keys[i] & 1));
  __syncwarp();
  if (lane == 0) {
    sums[i / 32] = sum;
    odd[i / 32] = bits;
    odd_low[i / 32] = low;
  }
  if (lane == 31) most[i / 32] = top;
}

// One row of 32 for each way to move or compare a value between lanes.
extern "C" __global__ void primitives(const int* values, int* out) {
  int lane = threadIdx.x, v = values[lane];
  out[0 * 32 + lane] = __shfl_sync(FULL, v, 5);
  out[1 * 32 + lane] = __shfl_sync(FULL, v, 3, 8);
  out[2 * 32 + lane] = __shfl_up_sync(FULL, v, 3);
  out[3 * 32 + lane] = __shfl_up_sync(FULL, v, 3, 8);
  out[4 * 32 + lane] = __shfl_down_sync(FULL, v, 3);
  out[5 * 32 + lane] = __shfl_down_sync(FULL, v, 3, 8);
  out[6 * 32 + lane] = __shfl_xor_sync(FULL, v, 9);
  out[7 * 32 + lane] = __shfl_xor_sync(FULL, v, 9, 8);
  out[8 * 32 + lane] = static_cast<int>(__match_any_sync(FULL, v % 3));
  out[9 * 32 + lane] = __any_sync(FULL, v == values[7]);
  out[10 * 32 + lane] = __all_sync(FULL, v == values[7]);
  // lanes take different ways to a common mask
  if (lane < 8) __syncwarp(0xffu);
  if (lane % 2) {
    out[11 * 32 + lane] = __shfl_sync(0xaaaaaaaau, v, lane ^ 2);
  } else {
    out[11 * 32 + lane] = __shfl_sync(0x55555555u, v, lane ^ 2);
  }
}

extern "C" __global__ void barrier_votes(const int* values, int* counts, int* any, int* all) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int count = __syncthreads_count(values[i] > 0);
  int some = __syncthreads_or(values[i] > 0);
  int every = __syncthreads_and(values[i] > 0);
  counts[i] = count;
  any[i] = some;
  all[i] = every;
}

extern "C" __global__ void histogram(const unsigned* bins, int* counts, unsigned* most,
                                     unsigned long long* total, int* least, unsigned* bits,
                                     unsigned long long* claimed, int n) {
  __shared__ int local[64];
  for (int b = threadIdx.x; b < 64; b += blockDim.x) local[b] = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    atomicAdd(&local[bins[i]], 1);
    atomicMax(most, bins[i]);
    atomicMin(least, static_cast<int>(bins[i]));
    atomicOr(bits, 1u << (bins[i] % 32));
    atomicAdd(total, static_cast<unsigned long long>(bins[i]));
    atomicCAS(claimed, ~0ull, 7ull);
  }
  __syncthreads();
  for (int b = threadIdx.x; b < 64; b += blockDim.x) {
    if (local[b]) atomicAdd(&counts[b], local[b]);
  }
}

extern "C" __global__ void bit_tricks(const unsigned* values, int* out) {
  unsigned v = values[threadIdx.x];
  int* row = out + threadIdx.x * 10;
  row[0] = __popc(v);
  row[1] = __clz(static_cast<int>(v));
  row[2] = __ffs(static_cast<int>(v));
  row[3] = static_cast<int>(__brev(v));
  row[4] = __float_as_int(__uint_as_float(v & 0x3fffffffu));
  row[5] = __popcll(static_cast<unsigned long long>(v) << 32 | v);
  row[6] = __clzll(static_cast<long long>(v));
  row[7] = __ffsll(static_cast<long long>(v) << 8);
  row[8] = __longlong_as_double(__double_as_longlong(static_cast<double>(v))) == v;
  row[9] = static_cast<int>(expm1(0.0) + trunc(2.75) + fabs(-3.0) + isfinite(1.0 / 3));
}

// What a block finds in shared memory that it did not write, and that blocks take turns.
extern "C" __global__ void unwritten(unsigned* fixed, unsigned* dynamic, unsigned* turn,
                                     unsigned* turns) {
  __shared__ unsigned array[32];
  DYNAMIC_SHARED(bytes);
  fixed[blockIdx.x * 32 + threadIdx.x] = array[threadIdx.x];
  dynamic[blockIdx.x * 32 + threadIdx.x] = reinterpret_cast<unsigned*>(bytes)[threadIdx.x];
  __syncthreads();
  array[threadIdx.x] = 0;
  if (threadIdx.x == 0) turns[blockIdx.x] = atomicAdd(turn, 1u);
}

// For measuring: barriers and nothing else.
extern "C" __global__ void barriers(int times) {
  for (int i = 0; i < times; ++i) __syncthreads();
}

extern "C" __global__ void shuffles(int times, int* out) {
  int v = threadIdx.x;
  for (int i = 0; i < times; ++i) v += __shfl_xor_sync(FULL, v & 1, 1);
  out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
