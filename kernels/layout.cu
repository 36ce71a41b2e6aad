// Turns a stored matrix (CSR, CSC, dense) into the keys of a slice of genes, gene by gene and group
// by group within a gene. Three steps: count the entries of every (group, gene), sum the counts to
// places (offsets.cu), scatter the keys. The order of the entries of one (group, gene) is arbitrary
// until they are sorted.
//
// Zeros and cells of no group (code -1) are left out. Places are 64-bit because a matrix may hold
// more than 2^31 entries.
//
// Shapes: codes (cells,), the group of each cell; order (selected cells,), cells in group order;
// counts (K, C); starts (K + 1, C); row_ptr (cells + 1,), col_ptr (genes + 1,); entries (genes,) of
// the whole range. The genes of a slice are [first, first + C) of the range. value_type and
// index_type give the types of values and indices.
//
// Shared memory: none. Atomics are on integers only.

#include "common.cuh"

// status[0]: an index is out of range, unsorted or repeated.
// status[1]: a value has a fractional part above 0.001 (LOG1P_EPSILON in contract.py).
// status[2 .. 4]: the first NaN, +infinity and -infinity, as cell * n_genes + gene.
// status[5], status[6]: keys of the smallest and the largest value, initially zero_key(kind).
#define BAD_INDEX 0
#define FRACTIONAL 1
#define FIRST_NAN 2
#define FIRST_PLUS 3
#define FIRST_MINUS 4
#define SMALLEST 5
#define LARGEST 6

// What one thread finds while checking; merged into status once, at its end.
struct Found {
    bool bad_index = false, fractional = false;
    u64 smallest = ~0ull, largest = 0;

    __device__ void merge(u64* status) const {
        raise(bad_index, &status[BAD_INDEX]);
        raise(fractional, &status[FRACTIONAL]);
        raise(largest, &status[LARGEST]);
        u64* lowest = &status[SMALLEST];
        if (smallest < *static_cast<volatile u64*>(lowest)) atomicMin(lowest, smallest);
    }
    // Reads first, because millions of atomics on one address would queue.
    static __device__ void raise(u64 found, u64* flag) {
        if (found > *static_cast<volatile u64*>(flag)) atomicMax(flag, found);
    }
    __device__ void see(u64 key) {
        smallest = min(smallest, key);
        largest = max(largest, key);
    }
};

// Checks one value; returns whether it is an entry (not zero).
__device__ __forceinline__ bool look(const void* values, i32 type, i64 i, u64 place, Found& found,
                                     u64* status) {
    const bool wide = type == U64 || type == I64 || type == F64;
    const u64 key = wide ? load_key(values, type, i, u64(0)) : load_key(values, type, i, u32(0));
    double x, limit;
    if (type == F32) {
        x = static_cast<const float*>(values)[i];
        limit = static_cast<double>(1e-3f);  // in the precision of the values
    } else if (type == F64) {
        x = static_cast<const double*>(values)[i];
        limit = 1e-3;
    } else {
        found.see(key);
        const i32 kind = type == U32 || type == U64 ? UNSIGNED : SIGNED;
        return key != (wide ? zero_key<u64>(kind) : zero_key<u32>(kind));
    }
    if (isfinite(x)) {
        found.fractional |= x - trunc(x) > limit;
        found.see(key);
    } else {
        const int which = x != x ? FIRST_NAN : x > 0 ? FIRST_PLUS : FIRST_MINUS;
        atomicMin(&status[which], place);
    }
    return x != 0.0;
}

// One warp per cell. Checks that its indices rise and lie in [0, n_genes), and that its values are
// finite. Counts the entries per gene. Cell c holds entries row_ptr[c] to row_ptr[c + 1].
extern "C" __global__ void check_rows(const void* values, i32 value_type, const void* indices,
                                      i32 index_type, const i64* row_ptr, const i32* codes,
                                      i64 n_cells, i64 n_genes, u64* status, u64* entries) {
    const i64 cell = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    if (cell >= n_cells || codes[cell] < 0) return;
    Found found;
    const i64 start = row_ptr[cell], stop = row_ptr[cell + 1];
    for (i64 i = start + lane; i < stop; i += WARP) {
        const i64 gene = load_index(indices, index_type, i);
        if (gene < 0 || gene >= n_genes ||
            (i > start && load_index(indices, index_type, i - 1) >= gene)) {
            found.bad_index = true;
        } else if (look(values, value_type, i, static_cast<u64>(cell * n_genes + gene), found,
                        status)) {
            atomicAdd(&entries[gene], 1ull);
        }
    }
    found.merge(status);
}

// One thread per selected cell. spans (cells, 2): where the cell's entries of genes [first, last)
// begin and end.
extern "C" __global__ void find_rows(const void* indices, i32 index_type, const i64* row_ptr,
                                     const i32* order, i64 n_selected, i64 first, i64 last,
                                     i64* spans) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= n_selected) return;
    const i64 cell = order[at];
    i64 low = row_ptr[cell];
    const i64 stop = row_ptr[cell + 1];
    for (int edge = 0; edge < 2; edge++) {
        const i64 gene = edge ? last : first;
        i64 n = stop - low;
        while (n > 0) {
            const i64 half = n >> 1;
            if (load_index(indices, index_type, low + half) < gene) {
                low += half + 1;
                n -= half + 1;
            } else {
                n = half;
            }
        }
        spans[2 * at + edge] = low;
    }
}

// Counts an entry of (group, gene).
template <class Key>
struct Count {
    const void* values;
    i32 type, kind;
    u32* counts;
    i64 n_genes;

    __device__ void operator()(i64 i, i64 group, i64 gene) const {
        if (load_key(values, type, i, Key(0)) != zero_key<Key>(kind))
            atomicAdd(&counts[group * n_genes + gene], 1u);
    }
};

// Writes the key of an entry to the next place of its (group, gene), from the last place down, so
// that counts are zero again at the end.
template <class Key>
struct Scatter {
    const void* values;
    i32 type, kind;
    u32* counts;
    const i64* starts;
    i64 n_genes;
    Key* keys;

    __device__ void operator()(i64 i, i64 group, i64 gene) const {
        const Key key = load_key(values, type, i, Key(0));
        if (key == zero_key<Key>(kind)) return;
        const i64 pair = group * n_genes + gene;
        keys[starts[pair] + (atomicSub(&counts[pair], 1u) - 1)] = key;
    }
};

// One warp per selected cell, in group order, so that concurrent writes lie close together.
template <class Visit>
__device__ void visit_rows(const void* indices, i32 index_type, const i64* spans, const i32* order,
                           const i32* codes, i64 n_selected, i64 first, const Visit& visit) {
    const i64 at = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (at >= n_selected) return;
    const i64 group = codes[order[at]];
    const i64 stop = spans[2 * at + 1];
    for (i64 i = spans[2 * at] + threadIdx.x % WARP; i < stop; i += WARP)
        visit(i, group, load_index(indices, index_type, i) - first);
}

// Several blocks share each gene: block b takes piece b % n_pieces of gene first + b / n_pieces.
// A piece has `piece` entries; a thread takes every blockDim-th of them.
template <class Visit>
__device__ void visit_columns(const void* indices, i32 index_type, const i64* col_ptr,
                              const i32* codes, i64 first, i64 n_pieces, i64 piece,
                              const Visit& visit) {
    const i64 gene = blockIdx.x / n_pieces;
    const i64 start = col_ptr[first + gene] + (blockIdx.x % n_pieces) * piece;
    const i64 stop = min(col_ptr[first + gene + 1], start + piece);
    for (i64 i = start + threadIdx.x; i < stop; i += blockDim.x) {
        const i32 group = codes[load_index(indices, index_type, i)];
        if (group >= 0) visit(i, static_cast<i64>(group), gene);
    }
}

// One thread per element of cells x genes [first, first + n_genes); adjacent threads take elements
// that are adjacent in memory. Strides are in elements.
template <class Visit>
__device__ void visit_dense(const i32* codes, i64 n_cells, i64 n_genes, i64 first, i64 cell_stride,
                            i64 gene_stride, const Visit& visit) {
    const i64 e = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= n_cells * n_genes) return;
    const bool along_genes = gene_stride <= cell_stride;
    const i64 cell = along_genes ? e / n_genes : e % n_cells;
    const i64 gene = along_genes ? e % n_genes : e / n_cells;
    const i32 group = codes[cell];
    if (group >= 0)
        visit(cell * cell_stride + (first + gene) * gene_stride, static_cast<i64>(group), gene);
}

// Like check_rows, for columns: blocks share genes as in visit_columns.
extern "C" __global__ void check_columns(const void* values, i32 value_type, const void* indices,
                                         i32 index_type, const i64* col_ptr, const i32* codes,
                                         i64 n_cells, i64 n_genes, i64 n_pieces, i64 piece,
                                         u64* status, u64* entries) {
    const i64 gene = blockIdx.x / n_pieces;
    const i64 begin = col_ptr[gene];
    const i64 start = begin + (blockIdx.x % n_pieces) * piece;
    const i64 stop = min(col_ptr[gene + 1], start + piece);
    Found found;
    u64 n = 0;
    for (i64 i = start + threadIdx.x; i < stop; i += blockDim.x) {
        const i64 cell = load_index(indices, index_type, i);
        if (cell < 0 || cell >= n_cells ||
            (i > begin && load_index(indices, index_type, i - 1) >= cell)) {
            found.bad_index = true;
        } else if (codes[cell] >= 0) {
            n += look(values, value_type, i, static_cast<u64>(cell * n_genes + gene), found,
                      status);
        }
    }
    found.merge(status);
    n = warp_sum(n);
    if (threadIdx.x % WARP == 0 && n > 0) atomicAdd(&entries[gene], n);
}

// Like check_rows, for a dense matrix: one thread per element, as in visit_dense.
extern "C" __global__ void check_dense(const void* values, i32 value_type, const i32* codes,
                                       i64 n_cells, i64 n_genes, i64 cell_stride, i64 gene_stride,
                                       u64* status, u64* entries) {
    const i64 e = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= n_cells * n_genes) return;
    const bool along_genes = gene_stride <= cell_stride;
    const i64 cell = along_genes ? e / n_genes : e % n_cells;
    const i64 gene = along_genes ? e % n_genes : e / n_cells;
    if (codes[cell] < 0) return;
    Found found;
    if (look(values, value_type, cell * cell_stride + gene * gene_stride,
             static_cast<u64>(cell * n_genes + gene), found, status))
        atomicAdd(&entries[gene], 1ull);
    found.merge(status);
}

#define KERNELS(BITS)                                                                              \
    extern "C" __global__ void count_rows_##BITS(                                                  \
        const void* values, i32 value_type, i32 kind, const void* indices, i32 index_type,         \
        const i64* spans, const i32* order, const i32* codes, i64 n_selected, i64 first,           \
        i64 n_genes, u32* counts) {                                                                \
        visit_rows(indices, index_type, spans, order, codes, n_selected, first,                    \
                   Count<u##BITS>{values, value_type, kind, counts, n_genes});                     \
    }                                                                                              \
    extern "C" __global__ void scatter_rows_##BITS(                                                \
        const void* values, i32 value_type, i32 kind, const void* indices, i32 index_type,         \
        const i64* spans, const i32* order, const i32* codes, i64 n_selected, i64 first,           \
        i64 n_genes, u32* counts, const i64* starts, u##BITS* keys) {                              \
        visit_rows(indices, index_type, spans, order, codes, n_selected, first,                    \
                   Scatter<u##BITS>{values, value_type, kind, counts, starts, n_genes, keys});     \
    }                                                                                              \
    extern "C" __global__ void count_columns_##BITS(                                               \
        const void* values, i32 value_type, i32 kind, const void* indices, i32 index_type,         \
        const i64* col_ptr, const i32* codes, i64 first, i64 n_pieces, i64 piece, i64 n_genes,     \
        u32* counts) {                                                                             \
        visit_columns(indices, index_type, col_ptr, codes, first, n_pieces, piece,                 \
                      Count<u##BITS>{values, value_type, kind, counts, n_genes});                  \
    }                                                                                              \
    extern "C" __global__ void scatter_columns_##BITS(                                             \
        const void* values, i32 value_type, i32 kind, const void* indices, i32 index_type,         \
        const i64* col_ptr, const i32* codes, i64 first, i64 n_pieces, i64 piece, i64 n_genes,     \
        u32* counts, const i64* starts, u##BITS* keys) {                                           \
        visit_columns(indices, index_type, col_ptr, codes, first, n_pieces, piece,                 \
                      Scatter<u##BITS>{values, value_type, kind, counts, starts, n_genes, keys});  \
    }                                                                                              \
    extern "C" __global__ void count_dense_##BITS(                                                 \
        const void* values, i32 value_type, i32 kind, const i32* codes, i64 n_cells, i64 first,    \
        i64 cell_stride, i64 gene_stride, i64 n_genes, u32* counts) {                              \
        visit_dense(codes, n_cells, n_genes, first, cell_stride, gene_stride,                      \
                    Count<u##BITS>{values, value_type, kind, counts, n_genes});                    \
    }                                                                                              \
    extern "C" __global__ void scatter_dense_##BITS(                                               \
        const void* values, i32 value_type, i32 kind, const i32* codes, i64 n_cells, i64 first,    \
        i64 cell_stride, i64 gene_stride, i64 n_genes, u32* counts, const i64* starts,             \
        u##BITS* keys) {                                                                           \
        visit_dense(codes, n_cells, n_genes, first, cell_stride, gene_stride,                      \
                    Scatter<u##BITS>{values, value_type, kind, counts, starts, n_genes, keys});    \
    }

KERNELS(32)
KERNELS(64)
