// Benjamini-Hochberg adjustment (1995) from sorted p-values: the running minimum, from the largest
// down, of p * (n_tests / rank), at most 1. Minima do not depend on their order, so the bits are
// those of scipy.stats.false_discovery_control. P-values lie in [0, 1], so their bits sort as they
// do.
//
// Equal p-values all have the result of the first of them. So each p-value is searched for among
// the sorted ones, and no places have to be carried through the sort. P-values are passed and
// returned as their bits.
//
// The n p-values may be some of n_tests: n_smaller of the others come before these, and `ceiling`
// is the smallest result of those that come after.

#include "common.cuh"

// Each block takes tile_size sorted p-values, each thread an equal part of them. adjusted (n,) are
// the running minima from the end of the tile down, smallest (tiles,) those of the whole tiles.
// Dynamic shared memory: one double per thread.
extern "C" __global__ void adjust(const u64* sorted, i64 n, i64 tile_size, i64 n_tests,
                                  i64 n_smaller, double* adjusted, double* smallest) {
    DYNAMIC_SHARED(memory);
    double* minima = reinterpret_cast<double*>(memory);
    const i64 start = blockIdx.x * tile_size;
    const i64 size = min(tile_size, n - start);
    const i64 first = start + size * threadIdx.x / blockDim.x;
    const i64 last = start + size * (threadIdx.x + 1) / blockDim.x;
    const double infinity = __longlong_as_double(0x7ff0000000000000ll);
    double running = infinity;
    for (i64 i = last - 1; i >= first; i--) {
        const double p = Bits<u64>::floating(sorted[i]);
        const double rank = static_cast<double>(n_smaller + i + 1);
        const double x = p * (static_cast<double>(n_tests) / rank);
        running = x < running ? x : running;
        adjusted[i] = running;
    }
    minima[threadIdx.x] = running;
    __syncthreads();
    double above = infinity;
    for (unsigned t = threadIdx.x + 1; t < blockDim.x; t++)
        above = minima[t] < above ? minima[t] : above;
    for (i64 i = last - 1; i >= first; i--)
        if (above < adjusted[i]) adjusted[i] = above;
    if (threadIdx.x == 0) smallest[blockIdx.x] = running < above ? running : above;
}

// One block: each item of smallest (tiles,) becomes the minimum of all tiles above, at most
// `ceiling`. Dynamic shared memory: one double per thread.
extern "C" __global__ void least_above(double* smallest, i64 n_tiles, double ceiling) {
    DYNAMIC_SHARED(memory);
    double* minima = reinterpret_cast<double*>(memory);
    const i64 first = n_tiles * threadIdx.x / blockDim.x;
    const i64 last = n_tiles * (threadIdx.x + 1) / blockDim.x;
    double least = ceiling;
    for (i64 i = first; i < last; i++) least = smallest[i] < least ? smallest[i] : least;
    minima[threadIdx.x] = least;
    __syncthreads();
    double running = ceiling;
    for (unsigned t = threadIdx.x + 1; t < blockDim.x; t++)
        running = minima[t] < running ? minima[t] : running;
    for (i64 i = last - 1; i >= first; i--) {
        const double own = smallest[i];
        smallest[i] = running;
        running = own < running ? own : running;
    }
}

// One thread per p-value, in the order of the input; p becomes the adjusted p-value.
extern "C" __global__ void gather(u64* p, const u64* sorted, const double* adjusted,
                                  const double* above, i64 n, i64 tile_size) {
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const i64 at = lower_bound(sorted, n, p[i]);
    const double least = above[at / tile_size];
    p[i] = Bits<u64>::of(least < adjusted[at] ? least : adjusted[at]);
}
