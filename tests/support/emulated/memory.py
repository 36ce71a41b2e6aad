"""Memory of the emulated device: arrays in it, and how much of it is in use."""

from __future__ import annotations

import ctypes
import operator
import random
import threading
from typing import Any, NoReturn

import numpy as np

from pdex_gpu.errors import DeviceMemoryError

#: CuPy's allocations are aligned at least like this.
ALIGNMENT = 256

# The address sanitizer stands in for these functions where it is loaded, so overruns are seen.
_libc = ctypes.CDLL(None)
_libc.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.free.restype = None


class Heap:
    """What a device has handed out, and the faults a test asked for.

    Attributes
    ----------
    total : int
    in_use, peak : int
        Bytes, now and at most so far.
    """

    def __init__(self, total: int, seed: int) -> None:
        self.total = total
        self.in_use = 0
        self.peak = 0
        self._random = random.Random(seed)
        self._lock = threading.RLock()  # a collection may free while this thread allocates
        self._pass = 0
        self._fail = 0

    def fail(self, after: int, times: int) -> None:
        """Let `after` allocations pass from now, then fail `times` of them."""
        with self._lock:
            self._pass, self._fail = after, times

    def allocate(self, n_bytes: int) -> int:
        """The address of memory of exactly this size, filled with garbage."""
        with self._lock:
            free = self.total - self.in_use
            fault = self._fail > 0 and self._pass == 0
            if fault:
                self._fail -= 1
            elif self._fail:
                self._pass -= 1
            if fault or n_bytes > free:
                raise DeviceMemoryError(
                    f"asked for {n_bytes:,} bytes of device memory, "
                    f"{free:,} of {self.total:,} are free"
                )
            place = ctypes.c_void_p()
            if _libc.posix_memalign(ctypes.byref(place), ALIGNMENT, n_bytes):
                raise MemoryError(f"the host has no {n_bytes:,} bytes for the emulated device")
            self.in_use += n_bytes
            self.peak = max(self.peak, self.in_use)
            word = self._random.randbytes(8)
        address = place.value
        assert address is not None
        _garble(address, n_bytes, word)
        return address

    def release(self, address: int, n_bytes: int) -> None:
        with self._lock:
            self.in_use -= n_bytes
        _libc.free(address)


class _Block:
    """One allocation, given back when nothing refers to it any more."""

    __slots__ = ("address", "heap", "n_bytes")

    def __init__(self, heap: Heap, n_bytes: int) -> None:
        self.heap = heap
        self.n_bytes = n_bytes
        self.address = 0  # there for __del__ if the next line fails
        self.address = heap.allocate(n_bytes)

    def __del__(self) -> None:
        if self.address:
            self.heap.release(self.address, self.n_bytes)


class EmulatedArray:
    """A one-dimensional contiguous array in the memory of an emulated device.

    Attributes
    ----------
    address : int
    dtype : numpy.dtype
    size, nbytes : int
    owner : object
        What keeps the memory alive.
    """

    __slots__ = ("address", "dtype", "nbytes", "owner", "size")

    def __init__(self, owner: object, address: int, size: int, dtype: np.dtype) -> None:
        self.owner = owner
        self.address = address
        self.size = size
        self.dtype = dtype
        self.nbytes = size * dtype.itemsize

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> EmulatedArray:
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise TypeError(f"an array on a device takes slices with unit step, not {part!r}")
        start = 0 if part.start is None else operator.index(part.start)
        stop = self.size if part.stop is None else operator.index(part.stop)
        if not 0 <= start <= stop <= self.size:
            raise IndexError(f"{start}:{stop} leaves an array of {self.size} items on the device")
        address = self.address + start * self.dtype.itemsize
        return EmulatedArray(self.owner, address, stop - start, self.dtype)

    def __iter__(self) -> NoReturn:
        raise TypeError("an array on a device cannot be read on the host")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an array on a device cannot be read on the host")

    def __repr__(self) -> str:
        return f"<{self.size} items of {self.dtype} at {self.address:#x} of an emulated device>"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": (self.size,),
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
        }


def allocate(heap: Heap, size: int, dtype: np.dtype | type) -> EmulatedArray:
    """A new array, filled with garbage."""
    size, dtype = operator.index(size), np.dtype(dtype)
    if size < 0:
        raise ValueError(f"an array cannot have {size} items")
    block = _Block(heap, size * dtype.itemsize)
    return EmulatedArray(block, block.address, size, dtype)


def adopt(array: Any) -> EmulatedArray:
    """An array that another library has on the device, used in place."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise TypeError(f"a {type(array).__name__} is not an array on a CUDA device")
    dtype, shape = np.dtype(interface["typestr"]), interface["shape"]
    strides = interface.get("strides")
    one_item = len(shape) == 1 and shape[0] <= 1
    if len(shape) != 1 or not (strides is None or one_item or strides == (dtype.itemsize,)):
        raise TypeError(
            f"only one-dimensional contiguous arrays can be used in place, "
            f"not one of shape {shape} and strides {strides}"
        )
    if not dtype.isnative or interface.get("mask") is not None:
        raise TypeError("arrays with a mask or in foreign byte order cannot be used in place")
    return EmulatedArray(array, interface["data"][0] or 0, shape[0], dtype)


class UserArray:
    """An array of any shape that a user has on the device, with nothing but its description."""

    def __init__(self, array: EmulatedArray, shape: tuple[int, ...], fortran: bool) -> None:
        self._array = array
        self._fortran = fortran
        self.shape = shape
        self.dtype = array.dtype
        self.ndim = len(shape)
        self.size = array.size
        self.nbytes = array.nbytes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = self._array.__cuda_array_interface__ | {"shape": self.shape}
        if self._fortran:
            steps = np.cumprod((self.dtype.itemsize, *self.shape[:-1]))
            interface["strides"] = tuple(int(s) for s in steps)
        return interface

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an array on a device cannot be read on the host")


class _Bytes:
    """Tells numpy of memory that it does not own."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, n_bytes: int) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": (n_bytes,),
            "typestr": "|u1",
            "data": (address, False),
        }


def bytes_at(address: int, n_bytes: int) -> np.ndarray:
    """The host's own view of memory, for copies."""
    if not n_bytes:
        return np.empty(0, np.uint8)
    return np.asarray(_Bytes(address, n_bytes))


def _garble(address: int, n_bytes: int, word: bytes) -> None:
    """Fill memory with a pattern of eight bytes."""
    memory = bytes_at(address, n_bytes)
    rest = n_bytes % 8
    memory[: n_bytes - rest].view(np.uint64)[:] = int.from_bytes(word, "little")
    memory[n_bytes - rest :] = np.frombuffer(word, np.uint8)[:rest]
