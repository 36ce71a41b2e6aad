// Two-sample Anderson-Darling statistics of every (target, gene) against a reference, midrank and
// right (see anderson_darling.cuh), from sorted segments; and the distinct values of a reference or
// a pool, which all versions need. The number of target cells below a value changes only at the
// target's own values. So a pair takes one pass over the distinct reference values and one over the
// target's own. No atomics; sums do not depend on the order of their terms.

#include "anderson_darling.cuh"
#include "exact_sums.cuh"

// One block per gene: the distinct values of its sorted reference or pool, and where each begins in
// it. `distinct` holds those of gene j from places[j] on, `first` from places[j] + j on; `first`
// has one more item per gene, the number of entries. n_distinct (C,).
// Dynamic shared memory: 32 i32.
template <class Key>
__device__ void distinct_values(const Key* keys, const i64* starts, const i64* ends,
                                const i64* places, Key* distinct, i32* first, i32* n_distinct) {
    DYNAMIC_SHARED(memory);
    i32* in_warp = reinterpret_cast<i32*>(memory);
    const i64 gene = blockIdx.x;
    const Key* reference = keys + starts[gene];
    const i32 n = static_cast<i32>(ends[gene] - starts[gene]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    distinct += places[gene];
    first += places[gene] + gene;  // one more per gene
    i32 found = 0;
    for (i32 base = 0; base < n; base += blockDim.x) {
        const i32 i = base + threadIdx.x;
        const bool begins = i < n && (i == 0 || reference[i] != reference[i - 1]);
        const u32 ballot = __ballot_sync(FULL, begins);
        if (lane == 0) in_warp[warp] = __popc(ballot);
        __syncthreads();
        i32 before = found, all = 0;
        for (int w = 0; w < static_cast<int>(blockDim.x / WARP); w++) {
            if (w == warp) before += all;
            all += in_warp[w];
        }
        if (begins) {
            const i32 at = before + __popc(ballot & ~(FULL << lane));
            distinct[at] = reference[i];
            first[at] = i;
        }
        found += all;
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        first[found] = n;
        n_distinct[gene] = found;
    }
}

template <bool RIGHT>
__device__ __forceinline__ double term(double ties, double b, double m, double n, double n_target) {
    const double difference = n * m - b * n_target;
    if (RIGHT) return b == n ? 0.0 : ties * (difference * difference) / (b * (n - b));
    return ties * (difference * difference) / (b * (n - b) - 0.25 * n * ties);
}

// Midrank or right. A block takes an equal part of the targets, for gene blockIdx.x / n_parts; a
// warp takes one target at a time. a2 (T, C), NaN where the pair has only one distinct value.
// Shared memory: none.
template <bool RIGHT, class Key>
__device__ void anderson_darling(const Key* keys, const i64* starts, const i64* n_cells,
                                 i64 n_genes, i32 kind, const Sides<Key>& sides, i32 n_parts,
                                 const i64* places, const Key* distinct, const i32* first,
                                 const i32* n_distinct, double* a2) {
    const double share = RIGHT ? 1.0 : 0.5;  // share of equal cells that m and b count
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Key zero = zero_key<Key>(kind);
    distinct += places[gene];
    first += places[gene] + gene;
    const i32 d = n_distinct[gene];
    const double n_ref = static_cast<double>(sides.cells);
    const i64 reference_zeros = sides.cells - (sides.ends[gene] - sides.starts[gene]);
    const i32 reference_negatives = first[lower_bound(distinct, d, zero)];

    i32 begin, end;
    share_of_targets(sides.n_targets, n_parts, begin, end);
    for (i32 row = begin + threadIdx.x / WARP; row < end; row += blockDim.x / WARP) {
        const i64 group = sides.group(row), pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n_own = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        const i64 zeros = n_cells[group] - n_own;
        const double n_target = static_cast<double>(n_cells[group]);
        const double n = n_target + n_ref;
        ExactSum sum(4.0 * n_target * n_ref, n);
        i32 terms = 0;

        each_reference_value(
            target, n_own, distinct, d, lane, [&](i32 q, Key key, i32 below, i32 equal) {
                const bool above = key > zero;
                const double c = first[q + 1] - first[q];
                const double m =
                    static_cast<double>(below + (above ? zeros : 0)) + share * equal;
                const double b =
                    static_cast<double>(first[q] + (above ? reference_zeros : 0)) + share * c + m;
                sum.add(term<RIGHT>(c + equal, b, m, n, n_target));
                terms++;
            });
        // Values that only the target has, at the last of equal entries.
        for (i32 i = lane; i < n_own; i += WARP) {
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 at = lower_bound(distinct, d, key);
            if (at < d && distinct[at] == key) continue;
            const i32 start = lower_bound(target, i, key);
            const bool above = key > zero;
            const double t = i + 1 - start;
            const double m = static_cast<double>(start + (above ? zeros : 0)) + share * t;
            const double b = static_cast<double>(first[at] + (above ? reference_zeros : 0)) + m;
            sum.add(term<RIGHT>(t, b, m, n, n_target));
            terms++;
        }
        if (lane == 0 && zeros + reference_zeros > 0) {
            const double m = lower_bound(target, n_own, zero) + share * zeros;
            const double b = reference_negatives + share * reference_zeros + m;
            const double ties = static_cast<double>(zeros + reference_zeros);
            sum.add(term<RIGHT>(ties, b, m, n, n_target));
            terms++;
        }
        const Twofold sums = sum.of_warp();
        const double total = sums.high + sums.low;
        terms = warp_sum(terms);
        if (lane == 0) {
            const double scaled = RIGHT ? total / n : total * (n - 1.0) / (n * n);
            a2[row * n_genes + gene] =
                terms > 1 ? scaled * (1.0 / n_target + 1.0 / n_ref) : undefined();
        }
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void distinct_values_##BITS(                                             \
        const u##BITS* keys, const i64* starts, const i64* ends, const i64* places,                \
        u##BITS* distinct, i32* begins, i32* n_distinct) {                                         \
        distinct_values(keys, starts, ends, places, distinct, begins, n_distinct);                 \
    }                                                                                              \
    extern "C" __global__ void anderson_darling_midrank_##BITS(PAIRS(BITS), DISTINCT(BITS),        \
                                                               double* a2) {                       \
        anderson_darling<false>(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts,        \
                                places, distinct, begins, n_distinct, a2);                         \
    }                                                                                              \
    extern "C" __global__ void anderson_darling_right_##BITS(PAIRS(BITS), DISTINCT(BITS),          \
                                                             double* a2) {                         \
        anderson_darling<true>(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, places, \
                               distinct, begins, n_distinct, a2);                                  \
    }

KERNELS(32)
KERNELS(64)
