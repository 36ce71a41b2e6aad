// Two-sample Anderson-Darling statistics of every (target, gene) against the rest of a pool,
// midrank and right (see anderson_darling.cuh), from sorted segments.
//
// In a pool, w and b depend on the gene but not on the target. The square is expanded:
//     S = n^2 sum of w m^2 - 2 n n_target sum of w b m + n_target^2 sum of w b^2.
// As m changes only at values of the target, summation by parts gives
//     sum of w m^2 = sum over the target's values of (change of m^2) (sum of w from there on)
// and similarly the sum of w b m. So the cost of a pair depends on the number of the target's
// values. The three sums nearly cancel, by a factor of about n. Therefore weights become whole
// numbers of up to 120 bits, with one scale per gene. All sums are exact, in any order, and are
// combined with twice the precision of float64. No atomics. anderson_darling_pool.py gives the same
// bits.

#include "anderson_darling.cuh"
#include "exact_sums.cuh"
#include "int128.cuh"

#define SUM_BITS 125  // bits of a sum of 4 n^2 weights

// One value of a pool.
template <class Key>
struct Weighed {
    double weight;
    u64 twice_b;

    __device__ Weighed(const Values<Key>& values, i64 below, i64 equal, bool midrank) {
        const double l = static_cast<double>(equal), a = static_cast<double>(below);
        const double above = static_cast<double>(values.cells - below - equal);
        if (midrank) {  // b (n - b) - n l / 4, without cancellation
            weight = l / (a * above + 0.25 * l * (a + above));
            twice_b = static_cast<u64>(2 * below + equal);
        } else {
            weight = above == 0.0 ? 0.0 : l / ((a + l) * above);
            twice_b = static_cast<u64>(2 * (below + equal));
        }
    }
    // w, 2 w b and 4 w b^2, with w multiplied by 2^scale.
    __device__ void products(i32 scale, Int128* x) const {
        x[0] = whole(weight, scale);
        x[1] = x[0] * twice_b;
        x[2] = x[1] * twice_b;
    }
};

// The scale for weights, which are multiplied by 2^scale, from their sum.
__device__ __forceinline__ i32 scale_of(double total, double n) {
    return SUM_BITS - 3 - exponent_of(n * n * total);
}

// One block per gene: prefix sums of w, 2 w b and 4 w b^2 over its distinct values except zero.
// sums: 3 (places[C] / CHUNK + C) items; scales (C,). Shared memory: see prefix_sums; 512 bytes.
template <class Key>
__device__ void pool_weights(const Sides<Key>& sides, i32 kind, const i64* places,
                             const Key* distinct, const i32* first, const i32* n_distinct,
                             bool midrank, Int128* sums, i32* scales) {
    __shared__ double high[WARP], low[WARP];
    const i64 gene = blockIdx.x;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    if (values.constant()) return;
    const double n = static_cast<double>(values.cells);
    ExactSum weights(16.0 / n, n);  // they add up to less than 16
    for (i32 q = threadIdx.x; q < values.d; q += blockDim.x)
        weights.add(Weighed<Key>(values, values.below(q), values.equal(q), midrank).weight);
    if (threadIdx.x == 0 && values.zeros > 0) {
        const i32 negative_values = lower_bound(values.distinct, values.d, values.zero);
        const i64 below = values.below_zero(negative_values);
        weights.add(Weighed<Key>(values, below, values.zeros, midrank).weight);
    }
    weights.high = warp_sum(weights.high);
    weights.low = warp_sum(weights.low);
    if (lane == 0) {
        high[warp] = weights.high;
        low[warp] = weights.low;
    }
    __syncthreads();
    double total_high = 0.0, total_low = 0.0;
    for (int w = 0; w < static_cast<int>(blockDim.x / WARP); w++) {
        total_high += high[w];
        total_low += low[w];
    }
    const i32 scale = scale_of(total_high + total_low, n);
    if (threadIdx.x == 0) scales[gene] = scale;
    prefix_sums<3>(
        values.d,
        [&](i64 q, Int128* x) {
            Weighed<Key>(values, values.below(q), values.equal(q), midrank).products(scale, x);
        },
        sums + sums_of(places, gene));
}

// Midrank or right. A block takes an equal part of the targets, for gene blockIdx.x / n_parts; a
// warp takes one target at a time. a2 (T, C). Shared memory: none.
template <class Key>
__device__ void anderson_darling_in_pool(const Key* keys, const i64* starts, const i64* n_cells,
                                         i64 n_genes, i32 kind, const Sides<Key>& sides,
                                         i32 n_parts, const i64* places, const Key* distinct,
                                         const i32* first, const i32* n_distinct, bool midrank,
                                         const Int128* sums, const i32* scales, double* a2) {
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    const bool constant = values.constant();
    sums += sums_of(places, gene);
    const i32 scale = constant ? 0 : scales[gene];
    const double n = static_cast<double>(sides.cells);
    const i32 negative_values = lower_bound(values.distinct, values.d, values.zero);
    Int128 of_zero[3] = {};
    if (values.zeros > 0 && !constant)
        Weighed<Key>(values, values.below_zero(negative_values), values.zeros, midrank)
            .products(scale, of_zero);

    // Sums of w and 2 w b over values below number q, and of 4 w b^2 if n_sums is 3; without zero.
    const auto below = [&](i32 q, int n_sums, Int128* x) {
        for (int c = 0; c < n_sums; c++) x[c] = sums[3 * (q / CHUNK) + c];
#pragma unroll 1
        for (i32 i = q / CHUNK * CHUNK; i < q; i++) {
            Int128 own[3];
            Weighed<Key>(values, values.below(i), values.equal(i), midrank).products(scale, own);
            for (int c = 0; c < n_sums; c++) x[c] = x[c] + own[c];
        }
    };
    Int128 all[3];
    if (!constant) below(values.d, 3, all);
    for (int c = 0; c < 3; c++) all[c] = all[c] + of_zero[c];

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
        Int128 wm2 = {0, 0}, wbm = {0, 0};  // 4 sum of w m^2, 4 sum of w b m

        // Adds a value at which m grows from `before` by `own`. x has the sums of w and 2 w b below
        // it, w its own w and 2 w b.
        const auto add = [&](i64 before, i64 own, const Int128* x, const Int128* w) {
            const u64 m = static_cast<u64>(before), t = static_cast<u64>(own);
            const Int128 w_from = all[0] - x[0], wb_from = all[1] - x[1];
            if (midrank) {  // half of the cells count from the value on, all from the next one on
                wm2 = wm2 + w_from * (t * (4 * m + t)) + (w_from - w[0]) * (t * (4 * m + 3 * t));
                wbm = wbm + (wb_from + (wb_from - w[1])) * t;
            } else {
                wm2 = wm2 + w_from * (4 * t * (2 * m + t));
                wbm = wbm + wb_from * (2 * t);
            }
        };
        for (i32 i = lane; i < n_own; i += WARP) {  // at the last of equal entries
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
            const i32 q = lower_bound(values.distinct, values.d, key);
            const bool above = key > values.zero;
            Int128 x[2], w[3];
            below(q, 2, x);
            if (above) {
                x[0] = x[0] + of_zero[0];
                x[1] = x[1] + of_zero[1];
            }
            Weighed<Key>(values, values.below(q), values.equal(q), midrank).products(scale, w);
            add(start + (above ? zeros : 0), i + 1 - start, x, w);
        }
        if (lane == 0 && zeros > 0) {
            Int128 x[2];
            below(negative_values, 2, x);
            add(lower_bound(target, n_own, values.zero), zeros, x, of_zero);
        }
        wm2 = warp_sum(wm2);
        wbm = warp_sum(wbm);
        if (lane == 0) {
            const Twofold s = (as_double(wm2) * n + as_double(wbm) * (-2.0 * n_target)) * n +
                              as_double(all[2]) * n_target * n_target;
            const double sum = rounded(ldexp(s.high + s.low, -scale - 2), n);
            a2[at] = (sum / n_target + sum / (n - n_target)) *
                     (midrank ? (n - 1.0) / (n * n) : 1.0 / n);
        }
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void pool_weights_##BITS(SIDES_PARAMETERS(BITS), i32 kind,               \
                                                   DISTINCT(BITS), i32 midrank, u64* sums,         \
                                                   i32* scales) {                                  \
        pool_weights(SIDES(BITS), kind, places, distinct, begins, n_distinct, midrank != 0,        \
                     reinterpret_cast<Int128*>(sums), scales);                                     \
    }                                                                                              \
    extern "C" __global__ void anderson_darling_in_pool_##BITS(                                    \
        PAIRS(BITS), DISTINCT(BITS), i32 midrank, const u64* sums, const i32* scales,              \
        double* a2) {                                                                              \
        anderson_darling_in_pool(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts,       \
                                 places, distinct, begins, n_distinct, midrank != 0,               \
                                 reinterpret_cast<const Int128*>(sums), scales, a2);               \
    }

KERNELS(32)
KERNELS(64)
