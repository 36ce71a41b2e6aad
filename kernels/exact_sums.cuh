// Sums of float64 that do not depend on the order of their terms.
//
// Each term is rounded to a multiple of a unit that is large enough for sums of multiples to be
// exact. The remainder is rounded to a multiple of a second unit, 2^52 / n times smaller (Demmel
// and Nguyen 2015, with two folds). For n terms of at most `bound`, what is left out adds up to
// less than bound n^3 2^-102. pdex_gpu/backends/cpu/exact_sums.py gives the same bits.

#ifndef PDEX_GPU_EXACT_SUMS
#define PDEX_GPU_EXACT_SUMS

#include "double_double.cuh"

// The binary exponent of x, which is not negative; 1024 if x is not finite.
__device__ __forceinline__ i32 exponent_of(double x) {
    return static_cast<i32>(__double_as_longlong(x) >> 52) - 1023;
}

// A number that rounds to multiples of 2^(exponent - 52) when it is added and then subtracted.
__device__ __forceinline__ double fold(i32 exponent) {
    const i64 biased = max(exponent, -1022) + 1023;
    return __longlong_as_double((biased << 52) + (1ll << 51));
}

// The sum of at most n terms that are distributed over the lanes of a warp. Their magnitudes add up
// to at most n * bound; if that is too large or not finite, this is a plain sum.
struct ExactSum {
    double first, second, high, low;

    __device__ ExactSum(double bound, double n) : first(0.0), second(0.0), high(0.0), low(0.0) {
        const i32 n_bits = exponent_of(n) + 1, exponent = exponent_of(bound) + n_bits + 2;
        if (exponent > 1023) return;
        first = fold(exponent);
        second = fold(max(exponent, -1022) - 52 + n_bits);
    }
    __device__ void add(double term) {
        const double rounded = (term + first) - first;
        high += rounded;
        if (first != 0.0) low += ((term - rounded) + second) - second;
    }
    // The sum over all lanes, as two numbers, in every lane.
    __device__ Twofold of_warp() const { return {warp_sum(high), warp_sum(low)}; }
};

#endif
