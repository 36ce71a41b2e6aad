"""The seam between the CUDA backend and a device: all that the backend asks of one.

:mod:`.device` provides it through CuPy. Whatever else provides it can stand in for a device: the
test suite runs the same kernels and the same code on an emulated one.

Work is queued on streams. What is queued on one stream runs in order; streams run side by side;
the host waits only in :meth:`Stream.synchronize` and :meth:`Stream.empty` may wait for memory.
Host arrays given to :meth:`Stream.upload` and :meth:`Stream.download` must neither be changed nor
read until the stream was synchronized, and arrays from :meth:`Stream.empty` are used on that
stream, or on another one after it waited for an event.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class DeviceArray(Protocol):
    """A one-dimensional contiguous array on a device.

    A slice with unit step is a view. Nothing else can be done with it on the host.
    """

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def size(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, part: slice) -> DeviceArray: ...


class Event(Protocol):
    """A place in a stream; see :meth:`Stream.record`."""


class Stream(Protocol):
    """A queue of work on a device. Every method but `synchronize` may return before it is done."""

    def empty(self, size: int, dtype: np.dtype | type) -> DeviceArray:
        """An array of `size` items, not initialised.

        Raises
        ------
        pdex_gpu.errors.DeviceMemoryError
            If the device, or the limit it was opened with, has no room.
        """
        ...

    def zero(self, array: DeviceArray) -> None:
        """Set every byte of `array` to 0."""
        ...

    def upload(self, host: np.ndarray, array: DeviceArray) -> None:
        """Copy a contiguous host array of the same size and dtype to the device."""
        ...

    def download(self, array: DeviceArray, host: np.ndarray) -> None:
        """Copy to a contiguous host array of the same size and dtype."""
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
            Blocks of the one-dimensional grid; threads of a block, a multiple of 32.
        *args : DeviceArray or numpy scalar
            Arguments as the kernel declares them: an array for a pointer, a numpy scalar of the
            very type for a value, None for a null pointer.
        shared : int
            Bytes of dynamic shared memory a block.

        Raises
        ------
        pdex_gpu.errors.KernelError
            If the kernel cannot be loaded, or not be started in this shape.
        """
        ...

    def record(self) -> Event:
        """An event that happens when all that was queued so far is done."""
        ...

    def wait(self, event: Event) -> None:
        """Let what is queued from here on run after `event`, also one of another stream."""
        ...

    def synchronize(self) -> None:
        """Wait until all that was queued is done.

        Raises
        ------
        pdex_gpu.errors.DeviceLostError
            If the device failed since.
        pdex_gpu.errors.KernelError
            If a kernel failed.
        """
        ...


class Device(Protocol):
    """A CUDA device, opened with a limit on the memory it hands out. Safe to use from threads.

    Attributes
    ----------
    index : int
    description : str
        ``"NVIDIA H200, device 0"``.
    """

    index: int
    description: str

    def memory(self) -> tuple[int, int]:
        """Bytes that can be had now (within the limit), and bytes of the whole device."""
        ...

    def stream(self) -> Stream:
        """A new stream."""
        ...

    def pinned(self, n_bytes: int) -> np.ndarray:
        """Page-locked host memory, uint8: copies to and from it overlap with kernels.

        Pageable memory, with a warning in the log, where the system has no more to lock.
        """
        ...

    def adopt(self, array: Any) -> DeviceArray:
        """An array that is on this device already, used in place and kept alive.

        Waits until whoever made it has written it.

        Parameters
        ----------
        array : object with ``__cuda_array_interface__``
            One-dimensional and contiguous.
        """
        ...
