"""Lanes, which compute slices of genes concurrently, each with its own stream and buffers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from .device_api import Device, DeviceArray, Stream
from .launch_config import Shapes

_ALIGNMENT = 64


class Lane:
    """A stream, and a page-locked buffer for the results it returns.

    Attributes
    ----------
    stream : Stream
    shapes : Shapes
    """

    def __init__(self, device: Device, shapes: Shapes) -> None:
        self._device = device
        self._buffer = np.empty(0, np.uint8)
        self.stream: Stream = device.stream()
        self.shapes = shapes

    def fetch(self, arrays: Sequence[DeviceArray], shape: tuple[int, int]) -> list[np.ndarray]:
        """Return copies of device arrays, each of shape `shape`; waits for the stream."""
        sizes = [-(-a.nbytes // _ALIGNMENT) * _ALIGNMENT for a in arrays]
        if sum(sizes) > self._buffer.size:  # rare, as page-locking is slow
            self._buffer = self._device.pinned(1 << sum(sizes).bit_length())
        views, at = [], 0
        for array, size in zip(arrays, sizes, strict=True):
            view = self._buffer[at : at + array.nbytes].view(array.dtype)
            self.stream.download(array, view)
            views.append(view)
            at += size
        self.stream.synchronize()
        return [view.reshape(shape).copy() for view in views]


class Lanes:
    """A fixed number of lanes; callers wait while none is free."""

    def __init__(self, device: Device, shapes: Shapes) -> None:
        self._device = device
        self._shapes = shapes
        self._one_at_a_time = threading.Lock()
        self._free: queue.LifoQueue[Lane | None] = queue.LifoQueue()
        for _ in range(shapes.n_lanes):
            self._free.put(None)

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Yield a lane for the duration of the context."""
        lane = self._free.get()
        try:
            if lane is None:
                lane = Lane(self._device, self._shapes)
            yield lane
        except BaseException:
            if lane is not None:  # queued work holds memory, that of the block too
                with suppress(Exception):
                    lane.stream.synchronize()
            raise
        finally:
            self._free.put(lane)

    @contextmanager
    def all(self) -> Iterator[Lane]:
        """Yield a lane; nobody else holds one until the context ends."""
        with self._one_at_a_time, ExitStack() as stack:
            lanes = [stack.enter_context(self.lane()) for _ in range(self._shapes.n_lanes)]
            yield lanes[0]
