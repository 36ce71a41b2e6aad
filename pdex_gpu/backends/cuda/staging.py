"""Host arrays on their way to the device: narrowed, through page-locked buffers, side by side.

The bus is what a matrix in host memory waits for. So whole numbers travel as the smallest integer
type that holds them, gene indices as uint16 where they fit, and while one buffer is on the bus
others are filled.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..contract import Map
from .base import Device, DeviceArray, Stream

#: Values of the items [first, last) of an array of items that are sent.
Get = Callable[[int, int], np.ndarray]


@dataclass
class _Buffer:
    memory: np.ndarray  # uint8, page-locked
    stream: Stream


class Staging:
    """Page-locked buffers, each with a stream of its own.

    Parameters
    ----------
    device : Device
    n_buffers : int
    n_bytes : int
        Of a buffer.
    """

    def __init__(self, device: Device, n_buffers: int, n_bytes: int) -> None:
        self._device = device
        self._n_bytes = n_bytes
        self._left = n_buffers  # not made yet
        self._free: queue.LifoQueue[_Buffer | None] = queue.LifoQueue()
        for _ in range(n_buffers):
            self._free.put(None)

    @contextmanager
    def _buffer(self) -> Iterator[_Buffer]:
        buffer = self._free.get()
        try:
            if buffer is None:  # page-locking takes long: only as many as are needed
                buffer = _Buffer(self._device.pinned(self._n_bytes), self._device.stream())
            yield buffer
        finally:
            self._free.put(buffer)

    def send(self, get: Get, to: DeviceArray, run: Map) -> bool:
        """Copy items ``get(0, n)`` to the `n` items of `to`, as its dtype.

        Returns
        -------
        bool
            Whether every item is the same number in the dtype of `to`; if not, `to` is of no use.
        """
        step = max(1, self._n_bytes // to.dtype.itemsize)
        failed = threading.Event()

        def piece(first: int) -> None:
            last = min(first + step, to.size)
            if failed.is_set():
                return
            with self._buffer() as buffer:
                staged = buffer.memory[: (last - first) * to.dtype.itemsize].view(to.dtype)
                values = get(first, last)
                if not copy_exactly(values, staged):
                    failed.set()
                    return
                buffer.stream.upload(staged, to[first:last])
                buffer.stream.synchronize()

        for _ in run(piece, range(0, to.size, step)):
            pass
        return not failed.is_set()

    def receive(self, array: DeviceArray, to: np.ndarray, stream: Stream, run: Map) -> None:
        """Copy a device array to a host array, once `stream` has done what was asked of it."""
        done = stream.record()
        step = max(1, self._n_bytes // to.itemsize)

        def piece(first: int) -> None:
            last = min(first + step, to.size)
            with self._buffer() as buffer:
                staged = buffer.memory[: (last - first) * to.itemsize].view(to.dtype)
                buffer.stream.wait(done)
                buffer.stream.download(array[first:last], staged)
                buffer.stream.synchronize()
                to[first:last] = staged

        for _ in run(piece, range(0, to.size, step)):
            pass


def copy_exactly(values: np.ndarray, out: np.ndarray) -> bool:
    """Copy `values` to `out`, of another type perhaps; whether nothing was lost.

    NaN and infinity are lost in integers.
    """
    if values.dtype == out.dtype:
        out[...] = values
        return True
    with np.errstate(invalid="ignore"):
        np.copyto(out, values, casting="unsafe")
    if values.dtype.kind == "f":
        return bool((out == values).all())
    if values.size == 0:
        return True
    info = np.iinfo(out.dtype)
    return bool(info.min <= values.min() and values.max() <= info.max)


def travel_dtypes(sample: np.ndarray) -> list[np.dtype]:
    """Types to try in turn for values of which `sample` are some; the last holds them all.

    Floats become unsigned integers of at most 16 bits if they are all whole and not negative:
    counts. Integers become the shortest that hold them.
    """
    own = np.dtype(np.uint8) if sample.dtype.kind == "b" else sample.dtype
    if sample.size == 0:
        return [own]
    low, high = sample.min(), sample.max()
    if own.kind == "f":
        if not (low >= 0 and high <= 65535 and (sample == np.floor(sample)).all()):
            return [own]
        ladder = ["u1", "u2"]
    else:
        ladder = ["u1", "u2", "u4"] if low >= 0 else ["i1", "i2", "i4"]
    shorter = [np.dtype(name) for name in ladder if np.dtype(name).itemsize < own.itemsize]
    return [t for t in shorter if high <= np.iinfo(t).max and low >= np.iinfo(t).min] + [own]
