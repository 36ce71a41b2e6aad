// Sorts each segment, the entries of a (group, gene) pair, in ascending order. Sorting pairs
// instead of whole genes needs no group codes next to the keys, and short segments are sorted in
// registers. rank_sums.cu merges them with the reference by searching.
//
// There are three ways, by length:
// * up to WARP_MOST keys: a warp, by a bitonic sort in registers (sort_warps);
// * up to a tile: a block, in shared memory (sort_tiles): warps sort runs of RUN keys, which are
//   then merged pairwise;
// * longer: tiles are sorted in the same way, then merged pairwise in device memory, back and forth
//   between two buffers (merge_runs), all segments of the groups that may need it in step.
// The host knows from the numbers of cells which groups may have long segments, so nothing has to
// come back from the device. Merging splits the output evenly by the merge path (Odeh et al. 2012;
// Green, McColl and Bader 2012), so work is balanced for any keys. Equal keys are interchangeable:
// the result does not depend on the order of the input.

#include "common.cuh"

#define PER_LANE 16
#define WARP_MOST (WARP * PER_LANE)  // SORTED_BY_WARP in pdex_gpu/backends/cuda/tiles.py
#define PER_LANE_OF_RUN 8            // a second instance of 16 would double the compile time
#define RUN (WARP * PER_LANE_OF_RUN)
#define PER_THREAD 8  // keys a thread merges at a time; divides RUN

// --- in registers -------------------------------------------------------------------------------

template <class Key>
__device__ __forceinline__ void order(Key& a, Key& b, bool ascending) {
    if ((a > b) == ascending) {
        const Key t = a;
        a = b;
        b = t;
    }
}

// Sorts 32 * M keys (Batcher 1968): element e is register e % M of lane e / M.
template <class Key, int M>
__device__ __forceinline__ void sort_registers(Key (&x)[M], int lane) {
#pragma unroll
    for (int k = 2; k <= WARP * M; k <<= 1) {
#pragma unroll
        for (int d = k >> 1; d > 0; d >>= 1) {
            if (d < M) {
#pragma unroll
                for (int r = 0; r < M; r++)
                    if ((r & d) == 0) order(x[r], x[r | d], ((lane * M + r) & k) == 0);
            } else {
#pragma unroll
                for (int r = 0; r < M; r++) {
                    const Key other = __shfl_xor_sync(FULL, x[r], d / M);
                    const bool lower = (lane & (d / M)) == 0;
                    const bool ascending = ((lane * M + r) & k) == 0;
                    x[r] = (lower == ascending) == (x[r] < other) ? x[r] : other;
                }
            }
        }
    }
}

// Sorts from[0 .. n), n <= 32 * M, into `to`, which may be the same array. Padded with the largest
// key; keys of the segment that are equal to it may trade places with the padding. Lanes are not
// synchronized at the end: before they read what others wrote, the caller does that.
template <class Key, int M>
__device__ __forceinline__ void sort_short(const Key* from, Key* to, int n, int lane) {
    Key x[M];
#pragma unroll
    for (int r = 0; r < M; r++) {
        const int i = r * WARP + lane;  // any order will do; this one is coalesced
        x[r] = i < n ? from[i] : ~Key(0);
    }
    sort_registers<Key, M>(x, lane);
    __syncwarp();
#pragma unroll
    for (int r = 0; r < M; r++)
        if (lane * M + r < n) to[lane * M + r] = x[r];
}

template <class Key>
__device__ void sort_in_warp(const Key* from, Key* to, int n, int lane) {
    if (n <= WARP)
        sort_short<Key, 1>(from, to, n, lane);
    else if (n <= 2 * WARP)
        sort_short<Key, 2>(from, to, n, lane);
    else if (n <= 4 * WARP)
        sort_short<Key, 4>(from, to, n, lane);
    else if (n <= 8 * WARP)
        sort_short<Key, 8>(from, to, n, lane);
    else
        sort_short<Key, PER_LANE>(from, to, n, lane);
}

// One warp per segment; segments in memory order. Longer ones are left as they are.
template <class Key>
__device__ void sort_warps(Key* keys, const i64* starts, i64 n_groups, i64 n_genes) {
    const i64 segment = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (segment >= n_groups * n_genes) return;
    const i64 pair = segment % n_groups * n_genes + segment / n_groups;
    const i64 start = starts[pair];
    const i64 n = starts[pair + n_genes] - start;
    if (n > 1 && n <= WARP_MOST)
        sort_in_warp(keys + start, keys + start, static_cast<int>(n), threadIdx.x % WARP);
}

// --- merging ------------------------------------------------------------------------------------

// How many of the first `diagonal` keys of the merged a[0 .. na) and b[0 .. nb) come from a.
template <class Key, class Index>
__device__ __forceinline__ Index merge_path(const Key* a, Index na, const Key* b, Index nb,
                                            Index diagonal) {
    Index low = diagonal > nb ? diagonal - nb : 0;
    Index high = diagonal < na ? diagonal : na;
    while (low < high) {
        const Index middle = (low + high) >> 1;
        if (a[middle] <= b[diagonal - 1 - middle])
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Writes keys [first, first + PER_THREAD) of the merged a[0 .. na) and b[0 .. nb).
template <class Key>
__device__ __forceinline__ void merge_some(const Key* a, int na, const Key* b, int nb, int first,
                                           Key* to) {
    int i = merge_path(a, na, b, nb, first);
    int j = first - i;
    const int last = min(first + PER_THREAD, na + nb);
    for (int k = first; k < last; k++) {
        const bool from_a = j >= nb || (i < na && a[i] <= b[j]);
        to[k] = from_a ? a[i] : b[j];
        i += from_a;
        j += !from_a;
    }
}

// --- tiles --------------------------------------------------------------------------------------

// A block takes gene blockIdx.x % C and item blockIdx.x / C of `items`, pairs (group, tile). Sorts
// keys [tile * tile_size, ...) of the segment, from `keys` to `sorted`, which may be the same
// array. In the first `n_short` items, segments that a warp sorts are left as they are.
// Dynamic shared memory: 2 * tile_size keys. tile_size is a multiple of RUN, at least WARP_MOST.
template <class Key>
__device__ void sort_tiles(const Key* keys, Key* sorted, const i64* starts, const i32* items,
                           i64 n_short, i64 n_genes, i32 tile_size) {
    DYNAMIC_SHARED(memory);
    Key* from = reinterpret_cast<Key*>(memory);
    Key* to = from + tile_size;
    const i64 item = blockIdx.x / n_genes, gene = blockIdx.x % n_genes;
    const i64 pair = items[2 * item] * n_genes + gene;
    const i64 length = starts[pair + n_genes] - starts[pair];
    if (item < n_short && length <= WARP_MOST) return;
    const i64 before = static_cast<i64>(items[2 * item + 1]) * tile_size;
    if (before >= length) return;
    const i64 start = starts[pair] + before;
    const int n = static_cast<int>(min(length - before, static_cast<i64>(tile_size)));

    const int lane = threadIdx.x % WARP;
    for (int run = threadIdx.x / WARP * RUN; run < n; run += blockDim.x * PER_LANE_OF_RUN)
        sort_short<Key, PER_LANE_OF_RUN>(keys + start + run, from + run, min(n - run, RUN), lane);
    __syncthreads();
    for (int run = RUN; run < n; run *= 2) {
        for (int first = threadIdx.x * PER_THREAD; first < n; first += blockDim.x * PER_THREAD) {
            const int left = first / (2 * run) * (2 * run);
            const int middle = min(left + run, n), right = min(left + 2 * run, n);
            merge_some(from + left, middle - left, from + middle, right - middle, first - left,
                       to + left);
        }
        __syncthreads();
        Key* const t = from;
        from = to;
        to = t;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) sorted[start + i] = from[i];
}

// --- device memory ------------------------------------------------------------------------------

// A block takes gene blockIdx.x % C and item blockIdx.x / C of `items`, pairs (group, tile). Runs
// of `run` sorted keys become runs of 2 * run; a block writes tile_size keys of them. `run` is a
// multiple of tile_size, so a tile lies in one pair of runs.
// Dynamic shared memory: 2 * tile_size keys, for the input and the output of the merge.
template <class Key>
__device__ void merge_runs(const Key* keys, Key* merged, const i64* starts, const i32* items,
                           i64 n_genes, i64 run, i32 tile_size) {
    DYNAMIC_SHARED(memory);
    Key* from = reinterpret_cast<Key*>(memory);
    Key* to = from + tile_size;
    __shared__ i64 cuts[2];
    const i64 item = blockIdx.x / n_genes;
    const i64 pair = items[2 * item] * n_genes + blockIdx.x % n_genes;
    const i64 start = starts[pair];
    const i64 length = starts[pair + n_genes] - start;
    const i64 first = static_cast<i64>(items[2 * item + 1]) * tile_size;
    if (first >= length) return;
    const i64 last = min(first + tile_size, length);

    const i64 left = first / (2 * run) * (2 * run);  // start of the pair of runs with this tile
    const i64 middle = min(left + run, length), right = min(left + 2 * run, length);
    const Key* a = keys + start + left;
    const Key* b = keys + start + middle;
    const i64 na = middle - left, nb = right - middle;
    if (threadIdx.x < 2)
        cuts[threadIdx.x] = merge_path(a, na, b, nb, (threadIdx.x ? last : first) - left);
    __syncthreads();
    const i64 a0 = cuts[0], b0 = first - left - a0;
    const int n_a = static_cast<int>(cuts[1] - a0);
    const int n = static_cast<int>(last - first);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        from[i] = i < n_a ? a[a0 + i] : b[b0 + i - n_a];
    __syncthreads();
    for (int k = threadIdx.x * PER_THREAD; k < n; k += blockDim.x * PER_THREAD)
        merge_some(from, n_a, from + n_a, n - n_a, k, to);
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) merged[start + first + i] = to[i];
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void sort_warps_##BITS(u##BITS* keys, const i64* starts, i64 n_groups,   \
                                                 i64 n_genes) {                                    \
        sort_warps(keys, starts, n_groups, n_genes);                                               \
    }                                                                                              \
    extern "C" __global__ void sort_tiles_##BITS(                                                  \
        const u##BITS* keys, u##BITS* sorted, const i64* starts, const i32* items, i64 n_short,    \
        i64 n_genes, i32 tile_size) {                                                              \
        sort_tiles(keys, sorted, starts, items, n_short, n_genes, tile_size);                      \
    }                                                                                              \
    extern "C" __global__ void merge_runs_##BITS(const u##BITS* keys, u##BITS* merged,             \
                                                 const i64* starts, const i32* items, i64 n_genes, \
                                                 i64 run, i32 tile_size) {                         \
        merge_runs(keys, merged, starts, items, n_genes, run, tile_size);                          \
    }

KERNELS(32)
KERNELS(64)
