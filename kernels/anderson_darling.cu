// Two-sample Anderson-Darling statistic of every (target, gene) against the reference, from sorted
// segments: the midrank version, Scholz and Stephens 1987, eq. 7. With n cells in all, m of a
// value's cells and half of its ties below in the target, b likewise in both samples:
//     A2 = (n - 1) / n^2 * (1 / n_target + 1 / n_ref) * sum over distinct values of
//          ties * (n m - b n_target)^2 / (b (n - b) - n ties / 4).
// Between two values of the target its count below stands still, so one pass over the distinct
// reference values, and one over the target's own, serve a pair. No atomics; each lane adds in a
// fixed order.

#include "common.cuh"

// One block a gene: the distinct values of its sorted reference, and where each begins in it.
// distinct and first hold the gene's from places[j] on; first has one more, the number of entries.
// n_distinct (C,). Dynamic shared memory: 32 i32.
template <class Key>
__device__ void distinct_values(const Key* keys, const i64* starts, const i64* places, i64 n_genes,
                                Key* distinct, i32* first, i32* n_distinct) {
    DYNAMIC_SHARED(memory);
    i32* in_warp = reinterpret_cast<i32*>(memory);
    const i64 gene = blockIdx.x;
    const Key* reference = keys + starts[gene];
    const i32 n = static_cast<i32>(starts[n_genes + gene] - starts[gene]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    distinct += places[gene];
    first += places[gene] + gene;  // one more a gene
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

__device__ __forceinline__ double term(double ties, double b, double m, double n, double n_target) {
    const double difference = n * m - b * n_target;
    return ties * (difference * difference) / (b * (n - b) - 0.25 * n * ties);
}

// Blocks: gene blockIdx.x / n_parts, an equal part of the targets; a warp takes one target at a
// time. a2 (T, C), NaN where the pair has one distinct value. Shared memory: none.
template <class Key>
__device__ void anderson_darling(const Key* keys, const i64* starts, const i64* n_cells,
                                 i64 n_groups, i64 n_genes, i32 kind, i32 n_parts,
                                 const i64* places, const Key* distinct, const i32* first,
                                 const i32* n_distinct, double* a2) {
    const i64 gene = blockIdx.x / n_parts, part = blockIdx.x % n_parts;
    const int lane = threadIdx.x % WARP;
    const Key zero = zero_key<Key>(kind);
    distinct += places[gene];
    first += places[gene] + gene;
    const i32 d = n_distinct[gene];
    const double n_ref = static_cast<double>(n_cells[0]);
    const i64 reference_zeros = n_cells[0] - (starts[n_genes + gene] - starts[gene]);
    const i32 reference_negatives = first[lower_bound(distinct, d, zero)];

    const i64 begin = 1 + (n_groups - 1) * part / n_parts;
    const i64 end = 1 + (n_groups - 1) * (part + 1) / n_parts;
    for (i64 group = begin + threadIdx.x / WARP; group < end; group += blockDim.x / WARP) {
        const i64 pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n_own = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        const i64 zeros = n_cells[group] - n_own;
        const double n_target = static_cast<double>(n_cells[group]);
        const double n = n_target + n_ref;
        double total = 0.0;
        i32 terms = 0;

        // Values of the reference, 32 at a time; `p` target entries lie below them so far.
        i32 p = 0;
        Key held = 0;  // target[p / 32 * 32 + lane]
        for (i32 base = 0; base < d; base += WARP) {
            const i32 q = base + lane;
            const bool here = q < d;
            const Key key = here ? distinct[q] : ~Key(0);
            const Key largest = __shfl_sync(FULL, key, min(WARP, d - base) - 1);
            i32 below = p, equal = 0;
            while (p < n_own) {
                if (p % WARP == 0) held = p + lane < n_own ? target[p + lane] : ~Key(0);
                const Key x = __shfl_sync(FULL, held, p % WARP);
                if (x > largest) break;
                below += x < key;
                equal += x == key;
                p++;
            }
            if (here) {
                const bool above = key > zero;
                const double c = first[q + 1] - first[q];
                const double m =
                    static_cast<double>(below + (above ? zeros : 0)) + 0.5 * equal;
                const double b =
                    static_cast<double>(first[q] + (above ? reference_zeros : 0)) + 0.5 * c + m;
                total += term(c + equal, b, m, n, n_target);
                terms++;
            }
        }
        // Values that the target alone has, at the last of equal entries.
        for (i32 i = lane; i < n_own; i += WARP) {
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 at = lower_bound(distinct, d, key);
            if (at < d && distinct[at] == key) continue;
            const i32 start = lower_bound(target, i, key);
            const bool above = key > zero;
            const double t = i + 1 - start;
            const double m = static_cast<double>(start + (above ? zeros : 0)) + 0.5 * t;
            const double b = static_cast<double>(first[at] + (above ? reference_zeros : 0)) + m;
            total += term(t, b, m, n, n_target);
            terms++;
        }
        total = warp_sum(total);
        terms = warp_sum(terms);
        if (lane == 0) {
            if (zeros + reference_zeros > 0) {
                const double m = lower_bound(target, n_own, zero) + 0.5 * zeros;
                const double b = reference_negatives + 0.5 * reference_zeros + m;
                total += term(static_cast<double>(zeros + reference_zeros), b, m, n, n_target);
                terms++;
            }
            a2[pair - n_genes] =
                terms > 1 ? total * (n - 1.0) / (n * n) * (1.0 / n_target + 1.0 / n_ref)
                          : __longlong_as_double(0x7ff8000000000000ll);
        }
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void distinct_values_##BITS(                                             \
        const u##BITS* keys, const i64* starts, const i64* places, i64 n_genes,                    \
        u##BITS* distinct, i32* first, i32* n_distinct) {                                          \
        distinct_values(keys, starts, places, n_genes, distinct, first, n_distinct);               \
    }                                                                                              \
    extern "C" __global__ void anderson_darling_##BITS(                                            \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_groups, i64 n_genes,     \
        i32 kind, i32 n_parts, const i64* places, const u##BITS* distinct, const i32* first,       \
        const i32* n_distinct, double* a2) {                                                       \
        anderson_darling(keys, starts, n_cells, n_groups, n_genes, kind, n_parts, places,          \
                         distinct, first, n_distinct, a2);                                         \
    }

KERNELS(32)
KERNELS(64)
