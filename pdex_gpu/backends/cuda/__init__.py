"""The CUDA backend: kernels in `kernels/*.cu`, driven through the seam in :mod:`.base`."""
