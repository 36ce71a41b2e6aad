// Whole numbers of 128 bits: exact sums of products. Overflowing bits are lost, so a sum is exact
// whenever its final value fits. pdex_gpu/backends/cpu/int128.py does the same.

#ifndef PDEX_GPU_INT128
#define PDEX_GPU_INT128

#include "double_double.cuh"

// high * 2^64 + low, with high in two's complement.
struct Int128 {
    u64 high, low;
};

__device__ __forceinline__ Int128 operator+(Int128 a, Int128 b) {
    const u64 low = a.low + b.low;
    return {a.high + b.high + (low < a.low), low};
}

__device__ __forceinline__ Int128 operator-(Int128 a, Int128 b) {
    return {a.high - b.high - (a.low < b.low), a.low - b.low};
}

__device__ __forceinline__ Int128 operator*(Int128 a, u64 b) {
    return {a.high * b + __umul64hi(a.low, b), a.low * b};
}

#define HALF_BITS 60  // bits in the lower of a number's two parts

// floor(x * 2^scale), for x that is not negative.
__device__ __forceinline__ Int128 whole(double x, i32 scale) {
    const double upper = ldexp(x, scale - HALF_BITS), high = floor(upper);
    return Int128{0, static_cast<u64>((upper - high) * static_cast<double>(1ll << HALF_BITS))} +
           Int128{0, 1ull << HALF_BITS} * static_cast<u64>(high);
}

// A number that is not negative, as the sum of two float64.
__device__ __forceinline__ Twofold as_double(Int128 x) {
    const Twofold top = two_sum(static_cast<double>(x.high >> 32) * 79228162514264337593543950336.0,
                                static_cast<double>(x.high & FULL) * 18446744073709551616.0);
    return top + Twofold{static_cast<double>(x.low >> 32) * 4294967296.0, 0.0} +
           Twofold{static_cast<double>(x.low & FULL), 0.0};
}

__device__ __forceinline__ Int128 shuffle_up(Int128 x, int step) {
    return {__shfl_up_sync(FULL, x.high, step), __shfl_up_sync(FULL, x.low, step)};
}

// The sum over all lanes, in every lane.
__device__ __forceinline__ Int128 warp_sum(Int128 x) {
    for (int step = WARP / 2; step > 0; step >>= 1)
        x = x + Int128{__shfl_xor_sync(FULL, x.high, step), __shfl_xor_sync(FULL, x.low, step)};
    return x;
}

#endif
