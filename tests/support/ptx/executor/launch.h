// A launch, as ../executor.py describes it, and how it fails.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "types.h"

namespace {

// What is counted of each instruction; the order is that of COUNTS in ../counts.py.
enum Count {
    ISSUES,      // by a warp
    LANES,       // active, over all issues
    SECTORS,     // of 32 bytes of device memory, over the requests of warps
    LEAST,       // the fewest sectors or wavefronts that could hold what was asked for
    MISSES,      // sectors that L1 does not answer
    WAVEFRONTS,  // in shared memory
    COLLISIONS,  // atomics of a request that are done one after another: the most at one address
    SPLITS,      // branches that part a warp
    N_COUNTS
};
// The order is that of TOTALS.
enum Total { READ, WRITTEN, LONGEST_WARP, LONGEST_BLOCK, N_TOTALS };

struct Constant {
    i32 at, bytes;  // 0 bytes: a predicate
    u64 value;
};
struct Range {  // an array in device memory
    u64 begin, end;
};

struct Launch {
    const Instruction* code;
    const Constant* constants;
    const Range* ranges;
    u64* counts;
    u64* totals;
    char* message;
    i64 n_constants, n_ranges, message_bytes;
    i64 n_predicates, register_bytes, shared_bytes, local_bytes, l1_bytes;
    i64 blocks, threads;
    i64 thread_at, lane_at, block_at;  // special registers; -1: not read
    u64 seed;                          // of the order of warps and blocks; 0: ascending
    i64 most_instructions;             // of all warps together
    i64 watch_races;

    u64& count(const Instruction& i, Count what) const {
        return counts[(&i - code) * N_COUNTS + what];
    }
};

struct Failure {};

// Ends the launch. Messages give lines as "line 12": ../device.py puts the place in its file there.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(const Launch& launch,
                                                             const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(launch.message, size_t(launch.message_bytes), format, list);
    va_end(list);
    throw Failure();
}

}  // namespace
