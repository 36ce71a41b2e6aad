// What requests cost, and accesses that are refused.

typedef unsigned int u32;
typedef unsigned long long u64;

extern "C" __global__ void strided(const u32* from, u32* to, int step) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    to[i] = from[i * step];
}

extern "C" __global__ void banks_32(u32* to, int step) {
    __shared__ u32 words[1024];
    for (int i = threadIdx.x; i < 1024; i += blockDim.x) words[i] = i;
    __syncthreads();
    to[threadIdx.x] = words[threadIdx.x * step];
}

extern "C" __global__ void banks_64(u64* to, int step) {
    __shared__ u64 words[1024];
    for (int i = threadIdx.x; i < 1024; i += blockDim.x) words[i] = i;
    __syncthreads();
    to[threadIdx.x] = words[threadIdx.x * step];
}

extern "C" __global__ void counts(const u32* place, u32* to) { atomicAdd(&to[place[threadIdx.x]], 1u); }

extern "C" __global__ void read_twice(const u32* from, u32* to) {
    u32 sum = 0;
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
        sum += from[threadIdx.x];
        to[threadIdx.x] = sum;  // keeps the compiler from reading once
    }
}

extern "C" __global__ void unaligned(const unsigned char* from, u64* to) {
    to[threadIdx.x] = *reinterpret_cast<const u64*>(from + 8 * threadIdx.x + 4);
}

extern "C" __global__ void beyond_shared(u32* to, int at) {
    __shared__ u32 words[64];
    words[threadIdx.x + at] = threadIdx.x;
    __syncthreads();
    to[threadIdx.x] = words[threadIdx.x];
}
