"""The CUDA backend: kernels in `kernels/*.cu`, driven through the interface in :mod:`.base`."""
