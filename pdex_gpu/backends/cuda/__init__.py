"""The CUDA backend: kernels in `kernels/*.cu`, driven through the interface :mod:`.device_api`."""
