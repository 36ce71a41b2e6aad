"""Transfers of host arrays to the device: narrowed, through several page-locked buffers at once.

The bus is the bottleneck for a matrix in host memory. So whole numbers are sent as the smallest
integer type that holds them, and gene indices as uint16 where they fit. While one buffer is on the
bus, others are filled.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ...utils.parallel import Map
from .device_api import Device, DeviceArray, Stream

#: Returns items [first, last) of each of the arrays that are sent together.
Get = Callable[[int, int], tuple[np.ndarray, ...]]

_ALIGNMENT = 8


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
        Size of a buffer.
    """

    def __init__(self, device: Device, n_buffers: int, n_bytes: int) -> None:
        self._device = device
        self._n_bytes = n_bytes
        self._free: queue.LifoQueue[_Buffer | None] = queue.LifoQueue()
        for _ in range(n_buffers):
            self._free.put(None)

    @contextmanager
    def _buffer(self) -> Iterator[_Buffer]:
        buffer = self._free.get()
        try:
            if buffer is None:  # page-locking is slow: make only as many as needed
                buffer = _Buffer(self._device.pinned(self._n_bytes), self._device.stream())
            yield buffer
        finally:
            self._free.put(buffer)

    def send(self, get: Get, to: Sequence[DeviceArray], parallel_map: Map) -> set[int]:
        """Copy items to device arrays of equal size and any dtypes, spread by `parallel_map`.

        Returns
        -------
        set of int
            Positions in `to` of arrays that cannot hold their items exactly. Copying stopped when
            one was found, and then none of the arrays is usable.
        """
        room = self._n_bytes - _ALIGNMENT * len(to)
        step = max(1, room // sum(array.dtype.itemsize for array in to))
        lost: set[int] = set()

        def piece(first: int) -> None:
            if lost:
                return
            last = min(first + step, to[0].size)
            with self._buffer() as buffer:
                at = 0
                for k, values in enumerate(get(first, last)):
                    n_bytes = (last - first) * to[k].dtype.itemsize
                    staged = buffer.memory[at : at + n_bytes].view(to[k].dtype)
                    if not copy_exactly(values, staged):
                        lost.add(k)
                        break
                    buffer.stream.upload(staged, to[k][first:last])
                    at += -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
                buffer.stream.synchronize()

        for _ in parallel_map(piece, range(0, to[0].size, step)):
            pass
        return lost

    def receive(
        self, array: DeviceArray, to: np.ndarray, stream: Stream, parallel_map: Map
    ) -> None:
        """Copy a device array to a host array, once the work queued on `stream` is done."""
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

        for _ in parallel_map(piece, range(0, to.size, step)):
            pass


def copy_exactly(values: np.ndarray, out: np.ndarray) -> bool:
    """Copy `values` to `out`, perhaps of another dtype; return whether nothing was lost.

    NaN and infinity are lost in integer types.
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
    """Return the dtypes to try in turn for the sampled values; the last one holds them all.

    Floats become unsigned integers of at most 16 bits if all are whole and non-negative: counts.
    Integers become the shortest type that holds them.
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
