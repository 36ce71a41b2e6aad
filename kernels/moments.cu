// Moments of every (group, gene), from sorted segments. The kernel `moments` gives the number of
// entries, the mean and, for each array that is not null, the centred second moment, the mean of
// expm1(x) and the exponent. `mean_log1p` gives the mean of log1p(x), `higher_moments` the centred
// third and fourth moments, from the mean and the exponent. All are (K, C): the number and the
// exponent i32, the rest float64. With `exponent`, mean and centred moments are those of the values
// / 2^exponent, where the exponent follows from the largest value (see scale_exponent).
//
// One warp per (group, gene). Its sums do not depend on the order of entries (see exact_sums.cuh);
// as entries are ascending, the first or last bounds every term. The second moment is computed by
// the corrected two-pass algorithm (Chan, Golub and LeVeque 1983). Shared memory: none. No atomics.

#include "exact_sums.cuh"
#include "transforms.cuh"

#define SAFE_EXPONENT 160  // as in contract.py

// Values of this magnitude are divided by 2 to this power before they are squared.
__device__ __forceinline__ i32 scale_exponent(double largest) {
    const i32 exponent = exponent_of(largest);
    const i32 scale = (abs(exponent) + SAFE_EXPONENT - 1) / (2 * SAFE_EXPONENT) * (2 * SAFE_EXPONENT);
    return exponent > 0 ? scale : -scale;
}

// The sum over keys[0 .. n) of term(value), as two numbers, in every lane. No term exceeds `bound`.
template <class Key, class Term>
__device__ __forceinline__ Twofold sum(const Key* keys, i32 n, i32 kind, int lane, double bound,
                                      const Term& term) {
    ExactSum total(bound, n);
    for (i32 i = lane; i < n; i += WARP) total.add(term(value_of(keys[i], kind)));
    return total.of_warp();
}

template <class Key>
__device__ void moments(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                        i64 n_genes, i32 kind, i32* n_expressed, double* mean, double* m2,
                        double* mean_expm1, i32* exponent) {
    const i64 segment = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (segment >= n_groups * n_genes) return;
    const int lane = threadIdx.x % WARP;
    const i64 group = segment % n_groups;
    const i64 pair = group * n_genes + segment / n_groups;
    const Key* const entries = keys + starts[pair];
    const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
    const double cells = static_cast<double>(n_cells[group]);
    const double zeros = static_cast<double>(n_cells[group] - n);

    const bool constant = n == 0 || (n == n_cells[group] && entries[0] == entries[n - 1]);
    const double smallest = n > 0 ? value_of(entries[0], kind) : 0.0;
    const double largest = n > 0 ? value_of(entries[n - 1], kind) : 0.0;
    const double magnitude = fmax(fabs(smallest), fabs(largest));
    const i32 scale = exponent && n > 0 ? scale_exponent(magnitude) : 0;
    const double factor = __longlong_as_double(static_cast<i64>(1023 - scale) << 52);
    double mu = smallest * factor, squares = 0.0;
    if (!constant) {
        const Twofold total = sum(entries, n, kind, lane, magnitude * factor,
                                  [factor](double x) { return x * factor; });
        mu = (total.high + total.low) / cells;
        if (m2) {
            // What rounding the mean left over; zero in exact arithmetic.
            const Twofold all = product(cells, mu);
            const double residual = ((total.high - all.high) + total.low) - all.low;
            const double deviation =
                fmax(fabs(smallest * factor - mu), fabs(largest * factor - mu));
            const Twofold sum_of_squares =
                sum(entries, n, kind, lane, deviation * deviation, [mu, factor](double x) {
                    const double d = x * factor - mu;
                    return d * d;
                });
            squares = (sum_of_squares.high + sum_of_squares.low) + zeros * (mu * mu) -
                      residual * residual / cells;
        }
    }
    double exponentiated = 0.0;
    if (mean_expm1) {
        const Twofold total = sum(entries, n, kind, lane, bound_of_expm1(smallest, largest),
                                  [](double x) { return portable_expm1(x); });
        exponentiated = (total.high + total.low) / cells;
    }
    if (lane == 0) {
        n_expressed[pair] = n;
        mean[pair] = mu;
        if (m2) m2[pair] = squares;
        if (mean_expm1) mean_expm1[pair] = exponentiated;
        if (exponent) exponent[pair] = scale;
    }
}

// Only the mean of log1p(x). Few calls need it, and its registers would slow down all others.
template <class Key>
__device__ void mean_log1p(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                           i64 n_genes, i32 kind, double* mean) {
    const i64 segment = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (segment >= n_groups * n_genes) return;
    const int lane = threadIdx.x % WARP;
    const i64 group = segment % n_groups;
    const i64 pair = group * n_genes + segment / n_groups;
    const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
    const Key* const entries = keys + starts[pair];
    const double bound = n > 0 ? bound_of_log1p(value_of(entries[0], kind),
                                                value_of(entries[n - 1], kind))
                               : 0.0;
    const Twofold total =
        sum(entries, n, kind, lane, bound, [](double x) { return portable_log1p(x); });
    if (lane == 0) mean[pair] = (total.high + total.low) / static_cast<double>(n_cells[group]);
}

// Only the third and fourth moments; `mean` and `exponent`, which may be null, are those of
// `moments`. The bits are those of pdex_gpu/backends/cpu/moments.py.
template <class Key>
__device__ void higher_moments(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                               i64 n_genes, i32 kind, const double* mean, const i32* exponent,
                               double* m3, double* m4) {
    const i64 segment = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (segment >= n_groups * n_genes) return;
    const int lane = threadIdx.x % WARP;
    const i64 group = segment % n_groups;
    const i64 pair = group * n_genes + segment / n_groups;
    const Key* const entries = keys + starts[pair];
    const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
    const double zeros = static_cast<double>(n_cells[group] - n);
    double third = 0.0, fourth = 0.0;
    if (n > 0 && !(n == n_cells[group] && entries[0] == entries[n - 1])) {
        const i64 scale = exponent ? exponent[pair] : 0;
        const double factor = __longlong_as_double((1023 - scale) << 52);
        const double mu = mean[pair];
        const double bound = fmax(fabs(value_of(entries[0], kind) * factor - mu),
                                  fabs(value_of(entries[n - 1], kind) * factor - mu));
        ExactSum cubes(bound * bound * bound, n), fourths(bound * bound * (bound * bound), n);
        for (i32 i = lane; i < n; i += WARP) {
            const double d = value_of(entries[i], kind) * factor - mu;
            const double square = d * d;
            cubes.add(square * d);
            fourths.add(square * square);
        }
        const Twofold of_cubes = cubes.of_warp(), of_fourths = fourths.of_warp();
        third = (of_cubes.high + of_cubes.low) - zeros * (mu * mu * mu);
        fourth = (of_fourths.high + of_fourths.low) + zeros * (mu * mu * (mu * mu));
    }
    if (lane == 0) {
        m3[pair] = third;
        m4[pair] = fourth;
    }
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void moments_##BITS(const u##BITS* keys, const i64* starts,              \
                                              const i64* n_cells, i64 n_groups, i64 n_genes,       \
                                              i32 kind, i32* n_expressed, double* mean,            \
                                              double* m2, double* mean_expm1, i32* exponent) {     \
        moments(keys, starts, n_cells, n_groups, n_genes, kind, n_expressed, mean, m2,             \
                mean_expm1, exponent);                                                             \
    }                                                                                              \
    extern "C" __global__ void mean_log1p_##BITS(const u##BITS* keys, const i64* starts,           \
                                                 const i64* n_cells, i64 n_groups, i64 n_genes,    \
                                                 i32 kind, double* mean) {                         \
        mean_log1p(keys, starts, n_cells, n_groups, n_genes, kind, mean);                          \
    }                                                                                              \
    extern "C" __global__ void higher_moments_##BITS(                                              \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_groups, i64 n_genes,     \
        i32 kind, const double* mean, const i32* exponent, double* m3, double* m4) {               \
        higher_moments(keys, starts, n_cells, n_groups, n_genes, kind, mean, exponent, m3, m4);    \
    }

KERNELS(32)
KERNELS(64)
