// Two-sample Anderson-Darling statistics (Scholz and Stephens 1987): what their kernels share.
//
// Let n be the number of cells of both samples. At a value, m counts the target's cells up to it, b
// those of both samples, and `ties` the cells equal to it. With
//     S = sum over distinct values of w (n m - b n_target)^2,
// A2 is S * (1 / n_target + 1 / n_other), and
// * midrank (eq. 7): multiplied by (n - 1) / n^2; m and b count half of the equal cells,
//   w = ties / (b (n - b) - n ties / 4);
// * right (eq. 6): divided by n; m and b count all equal cells, w = ties / (b (n - b)), and the
//   last value has no term;
// * continuous (eq. 3): divided by n; equal cells count one by one, b = 1 to n - 1 and
//   w = 1 / (b (n - b)), with m as in right. So with ties, the other sample has a different S.

#ifndef PDEX_GPU_ANDERSON_DARLING
#define PDEX_GPU_ANDERSON_DARLING

#include "contrast.cuh"
#include "prefix_sums.cuh"

// The statistic of a pair with only one distinct value.
__device__ __forceinline__ double undefined() { return __longlong_as_double(0x7ff8000000000000ll); }

// S is 0 or at least 1 / n^2, as differences are multiples of 1/2 and w is at least 4 / n^2.
__device__ __forceinline__ double rounded(double s, double n) {
    return s < 0.5 / (n * n) ? 0.0 : s;
}

// Calls f(q, key, below, equal) for each distinct value of the reference, in some lane. q is the
// value's number; below and equal count the entries of the sorted target below it and equal to it.
template <class Key, class F>
__device__ __forceinline__ void each_reference_value(const Key* target, i32 n_own,
                                                     const Key* distinct, i32 d, int lane,
                                                     const F& f) {
    // 32 values at a time; `p` is the number of target entries passed so far.
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
        if (here) f(q, key, below, equal);
    }
}

// The distinct values of a gene's pool.
template <class Key>
struct Values {
    const Key* distinct;
    const i32* first;
    i32 d;
    Key zero;
    i64 zeros, cells;

    // Cells below value number q, and cells equal to it.
    __device__ i64 below(i64 q) const { return first[q] + (distinct[q] > zero ? zeros : 0); }
    __device__ i64 equal(i64 q) const { return first[q + 1] - first[q]; }
    __device__ i64 below_zero(i32 negative_values) const { return first[negative_values]; }
    // Whether all cells are equal.
    __device__ bool constant() const { return d + (zeros > 0) < 2; }
};

template <class Key>
__device__ __forceinline__ Values<Key> values_of(const Sides<Key>& sides, i64 gene, i32 kind,
                                                 const i64* places, const Key* distinct,
                                                 const i32* first, const i32* n_distinct) {
    const i64 n = sides.ends[gene] - sides.starts[gene];
    return {distinct + places[gene], first + places[gene] + gene, n_distinct[gene],
            zero_key<Key>(kind), sides.cells - n, sides.cells};
}

// Where a gene's prefix sums begin.
__device__ __forceinline__ i64 sums_of(const i64* places, i64 gene) {
    return 3 * (places[gene] / CHUNK + gene);
}

// The parameters of all kernels that work on pairs.
#define PAIRS(BITS)                                                                                \
    const u##BITS *keys, const i64 *starts, const i64 *n_cells, i64 n_genes, i32 kind,             \
        SIDES_PARAMETERS(BITS), i32 n_parts
#define DISTINCT(BITS)                                                                             \
    const i64 *places, const u##BITS *distinct, const i32 *begins, const i32 *n_distinct

#endif
