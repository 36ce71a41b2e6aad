// Sums and products of twice the precision of float64, from error-free transforms (Dekker 1971;
// Hida, Li and Bailey 2001), and prefix sums of them.

#ifndef PDEX_GPU_DOUBLE_DOUBLE
#define PDEX_GPU_DOUBLE_DOUBLE

#include "common.cuh"

// high + low, where low is at most half a unit in the last place of high.
struct Twofold {
    double high, low;
};

__device__ __forceinline__ Twofold quick_two_sum(double a, double b) {  // |a| >= |b|
    const double s = a + b;
    return {s, b - (s - a)};
}

__device__ __forceinline__ Twofold two_sum(double a, double b) {
    const double s = a + b, part = s - a;
    return {s, (a - (s - part)) + (b - part)};
}

__device__ __forceinline__ Twofold product(double a, double b) {  // exact
    const double p = a * b;
    return {p, __fma_rn(a, b, -p)};
}

// The same bits whichever comes first.
__device__ __forceinline__ Twofold operator+(Twofold a, Twofold b) {
    const Twofold s = two_sum(a.high, b.high);
    return quick_two_sum(s.high, s.low + (a.low + b.low));
}

__device__ __forceinline__ Twofold operator-(Twofold a) { return {-a.high, -a.low}; }

__device__ __forceinline__ Twofold operator-(Twofold a, Twofold b) { return a + -b; }

__device__ __forceinline__ Twofold operator*(Twofold a, double b) {
    const Twofold p = product(a.high, b);
    return quick_two_sum(p.high, p.low + a.low * b);
}

__device__ __forceinline__ Twofold reciprocal(double a) {
    const double q = 1.0 / a;
    return quick_two_sum(q, __fma_rn(-q, a, 1.0) / a);
}

// The sum over all lanes, in every lane, always added in the same order.
__device__ __forceinline__ Twofold warp_sum(Twofold x) {
    for (int step = WARP / 2; step > 0; step >>= 1)
        x = x + Twofold{__shfl_xor_sync(FULL, x.high, step), __shfl_xor_sync(FULL, x.low, step)};
    return x;
}

// --- prefix sums --------------------------------------------------------------------------------

// Terms that are summed when a prefix is asked for: only one in so many is kept.
#define CHUNK 8

// Prefix sums of N terms a place: sums[k * N + c] is that of c over places [0, k * CHUNK), for k up
// to n / CHUNK. term(i, x) sets x[0 .. N) for place i. For a whole block; additions are in an order
// that does not depend on its threads: within a chunk, then over the 32 chunks of a warp, then over
// warps' shares one after another.
template <int N, class Term>
__device__ void prefix_sums(i64 n, const Term& term, Twofold* sums) {
    __shared__ Twofold shares[WARP][N];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int n_warps = blockDim.x / WARP;
    const i64 n_chunks = n / CHUNK;
    Twofold before[N], x[N];
    for (int c = 0; c < N; c++) before[c] = {0.0, 0.0};
    for (i64 base = 0; base <= n_chunks; base += blockDim.x) {
        const i64 chunk = base + threadIdx.x;
        Twofold own[N];
        for (int c = 0; c < N; c++) own[c] = {0.0, 0.0};
        if (chunk < n_chunks) {
#pragma unroll 1
            for (i64 i = chunk * CHUNK; i < (chunk + 1) * CHUNK; i++) {
                term(i, x);
                for (int c = 0; c < N; c++) own[c] = own[c] + x[c];
            }
        }
        for (int c = 0; c < N; c++) {
            for (int step = 1; step < WARP; step <<= 1) {
                const Twofold lower = {__shfl_up_sync(FULL, own[c].high, step),
                                       __shfl_up_sync(FULL, own[c].low, step)};
                if (lane >= step) own[c] = lower + own[c];
            }
            if (lane == WARP - 1) shares[warp][c] = own[c];
            x[c] = {__shfl_up_sync(FULL, own[c].high, 1), __shfl_up_sync(FULL, own[c].low, 1)};
            if (lane == 0) x[c] = {0.0, 0.0};
        }
        __syncthreads();
        for (int w = 0; w < n_warps; w++) {
            for (int c = 0; c < N; c++) {
                if (w == warp && chunk <= n_chunks) sums[chunk * N + c] = before[c] + x[c];
                before[c] = before[c] + shares[w][c];
            }
        }
        __syncthreads();
    }
}

#endif
