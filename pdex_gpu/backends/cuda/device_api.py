"""The interface between the CUDA backend and a device: everything the backend needs from one.

:mod:`.cupy_device` implements it with CuPy. Anything else that implements it can stand in for a
device: the test suite runs the same kernels and the same code on an emulated one.

Work is queued on streams. Work on one stream runs in order; streams run concurrently. The host
waits only in :meth:`Stream.synchronize`, except that :meth:`Stream.empty` may wait for memory.
Host arrays passed to :meth:`Stream.upload` and :meth:`Stream.download` must not be changed or read
until the stream has been synchronized. Arrays from :meth:`Stream.empty` are used on that stream,
or on another one after it has waited for an event.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class DeviceArray(Protocol):
    """A one-dimensional contiguous array on a device.

    A slice with unit step is a view. The host can do nothing else with the array.
    """

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def size(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, part: slice) -> DeviceArray: ...


class Event(Protocol):
    """A point in a stream; see :meth:`Stream.record`."""


class Stream(Protocol):
    """A queue of work on a device. All methods but `synchronize` may return before it is done."""

    def empty(self, size: int, dtype: np.dtype | type) -> DeviceArray:
        """Return an uninitialised array of `size` items.

        Raises
        ------
        pdex_gpu.errors.DeviceMemoryError
            If there is no room on the device, or within the limit it was opened with.
        """
        ...

    def zero(self, array: DeviceArray) -> None:
        """Set every byte of `array` to 0."""
        ...

    def upload(self, host: np.ndarray, array: DeviceArray) -> None:
        """Copy a contiguous host array to a device array of the same size and dtype."""
        ...

    def download(self, array: DeviceArray, host: np.ndarray) -> None:
        """Copy a device array to a contiguous host array of the same size and dtype."""
        ...

    def launch(
        self, source: str, kernel: str, n_blocks: int, n_threads: int, *args: Any, shared: int = 0
    ) -> None:
        """Queue a kernel.

        Parameters
        ----------
        source : str
            Stem of the file in `kernels/`.
        kernel : str
            Name of its ``extern "C"`` function.
        n_blocks, n_threads : int
            Blocks of the one-dimensional grid; threads per block, a multiple of 32.
        *args : DeviceArray or numpy scalar
            Arguments as the kernel declares them: an array for a pointer, a numpy scalar of
            exactly the declared type for a value, None for a null pointer.
        shared : int
            Bytes of dynamic shared memory per block.

        Raises
        ------
        pdex_gpu.errors.KernelError
            If the kernel cannot be loaded, or cannot be started in this shape.
        """
        ...

    def record(self) -> Event:
        """Return an event that happens when everything queued so far is done."""
        ...

    def wait(self, event: Event) -> None:
        """Make work queued from here on run after `event`, which may be of another stream."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done.

        Raises
        ------
        pdex_gpu.errors.DeviceLostError
            If the device failed in the meantime.
        pdex_gpu.errors.KernelError
            If a kernel failed.
        """
        ...


class Device(Protocol):
    """A CUDA device, opened with a limit on the memory it hands out. Thread-safe.

    Attributes
    ----------
    index : int
    description : str
        ``"NVIDIA H200, device 0"``.
    """

    index: int
    description: str

    def memory(self) -> tuple[int, int]:
        """Return the bytes available now (within the limit) and the bytes of the whole device."""
        ...

    def stream(self) -> Stream:
        """Return a new stream."""
        ...

    def pinned(self, n_bytes: int) -> np.ndarray:
        """Return page-locked host memory, uint8: copies to and from it overlap with kernels.

        If the system can lock no more, log a warning and return pageable memory.
        """
        ...

    def adopt(self, array: Any) -> DeviceArray:
        """Use an array that is already on this device, in place, and keep it alive.

        Waits until the array has been written.

        Parameters
        ----------
        array : object with ``__cuda_array_interface__``
            One-dimensional and contiguous.
        """
        ...
