"""Stream slots, in which slices of genes are computed at once, each with a stream of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np

from .device_api import Device, DeviceArray, Stream
from .launch_config import Shapes

_ALIGNMENT = 64


class StreamSlot:
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


class StreamSlots:
    """A fixed number of stream slots; callers wait while none is free."""

    def __init__(self, device: Device, shapes: Shapes) -> None:
        self._device = device
        self._shapes = shapes
        self._one_at_a_time = threading.Lock()
        self._free: queue.LifoQueue[StreamSlot | None] = queue.LifoQueue()
        for _ in range(shapes.n_slots):
            self._free.put(None)

    @contextmanager
    def slot(self) -> Iterator[StreamSlot]:
        """Yield a slot for the duration of the context."""
        slot = self._free.get()
        try:
            if slot is None:
                slot = StreamSlot(self._device, self._shapes)
            yield slot
        except BaseException:
            if slot is not None:  # queued work holds memory, that of the chunk too
                with suppress(Exception):
                    slot.stream.synchronize()
            raise
        finally:
            self._free.put(slot)

    @contextmanager
    def all(self) -> Iterator[StreamSlot]:
        """Yield a slot; nobody else holds one until the context ends."""
        with self._one_at_a_time, ExitStack() as stack:
            slots = [stack.enter_context(self.slot()) for _ in range(self._shapes.n_slots)]
            yield slots[0]
