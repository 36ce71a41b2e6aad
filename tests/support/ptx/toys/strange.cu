// Instructions that the device does not know.

extern "C" __global__ void knows(unsigned int* to) { to[threadIdx.x] = threadIdx.x; }

extern "C" __global__ void highest_bit(unsigned int* to) {
    unsigned int bit;
    asm("bfind.u32 %0, %1;" : "=r"(bit) : "r"(to[0]));
    to[0] = bit;
}

extern "C" __global__ void any_vote(unsigned int* to) {
    to[threadIdx.x] = __any_sync(0xffffffffu, to[threadIdx.x]);
}
