// expm1 and log1p by additions, multiplications and divisions only, which round the same
// everywhere. pdex_gpu/utils/elementary.py gives the same bits, and states their errors.

#ifndef PDEX_GPU_TRANSFORMS
#define PDEX_GPU_TRANSFORMS

#include "common.cuh"

// ln 2 in two parts (fdlibm, e_exp.c).
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define PER_LN2 1.4426950408889634
#define LARGEST 710.0  // where the exponential is infinite

__device__ __forceinline__ double portable_expm1(double x) {
    x = x > LARGEST ? LARGEST : (x < -50.0 ? -50.0 : x);
    const double to_integer = 1.5 * 4503599627370496.0;
    const double rounded = x * PER_LN2 + to_integer;
    const double k = rounded - to_integer;
    const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r;
    const i64 exponent = __double_as_longlong(rounded) - __double_as_longlong(to_integer) + 1022;
    const double half = __longlong_as_double(exponent * (1ll << 52));
    return 2.0 * (p * half + (half - 0.5));
}

__device__ __forceinline__ double portable_log1p(double x) {
    const double u = 1.0 + x, part = u - 1.0;
    if (!(u > 0.0)) return __longlong_as_double(u == 0.0 ? 0xfff0000000000000ll : 0x7ff8000000000000ll);
    const double c = ((1.0 - (u - part)) + (x - part)) / u;
    const i64 bits = __double_as_longlong(u);
    const i64 k = ((bits + 0x95f6200000000ll) >> 52) - 1023;
    const double f = __longlong_as_double(bits - k * (1ll << 52)) - 1.0;
    const double s = f / (2.0 + f), z = s * s, w = z * z, half_square = 0.5 * f * f;
    const double odd = z * (6.666666666666735130e-01 +
                            w * (2.857142874366239149e-01 +
                                 w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    const double even = w * (3.999999999940941908e-01 +
                             w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    const double n = static_cast<double>(k);
    return s * (half_square + (odd + even)) + (n * LN2_LOW + c) - half_square + f + n * LN2_HIGH;
}

// An upper bound of |portable_expm1(x)| for all x from `smallest` to `largest`.
__device__ __forceinline__ double bound_of_expm1(double smallest, double largest) {
    if (largest < 1.0) return 2.0 * fmax(fmin(fabs(smallest), 1.0), fabs(largest));
    const i64 exponent = static_cast<i64>(fmin(largest, LARGEST) * PER_LN2) + 1;
    return __longlong_as_double((min(exponent, 1023ll) + 1023) << 52);
}

// An upper bound of |portable_log1p(x)| for all x from `smallest` to `largest`.
__device__ __forceinline__ double bound_of_log1p(double smallest, double largest) {
    if (smallest <= -1.0) return __longlong_as_double(0x7ff0000000000000ll);
    if (smallest < -0.5) return 1024.0;
    return fmin(2.0 * fmax(fabs(smallest), fabs(largest)), 1024.0);
}

#endif
