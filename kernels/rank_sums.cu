// Mann-Whitney sums of every (target, gene) against the reference, from sorted segments.
//
// Each entry of a target is searched for in the reference: `below` reference cells are smaller and
// c equal. Twice U (Mann and Whitney 1947) is the sum of 2 * below + c. The tie term, the sum of
// t^3 - t over the pooled values, grows by 3 m (m + 1) with each cell that joins m equal ones: the
// i-th of equal target cells joins c + i. All sums are of integers, so their order does not matter.
// Zeros, which are not stored, are added in closed form.

#include "common.cuh"

// One block a gene: tie terms of the reference alone, zeros left out: high and low (C,).
// Shared memory: the two sums.
template <class Key>
__device__ void reference_ties(const Key* keys, const i64* starts, i64 n_genes, u64* high,
                               u64* low) {
    __shared__ u64 sums[2];
    const i64 gene = blockIdx.x;
    const Key* reference = keys + starts[gene];
    const i32 n = static_cast<i32>(starts[n_genes + gene] - starts[gene]);
    if (threadIdx.x < 2) sums[threadIdx.x] = 0;
    __syncthreads();
    Wide ties = {0, 0};
    for (i32 i = threadIdx.x; i < n; i += blockDim.x) {
        const Key key = reference[i];
        if (i > 0 && reference[i - 1] == key)
            ties.add_one_more(i - lower_bound(reference, i, key));
    }
    ties.high = warp_sum(ties.high);
    ties.low = warp_sum(ties.low);
    if (threadIdx.x % WARP == 0) {
        atomicAdd(&sums[0], ties.high);
        atomicAdd(&sums[1], ties.low);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        high[gene] = sums[0];
        low[gene] = sums[1];
    }
}

// The sorted reference of a gene, every stride-th key of it in shared memory.
template <class Key>
struct Reference {
    const Key* keys;
    i32 n;
    const Key* samples;
    i32 n_samples, stride;

    // The range that a sample found `at` leaves for the bound.
    __device__ void narrow(i32 at, i32& low, i32& size) const {
        low = at > 0 ? (at - 1) * stride + 1 : 0;
        size = (at < n_samples ? at * stride : n) - low;
    }
    __device__ i32 below(Key key) const {
        i32 low, size;
        narrow(lower_bound(samples, n_samples, key), low, size);
        return low + lower_bound(keys + low, size, key);
    }
    __device__ i32 up_to(Key key) const {
        i32 low, size;
        narrow(upper_bound(samples, n_samples, key), low, size);
        return low + upper_bound(keys + low, size, key);
    }
};

// Blocks: gene blockIdx.x / n_parts, an equal part of the targets; a warp takes one target at a
// time. u2 and ties are (T, C).
// Dynamic shared memory: n_samples keys; where they are the whole reference, searching ends there.
template <class Key>
__device__ void rank_sums(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                          i64 n_genes, i32 kind, i32 n_parts, i32 most_samples, const u64* high,
                          const u64* low, i64* u2, double* ties) {
    DYNAMIC_SHARED(memory);
    Key* samples = reinterpret_cast<Key*>(memory);
    const i64 gene = blockIdx.x / n_parts, part = blockIdx.x % n_parts;
    const int lane = threadIdx.x % WARP;
    const Key zero = zero_key<Key>(kind);

    Reference<Key> reference;
    reference.keys = keys + starts[gene];
    reference.n = static_cast<i32>(starts[n_genes + gene] - starts[gene]);
    reference.stride = max(1, (reference.n + most_samples - 1) / most_samples);
    reference.n_samples = (reference.n + reference.stride - 1) / reference.stride;
    reference.samples = samples;
    for (i32 q = threadIdx.x; q < reference.n_samples; q += blockDim.x)
        samples[q] = reference.keys[static_cast<i64>(q) * reference.stride];
    __syncthreads();
    const i64 reference_zeros = n_cells[0] - reference.n;
    const i64 negatives = reference.below(zero);

    const i64 first = 1 + (n_groups - 1) * part / n_parts;
    const i64 last = 1 + (n_groups - 1) * (part + 1) / n_parts;
    for (i64 group = first + threadIdx.x / WARP; group < last; group += blockDim.x / WARP) {
        const i64 pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        i64 twice_u = 0;
        Wide tie = {0, 0};
        i32 run = 0;  // where the last run of equal keys before this lane's began
        for (i32 base = 0; base < n; base += WARP) {
            const i32 i = base + lane;
            const bool here = i < n;
            const Key key = here ? target[i] : Key(0);
            const bool starts_run = here && (i == 0 || target[i - 1] != key);
            const u32 runs = __ballot_sync(FULL, starts_run);
            const u32 mine = runs & (FULL >> (WARP - 1 - lane));
            const i32 start = mine ? base + WARP - 1 - __clz(mine) : run;
            if (here) {
                const i32 below = reference.below(key);
                const i32 equal = below < reference.n && reference.keys[below] == key
                                      ? reference.up_to(key) - below
                                      : 0;
                twice_u += 2 * (below + (key > zero ? reference_zeros : 0)) + equal;
                tie.add_one_more(static_cast<u64>(equal) + (i - start));
            }
            if (runs) run = base + WARP - 1 - __clz(runs);
        }
        twice_u = warp_sum(twice_u);
        tie.high = warp_sum(tie.high);
        tie.low = warp_sum(tie.low);
        if (lane == 0) {
            const i64 zeros = n_cells[group] - n;
            u2[pair - n_genes] = twice_u + zeros * (2 * negatives + reference_zeros);
            tie.high += high[gene];
            tie.low += low[gene];
            tie.add_ties(static_cast<u64>(zeros + reference_zeros));
            ties[pair - n_genes] = tie.value();
        }
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void reference_ties_##BITS(const u##BITS* keys, const i64* starts,       \
                                                     i64 n_genes, u64* high, u64* low) {           \
        reference_ties(keys, starts, n_genes, high, low);                                          \
    }                                                                                              \
    extern "C" __global__ void rank_sums_##BITS(                                                   \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_groups, i64 n_genes,     \
        i32 kind, i32 n_parts, i32 most_samples, const u64* high, const u64* low, i64* u2,         \
        double* ties) {                                                                            \
        rank_sums(keys, starts, n_cells, n_groups, n_genes, kind, n_parts, most_samples, high,     \
                  low, u2, ties);                                                                  \
    }

KERNELS(32)
KERNELS(64)
