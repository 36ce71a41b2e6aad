// Threads that diverge, wait for each other, and race.

typedef unsigned int u32;

extern "C" __global__ void loops(const u32* n, const u32* given, u32* to) {
    u32 x = threadIdx.x;
    for (u32 k = 0; k < n[threadIdx.x]; k++) x = x * 1664525u + given[k];
    to[threadIdx.x] = x;
}

extern "C" __global__ void votes_of_some(u32* to) {
    u32 votes = 0;
    if (threadIdx.x < 7) votes = __ballot_sync(0xffffffffu, to[threadIdx.x] & 1);
    __syncwarp();
    to[threadIdx.x] = votes;
}

extern "C" __global__ void barriers_of_some(u32* to) {
    if (to[threadIdx.x]) {
        to[threadIdx.x] = 2;
        __syncthreads();
        to[threadIdx.x] += 1;
    } else {
        to[threadIdx.x] = 7;
        __syncthreads();
        to[threadIdx.x] += 2;
    }
}

extern "C" __global__ void waits_for_a_block(volatile u32* to) {
    if (blockIdx.x == 0)
        while (to[0] == 0) {}
    else
        to[0] = 1;
}

extern "C" __global__ void between_warps(u32* to, int wait) {
    __shared__ u32 words[64];
    words[threadIdx.x] = threadIdx.x;
    if (wait) __syncthreads();
    to[threadIdx.x] = words[threadIdx.x ^ 33];
}

extern "C" __global__ void between_lanes(u32* to, int wait) {
    __shared__ u32 words[32];
    words[threadIdx.x] = threadIdx.x;
    if (wait) __syncwarp();
    to[threadIdx.x] = words[31 - threadIdx.x];
}

extern "C" __global__ void between_rounds(u32* to, int wait) {
    __shared__ u32 sum;
    for (int k = 0; k < 3; k++) {
        if (threadIdx.x == 0) sum = k;
        __syncthreads();
        to[threadIdx.x] += sum;
        if (wait) __syncthreads();
    }
}

extern "C" __global__ void between_blocks(u32* to, int wait) {
    if (threadIdx.x == 0) to[wait ? blockIdx.x : 0] = blockIdx.x;
}

extern "C" __global__ void between_atomics(u32* to, int wait) {
    __shared__ u32 n;
    if (threadIdx.x == 0) n = 0;
    __syncthreads();
    atomicAdd(&n, 1u);
    if (wait) __syncthreads();
    to[threadIdx.x] = n;
}

extern "C" __global__ void between_updates(u32* to, int wait) {
    if (wait) atomicAdd(to, 1u);
    else *to += 1;
}
