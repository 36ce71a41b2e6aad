// Pools: the groups of a contrast as one segment per gene, which is sorted afterwards.
//
// places (2, C): where the segment of each gene begins and ends, exclusive. The segment of adjacent
// groups is where these are in keys. Other groups are gathered from where the gene begins; they fit
// there, because they hold a subset of its entries.

#include "common.cuh"

// The places of the pool of groups first to last, exclusive: these are adjacent, so nothing is
// moved. One thread per gene. Shared memory: none. No atomics.
extern "C" __global__ void pool_of_span(const i64* starts, i64 first, i64 last, i64 n_genes,
                                        i64* places) {
    const i64 gene = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (gene >= n_genes) return;
    places[gene] = starts[first * n_genes + gene];
    places[n_genes + gene] = starts[last * n_genes + gene];
}

// The pool of groups[0 .. n_groups), copied in any order because it is sorted afterwards. One block
// per gene; a warp takes one group at a time and reserves room for it by an atomic addition. Shared
// memory: the number of entries copied so far.
template <class Key>
__device__ void gather_pool(const Key* keys, const i64* starts, const i32* groups, i64 n_groups,
                            i64 n_genes, Key* pool, i64* places) {
    __shared__ i32 taken;
    const i64 gene = blockIdx.x;
    const int lane = threadIdx.x % WARP;
    Key* const to = pool + starts[gene];
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (i64 g = threadIdx.x / WARP; g < n_groups; g += blockDim.x / WARP) {
        const i64 pair = groups[g] * n_genes + gene;
        const Key* from = keys + starts[pair];
        const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        i32 at = 0;
        if (lane == 0) at = atomicAdd(&taken, n);
        at = __shfl_sync(FULL, at, 0);
        for (i32 i = lane; i < n; i += WARP) to[at + i] = from[i];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        places[gene] = starts[gene];
        places[n_genes + gene] = starts[gene] + taken;
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void gather_pool_##BITS(const u##BITS* keys, const i64* starts,          \
                                                  const i32* groups, i64 n_groups, i64 n_genes,    \
                                                  u##BITS* pool, i64* places) {                    \
        gather_pool(keys, starts, groups, n_groups, n_genes, pool, places);                        \
    }

KERNELS(32)
KERNELS(64)
