// Two-sample Anderson-Darling statistics of every (target, gene) of a contrast, continuous (see
// anderson_darling.cuh), from sorted segments; anderson_darling_continuous.py gives the same bits.
// No atomics.
//
// As 1 / (b (n - b)) = (1 / b + 1 / (n - b)) / n, sums over b are differences of harmonic numbers
// H. With h = H(n - 1), summation by parts gives
//     S = n_target^2 (n h - (n - 1)) - n * sum over the target's values of
//         (change of m^2) (H(a) + v) - 2 n_target (change of m) v,   v = h - H(n - 1 - a),
// where `a` cells of both samples are below the value. These terms nearly cancel. Therefore
// harmonic numbers are multiplied by 2^scale and become whole numbers, and all sums are exact, in
// any order.
//
// The S of the other sample comes from its own values in the same way. In a pool these are too
// many. There its S is
//     S + sum over b of w (2 n (b n_target - n m) e + n^2 e^2),
// where e is the number of cells of the value of b that come after b. Take a value with `a` cells
// below it, l equal, r above, and c = a + l, f = H(c) - H(a), g = H(r + l - 1) - H(r). Its sums are
//     of n w e: c f - 1 - r g;  of w b e: l - 1 - r g;  of n w e^2: c^2 f + r^2 g - l n + r;
// those that contain m are taken by parts as above.

#include "anderson_darling.cuh"
#include "int192.cuh"

// 2^scale / i.
__device__ __forceinline__ Int128 reciprocal(i64 i, i32 scale) {
    const double x = static_cast<double>(i), q = 1.0 / x, rest = __fma_rn(-q, x, 1.0) / x;
    const Int128 high = whole(q, scale), low = whole(fabs(rest), scale);
    return rest > 0.0 ? high + low : high - low;
}

// One block: sums[k] = H(k * CHUNK) 2^scale, for k up to n / CHUNK. Shared memory: see prefix_sums.
extern "C" __global__ void harmonic_numbers(i64 n, i32 scale, u64* sums) {
    prefix_sums<1>(
        n, [&](i64 i, Int128* x) { x[0] = reciprocal(i + 1, scale); },
        reinterpret_cast<Int128*>(sums));
}

struct Harmonic {
    const Int128* sums;
    i32 scale;

    __device__ Int128 operator()(i64 n) const {
        Int128 x = sums[n / CHUNK];
#pragma unroll 1
        for (i64 i = n / CHUNK * CHUNK + 1; i <= n; i++) x = x + reciprocal(i, scale);
        return x;
    }
    __device__ Int192 one() const { return {0, 1ull << (scale - 64), 0}; }
    // The term of one value in the sum that S contains -n times. At the value, m grows from
    // `before` by `own`, of n_sample cells; `a` of `cells` cells are below it; h = H(cells - 1).
    __device__ Int192 change(i64 before, i64 own, i64 n_sample, i64 a, i64 cells, Int128 h) const {
        const u64 m = static_cast<u64>(before), t = static_cast<u64>(own);
        const Int128 v = h - (*this)(cells - 1 - a);
        return widened(v + (*this)(a)) * (t * (2 * m + t)) -
               widened(v) * (2 * static_cast<u64>(n_sample) * t);
    }
    // The sums of n w e, w b e and n w e^2 over a value.
    __device__ void of_ties(i64 below, i64 equal, i64 cells, Int192* x) const {
        for (int k = 0; k < 3; k++) x[k] = {0, 0, 0};
        if (equal < 2) return;
        const i64 above = cells - below - equal;
        const u64 c = static_cast<u64>(below + equal), r = static_cast<u64>(above);
        const Int192 cf = widened((*this)(below + equal) - (*this)(below)) * c;
        const Int192 rg = widened((*this)(above + equal - 1) - (*this)(above)) * r;
        x[0] = cf - one() - rg;
        x[1] = one() * static_cast<u64>(equal - 1) - rg;
        x[2] = (cf * c + rg * r) - one() * static_cast<u64>(equal * cells - above);
    }
    // The S of a sample, multiplied by 2^scale, from the sum of its changes.
    __device__ Int192 sum_by_parts(Int192 changes, i64 n_sample, i64 cells, Int128 h) const {
        const u64 n = static_cast<u64>(cells), size = static_cast<u64>(n_sample);
        return (widened(h) * n - one() * (n - 1)) * (size * size) - changes * n;
    }
    __device__ double unscaled(Int192 s) const { return ldexp(as_float(s), -scale); }
};

// Against a reference. A block takes an equal part of the targets, for gene blockIdx.x / n_parts; a
// warp takes one target at a time. a2 (T, C), NaN where the pair has only one distinct value.
// Shared memory: none.
template <class Key>
__device__ void continuous(const Key* keys, const i64* starts, const i64* n_cells, i64 n_genes,
                           i32 kind, const Sides<Key>& sides, i32 n_parts, const i64* places,
                           const Key* distinct, const i32* first, const i32* n_distinct,
                           const Harmonic harmonic, double* a2) {
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
        const i64 zeros = n_cells[group] - n_own, cells = n_cells[group] + sides.cells;
        const double n_target = static_cast<double>(n_cells[group]);
        const double n = static_cast<double>(cells);
        const Int128 h = harmonic(cells - 1);
        Int192 own = {0, 0, 0}, other = {0, 0, 0};
        i32 terms = 0;  // distinct values of the pair

        each_reference_value(
            target, n_own, distinct, d, lane, [&](i32 q, Key key, i32 below, i32) {
                const bool above = key > zero;
                const i64 before = first[q] + (above ? reference_zeros : 0);
                const i64 a = before + below + (above ? zeros : 0), t = first[q + 1] - first[q];
                other = other + harmonic.change(before, t, sides.cells, a, cells, h);
                terms++;
            });
        for (i32 i = lane; i < n_own; i += WARP) {  // at the last of equal entries
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
            const i32 at = lower_bound(distinct, d, key);
            const bool above = key > zero;
            const i64 before = start + (above ? zeros : 0);
            const i64 a = before + first[at] + (above ? reference_zeros : 0);
            own = own + harmonic.change(before, i + 1 - start, n_cells[group], a, cells, h);
            terms += at == d || distinct[at] != key;
        }
        if (lane == 0 && zeros + reference_zeros > 0) {
            const i64 negatives = lower_bound(target, n_own, zero);
            const i64 a = negatives + reference_negatives;
            if (zeros > 0)
                own = own + harmonic.change(negatives, zeros, n_cells[group], a, cells, h);
            if (reference_zeros > 0)
                other = other + harmonic.change(reference_negatives, reference_zeros, sides.cells, a,
                                                cells, h);
            terms++;
        }
        own = warp_sum(own);
        other = warp_sum(other);
        terms = warp_sum(terms);
        if (lane == 0) {
            const double s =
                rounded(harmonic.unscaled(harmonic.sum_by_parts(own, n_cells[group], cells, h)), n);
            const double s_ref =
                rounded(harmonic.unscaled(harmonic.sum_by_parts(other, sides.cells, cells, h)), n);
            a2[row * n_genes + gene] =
                terms > 1 ? (s / n_target + s_ref / n_ref) / n : undefined();
        }
    }
}

// One block per gene: prefix sums, over its distinct values except zero, of their sums over ties
// (Harmonic.of_ties). sums: 3 (places[C] / CHUNK + C) items. Shared memory: see prefix_sums.
template <class Key>
__device__ void pool_ties(const Sides<Key>& sides, i32 kind, const i64* places,
                          const Key* distinct, const i32* first, const i32* n_distinct,
                          const Harmonic harmonic, Int192* sums) {
    const i64 gene = blockIdx.x;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    prefix_sums<3>(
        values.d,
        [&](i64 q, Int192* x) {
            harmonic.of_ties(values.below(q), values.equal(q), values.cells, x);
        },
        sums + sums_of(places, gene));
}

// In a pool. A block takes an equal part of the targets, for gene blockIdx.x / n_parts; a warp
// takes one target at a time. a2 (T, C). Shared memory: none.
template <class Key>
__device__ void continuous_in_pool(const Key* keys, const i64* starts, const i64* n_cells,
                                   i64 n_genes, i32 kind, const Sides<Key>& sides, i32 n_parts,
                                   const i64* places, const Key* distinct, const i32* first,
                                   const i32* n_distinct, const Harmonic harmonic,
                                   const Int192* sums, double* a2) {
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    sums += sums_of(places, gene);
    const double n = static_cast<double>(values.cells);
    const Int128 h = harmonic(values.cells - 1);
    const i32 negative_values = lower_bound(values.distinct, values.d, values.zero);
    const auto of_zero = [&](Int192* x) {
        harmonic.of_ties(values.below_zero(negative_values), values.zeros, values.cells, x);
    };
    Int192 x_zero[3];
    of_zero(x_zero);
    const Int192 tied_zero = x_zero[0];

    // The sum over ties of the values below number q, without zero.
    const auto below = [&](i32 q, int which) {
        Int192 sum = sums[3 * (q / CHUNK) + which];
#pragma unroll 1
        for (i32 i = q / CHUNK * CHUNK; i < q; i++) {
            Int192 x[3];
            harmonic.of_ties(values.below(i), values.equal(i), values.cells, x);
            sum = sum + x[which];
        }
        return sum;
    };

    i32 begin, end;
    share_of_targets(sides.n_targets, n_parts, begin, end);
    for (i32 row = begin + threadIdx.x / WARP; row < end; row += blockDim.x / WARP) {
        const i64 group = sides.group(row), pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n_own = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        const i64 zeros = n_cells[group] - n_own;
        const double n_target = static_cast<double>(n_cells[group]);
        Int192 own = {0, 0, 0}, tied = {0, 0, 0};
        for (i32 i = lane; i < n_own; i += WARP) {  // at the last of equal entries
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
            const i32 q = lower_bound(values.distinct, values.d, key);
            const bool above = key > values.zero;
            const i64 t = i + 1 - start;
            own = own + harmonic.change(start + (above ? zeros : 0), t, n_cells[group], values.below(q),
                                        values.cells, h);
            Int192 sum = below(q, 0);
            if (above) sum = sum + tied_zero;
            tied = tied + sum * static_cast<u64>(t);
        }
        if (lane == 0 && zeros > 0) {
            own = own + harmonic.change(lower_bound(target, n_own, values.zero), zeros, n_cells[group],
                                        values.below_zero(negative_values), values.cells, h);
            tied = tied + below(negative_values, 0) * static_cast<u64>(zeros);
        }
        own = warp_sum(own);
        tied = warp_sum(tied);
        if (lane == 0) {
            const Int192 s = harmonic.sum_by_parts(own, n_cells[group], values.cells, h);
            Int192 x[3];
            of_zero(x);
            for (int c = 0; c < 3; c++) x[c] = x[c] + below(values.d, c);
            // sum of m n w e, less n_target times that of w b e
            tied = (x[0] - x[1]) * static_cast<u64>(n_cells[group]) - tied;
            const Int192 s_other = s + (x[2] - (tied + tied)) * static_cast<u64>(values.cells);
            a2[row * n_genes + gene] =
                values.constant()
                    ? undefined()
                    : (rounded(harmonic.unscaled(s), n) / n_target +
                       rounded(harmonic.unscaled(s_other), n) / (n - n_target)) /
                          n;
        }
    }
}

#define HARMONIC (Harmonic{reinterpret_cast<const Int128*>(harmonics), scale})
#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void continuous_##BITS(PAIRS(BITS), DISTINCT(BITS),                      \
                                                 const u64* harmonics, i32 scale, double* a2) {    \
        continuous(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, places, distinct,   \
                   begins, n_distinct, HARMONIC, a2);                                              \
    }                                                                                              \
    extern "C" __global__ void pool_ties_##BITS(SIDES_PARAMETERS(BITS), i32 kind, DISTINCT(BITS),  \
                                                const u64* harmonics, i32 scale, u64* sums) {      \
        pool_ties(SIDES(BITS), kind, places, distinct, begins, n_distinct, HARMONIC,               \
                  reinterpret_cast<Int192*>(sums));                                                \
    }                                                                                              \
    extern "C" __global__ void continuous_in_pool_##BITS(                                          \
        PAIRS(BITS), DISTINCT(BITS), const u64* harmonics, i32 scale, const u64* sums,             \
        double* a2) {                                                                              \
        continuous_in_pool(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, places,     \
                           distinct, begins, n_distinct, HARMONIC,                                 \
                           reinterpret_cast<const Int192*>(sums), a2);                             \
    }

KERNELS(32)
KERNELS(64)
