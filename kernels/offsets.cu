// Turns counts of entries per (group, gene) into places by an exclusive sum, gene by gene and group
// by group within a gene. counts (K, C) u32 -> starts (K + 1, C) i64, where starts[g * C + j] is
// the place of the first entry of (g, j), and starts[K * C + j] the end of gene j.
//
// Three kernels, launched in this order: gene_totals adds up each gene, gene_bases turns the totals
// into the place of each gene, and group_starts adds up the groups from there.
//
// In gene_totals and group_starts, a block takes 32 genes, one per lane of each of its warps, so
// that loads are coalesced; its warps divide the groups among them. gene_bases is one block, whose
// threads divide the genes. Dynamic shared memory of each: one u64 per thread.

#include "common.cuh"

// The groups of this warp: an equal share, in order.
__device__ __forceinline__ void share_of(i64 n_groups, i64& first, i64& last) {
    const i64 n_warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
    first = n_groups * warp / n_warps;
    last = n_groups * (warp + 1) / n_warps;
}

__device__ __forceinline__ u64 column_sum(const u32* counts, i64 n_genes, i64 gene, i64 first,
                                          i64 last) {
    u64 total = 0;
    for (i64 g = first; g < last; g++) total += counts[g * n_genes + gene];
    return total;
}

// Entries per gene: totals (C,).
extern "C" __global__ void gene_totals(const u32* counts, i64 n_groups, i64 n_genes, u64* totals) {
    DYNAMIC_SHARED(memory);
    u64* sums = reinterpret_cast<u64*>(memory);
    const int lane = threadIdx.x % WARP, n_warps = blockDim.x / WARP;
    const i64 gene = static_cast<i64>(blockIdx.x) * WARP + lane;
    i64 first, last;
    share_of(n_groups, first, last);
    sums[threadIdx.x] = gene < n_genes ? column_sum(counts, n_genes, gene, first, last) : 0;
    __syncthreads();
    if (threadIdx.x < WARP && gene < n_genes) {
        u64 total = 0;
        for (int w = 0; w < n_warps; w++) total += sums[w * WARP + lane];
        totals[gene] = total;
    }
}

// In place: totals become the places of each gene's first entry.
extern "C" __global__ void gene_bases(u64* totals, i64 n_genes) {
    DYNAMIC_SHARED(memory);
    u64* sums = reinterpret_cast<u64*>(memory);
    const i64 first = n_genes * threadIdx.x / blockDim.x;
    const i64 last = n_genes * (threadIdx.x + 1) / blockDim.x;
    u64 total = 0;
    for (i64 j = first; j < last; j++) total += totals[j];
    sums[threadIdx.x] = total;
    __syncthreads();
    u64 before = 0;
    for (unsigned t = 0; t < threadIdx.x; t++) before += sums[t];
    for (i64 j = first; j < last; j++) {
        const u64 n = totals[j];
        totals[j] = before;
        before += n;
    }
}

// starts (K + 1, C), from counts and the places of the genes.
extern "C" __global__ void group_starts(const u32* counts, const u64* bases, i64 n_groups,
                                        i64 n_genes, i64* starts) {
    DYNAMIC_SHARED(memory);
    u64* sums = reinterpret_cast<u64*>(memory);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    const i64 gene = static_cast<i64>(blockIdx.x) * WARP + lane;
    i64 first, last;
    share_of(n_groups, first, last);
    sums[threadIdx.x] = gene < n_genes ? column_sum(counts, n_genes, gene, first, last) : 0;
    __syncthreads();
    if (gene >= n_genes) return;
    u64 place = bases[gene];
    for (int w = 0; w < warp; w++) place += sums[w * WARP + lane];
    for (i64 g = first; g < last; g++) {
        starts[g * n_genes + gene] = static_cast<i64>(place);
        place += counts[g * n_genes + gene];
    }
    if (warp == n_warps - 1) starts[n_groups * n_genes + gene] = static_cast<i64>(place);
}
