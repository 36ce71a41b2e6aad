// Sums and products with twice the precision of float64, by error-free transforms (Dekker 1971;
// Hida, Li and Bailey 2001). pdex_gpu/backends/cpu/int128.py has the same additions and
// products.

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

// Gives the same bits if a and b are swapped.
__device__ __forceinline__ Twofold operator+(Twofold a, Twofold b) {
    const Twofold s = two_sum(a.high, b.high);
    return quick_two_sum(s.high, s.low + (a.low + b.low));
}

__device__ __forceinline__ Twofold operator*(Twofold a, double b) {
    const Twofold p = product(a.high, b);
    return quick_two_sum(p.high, p.low + a.low * b);
}

#endif
