// Two-sample Anderson-Darling statistics of every (target, gene) against the rest of a pool,
// midrank and right (see anderson_darling.cuh), from sorted segments.
//
// In a pool w and b belong to the gene and not to the target. The square is expanded; as m changes
// at values of the target alone, sums by parts leave, with W and V the sums of w and w b below such
// a value,
//     sum of w m^2 = n_target^2 W(all) - sum over the target's values of (change of m^2) W
// and likewise of w b m with V: a pair costs as much as the target has values. Terms of size
// n n_target^2 cancel to some of n_target n_other, so sums and products have twice the precision of
// float64. No atomics; each lane adds in a fixed order.

#include "anderson_darling.cuh"

// One block a gene: prefix sums of w, w b and w b^2 over its distinct values, zero left out.
// sums: 3 (places[C] / CHUNK + C) of them. Shared memory: see prefix_sums.
template <class Key>
__device__ void pool_weights(const Sides<Key>& sides, i32 kind, const i64* places,
                             const Key* distinct, const i32* first, const i32* n_distinct,
                             bool midrank, Twofold* sums) {
    const i64 gene = blockIdx.x;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    if (values.constant()) return;
    prefix_sums<3>(
        values.d,
        [&](i64 q, Twofold* x) {
            double w, b;
            values.weigh(values.below(q), values.equal(q), midrank, w, b);
            x[0] = {w, 0.0};
            x[1] = product(w, b);
            x[2] = x[1] * b;
        },
        sums + sums_of(places, gene));
}

// Midrank, or right. Blocks: gene blockIdx.x / n_parts, an equal part of the targets; a warp takes
// one target at a time. a2 (T, C). Shared memory: none.
template <class Key>
__device__ void anderson_darling_in_pool(const Key* keys, const i64* starts, const i64* n_cells,
                                         i64 n_genes, i32 kind, const Sides<Key>& sides,
                                         i32 n_parts, const i64* places, const Key* distinct,
                                         const i32* first, const i32* n_distinct, bool midrank,
                                         const Twofold* sums, double* a2) {
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    const bool constant = values.constant();
    sums += sums_of(places, gene);
    const double n = static_cast<double>(sides.cells);
    const i32 negative_values = lower_bound(values.distinct, values.d, values.zero);
    double w_zero = 0.0, b_zero = 0.0;
    if (values.zeros > 0 && !constant)
        values.weigh(values.below_zero(negative_values), values.zeros, midrank, w_zero, b_zero);
    const Twofold wb_zero = product(w_zero, b_zero);

    // Sums of w and w b below value number q, and of w b^2 if n_sums is 3; zero left out.
    const auto below = [&](i32 q, int n_sums, Twofold* x) {
        for (int c = 0; c < n_sums; c++) x[c] = sums[3 * (q / CHUNK) + c];
#pragma unroll 1
        for (i32 i = q / CHUNK * CHUNK; i < q; i++) {
            double w, b;
            values.weigh(values.below(i), values.equal(i), midrank, w, b);
            const Twofold wb = product(w, b);
            x[0] = x[0] + Twofold{w, 0.0};
            x[1] = x[1] + wb;
            if (n_sums > 2) x[2] = x[2] + wb * b;
        }
    };

    i32 begin, end;
    share_of_targets(sides.n_targets, n_parts, begin, end);
    for (i32 row = begin + threadIdx.x / WARP; row < end; row += blockDim.x / WARP) {
        const i64 group = sides.group(row), pair = group * n_genes + gene;
        const i64 at = row * n_genes + gene;
        if (constant) {
            if (lane == 0) a2[at] = undefined();
            continue;
        }
        const Key* target = keys + starts[pair];
        const i32 n_own = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        const i64 zeros = n_cells[group] - n_own;
        const double n_target = static_cast<double>(n_cells[group]);
        Twofold wm2 = {0.0, 0.0}, wbm = {0.0, 0.0};  // sums over the target's values

        // m grows from `before` by `own`, at a value of weight w, W = x[0] and V = x[1].
        const auto add = [&](i64 before, i64 own, const Twofold* x, double w, Twofold wb) {
            const double m = static_cast<double>(before), t = static_cast<double>(own);
            wm2 = wm2 + x[0] * t * (2.0 * m + t);
            wbm = wbm + x[1] * t;
            if (midrank) {  // the second half only behind the value
                wm2 = wm2 + product(w, 0.5 * t) * (2.0 * m + 1.5 * t);
                wbm = wbm + wb * (0.5 * t);
            }
        };
        for (i32 i = lane; i < n_own; i += WARP) {  // at the last of equal entries
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
            const i32 q = lower_bound(values.distinct, values.d, key);
            const bool above = key > values.zero;
            Twofold x[2];
            below(q, 2, x);
            if (above) {
                x[0] = x[0] + Twofold{w_zero, 0.0};
                x[1] = x[1] + wb_zero;
            }
            double w, b;
            values.weigh(values.below(q), values.equal(q), midrank, w, b);
            add(start + (above ? zeros : 0), i + 1 - start, x, w, product(w, b));
        }
        if (lane == 0 && zeros > 0) {
            Twofold x[2];
            below(negative_values, 2, x);
            add(lower_bound(target, n_own, values.zero), zeros, x, w_zero, wb_zero);
        }
        wm2 = warp_sum(wm2);
        wbm = warp_sum(wbm);
        if (lane == 0) {
            Twofold all[3];
            below(values.d, 3, all);
            all[0] = all[0] + Twofold{w_zero, 0.0};
            all[1] = all[1] + wb_zero;
            all[2] = all[2] + wb_zero * b_zero;
            wm2 = all[0] * n_target * n_target - wm2;
            wbm = all[1] * n_target - wbm;
            const Twofold s =
                wm2 * n * n - wbm * (2.0 * n_target) * n + all[2] * n_target * n_target;
            const double sum = rounded(s, n);
            a2[at] = (midrank ? sum * (n - 1.0) / (n * n) : sum / n) *
                     (1.0 / n_target + 1.0 / (n - n_target));
        }
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void pool_weights_##BITS(SIDES_PARAMETERS(BITS), i32 kind,               \
                                                   DISTINCT(BITS), i32 midrank, double* sums) {    \
        pool_weights(SIDES(BITS), kind, places, distinct, begins, n_distinct, midrank != 0,        \
                     reinterpret_cast<Twofold*>(sums));                                            \
    }                                                                                              \
    extern "C" __global__ void anderson_darling_in_pool_##BITS(                                    \
        PAIRS(BITS), DISTINCT(BITS), i32 midrank, const double* sums, double* a2) {                \
        anderson_darling_in_pool(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts,       \
                                 places, distinct, begins, n_distinct, midrank != 0,               \
                                 reinterpret_cast<const Twofold*>(sums), a2);                      \
    }

KERNELS(32)
KERNELS(64)
