// Operations on a pair of numbers, one row of results for each.

typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

extern "C" __global__ void integers(const int* a, const int* b, i64* out) {
    const int n = blockDim.x, t = threadIdx.x, x = a[t], y = b[t];
    const u32 ux = x, uy = y;
    u32 left, right, field, inserted;
    int arithmetic, signed_field;
    asm("shl.b32 %0, %1, %2;" : "=r"(left) : "r"(ux), "r"(uy));
    asm("shr.u32 %0, %1, %2;" : "=r"(right) : "r"(ux), "r"(uy));
    asm("shr.s32 %0, %1, %2;" : "=r"(arithmetic) : "r"(x), "r"(uy));
    asm("bfe.u32 %0, %1, 5, 9;" : "=r"(field) : "r"(ux));
    asm("bfe.s32 %0, %1, 5, 9;" : "=r"(signed_field) : "r"(x));
    asm("bfi.b32 %0, %1, %2, 4, 7;" : "=r"(inserted) : "r"(ux), "r"(uy));
    const i64 found[] = {
        y ? x / y : 0, y ? x % y : 0, uy ? ux / uy : 0, __mulhi(x, y), __umulhi(ux, uy),
        static_cast<i64>(x) * y, static_cast<i64>(static_cast<u64>(ux) * uy), min(x, y),
        max(ux, uy), __clz(x), __popc(x), abs(x), left, right, arithmetic, field, signed_field,
        inserted, x < y, ux <= uy, static_cast<short>(x), static_cast<unsigned char>(x)};
    for (int k = 0; k < sizeof(found) / sizeof(i64); k++) out[k * n + t] = found[k];
}

extern "C" __global__ void wide(const i64* a, const i64* b, i64* out) {
    const int n = blockDim.x, t = threadIdx.x;
    const i64 x = a[t], y = b[t];
    const u64 ux = x, uy = y;
    const i64 found[] = {y ? x / y : 0, y ? x % y : 0, x * y, __mul64hi(x, y),
                         static_cast<i64>(__umul64hi(ux, uy)), __clzll(x), __popcll(x), min(x, y),
                         static_cast<i64>(max(ux, uy)), x >> 7, static_cast<i64>(ux >> 7),
                         static_cast<int>(x)};
    for (int k = 0; k < sizeof(found) / sizeof(i64); k++) out[k * n + t] = found[k];
}

extern "C" __global__ void floats(const double* a, const double* b, double* out) {
    const int n = blockDim.x, t = threadIdx.x;
    const double x = a[t], y = b[t];
    const double found[] = {x + y, x * y, x / y, fma(x, y, x), sqrt(x), fmin(x, y), fmax(x, y),
                            floor(x), ceil(x), trunc(x), rint(x), fabs(x), static_cast<float>(x),
                            1.0 / y, x < y, x != y, !(x >= y), isnan(x)};
    for (int k = 0; k < sizeof(found) / sizeof(double); k++) out[k * n + t] = found[k];
}

extern "C" __global__ void conversions(const double* a, i64* out) {
    const int n = blockDim.x, t = threadIdx.x;
    const double x = a[t];
    const i64 found[] = {static_cast<int>(x), static_cast<u32>(x), static_cast<i64>(x),
                         static_cast<i64>(static_cast<u64>(x)), __double2int_rn(x),
                         __double2int_rd(x), __double2int_ru(x)};
    for (int k = 0; k < sizeof(found) / sizeof(i64); k++) out[k * n + t] = found[k];
}
