"""The interface of :mod:`.device_api`, implemented with CuPy. No other module imports CuPy.

CuPy's current device and current stream are set per thread, and calls come from several threads,
so every method sets both. Memory that other streams may still use, and host arrays that copies may
still read or write, are held until the stream has been synchronized.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

from ...errors import BackendError, DeviceMemoryError, OptionError
from ...utils.formats import dotted
from . import compile_cache, sources
from .cubin import completed
from .device_api import DeviceArray
from .driver import INSTALL
from .statuses import NO_PINNED_MEMORY, OUT_OF_MEMORY, error_of

logger = logging.getLogger("pdex_gpu")

_functions: dict[tuple[int, str, str], Any] = {}
_compiling = threading.RLock()


def open_device(index: int | None = None, memory: int | None = None) -> CupyDevice:
    """Open a device.

    Parameters
    ----------
    index : int, optional
        Number of the device; the first by default.
    memory : int, optional
        Most bytes that all its arrays together may take. The default is the whole device, or what
        ``CUPY_GPU_MEMORY_LIMIT`` allows.
    """
    return CupyDevice(index or 0, memory)


def runtime_version() -> tuple[int, int]:
    """Return the CUDA version that the installed CuPy was built for."""
    version = cupy.cuda.runtime.runtimeGetVersion()
    return version // 1000, version % 1000 // 10


def cupy_version() -> str:
    """Return the version of CuPy."""
    return str(cupy.__version__)


class CupyArray:
    """A :class:`.device_api.DeviceArray`: a CuPy array, and the stream that owns its memory."""

    def __init__(self, array: Any, home: CupyStream | None) -> None:
        self.array = array
        self.home = home  # None: memory that no stream of ours owns

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def size(self) -> int:
        return int(self.array.size)

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def __getitem__(self, part: slice) -> CupyArray:
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise TypeError(f"{part!r}: only slices with unit step can be taken of a device array.")
        return CupyArray(self.array[part], self.home)


class CupyStream:
    """A :class:`.device_api.Stream`."""

    def __init__(self, device: CupyDevice) -> None:
        self._device = device
        self._held: list[Any] = []
        self._last = ""  # the last launch: errors on a device are reported late
        with device.using("making a stream"):
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def empty(self, size: int, dtype: np.dtype | type) -> CupyArray:
        dtype = np.dtype(dtype)
        size = int(size)
        n_bytes = size * dtype.itemsize
        with self._device.using(f"allocating {n_bytes:,} bytes"):
            try:
                pointer = self._allocate(n_bytes)
            except cupy.cuda.memory.OutOfMemoryError:
                # The limit also counts memory that the pool keeps for other sizes and streams.
                self._stream.synchronize()
                self._held.clear()
                self._device.pool.free_all_blocks()
                pointer = self._allocate(n_bytes)
            return CupyArray(cupy.ndarray((size,), dtype, memptr=pointer), self)

    def _allocate(self, n_bytes: int) -> Any:
        with self._stream:  # the pool keeps free memory per stream
            return self._device.pool.malloc(n_bytes)

    def zero(self, array: DeviceArray) -> None:
        with self._device.using("clearing memory"):
            self._pointer(array).memset_async(0, array.nbytes, self._stream)

    def upload(self, host: np.ndarray, array: DeviceArray) -> None:
        _check_pair(host, array)
        self._held.append(host)
        with self._device.using(f"copying {host.nbytes:,} bytes to it"):
            pointer = self._pointer(array)
            pointer.copy_from_host_async(host.ctypes.data, host.nbytes, self._stream)

    def download(self, array: DeviceArray, host: np.ndarray) -> None:
        _check_pair(host, array)
        if not host.flags.writeable:
            raise ValueError("The host array to copy to is read-only.")
        self._held.append(host)
        with self._device.using(f"copying {host.nbytes:,} bytes from it"):
            pointer = self._pointer(array)
            pointer.copy_to_host_async(host.ctypes.data, host.nbytes, self._stream)

    def launch(
        self, source: str, kernel: str, n_blocks: int, n_threads: int, *args: Any, shared: int = 0
    ) -> None:
        if n_blocks < 1 or n_threads < 32 or n_threads % 32:
            # CuPy would turn zero blocks into one.
            raise ValueError(
                f"{kernel} needs at least one block of a multiple of 32 threads; got {n_blocks} x "
                f"{n_threads}."
            )
        values = tuple(self._argument(kernel, i, arg) for i, arg in enumerate(args))
        self._last = (
            f"{kernel} of {source} ({n_blocks:,} blocks of {n_threads} threads, {shared:,} bytes "
            "of shared memory)"
        )
        with self._device.using(f"starting {self._last}"):
            function = self._device.function(source, kernel)
            with self._stream:
                function((int(n_blocks),), (int(n_threads),), values, shared_mem=int(shared))

    def record(self) -> Any:
        with self._device.using("recording an event"):
            return self._stream.record(cupy.cuda.Event(disable_timing=True))

    def wait(self, event: Any) -> None:
        with self._device.using("waiting for an event"):
            self._stream.wait_event(event)

    def synchronize(self) -> None:
        with self._device.using(f"computing, last {self._last}" if self._last else "computing"):
            self._stream.synchronize()
        self._held.clear()

    def _argument(self, kernel: str, place: int, arg: Any) -> Any:
        if arg is None:
            return np.uint64(0)  # CuPy would pass no argument at all
        if isinstance(arg, CupyArray):
            self._hold(arg)
            return arg.array
        if isinstance(arg, np.generic) and arg.dtype.kind in "biuf":
            return arg
        raise TypeError(
            f"Argument {place} of {kernel} is a {type(arg).__name__}: pass a device array, a numpy "
            "scalar of the type that the kernel declares, or None for a null pointer."
        )

    def _pointer(self, array: DeviceArray) -> Any:
        if not isinstance(array, CupyArray):
            raise TypeError(f"{type(array).__name__} is not an array of a CUDA device.")
        self._hold(array)
        return array.array.data

    def _hold(self, array: CupyArray) -> None:
        """Keep another stream's memory alive: once freed, that stream could reuse it at once."""
        if array.home is not self:
            self._held.append(array)


class CupyDevice:
    """A :class:`.device_api.Device`; :func:`open_device` makes one."""

    def __init__(self, index: int, memory: int | None) -> None:
        if memory is not None and memory < 1:
            raise ValueError(f"memory={memory} must be at least 1 byte, or None.")
        self.index = index
        self.description = f"device {index}"
        runtime = cupy.cuda.runtime
        self.pool = cupy.cuda.MemoryPool()
        self._pageable = False  # whether page-locking has failed
        with self.using("being opened"):
            properties = runtime.getDeviceProperties(index)
            self.description = f"{properties['name'].decode(errors='replace')}, device {index}"
            self.shared_memory = int(
                runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, index)
            )
            if memory is not None:
                self.pool.set_limit(size=memory)

    def memory(self) -> tuple[int, int]:
        with self.using("asking how much memory is free"):
            return self._memory()

    def _memory(self) -> tuple[int, int]:
        free, total = cupy.cuda.runtime.memGetInfo()
        free += self.pool.free_bytes()
        limit = self.pool.get_limit()
        if limit:
            free = min(free, limit - self.pool.used_bytes())
        return max(0, int(free)), int(total)

    def stream(self) -> CupyStream:
        return CupyStream(self)

    def pinned(self, n_bytes: int) -> np.ndarray:
        if n_bytes == 0:
            return np.empty(0, np.uint8)
        with self.using(f"page-locking {n_bytes:,} bytes of host memory"):
            # CuPy's pool keeps it for the next run: page-locking takes longer than a small run.
            try:
                memory = cupy.cuda.alloc_pinned_memory(n_bytes)
            except cupy.cuda.runtime.CUDARuntimeError as error:
                # Host memory is short, not device memory: less work at a time would not help.
                if error.status not in NO_PINNED_MEMORY:
                    raise
                self._warn_pageable(n_bytes, error)
                return np.empty(n_bytes, np.uint8)
        return np.frombuffer(memory, np.uint8, n_bytes)

    def _warn_pageable(self, n_bytes: int, error: Exception) -> None:
        if self._pageable:
            return
        self._pageable = True
        logger.warning(
            "%s: cannot page-lock %s bytes of host memory (%s). The run continues with pageable "
            "memory: results are the same, but copying is slower. Free host memory, or raise the "
            "memory limit of this job or container.",
            self.description, f"{n_bytes:,}", error,
        )  # fmt: skip

    def adopt(self, array: Any) -> CupyArray:
        with self.using("taking over an array"):
            adopted = cupy.asarray(array)
            if adopted.device.id != self.index:
                raise OptionError(
                    f"The data are on device {adopted.device.id}, but device {self.index} was "
                    f"chosen. Pass device={adopted.device.id}, or move the data."
                )
            if adopted.ndim != 1 or not adopted.flags.c_contiguous:
                raise ValueError(
                    f"An array of shape {adopted.shape} and strides {adopted.strides} cannot be "
                    "used in place: it must be one-dimensional and contiguous."
                )
            if adopted.data.ptr != array.__cuda_array_interface__["data"][0]:
                raise ValueError(f"CuPy cannot use this {type(array).__name__} in place.")
            # The array may still be being written, on a stream that ours do not wait for.
            cupy.cuda.Device(self.index).synchronize()
        return CupyArray(adopted, None)

    @contextmanager
    def using(self, doing: str) -> Iterator[None]:
        """Make this the current device, and turn CUDA errors into errors of this package."""
        try:
            with cupy.cuda.Device(self.index):
                yield
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise self._out_of_memory(doing) from error
        except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
            if error.status == OUT_OF_MEMORY:
                raise self._out_of_memory(doing) from error
            raise error_of(error.status, self.description, doing, error) from error

    def _out_of_memory(self, doing: str) -> DeviceMemoryError:
        text = f"{self.description}, ran out of memory while {doing}"
        try:
            with cupy.cuda.Device(self.index):
                free, total = self._memory()
                limit = self.pool.get_limit()
        except RuntimeError:  # the reason given below is the one that counts
            pass
        else:
            text += f": {free:,} of {total:,} bytes are free"
            if limit:
                text += f" within the limit of {limit:,} bytes"
        return DeviceMemoryError(
            f"{text}. Free memory of the device (nvidia-smi lists what is using it), raise "
            "device_memory, or use backend='cpu'."
        )

    def function(self, source: str, kernel: str) -> Any:
        """Return a kernel, compiled if necessary. This must be the current device."""
        key = (self.index, source, kernel)
        found = _functions.get(key)
        if found is None:
            with _compiling:
                found = _functions.get(key)
                if found is None:
                    found = self._module(source).get_function(kernel)
                    # The most a block may have, less what the kernel itself declares.
                    most = self.shared_memory - found.shared_size_bytes
                    found.max_dynamic_shared_size_bytes = most
                    _functions[key] = found
        return found

    def _module(self, source: str) -> Any:
        """Load a source, compiled if necessary; CuPy keeps it loaded."""
        architecture = _architecture(self.index)
        path, _ = compile_cache.find_or_make(source, architecture, nvrtc_version(), _compile)
        module = cupy.RawModule(path=str(path))
        module.compile()
        return module


def compile_all(device: CupyDevice) -> list[tuple[str, str, bool]]:
    """Compile every source for a device, and load it there.

    Returns
    -------
    list of tuple
        Name of the source, architecture, and whether it was compiled now.
    """
    with device.using("loading kernels"), _compiling:
        compiled = compile_for(_architecture(device.index))
        for name in sources.names():
            device._module(name)
    return compiled


def compile_for(architecture: str) -> list[tuple[str, str, bool]]:
    """Compile every source for an architecture; needs no device and no driver.

    Parameters
    ----------
    architecture : str
        ``"sm_90"`` for compute capability 9.0.

    Returns
    -------
    list of tuple
        As for :func:`compile_all`.

    Raises
    ------
    pdex_gpu.errors.BackendError
        If NVRTC is missing or does not know the architecture, or a source does not compile.
    """
    version = nvrtc_version()
    known = [f"{kind}_{a}" for kind in ("sm", "compute") for a in _known_architectures()]
    if architecture not in known:
        raise BackendError(
            f"NVRTC {dotted(version)} does not compile for {architecture}. It supports "
            f"{', '.join(a for a in known if a.startswith('sm_'))}."
        )
    return [
        (name, architecture, compile_cache.find_or_make(name, architecture, version, _compile)[1])
        for name in sources.names()
    ]


def nvrtc_version() -> tuple[int, int]:
    """Return the version of NVRTC, CUDA's compiler library.

    Raises
    ------
    pdex_gpu.errors.BackendError
        If it is not installed.
    """
    try:
        major, minor = cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # the class depends on how CuPy looks for libraries
        first = (str(error).splitlines() or [""])[0]
        raise BackendError(
            f"NVRTC, CUDA's compiler, cannot be loaded ({type(error).__name__}: {first}). "
            f"Run: {INSTALL.format(runtime_version()[0])}"
        ) from error
    return int(major), int(minor)


def _known_architectures() -> list[int]:
    return sorted(int(a) for a in cupy.cuda.nvrtc.getSupportedArchs())


def _architecture(index: int) -> str:
    """Return the target to compile for: the device itself, or PTX for the nearest one below."""
    version = nvrtc_version()
    capability = int(cupy.cuda.Device(index).compute_capability)
    known = [a for a in _known_architectures() if a <= capability]
    if not known:
        raise BackendError(
            f"NVRTC {dotted(version)} no longer compiles for compute capability "
            f"{capability / 10}. Run: pip uninstall cupy-cuda13x; {INSTALL.format(12)}"
        )
    return f"sm_{capability}" if capability in known else f"compute_{known[-1]}"


def _compile(text: str, filename: str, options: tuple[str, ...]) -> bytes:
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(text, filename, (), ())
    try:
        nvrtc.compileProgram(program, options)
        ptx = options[-1].startswith("--gpu-architecture=compute_")
        if ptx:
            return nvrtc.getPTX(program)
        return completed(nvrtc.getCUBIN(program), filename)
    except nvrtc.NVRTCError as error:
        raise BackendError(
            f"The CUDA source {filename} does not compile with NVRTC {dotted(nvrtc_version())} "
            f"({' '.join(options)}):\n{nvrtc.getProgramLog(program).strip()}"
        ) from error
    finally:
        nvrtc.destroyProgram(program)


def _check_pair(host: np.ndarray, array: DeviceArray) -> None:
    if not host.flags.c_contiguous or host.dtype != array.dtype or host.size != array.size:
        raise ValueError(
            f"A host array of {host.size} {host.dtype}, "
            f"{'contiguous' if host.flags.c_contiguous else 'not contiguous'}, and a device array "
            f"of {array.size} {array.dtype} cannot be copied: they must be contiguous and of the "
            "same size and dtype."
        )
