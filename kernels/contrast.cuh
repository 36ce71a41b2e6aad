// The sides of a contrast: its targets, and the sorted keys that each is compared with.
//
// Targets are groups of the slice: groups[0 .. n_targets) or, if `groups` is null, those from
// `first` on. For gene j they are compared with keys[starts[j] .. ends[j]) and zeros, of `cells`
// cells:
// * of another group, the reference, if `pooled` is false;
// * of a pool if it is true: all cells of the contrast, including those of the targets. A target is
//   compared with the cells of the pool that are not its own.

#ifndef PDEX_GPU_CONTRAST
#define PDEX_GPU_CONTRAST

#include "common.cuh"

template <class Key>
struct Sides {
    const i32* groups;
    i64 first, n_targets;
    const Key* keys;
    const i64* starts;
    const i64* ends;
    i64 cells;
    bool pooled;

    __device__ i64 group(i64 target) const { return groups ? groups[target] : first + target; }
};

// Parameters of a kernel, in the order of `Comparands.arguments` in comparands.py.
#define SIDES_PARAMETERS(BITS)                                                                     \
    const i32 *groups, i64 first, i64 n_targets, const u##BITS *side_keys, const i64 *side_starts, \
        const i64 *side_ends, i64 side_cells, i32 pooled
#define SIDES(BITS)                                                                                \
    Sides<u##BITS> {                                                                               \
        groups, first, n_targets, side_keys, side_starts, side_ends, side_cells, pooled != 0       \
    }

// Sorted keys, with every stride-th of them in shared memory.
template <class Key>
struct Searched {
    const Key* keys;
    i32 n;
    const Key* samples;
    i32 n_samples, stride;

    // The range of keys that is left to search once the samples give the bound `at`.
    __device__ void narrow(i32 at, i32& low, i32& size) const {
        low = at > 0 ? (at - 1) * stride + 1 : 0;
        size = (at < n_samples ? at * stride : n) - low;
    }
    __device__ i32 below(Key key) const {
        i32 low, size;
        narrow(lower_bound(samples, n_samples, key), low, size);
        return low + lower_bound(keys + low, size, key);
    }
    __device__ i32 up_to(Key key) const {
        i32 low, size;
        narrow(upper_bound(samples, n_samples, key), low, size);
        return low + upper_bound(keys + low, size, key);
    }
};

// The keys of `gene` in which entries of targets are searched for. Called by a whole block, which
// loads at most `most_samples` of them. If these are all keys, searches need no others.
template <class Key>
__device__ __forceinline__ Searched<Key> load_searched(const Sides<Key>& sides, i64 gene,
                                                       i32 most_samples, Key* samples) {
    Searched<Key> searched;
    searched.keys = sides.keys + sides.starts[gene];
    searched.n = static_cast<i32>(sides.ends[gene] - sides.starts[gene]);
    searched.stride = max(1, (searched.n + most_samples - 1) / most_samples);
    searched.n_samples = (searched.n + searched.stride - 1) / searched.stride;
    searched.samples = samples;
    for (i32 q = threadIdx.x; q < searched.n_samples; q += blockDim.x)
        samples[q] = searched.keys[static_cast<i64>(q) * searched.stride];
    __syncthreads();
    return searched;
}

// This block's share of the targets, one of n_parts per gene.
__device__ __forceinline__ void share_of_targets(i64 n_targets, i32 n_parts, i32& begin, i32& end) {
    const i64 part = blockIdx.x % n_parts;
    begin = static_cast<i32>(n_targets * part / n_parts);
    end = static_cast<i32>(n_targets * (part + 1) / n_parts);
}

// The place of a distinct value of a target: numbers of cells of the target (before, own) and of
// the other sample (below, equal) that are below it and equal to it.
struct Place {
    i64 before, own, below, equal;
};

// Calls work(cells of the target, row * C + gene, visit) for each target of this block, one target
// per warp at a time. visit(f) calls f(place) for each distinct value of the target, in some lane.
// A block takes an equal part of the targets, for gene blockIdx.x / n_parts.
// Dynamic shared memory: most_samples keys.
template <class Key, class Work>
__device__ __forceinline__ void each_target(const Key* keys, const i64* starts, const i64* n_cells,
                                            i64 n_genes, i32 kind, const Sides<Key>& sides,
                                            i32 n_parts, i32 most_samples, const Work& work) {
    DYNAMIC_SHARED(memory);
    const i64 gene = blockIdx.x / n_parts;
    const int lane = threadIdx.x % WARP;
    const Key zero = zero_key<Key>(kind);
    const Searched<Key> other =
        load_searched(sides, gene, most_samples, reinterpret_cast<Key*>(memory));
    const i64 other_zeros = sides.cells - other.n;
    const i64 other_negatives = other.below(zero);

    i32 begin, end;
    share_of_targets(sides.n_targets, n_parts, begin, end);
    for (i32 t = begin + threadIdx.x / WARP; t < end; t += blockDim.x / WARP) {
        const i64 group = sides.group(t), pair = group * n_genes + gene;
        const Key* target = keys + starts[pair];
        const i32 n = static_cast<i32>(starts[pair + n_genes] - starts[pair]);
        const i64 zeros = n_cells[group] - n;
        work(n_cells[group], t * n_genes + gene, [&](const auto& f) {
            const auto tell = [&](i64 before, i64 own, i64 below, i64 up_to) {
                Place place = {before, own, below, up_to - below};
                if (sides.pooled) {
                    place.below -= before;
                    place.equal -= own;
                }
                f(place);
            };
            for (i32 i = lane; i < n; i += WARP) {  // at the last of equal entries
                const Key key = target[i];
                if (i + 1 < n && target[i + 1] == key) continue;
                const i32 start = i > 0 && target[i - 1] == key ? lower_bound(target, i, key) : i;
                const i64 above = key > zero ? zeros : 0;
                const i64 other_above = key > zero ? other_zeros : 0;
                tell(start + above, i + 1 - start, other.below(key) + other_above,
                     other.up_to(key) + other_above);
            }
            if (lane == 0 && zeros > 0)
                tell(lower_bound(target, n, zero), zeros, other_negatives,
                     other_negatives + other_zeros);
        });
    }
}

#endif
