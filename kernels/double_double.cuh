// Sums and products of twice the precision of float64, from error-free transforms (Dekker 1971;
// Hida, Li and Bailey 2001). wide.py has the same additions and products.

#ifndef PDEX_GPU_DOUBLE_DOUBLE
#define PDEX_GPU_DOUBLE_DOUBLE

#include "common.cuh"

// high + low, where low is at most half a unit in the last place of high.
struct Twofold {
    double high, low;
};

__device__ __forceinline__ Twofold quick_two_sum(double a, double b) {  // |a| >= |b|
    const double s = a + b;
    return {s, b - (s - a)};
}

__device__ __forceinline__ Twofold two_sum(double a, double b) {
    const double s = a + b, part = s - a;
    return {s, (a - (s - part)) + (b - part)};
}

__device__ __forceinline__ Twofold product(double a, double b) {  // exact
    const double p = a * b;
    return {p, __fma_rn(a, b, -p)};
}

// The same bits whichever comes first.
__device__ __forceinline__ Twofold operator+(Twofold a, Twofold b) {
    const Twofold s = two_sum(a.high, b.high);
    return quick_two_sum(s.high, s.low + (a.low + b.low));
}

__device__ __forceinline__ Twofold operator-(Twofold a) { return {-a.high, -a.low}; }

__device__ __forceinline__ Twofold operator-(Twofold a, Twofold b) { return a + -b; }

__device__ __forceinline__ Twofold operator*(Twofold a, double b) {
    const Twofold p = product(a.high, b);
    return quick_two_sum(p.high, p.low + a.low * b);
}

__device__ __forceinline__ Twofold reciprocal(double a) {
    const double q = 1.0 / a;
    return quick_two_sum(q, __fma_rn(-q, a, 1.0) / a);
}

// The sum over all lanes, in every lane, always added in the same order.
__device__ __forceinline__ Twofold warp_sum(Twofold x) {
    for (int step = WARP / 2; step > 0; step >>= 1)
        x = x + Twofold{__shfl_xor_sync(FULL, x.high, step), __shfl_xor_sync(FULL, x.low, step)};
    return x;
}

__device__ __forceinline__ Twofold shuffle_up(Twofold x, int step) {
    return {__shfl_up_sync(FULL, x.high, step), __shfl_up_sync(FULL, x.low, step)};
}

#endif
