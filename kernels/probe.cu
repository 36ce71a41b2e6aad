// Shows whether a device can run this package's kernels at all.

// out[i] = i * 2654435761 + 1 (modulo 2^32) for all i < n. One thread writes one item; a block
// writes blockDim.x adjacent items.
extern "C" __global__ void probe(unsigned int* out, unsigned int n) {
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = i * 2654435761u + 1u;
}
