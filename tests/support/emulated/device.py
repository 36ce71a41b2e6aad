"""The emulated device and its streams, which implement :mod:`pdex_gpu.backends.cuda.device_api`.

Streams are lazy: nothing that is queued happens before the host waits for it. A host array that
is changed too early, a result that is read too early, or an event that nobody waits for is then
a wrong result in every run.
"""

from __future__ import annotations

import ctypes
import operator
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_sources
import numpy as np

from pdex_gpu.errors import DeviceLostError

from . import build
from .memory import EmulatedArray, Heap, UserArray, adopt, allocate, bytes_at

_MOST_BLOCKS = 2**31 - 1
_MOST_THREADS = 1024
_GARBAGE = 0xA5
_ROOM = 16_384  # bytes for the message of a launch that failed


class EmulationError(Exception):
    """A launch that a device would refuse, or a kernel whose threads do what CUDA forbids."""


class _Kernel:
    """One kernel of a library: what it is called with, and how to call it."""

    def __init__(self, library: _Library, index: int) -> None:
        loaded = library.loaded
        self.library = library
        self.index = index
        self.name: str = loaded.emulated_name(index).decode()
        text = ctypes.create_string_buffer(4096)
        loaded.emulated_signature(index, text, len(text))
        self.signature = [code for code in text.value.decode().split(",") if code]
        names: str = loaded.emulated_parameters(index).decode()
        self.parameters = names.split(",") if names else []
        self.bound: int = loaded.emulated_bound(index)
        self._right: set[tuple[str, ...]] = set()

    def check(self, given: tuple[str, ...]) -> None:
        """Compare codes of arguments with what the kernel declares."""
        if given in self._right:
            return
        if len(given) != len(self.signature):
            raise EmulationError(
                f"kernel {self.name} takes {len(self.signature)} arguments "
                f"({', '.join(self.parameters)}), {len(given)} were given"
            )
        for i, (code, declared) in enumerate(zip(given, self.signature, strict=True)):
            if not _fits(code, declared):
                raise EmulationError(
                    f"kernel {self.name}, argument {i} ({self.parameters[i]}): "
                    f"declared as {_spelled(declared)}, given {_spelled(code)}"
                )
        self._right.add(given)

    def run(self, n_blocks: int, n_threads: int, shared: int, seed: int, slots: bytes) -> None:
        library = self.library
        with library.lock:
            if library.loaded.emulated_launch(
                self.index, n_blocks, n_threads, shared, seed, slots, library.message, _ROOM
            ):
                raise EmulationError(library.message.value.decode())


class _Library:
    """A source, built and loaded. One launch at a time: its state is global."""

    def __init__(self, name: str, text: str) -> None:
        self.path = build.library(name, text)
        self.loaded = build.load(self.path)
        self.lock = threading.Lock()
        self.message = ctypes.create_string_buffer(_ROOM)
        kernels = [_Kernel(self, i) for i in range(self.loaded.emulated_count())]
        self.kernels = {kernel.name: kernel for kernel in kernels}

    @property
    def switches(self) -> int:
        """Switches of threads so far."""
        return self.loaded.emulated_switches()


_libraries: dict[tuple[str, str], _Library] = {}
_libraries_lock = threading.Lock()


def _library(name: str, text: str) -> _Library:
    with _libraries_lock:
        library = _libraries.get((name, text))
        if library is None:
            library = _libraries[name, text] = _Library(name, text)
        return library


class EmulatedEvent:
    """A place in a stream: after the first `position` operations queued on it."""

    def __init__(self, stream: EmulatedStream | None = None, position: int = 0) -> None:
        self.stream = stream
        self.position = position


class EmulatedStream:
    """A queue of operations that run when the host waits for them, or another stream does."""

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device
        self._queue: deque[Callable[[], None]] = deque()
        self._n_queued = 0
        self._n_done = 0
        self._failure: BaseException | None = None

    def empty(self, size: int, dtype: np.dtype | type) -> EmulatedArray:
        self._device.check()
        return allocate(self._device.heap, size, dtype)

    def zero(self, array: EmulatedArray) -> None:
        _check_on_device(array)
        self._push(lambda: ctypes.memset(array.address, 0, array.nbytes))

    def upload(self, host: np.ndarray, array: EmulatedArray) -> None:
        _check_copy(host, array)
        device = self._device

        def copy() -> None:
            device.uploaded_bytes += array.nbytes
            ctypes.memmove(array.address, host.ctypes.data, array.nbytes)

        self._push(copy)

    def download(self, array: EmulatedArray, host: np.ndarray) -> None:
        _check_copy(host, array)
        if not host.flags.writeable:
            raise ValueError("download into an array that cannot be written")
        device = self._device

        def copy() -> None:
            device.downloaded_bytes += array.nbytes
            ctypes.memmove(host.ctypes.data, array.address, array.nbytes)

        self._push(copy)
        # what was there before must not pass for the result
        ctypes.memset(host.ctypes.data, _GARBAGE, host.nbytes)

    def launch(
        self, source: str, kernel: str, n_blocks: int, n_threads: int, *args: Any, shared: int = 0
    ) -> None:
        device = self._device
        device.check()
        found = device.kernel(source, kernel)
        n_blocks, n_threads, shared = map(operator.index, (n_blocks, n_threads, shared))
        _check_shape(found, n_blocks, n_threads)
        if not 0 <= shared <= device.shared_memory:
            raise EmulationError(
                f"kernel {kernel} was given {shared:,} bytes of dynamic shared memory, "
                f"the device has {device.shared_memory:,}"
            )
        codes, values = [], []
        for i, arg in enumerate(args):
            code, value = _packed(arg, kernel, i)
            codes.append(code)
            values.append(value)
        found.check(tuple(codes))
        slots = struct.pack(f"{len(values)}Q", *values)
        self._push(lambda: device.run(found, n_blocks, n_threads, shared, slots, args))

    def record(self) -> EmulatedEvent:
        self._device.check()
        return EmulatedEvent(self, self._n_queued)

    def wait(self, event: EmulatedEvent) -> None:
        if not isinstance(event, EmulatedEvent):
            raise TypeError(f"a stream waits for events, not for a {type(event).__name__}")
        other = event.stream
        if other is None:
            raise EmulationError("a stream waits for an event that was never recorded")
        if other._device is not self._device:
            raise EmulationError("a stream waits for an event of another device")
        self._push(lambda: other._run_until(event.position))

    def synchronize(self) -> None:
        self._device.check()
        self._run_until(self._n_queued)

    def _push(self, operation: Callable[[], None]) -> None:
        self._device.check()
        self._queue.append(operation)
        self._n_queued += 1

    def _run_until(self, position: int) -> None:
        # One lock for the device: with one for each stream, two that wait for each other's
        # events could block each other for ever.
        with self._device.running:
            while self._n_done < position:
                self._device.before_work()
                self._device.check()
                if self._failure is not None:
                    raise self._failure
                operation = self._queue.popleft()
                try:
                    operation()
                except BaseException as error:
                    self._failure = error  # nothing behind it ever happens
                    self._queue.clear()
                    raise
                self._n_done += 1


class EmulatedDevice:
    """A device that runs CUDA sources on the host.

    Parameters
    ----------
    memory : int
        Bytes of device memory.
    shared_memory : int
        Most bytes of dynamic shared memory a block can have.
    seed : int
        Of the order in which threads and blocks run, and of the garbage in new memory.
    folder : path, optional
        Where sources are; those of the package unless given.
    index : int

    Attributes
    ----------
    launches : collections.Counter
        Launches that ran, by name of the kernel.
    uploaded_bytes, downloaded_bytes : int
    before_work : callable
        Called before each operation of a stream, while the device does nothing else.
    """

    def __init__(
        self,
        *,
        memory: int = 1 << 30,
        shared_memory: int = 48 << 10,
        seed: int = 0,
        folder: str | Path | None = None,
        index: int = 0,
    ) -> None:
        self.index = index
        self.description = f"emulated device {index}"
        self.shared_memory = shared_memory
        self.heap = Heap(memory, seed)
        self.running = threading.RLock()
        self.launches: Counter[str] = Counter()
        self.uploaded_bytes = 0
        self.downloaded_bytes = 0
        self.before_work: Callable[[], object] = lambda: None
        self._seed = seed
        self._folder = None if folder is None else Path(folder)
        self._n_launches = 0
        self._lose_at: int | None = None
        self._lost = False
        self._kernels: dict[tuple[str, str], _Kernel] = {}

    @property
    def bytes_in_use(self) -> int:
        """Bytes of device memory that arrays hold now."""
        return self.heap.in_use

    @property
    def peak_bytes(self) -> int:
        """The most of `bytes_in_use` so far."""
        return self.heap.peak

    def memory(self) -> tuple[int, int]:
        self.check()
        return self.heap.total - self.heap.in_use, self.heap.total

    def stream(self) -> EmulatedStream:
        self.check()
        return EmulatedStream(self)

    def pinned(self, n_bytes: int) -> np.ndarray:
        self.check()
        return np.full(n_bytes, _GARBAGE, np.uint8)

    def adopt(self, array: Any) -> EmulatedArray:
        self.check()
        return adopt(array)

    def fail_allocation(self, *, after: int = 0, times: int = 1) -> None:
        """Let `after` allocations pass from now, then fail `times` of them."""
        self.heap.fail(after, times)

    def lose(self, *, after: int = 0) -> None:
        """Lose the device at the launch number `after` from now; at once with 0."""
        if after:
            self._lose_at = self._n_launches + after
        else:
            self._lost = True

    def check(self) -> None:
        """Raise DeviceLostError if the device was lost."""
        if self._lost:
            raise DeviceLostError(f"{self.description} was lost")

    def kernel(self, source: str, name: str) -> Any:
        """A kernel of a source, which is built on first use."""
        found = self._kernels.get((source, name))
        if found is None:
            library = self.library(source)
            if name not in library.kernels:
                raise EmulationError(
                    f'{source}.cu has no `extern "C" __global__` function {name}, '
                    f"only {', '.join(library.kernels)}"
                )
            found = self._kernels[source, name] = library.kernels[name]
        return found

    def library(self, source: str) -> _Library:
        """The library of a source, built and loaded on first use."""
        return _library(source, cuda_sources.read(source, self._folder).text)

    def run(
        self,
        kernel: Any,
        n_blocks: int,
        n_threads: int,
        shared: int,
        slots: bytes,
        alive: tuple[Any, ...],
    ) -> None:
        """Run a launch whose turn has come; `alive` are the arrays behind its pointers."""
        self._n_launches += 1
        if self._n_launches == self._lose_at:
            self._lost = True
        self.check()
        self.launches[kernel.name] += 1
        seed = (self._seed * 1_000_003 + self._n_launches) % 2**64
        self._execute(kernel, n_blocks, n_threads, shared, seed, slots, alive)

    def _execute(
        self,
        kernel: Any,
        n_blocks: int,
        n_threads: int,
        shared: int,
        seed: int,
        slots: bytes,
        alive: tuple[Any, ...],
    ) -> None:
        kernel.run(n_blocks, n_threads, shared, seed, slots)


def on_device(device: EmulatedDevice, array: np.ndarray) -> EmulatedArray | UserArray:
    """A copy of an array, as one that a user has on the device already.

    It can be sliced if it has one dimension; else it only describes itself, C or Fortran
    contiguous like `array`.
    """
    fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
    flat = array.ravel(order="F" if fortran else "C")
    copy = allocate(device.heap, flat.size, flat.dtype)
    bytes_at(copy.address, copy.nbytes)[:] = np.ascontiguousarray(flat).view(np.uint8)
    return copy if array.ndim == 1 else UserArray(copy, array.shape, fortran)


def from_device(array: EmulatedArray) -> np.ndarray:
    """A copy of what is on the device now, whatever is still queued."""
    return bytes_at(array.address, array.nbytes).copy().view(array.dtype)


_CODES = {c: np.dtype(c).kind + str(np.dtype(c).itemsize) for c in "?bhilqBHILQfd"}
_SCALARS = {np.dtype(c).type: code for c, code in _CODES.items()}
_POINTERS = {c: "p" + code for c, code in _CODES.items()}


def _packed(arg: Any, kernel: str, i: int) -> tuple[str, int]:
    """The code of an argument, and its bytes as a number."""
    if isinstance(arg, EmulatedArray):
        return _POINTERS.get(arg.dtype.char, "pv0"), arg.address
    if code := _SCALARS.get(type(arg)):
        if code[0] == "f":
            return code, int.from_bytes(arg.tobytes(), "little")
        return code, int(arg) % 2**64
    if arg is None:
        return "p", 0
    raise TypeError(
        f"kernel {kernel}, argument {i}: arguments are arrays on the device, "
        f"numpy scalars or None, not a {type(arg).__name__}"
    )


def _fits(code: str, declared: str) -> bool:
    if code == "p" or code[0] != "p" or declared[0] != "p" or code == declared:
        return code == declared or (code == "p" and declared[0] == "p")
    # Bytes may hold anything, and signs may be cast away; else items must be of the same kind.
    item, wanted = code[1:], declared[1:]
    if "v" in (item[0], wanted[0]) or "1" in (item[1:], wanted[1:]):
        return True
    return item[1:] == wanted[1:] and (item[0] == "f") == (wanted[0] == "f")


def _spelled(code: str) -> str:
    if code == "p":
        return "a null pointer"
    if code[0] == "p":
        return f"a pointer to {_spelled(code[1:])}"
    kinds = {"b": "bool", "i": "int", "u": "uint", "f": "float"}
    return f"{kinds[code[0]]}{int(code[1:]) * 8}" if code[0] in kinds else "void or a structure"


def _check_on_device(array: object) -> None:
    if not isinstance(array, EmulatedArray):
        raise TypeError(f"a {type(array).__name__} is not an array of the emulated device")


def _check_copy(host: np.ndarray, array: EmulatedArray) -> None:
    _check_on_device(array)
    if not isinstance(host, np.ndarray):
        raise TypeError(f"copies are to and from numpy arrays, not a {type(host).__name__}")
    if not host.flags.c_contiguous:
        raise ValueError("a host array that is copied must be contiguous")
    if host.dtype != array.dtype or host.size != array.size:
        raise ValueError(
            f"a copy between {host.size} items of {host.dtype} on the host and "
            f"{array.size} of {array.dtype} on the device"
        )


def _check_shape(kernel: _Kernel, n_blocks: int, n_threads: int) -> None:
    if not 1 <= n_blocks <= _MOST_BLOCKS:
        raise EmulationError(f"kernel {kernel.name}: a grid of {n_blocks} blocks")
    most = min(kernel.bound or _MOST_THREADS, _MOST_THREADS)
    if n_threads % 32 or not 32 <= n_threads <= most:
        raise EmulationError(
            f"kernel {kernel.name}: a block of {n_threads} threads; "
            f"blocks have a multiple of 32 up to {most}"
        )
