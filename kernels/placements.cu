// Sums of squared placements of every (target, gene) of a contrast (DeLong, DeLong and
// Clarke-Pearson 1988). Placements are doubled, which makes them whole numbers.
//
// The doubled placement of a target cell is 2 below + equal, which count cells of the other sample.
// For a cell of the other sample with k target cells above it and t equal, it is 2 k + t. A value
// of the target with k target cells above and t equal adds (2 k + 2 t)^2 - (2 k)^2 = 4 t (2 k + t)
// to the square of each other cell below it, and (2 k + t)^2 - (2 k)^2 = t (4 k + t) to that of
// each equal one. So only the target's own values are visited. Sums are of integers that may exceed
// 64 bits and are rounded at the end, so their order does not matter. No atomics.

#include "contrast.cuh"

// of_target and of_other (T, C). Blocks and shared memory: see each_target.
template <class Key>
__device__ void placements(const Key* keys, const i64* starts, const i64* n_cells, i64 n_genes,
                           i32 kind, const Sides<Key>& sides, i32 n_parts, i32 most_samples,
                           double* of_target, double* of_other) {
    each_target(keys, starts, n_cells, n_genes, kind, sides, n_parts, most_samples,
                [&](i64 n, i64 at, const auto& visit) {
                    Wide target = {0, 0}, other = {0, 0};
                    visit([&](const Place& p) {
                        const u64 twice = static_cast<u64>(2 * p.below + p.equal);
                        const u64 t = static_cast<u64>(p.own);
                        const u64 k = static_cast<u64>(n - p.before - p.own);
                        target.add_product(twice * twice, t);
                        other.add_product(4 * t * (2 * k + t), static_cast<u64>(p.below));
                        other.add_product(t * (4 * k + t), static_cast<u64>(p.equal));
                    });
                    target.high = warp_sum(target.high);
                    target.low = warp_sum(target.low);
                    other.high = warp_sum(other.high);
                    other.low = warp_sum(other.low);
                    if (threadIdx.x % WARP == 0) {
                        of_target[at] = target.value();
                        of_other[at] = other.value();
                    }
                });
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void placements_##BITS(                                                  \
        const u##BITS* keys, const i64* starts, const i64* n_cells, i64 n_genes, i32 kind,         \
        SIDES_PARAMETERS(BITS), i32 n_parts, i32 most_samples, double* of_target,                  \
        double* of_other) {                                                                        \
        placements(keys, starts, n_cells, n_genes, kind, SIDES(BITS), n_parts, most_samples,       \
                   of_target, of_other);                                                           \
    }

KERNELS(32)
KERNELS(64)
