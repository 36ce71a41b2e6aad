// Kernels with one fault each, which a device would answer with a hang or a wrong result.
#include "shared.cuh"

// Reverses a block. The barrier between writing and reading is missing.
extern "C" __global__ void missing_barrier(const int* in, int* out) {
  __shared__ int array[256];
  array[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = array[blockDim.x - 1 - threadIdx.x];
}

// The same within each warp.
extern "C" __global__ void missing_syncwarp(const int* in, int* out) {
  __shared__ int array[256];
  array[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = array[threadIdx.x ^ 31];
}

extern "C" __global__ void early_return(int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
}

extern "C" __global__ void two_barriers(int n) {
  if (threadIdx.x < n) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

extern "C" __global__ void barrier_meets_warp(int n) {
  if (threadIdx.x < n) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

extern "C" __global__ void lanes_ended(int n) {
  if (threadIdx.x % 32 >= n) return;
  __syncwarp();
}

extern "C" __global__ void not_in_own_mask(int n) {
  if (threadIdx.x < n) __syncwarp(1u);
}

extern "C" __global__ void different_primitives(int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = __any_sync(FULL, 1);
  } else {
    out[threadIdx.x] = __all_sync(FULL, 1);
  }
}

extern "C" __global__ void reads_outside_mask(int* out) {
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_sync(0xffu, 1, threadIdx.x + 1);
}

extern "C" __global__ void trapped(int block) {
  if (blockIdx.x == block && threadIdx.x == 3) __trap();
  __syncthreads();
}
