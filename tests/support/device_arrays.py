"""Stand-ins for CuPy's types, with nothing but what sources may use: whatever else fails."""


class DeviceArray:
    """As a cupy.ndarray: no conversion by itself, no iteration."""

    __array__ = None

    def __init__(self, host):
        self._host = host
        self.shape, self.dtype, self.size = host.shape, host.dtype, host.size

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "strides": None if self._host.flags.c_contiguous else self._host.strides,
            "data": (self._host.ctypes.data, False),
            "version": 3,
        }

    def __getitem__(self, part):
        return DeviceArray(self._host[part])

    def get(self):
        return self._host.copy()


class DeviceSparse:
    """As a csr_matrix or csc_matrix of cupyx.scipy.sparse."""

    __array__ = None

    def __init__(self, host):
        self.format, self.shape = host.format, host.shape
        self.data = DeviceArray(host.data)
        if host.format in ("csr", "csc"):
            self.indices, self.indptr = DeviceArray(host.indices), DeviceArray(host.indptr)
