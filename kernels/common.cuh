// Shared by all kernels: types, order-preserving keys, searches, sums over a warp, wide sums.
//
// Notation: K groups, C genes of a slice, T targets of a contrast, n cells. The entries of
// (group g, gene j) are keys[starts[g * C + j]] to keys[starts[(g + 1) * C + j]], exclusive. So
// each gene is contiguous, and so is each group within it.
//
// Values become unsigned keys of 32 or 64 bits that sort as the values do. Zeros are never stored:
// their number in a group is n_cells[g] minus its entries, and they rank at zero_key(kind).

#ifndef PDEX_GPU_COMMON
#define PDEX_GPU_COMMON

typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define FULL 0xffffffffu
#define WARP 32

// --- keys ---------------------------------------------------------------------------------------

// The kind of value that a key was made from.
enum Kind { SIGNED = 0, UNSIGNED = 1, FLOATING = 2 };

// Types of stored values; the order is that of VALUE_TYPES in dtypes.py.
enum ValueType { U8, I8, U16, I16, U32, I32, F32, U64, I64, F64 };

// Types of stored indices; the order is that of INDEX_TYPES in dtypes.py.
enum IndexType { INDEX_U16, INDEX_I32, INDEX_I64 };

template <class Key>
struct Bits;

template <>
struct Bits<u32> {
    static const u32 TOP = 0x80000000u;
    static __device__ u32 of(float x) { return __float_as_uint(x); }
    static __device__ double floating(u32 bits) { return __uint_as_float(bits); }
    static __device__ double integer(u32 bits) { return static_cast<i32>(bits); }
};

template <>
struct Bits<u64> {
    static const u64 TOP = 0x8000000000000000ull;
    static __device__ u64 of(double x) { return static_cast<u64>(__double_as_longlong(x)); }
    static __device__ double floating(u64 bits) {
        return __longlong_as_double(static_cast<i64>(bits));
    }
    static __device__ double integer(u64 bits) {
        return static_cast<double>(static_cast<i64>(bits));
    }
};

// IEEE 754 numbers sort as integers once the sign bit is flipped and, if they are negative, all
// other bits as well.
template <class Key>
__device__ __forceinline__ Key float_key(Key bits) {
    return (bits & Bits<Key>::TOP) ? ~bits : (bits | Bits<Key>::TOP);
}

template <class Key>
__device__ __forceinline__ Key zero_key(i32 kind) {
    return kind == UNSIGNED ? Key(0) : Key(Bits<Key>::TOP);
}

template <class Key>
__device__ __forceinline__ double value_of(Key key, i32 kind) {
    const Key top = Bits<Key>::TOP;
    if (kind == UNSIGNED) return static_cast<double>(key);
    if (kind == SIGNED) return Bits<Key>::integer(key ^ top);
    return Bits<Key>::floating((key & top) ? (key ^ top) : ~key);
}

// The key of the value at `i`; zero_key for 0 and -0.0.
__device__ __forceinline__ u32 load_key(const void* values, i32 type, i64 i, u32) {
    switch (type) {
        case U8: return static_cast<const unsigned char*>(values)[i] ^ 0x80000000u;
        case I8: return static_cast<u32>(i32(static_cast<const signed char*>(values)[i])) ^ 0x80000000u;
        case U16: return static_cast<const unsigned short*>(values)[i] ^ 0x80000000u;
        case I16: return static_cast<u32>(i32(static_cast<const short*>(values)[i])) ^ 0x80000000u;
        case U32: return static_cast<const u32*>(values)[i];
        case I32: return static_cast<const u32*>(values)[i] ^ 0x80000000u;
        default: {
            const float x = static_cast<const float*>(values)[i];
            return x == 0.0f ? 0x80000000u : float_key(Bits<u32>::of(x));
        }
    }
}

__device__ __forceinline__ u64 load_key(const void* values, i32 type, i64 i, u64) {
    switch (type) {
        case U64: return static_cast<const u64*>(values)[i];
        case I64: return static_cast<const u64*>(values)[i] ^ 0x8000000000000000ull;
        default: {
            const double x = static_cast<const double*>(values)[i];
            return x == 0.0 ? 0x8000000000000000ull : float_key(Bits<u64>::of(x));
        }
    }
}

__device__ __forceinline__ i64 load_index(const void* indices, i32 type, i64 i) {
    switch (type) {
        case INDEX_U16: return static_cast<const unsigned short*>(indices)[i];
        case INDEX_I32: return static_cast<const i32*>(indices)[i];
        default: return static_cast<const i64*>(indices)[i];
    }
}

// --- searches -----------------------------------------------------------------------------------

// How many of the ascending keys[0 .. n) are below `key`.
template <class Key, class Index>
__device__ __forceinline__ Index lower_bound(const Key* keys, Index n, Key key) {
    Index low = 0;
    while (n > 0) {
        const Index half = n >> 1;
        if (keys[low + half] < key) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

// How many of the ascending keys[0 .. n) are not above `key`.
template <class Key, class Index>
__device__ __forceinline__ Index upper_bound(const Key* keys, Index n, Key key) {
    Index low = 0;
    while (n > 0) {
        const Index half = n >> 1;
        if (keys[low + half] <= key) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

// --- sums over a warp ---------------------------------------------------------------------------

// The sum over all lanes, in every lane, always added in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
    for (int step = WARP / 2; step > 0; step >>= 1) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

// The maximum over all lanes, in every lane.
template <class T>
__device__ __forceinline__ T warp_max(T x) {
    for (int step = WARP / 2; step > 0; step >>= 1) {
        const T other = __shfl_xor_sync(FULL, x, step);
        x = other > x ? other : x;
    }
    return x;
}

// --- wide sums ----------------------------------------------------------------------------------

// A sum of integers that may exceed 64 bits: high * 2^32 + low. Sums over 2^31 cells of t^3 - t, of
// cubes and of squared places fit.
struct Wide {
    u64 high, low;

    // Adds a * b, for b < 2^31.
    __device__ void add_product(u64 a, u64 b) {
        const u64 low_part = (a & 0xffffffffull) * b;
        high += (a >> 32) * b + (low_part >> 32);
        low += low_part & 0xffffffffull;
    }
    // Adds t^3 - t, for t < 2^31.
    __device__ void add_ties(u64 t) {
        if (t > 1) add_product(t * t - 1, t);
    }
    // Adds what one more equal cell adds to the term of m equal cells: (m+1)^3-(m+1) - (m^3-m).
    __device__ void add_one_more(u64 m) { add_product(m * (m + 1), 3); }

    // Both terms are exact, so their sum is rounded only once.
    __device__ double value() const {
        const u64 carried = high + (low >> 32), last_bits = 2047;
        const double rest = static_cast<double>(carried & last_bits) * 4294967296.0 +
                            static_cast<double>(low & 0xffffffffull);
        return static_cast<double>(carried & ~last_bits) * 4294967296.0 + rest;
    }
};

#endif
