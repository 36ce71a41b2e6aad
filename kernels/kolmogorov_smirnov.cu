// Kolmogorov-Smirnov distances of every (target, gene) of a contrast, as whole numbers. The target
// has n cells, F(x) of them not above x; the other sample has m, G(x) of them not above x. The
// distances are the largest m F(x) - n G(x) and the largest n G(x) - m F(x), each at least 0.
//
// F changes only at values of the target. So the first is largest at one of these, and the second
// just below one: only the target's own values are visited. No atomics.

#include "contrast.cuh"

// above and below (T, C). Blocks and shared memory: see each_target.
template <class Key>
__device__ void kolmogorov_smirnov(const Key* keys, const i64* starts, const i64* n_cells,
                                   i64 n_genes, i32 kind, const Sides<Key>& sides, i32 n_parts,
                                   i32 most_samples, i64* above, i64* below) {
    each_target(keys, starts, n_cells, n_genes, kind, sides, n_parts, most_samples,
                [&](i64 n, i64 at, const auto& visit) {
                    const i64 m = sides.pooled ? sides.cells - n : sides.cells;
                    i64 highest = 0, lowest = 0;
                    visit([&](const Place& p) {
                        highest = max(highest, m * (p.before + p.own) - n * (p.below + p.equal));
                        lowest = max(lowest, n * p.below - m * p.before);
                    });
                    highest = warp_max(highest);
                    lowest = warp_max(lowest);
                    if (threadIdx.x % WARP == 0) {
                        above[at] = highest;
                        below[at] = lowest;
                    }
                });
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void kolmogorov_smirnov_##BITS(                                          \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_genes, i32 kind,         \
        SIDES_PARAMETERS(BITS), i32 n_parts, i32 most_samples, i64* above, i64* below) {           \
        kolmogorov_smirnov(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts,             \
                           most_samples, above, below);                                            \
    }

KERNELS(32)
KERNELS(64)
