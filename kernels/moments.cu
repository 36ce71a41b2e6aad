// Moments of every (group, gene), from sorted segments: number of entries, mean, and where asked
// the centred second moment and the means of expm1(x) and log1p(x). All (K, C), float64 but the
// number.
//
// One warp a (group, gene). Sums run over the ascending entries, lane l taking every 32nd: within
// pieces of PIECE entries, then over pieces, then over lanes; so the bits depend on nothing but the
// values. Second moment by the corrected two-pass algorithm (Chan, Golub and LeVeque 1983).
// Shared memory: none. No atomics.

#include "common.cuh"

#define PIECE 1024

template <class Key>
struct Identity {
    i32 kind;
    __device__ double operator()(Key key) const { return value_of(key, kind); }
};

template <class Key>
struct Expm1 {
    i32 kind;
    __device__ double operator()(Key key) const { return expm1(value_of(key, kind)); }
};

template <class Key>
struct Log1p {
    i32 kind;
    __device__ double operator()(Key key) const { return log1p(value_of(key, kind)); }
};

template <class Key>
struct Deviation {
    i32 kind;
    double mean;
    __device__ double operator()(Key key) const { return value_of(key, kind) - mean; }
};

template <class Key>
struct SquaredDeviation {
    i32 kind;
    double mean;
    __device__ double operator()(Key key) const {
        const double d = value_of(key, kind) - mean;
        return d * d;
    }
};

// The sum of term(key) over keys[0 .. n), in every lane.
template <class Key, class Term>
__device__ __forceinline__ double sum(const Key* keys, i32 n, int lane, const Term& term) {
    double total = 0.0;
    for (i32 piece = 0; piece < n; piece += PIECE) {
        double part = 0.0;
        const i32 stop = min(n, piece + PIECE);
        for (i32 i = piece + lane; i < stop; i += WARP) part += term(keys[i]);
        total += part;
    }
    return warp_sum(total);
}

template <class Key>
__device__ void moments(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                        i64 n_genes, i32 kind, i32* n_expressed, double* mean, double* m2,
                        double* mean_expm1) {
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
    double mu = 0.0, squares = 0.0;
    if (constant) {
        if (n > 0) mu = value_of(entries[0], kind);
    } else {
        mu = sum(entries, n, lane, Identity<Key>{kind}) / cells;
        if (m2) {
            // What rounding of the mean left; zero in exact arithmetic.
            const double rest = sum(entries, n, lane, Deviation<Key>{kind, mu}) - zeros * mu;
            squares = sum(entries, n, lane, SquaredDeviation<Key>{kind, mu}) + zeros * (mu * mu) -
                      rest * rest / cells;
        }
    }
    const double exponentiated =
        mean_expm1 ? sum(entries, n, lane, Expm1<Key>{kind}) / cells : 0.0;
    if (lane == 0) {
        n_expressed[pair] = n;
        mean[pair] = mu;
        if (m2) m2[pair] = squares;
        if (mean_expm1) mean_expm1[pair] = exponentiated;
    }
}

// The mean of log1p(x) alone: for few calls, and the registers it takes would slow down all others.
template <class Key>
__device__ void mean_log1p(const Key* keys, const i64* starts, const i64* n_cells, i64 n_groups,
                           i64 n_genes, i32 kind, double* mean) {
    const i64 segment = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (segment >= n_groups * n_genes) return;
    const int lane = threadIdx.x % WARP;
    const i64 group = segment % n_groups;
    const i64 pair = group * n_genes + segment / n_groups;
    const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
    const double total = sum(keys + starts[pair], n, lane, Log1p<Key>{kind});
    if (lane == 0) mean[pair] = total / static_cast<double>(n_cells[group]);
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void moments_##BITS(const u##BITS* keys, const i64* starts,              \
                                              const i64* n_cells, i64 n_groups, i64 n_genes,       \
                                              i32 kind, i32* n_expressed, double* mean,            \
                                              double* m2, double* mean_expm1) {                    \
        moments(keys, starts, n_cells, n_groups, n_genes, kind, n_expressed, mean, m2,             \
                mean_expm1);                                                                       \
    }                                                                                              \
    extern "C" __global__ void mean_log1p_##BITS(const u##BITS* keys, const i64* starts,           \
                                                 const i64* n_cells, i64 n_groups, i64 n_genes,    \
                                                 i32 kind, double* mean) {                         \
        mean_log1p(keys, starts, n_cells, n_groups, n_genes, kind, mean);                          \
    }

KERNELS(32)
KERNELS(64)
