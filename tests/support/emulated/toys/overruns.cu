// Faults that only the sanitizers see. `at` is the place: right for n = 64 below 64.
#include "shared.cuh"

extern "C" __global__ void read_global(const float* values, float* out, int at) {
  if (threadIdx.x == 5) out[0] = values[at];
}

extern "C" __global__ void write_global(float* out, int at) {
  if (threadIdx.x == 5) out[at] = 1.0f;
}

extern "C" __global__ void read_dynamic(float* out, int at) {
  DYNAMIC_SHARED(bytes);
  float* array = reinterpret_cast<float*>(bytes);
  array[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 5) out[0] = array[at];
}

extern "C" __global__ void write_dynamic(int at) {
  DYNAMIC_SHARED(bytes);
  __syncthreads();
  if (threadIdx.x == 5) reinterpret_cast<float*>(bytes)[at] = 1.0f;
}

// Through a pointer: the index of an array of known size would be seen without its memory.
__device__ __noinline__ void store(float* array, int at, float value) { array[at] = value; }
__device__ __noinline__ float load(const float* array, int at) { return array[at]; }

extern "C" __global__ void read_static(float* out, int at) {
  __shared__ float array[64];
  array[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 5) out[0] = load(array, at);
}

template <int N>
__device__ void write_in(int at) {
  __shared__ float array[N];
  __syncthreads();
  if (threadIdx.x == 5) store(array, at, 1.0f);
}

extern "C" __global__ void write_static(int at) { write_in<64>(at); }

// Stands behind the array above, where it would be hit.
extern "C" __global__ void write_local(float* out, int at) {
  float array[64];
  __syncthreads();
  for (int i = 0; i < 64; ++i) store(array, i, 0.0f);
  if (threadIdx.x == 5) store(array, at, 1.0f);
  __syncthreads();
  out[threadIdx.x] = load(array, threadIdx.x);
}

extern "C" __global__ void overflow(int* out, int at) {
  if (threadIdx.x == 5) out[0] = at * 40000000;
}

extern "C" __global__ void shift(unsigned* out, int at) {
  if (threadIdx.x == 5) out[0] = 1u << (at / 2);
}

extern "C" __global__ void convert(int* out, int at) {
  if (threadIdx.x == 5) out[0] = static_cast<int>(at * 5e7f);
}
