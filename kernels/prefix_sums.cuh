// Prefix sums of numbers wider than 64 bits, of a type T that has operator+ and shuffle_up.

#ifndef PDEX_GPU_PREFIX_SUMS
#define PDEX_GPU_PREFIX_SUMS

#include "common.cuh"

// Only every CHUNK-th prefix sum is kept; the terms after it are summed when a prefix is needed.
#define CHUNK 8

// Prefix sums of N terms per place: sums[k * N + c] is the sum of term c over places
// [0, k * CHUNK), for k up to n / CHUNK. term(i, x) sets x[0 .. N) for place i. Called by a whole
// block. The order of additions does not depend on the number of threads: within a chunk, then over
// the 32 chunks of a warp, then over the warps' shares one after another.
template <int N, class T, class Term>
__device__ void prefix_sums(i64 n, const Term& term, T* sums) {
    __shared__ T shares[WARP][N];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int n_warps = blockDim.x / WARP;
    const i64 n_chunks = n / CHUNK;
    T before[N], x[N];
    for (int c = 0; c < N; c++) before[c] = {};
    for (i64 base = 0; base <= n_chunks; base += blockDim.x) {
        const i64 chunk = base + threadIdx.x;
        T own[N];
        for (int c = 0; c < N; c++) own[c] = {};
        if (chunk < n_chunks) {
#pragma unroll 1
            for (i64 i = chunk * CHUNK; i < (chunk + 1) * CHUNK; i++) {
                term(i, x);
                for (int c = 0; c < N; c++) own[c] = own[c] + x[c];
            }
        }
        for (int c = 0; c < N; c++) {
            for (int step = 1; step < WARP; step <<= 1) {
                const T lower = shuffle_up(own[c], step);
                if (lane >= step) own[c] = lower + own[c];
            }
            if (lane == WARP - 1) shares[warp][c] = own[c];
            x[c] = shuffle_up(own[c], 1);
            if (lane == 0) x[c] = {};
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
