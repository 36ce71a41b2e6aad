// Two-sample Anderson-Darling statistics of every (target, gene) of a contrast, continuous (see
// anderson_darling.cuh), from sorted segments. No atomics; each lane adds in a fixed order.
//
// As 1 / (b (n - b)) = (1 / b + 1 / (n - b)) / n, sums over b are differences of harmonic numbers
// H. With h = H(n - 1), sums by parts give
//     S = n_target^2 (n h - (n - 1)) - n * sum over the target's values of
//         (change of m^2) (H(a) + v) - 2 n_target (change of m) v,   v = h - H(n - 1 - a),
// a the cells of both samples below the value.
//
// S of the other sample likewise, from its own values. In a pool these are too many. There it is
//     S + sum over b of w (2 n (b n_target - n m) e + n^2 e^2),
// e the cells of the value of b that come after b. Of a value with a cells below it, l equal, r
// above and c = a + l, with f = H(c) - H(a) and g = H(r + l - 1) - H(r), what is added up are
//     sum of n w e = c f - 1 - r g,  of w b e = l - 1 - r g,  of n w e^2 = c^2 f + r^2 g - l n + r,
// and where m comes in, by parts as above.

#include "anderson_darling.cuh"

// One block: sums[k] = H(k * CHUNK), for k up to n / CHUNK. Shared memory: see prefix_sums.
extern "C" __global__ void harmonic_numbers(i64 n, double* sums) {
    prefix_sums<1>(
        n,
        [&](i64 i, Twofold* x) { x[0] = reciprocal(static_cast<double>(i + 1)); },
        reinterpret_cast<Twofold*>(sums));
}

struct Harmonic {
    const Twofold* sums;

    __device__ Twofold operator()(i64 n) const {
        Twofold x = sums[n / CHUNK];
#pragma unroll 1
        for (i64 i = n / CHUNK * CHUNK + 1; i <= n; i++)
            x = x + reciprocal(static_cast<double>(i));
        return x;
    }
    // What a value adds to the sum that S has n times, where m grows from `before` by `own` of
    // n_sample, and `a` of `cells` lie below; h = H(cells - 1).
    __device__ Twofold change(i64 before, i64 own, double n_sample, i64 a, i64 cells,
                              Twofold h) const {
        const double m = static_cast<double>(before), t = static_cast<double>(own);
        const Twofold v = h - (*this)(cells - 1 - a);
        return (v + (*this)(a)) * t * (2.0 * m + t) - v * t * (2.0 * n_sample);
    }
    // The sums of n w e, w b e and n w e^2 over a value.
    __device__ void of_ties(i64 below, i64 equal, i64 cells, Twofold* x) const {
        for (int k = 0; k < 3; k++) x[k] = {0.0, 0.0};
        if (equal < 2) return;
        const i64 above = cells - below - equal;
        const double c = static_cast<double>(below + equal), l = static_cast<double>(equal);
        const double r = static_cast<double>(above), n = static_cast<double>(cells);
        const Twofold cf = ((*this)(below + equal) - (*this)(below)) * c;
        const Twofold rg = ((*this)(above + equal - 1) - (*this)(above)) * r;
        x[0] = cf - Twofold{1.0, 0.0} - rg;
        x[1] = Twofold{l - 1.0, 0.0} - rg;
        x[2] = (cf * c + rg * r) - (product(l, n) - Twofold{r, 0.0});
    }
};

// S of a sample, from the sum of its changes.
__device__ __forceinline__ Twofold sum_by_parts(Twofold changes, double n_sample, double n,
                                                Twofold h) {
    return (h * n - Twofold{n - 1.0, 0.0}) * n_sample * n_sample - changes * n;
}

// Against a reference. Blocks: gene blockIdx.x / n_parts, an equal part of the targets; a warp
// takes one target at a time. a2 (T, C), NaN where the pair has one distinct value. Shared memory:
// none.
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
        const Twofold h = harmonic(cells - 1);
        Twofold own = {0.0, 0.0}, other = {0.0, 0.0};
        i32 terms = 0;  // distinct values of the pair

        each_reference_value(
            target, n_own, distinct, d, lane, [&](i32 q, Key key, i32 below, i32) {
                const bool above = key > zero;
                const i64 before = first[q] + (above ? reference_zeros : 0);
                const i64 a = before + below + (above ? zeros : 0), t = first[q + 1] - first[q];
                other = other + harmonic.change(before, t, n_ref, a, cells, h);
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
            own = own + harmonic.change(before, i + 1 - start, n_target, a, cells, h);
            terms += at == d || distinct[at] != key;
        }
        if (lane == 0 && zeros + reference_zeros > 0) {
            const i64 negatives = lower_bound(target, n_own, zero);
            const i64 a = negatives + reference_negatives;
            if (zeros > 0)
                own = own + harmonic.change(negatives, zeros, n_target, a, cells, h);
            if (reference_zeros > 0)
                other = other + harmonic.change(reference_negatives, reference_zeros, n_ref, a,
                                                cells, h);
            terms++;
        }
        own = warp_sum(own);
        other = warp_sum(other);
        terms = warp_sum(terms);
        if (lane == 0) {
            const double s = rounded(sum_by_parts(own, n_target, n, h), n);
            const double s_ref = rounded(sum_by_parts(other, n_ref, n, h), n);
            a2[row * n_genes + gene] =
                terms > 1 ? (s / n_target + s_ref / n_ref) / n : undefined();
        }
    }
}

// One block a gene: prefix sums of those over ties (Harmonic.of_ties) of its distinct values, zero
// left out. sums: 3 (places[C] / CHUNK + C). Shared memory: see prefix_sums.
template <class Key>
__device__ void pool_ties(const Sides<Key>& sides, i32 kind, const i64* places,
                          const Key* distinct, const i32* first, const i32* n_distinct,
                          const Harmonic harmonic, Twofold* sums) {
    const i64 gene = blockIdx.x;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    prefix_sums<3>(
        values.d,
        [&](i64 q, Twofold* x) {
            harmonic.of_ties(values.below(q), values.equal(q), values.cells, x);
        },
        sums + sums_of(places, gene));
}

// In a pool. Blocks: gene blockIdx.x / n_parts, an equal part of the targets; a warp takes one
// target at a time. a2 (T, C). Shared memory: none.
template <class Key>
__device__ void continuous_in_pool(const Key* keys, const i64* starts, const i64* n_cells,
                                   i64 n_genes, i32 kind, const Sides<Key>& sides, i32 n_parts,
                                   const i64* places, const Key* distinct, const i32* first,
                                   const i32* n_distinct, const Harmonic harmonic,
                                   const Twofold* sums, double* a2) {
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Values<Key> values = values_of(sides, gene, kind, places, distinct, first, n_distinct);
    sums += sums_of(places, gene);
    const double n = static_cast<double>(values.cells);
    const Twofold h = harmonic(values.cells - 1);
    const i32 negative_values = lower_bound(values.distinct, values.d, values.zero);
    const auto of_zero = [&](Twofold* x) {
        harmonic.of_ties(values.below_zero(negative_values), values.zeros, values.cells, x);
    };
    Twofold x_zero[3];
    of_zero(x_zero);
    const Twofold tied_zero = x_zero[0];

    // The sum over ties of the values below number q, zero left out.
    const auto below = [&](i32 q, int which) {
        Twofold sum = sums[3 * (q / CHUNK) + which];
#pragma unroll 1
        for (i32 i = q / CHUNK * CHUNK; i < q; i++) {
            Twofold x[3];
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
        Twofold own = {0.0, 0.0}, tied = {0.0, 0.0};
        for (i32 i = lane; i < n_own; i += WARP) {  // at the last of equal entries
            const Key key = target[i];
            if (i + 1 < n_own && target[i + 1] == key) continue;
            const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
            const i32 q = lower_bound(values.distinct, values.d, key);
            const bool above = key > values.zero;
            const i64 t = i + 1 - start;
            own = own + harmonic.change(start + (above ? zeros : 0), t, n_target, values.below(q),
                                        values.cells, h);
            Twofold sum = below(q, 0);
            if (above) sum = sum + tied_zero;
            tied = tied + sum * static_cast<double>(t);
        }
        if (lane == 0 && zeros > 0) {
            own = own + harmonic.change(lower_bound(target, n_own, values.zero), zeros, n_target,
                                        values.below_zero(negative_values), values.cells, h);
            tied = tied + below(negative_values, 0) * static_cast<double>(zeros);
        }
        own = warp_sum(own);
        tied = warp_sum(tied);
        if (lane == 0) {
            const Twofold s = sum_by_parts(own, n_target, n, h);
            Twofold x[3];
            of_zero(x);
            for (int c = 0; c < 3; c++) x[c] = x[c] + below(values.d, c);
            // sum of m n w e, less n_target times that of w b e
            tied = (x[0] - x[1]) * n_target - tied;
            const Twofold s_other = s + (x[2] - tied * 2.0) * n;
            a2[row * n_genes + gene] =
                values.constant()
                    ? undefined()
                    : (rounded(s, n) / n_target + rounded(s_other, n) / (n - n_target)) / n;
        }
    }
}

#define HARMONIC (Harmonic{reinterpret_cast<const Twofold*>(harmonics)})
#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void continuous_##BITS(PAIRS(BITS), DISTINCT(BITS),                      \
                                                 const double* harmonics, double* a2) {            \
        continuous(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, places, distinct,   \
                   begins, n_distinct, HARMONIC, a2);                                              \
    }                                                                                              \
    extern "C" __global__ void pool_ties_##BITS(SIDES_PARAMETERS(BITS), i32 kind, DISTINCT(BITS),  \
                                                const double* harmonics, double* sums) {           \
        pool_ties(SIDES(BITS), kind, places, distinct, begins, n_distinct, HARMONIC,               \
                  reinterpret_cast<Twofold*>(sums));                                               \
    }                                                                                              \
    extern "C" __global__ void continuous_in_pool_##BITS(                                          \
        PAIRS(BITS), DISTINCT(BITS), const double* harmonics, const double* sums, double* a2) {    \
        continuous_in_pool(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, places,     \
                           distinct, begins, n_distinct, HARMONIC,                                 \
                           reinterpret_cast<const Twofold*>(sums), a2);                            \
    }

KERNELS(32)
KERNELS(64)
