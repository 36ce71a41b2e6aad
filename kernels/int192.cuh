// Whole numbers of 192 bits: exact products of 128-bit numbers. Overflowing bits are lost, so a sum
// is exact whenever its final value fits. pdex_gpu/backends/cpu/int192.py does the same.

#ifndef PDEX_GPU_INT192
#define PDEX_GPU_INT192

#include "int128.cuh"

// (high * 2^64 + middle) * 2^64 + low, in two's complement.
struct Int192 {
    u64 high, middle, low;
};

__device__ __forceinline__ Int192 operator+(Int192 a, Int192 b) {
    const Int128 low = Int128{0, a.low} + Int128{0, b.low};
    const Int128 middle = Int128{0, a.middle} + Int128{0, b.middle} + Int128{0, low.high};
    return {a.high + b.high + middle.high, middle.low, low.low};
}

__device__ __forceinline__ Int192 operator-(Int192 a, Int192 b) {
    return a + Int192{~b.high, ~b.middle, ~b.low} + Int192{0, 0, 1};
}

__device__ __forceinline__ Int192 operator*(Int192 a, u64 b) {
    const Int128 low = Int128{0, a.low} * b;
    const Int128 middle = Int128{0, a.middle} * b + Int128{0, low.high};
    return {a.high * b + middle.high, middle.low, low.low};
}

// A 128-bit number that is not negative, in 192 bits.
__device__ __forceinline__ Int192 widened(Int128 x) { return {0, x.high, x.low}; }

// The number as a float64, within three roundings; 0 if it is negative.
__device__ __forceinline__ double as_float(Int192 x) {
    if (x.high >> 63) return 0.0;
    return static_cast<double>(x.high) * 340282366920938463463374607431768211456.0 +
           static_cast<double>(x.middle) * 18446744073709551616.0 + static_cast<double>(x.low);
}

__device__ __forceinline__ Int192 shuffle_up(Int192 x, int step) {
    return {__shfl_up_sync(FULL, x.high, step), __shfl_up_sync(FULL, x.middle, step),
            __shfl_up_sync(FULL, x.low, step)};
}

// The sum over all lanes, in every lane.
__device__ __forceinline__ Int192 warp_sum(Int192 x) {
    for (int step = WARP / 2; step > 0; step >>= 1)
        x = x + Int192{__shfl_xor_sync(FULL, x.high, step), __shfl_xor_sync(FULL, x.middle, step),
                       __shfl_xor_sync(FULL, x.low, step)};
    return x;
}

#endif
