// Mann-Whitney sums of every (target, gene) of a contrast, from sorted segments.
//
// Each entry of a target is searched for in the reference: `below` reference cells are smaller and
// c are equal. Twice U (Mann and Whitney 1947) is the sum of 2 * below + c. The tie term, the sum
// of t^3 - t over the pooled values, grows by 3 m (m + 1) with each cell that joins m equal ones:
// the i-th of equal target cells joins c + i. A pool contains the target's own cells, so its tie
// term is the same for all targets. All sums are of integers, so their order does not matter.
// Zeros, which are not stored, are added in closed form. The cells at the lowest values above zero
// are found by merging the first entries of both sides.

#include "contrast.cuh"

// One block per gene: tie terms of only the reference or the pool. high and low (C,) leave out
// zeros; whole (C,), if given, includes them. Shared memory: the two sums.
template <class Key>
__device__ void reference_ties(const Key* keys, const i64* starts, const i64* ends, i64 cells,
                               u64* high, u64* low, double* whole) {
    __shared__ u64 sums[2];
    const i64 gene = blockIdx.x;
    const Key* reference = keys + starts[gene];
    const i32 n = static_cast<i32>(ends[gene] - starts[gene]);
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
        if (whole) {
            ties = {sums[0], sums[1]};
            ties.add_ties(static_cast<u64>(cells - n));
            whole[gene] = ties.value();
        }
    }
}

// Against a reference. A block takes an equal part of the targets, for gene blockIdx.x / n_parts; a
// warp takes one target at a time. u2 and ties are (T, C).
// Dynamic shared memory: most_samples keys.
template <class Key>
__device__ void rank_sums(const Key* keys, const i64* starts, const i64* n_cells, i64 n_genes,
                          i32 kind, const Sides<Key>& sides, i32 n_parts, i32 most_samples,
                          const u64* high, const u64* low, i64* u2, double* ties) {
    DYNAMIC_SHARED(memory);
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Key zero = zero_key<Key>(kind);
    const Searched<Key> reference =
        load_searched(sides, gene, most_samples, reinterpret_cast<Key*>(memory));
    const i64 reference_zeros = sides.cells - reference.n;
    const i64 negatives = reference.below(zero);

    i32 begin, end;
    share_of_targets(sides.n_targets, n_parts, begin, end);
    for (i32 t = begin + threadIdx.x / WARP; t < end; t += blockDim.x / WARP) {
        const i64 group = sides.group(t), pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        i64 twice_u = 0;
        Wide tie = {0, 0};
        i32 run = 0;  // start of the last run of equal keys before this lane's
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
            u2[t * n_genes + gene] = twice_u + zeros * (2 * negatives + reference_zeros);
            tie.high += high[gene];
            tie.low += low[gene];
            tie.add_ties(static_cast<u64>(zeros + reference_zeros));
            ties[t * n_genes + gene] = tie.value();
        }
    }
}

// Against the rest of a pool: u2 (T, C).
// Blocks and shared memory: see each_target.
template <class Key>
__device__ void rank_sums_in_pool(const Key* keys, const i64* starts, const i64* n_cells,
                                  i64 n_genes, i32 kind, const Sides<Key>& sides, i32 n_parts,
                                  i32 most_samples, i64* u2) {
    each_target(keys, starts, n_cells, n_genes, kind, sides, n_parts, most_samples,
                [&](i64, i64 at, const auto& visit) {
                    i64 twice_u = 0;
                    visit([&](const Place& p) { twice_u += p.own * (2 * p.below + p.equal); });
                    twice_u = warp_sum(twice_u);
                    if (threadIdx.x % WARP == 0) u2[at] = twice_u;
                });
}

// Cells at each of the n_classes lowest values above zero, of a pair or (1, C) of the pool: lowest
// (T, C, n_classes). One thread per pair. Shared memory: none.
template <class Key>
__device__ void lowest_classes(const Key* keys, const i64* starts, i64 n_genes, i32 kind,
                               const Sides<Key>& sides, i32 n_classes, i32* lowest) {
    const i64 pair = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pair >= (sides.pooled ? 1 : sides.n_targets) * n_genes) return;
    const i64 gene = pair % n_genes, at = sides.group(pair / n_genes) * n_genes + gene;
    const Key zero = zero_key<Key>(kind);
    const Key* side[2] = {sides.keys + sides.starts[gene], keys + starts[at]};
    i32 left[2] = {static_cast<i32>(sides.ends[gene] - sides.starts[gene]),
                   sides.pooled ? 0 : static_cast<i32>(starts[at + n_genes] - starts[at])};
    for (int s = 0; s < 2; ++s) {
        const i32 negatives = lower_bound(side[s], left[s], zero);
        side[s] += negatives;
        left[s] -= negatives;
    }
    for (i32 k = 0; k < n_classes; ++k) {
        const bool first = left[0] > 0 && (left[1] == 0 || side[0][0] <= side[1][0]);
        const Key value = first ? side[0][0] : left[1] > 0 ? side[1][0] : zero;
        i32 cells = 0;
        for (int s = 0; s < 2; ++s) {
            const i32 equal = upper_bound(side[s], left[s], value);
            side[s] += equal;
            left[s] -= equal;
            cells += equal;
        }
        lowest[pair * n_classes + k] = cells;
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void reference_ties_##BITS(const u##BITS* keys, const i64* starts,       \
                                                     const i64* ends, i64 cells, u64* high,        \
                                                     u64* low, double* whole) {                    \
        reference_ties(keys, starts, ends, cells, high, low, whole);                               \
    }                                                                                              \
    extern "C" __global__ void rank_sums_##BITS(                                                   \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_genes, i32 kind,         \
        SIDES_PARAMETERS(BITS), i32 n_parts, i32 most_samples, const u64* high, const u64* low,    \
        i64* u2, double* ties) {                                                                   \
        rank_sums(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, most_samples, high,  \
                  low, u2, ties);                                                                  \
    }                                                                                              \
    extern "C" __global__ void rank_sums_in_pool_##BITS(                                           \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_genes, i32 kind,         \
        SIDES_PARAMETERS(BITS), i32 n_parts, i32 most_samples, i64* u2) {                          \
        rank_sums_in_pool(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts,              \
                          most_samples, u2);                                                       \
    }                                                                                              \
    extern "C" __global__ void lowest_classes_##BITS(                                              \
        const u##BITS* keys, const i64* starts, i64 n_genes, i32 kind, SIDES_PARAMETERS(BITS),     \
        i32 n_classes, i32* lowest) {                                                              \
        lowest_classes(keys, starts, n_genes, kind, SIDES(BITS), n_classes, lowest);               \
    }

KERNELS(32)
KERNELS(64)
