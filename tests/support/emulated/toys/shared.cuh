// What the toys share, to be put in place of an include like the package's own header.

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

constexpr unsigned FULL = 0xffffffffu;

// Sum over a block of T; all threads get it. The array is one for each T.
template <class T, int THREADS>
__device__ __forceinline__ T block_sum(T value) {
  __shared__ T parts[THREADS];
  parts[threadIdx.x] = value;
  __syncthreads();
#pragma unroll
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    __syncthreads();
  }
  T sum = parts[0];
  __syncthreads();  // the array is used again
  return sum;
}
