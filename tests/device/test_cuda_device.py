"""The seam on CuPy: what it asks of CuPy, against a small fake; that CuPy has it; and a device."""

from __future__ import annotations

import copy
import ctypes
import importlib
import inspect
import re
import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import nvrtc
import pytest

import pdex_gpu.backends.cuda as package
from pdex_gpu.backends.cuda import compile_cache, probe, sources
from pdex_gpu.backends.cuda.cubin import completed
from pdex_gpu.backends.cuda.staging import Staging
from pdex_gpu.errors import (
    BackendError,
    DeviceLostError,
    DeviceMemoryError,
    KernelError,
    OptionError,
)

MODULE = "pdex_gpu.backends.cuda.cupy_device"


def elf(data: bytes) -> bytes:
    """A file as NVRTC makes it: header, data, a section of them, a section and a segment table."""
    sections, size = 64 + len(data), len(data)
    segments = sections + 3 * 64
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01A\x08", 2, 190, 1, 0, segments, sections,
        0, 64, 56, 1, 64, 3, 1,
    )  # fmt: skip
    empty = struct.pack("<IIQQQQIIQQ", *[0] * 10)
    holds_data = struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, size, 0, 0, 1, 0)
    takes_no_room = struct.pack("<IIQQQQIIQQ", 1, 8, 0, 0, 64, 1 << 40, 0, 0, 1, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 64, 0, 0, size, size, 8)
    return header + data + empty + holds_data + takes_no_room + segment


# --- a CuPy of two devices with 1000 bytes each ---------------------------------------------


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError{status}: what {status} means")
        self.status = status


class CUDADriverError(CUDARuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class NVRTCError(RuntimeError):
    pass


class Pointer:
    """Device memory; copies happen at once."""

    def __init__(self, cupy: FakeCupy, memory: np.ndarray, offset: int = 0) -> None:
        self.cupy, self.memory, self.offset = cupy, memory, offset
        self.ptr = memory.ctypes.data + offset
        self.index = cupy.index

    def copy_from_host_async(self, mem, size, stream=None):
        self._check(mem, size, stream)
        ctypes.memmove(self.ptr, mem, size)

    def copy_to_host_async(self, mem, size, stream=None):
        self._check(mem, size, stream)
        ctypes.memmove(mem, self.ptr, size)

    def memset_async(self, value, size, stream=None):
        self._check(0, size, stream)
        ctypes.memset(self.ptr, value, size)

    def _check(self, mem, size, stream):
        assert type(mem) is int
        assert type(size) is int
        assert 0 <= size <= self.memory.nbytes - self.offset
        self.cupy.check_stream(stream)


class Array:
    def __init__(self, shape, dtype, memptr):
        (self.size,) = self.shape = shape
        self.data, self.dtype, self.ndim = memptr, np.dtype(dtype), 1
        self.nbytes = self.size * self.dtype.itemsize
        self.strides = (self.dtype.itemsize,)
        self.flags = SimpleNamespace(c_contiguous=True)
        self.device = SimpleNamespace(id=memptr.index)
        self.__cuda_array_interface__ = {"data": (memptr.ptr, False)}

    def __getitem__(self, part):
        start, stop, _ = part.indices(self.size)
        offset = self.data.offset + start * self.dtype.itemsize
        pointer = copy.copy(self.data)
        pointer.ptr += offset - pointer.offset
        pointer.offset = offset
        return Array((max(0, stop - start),), self.dtype, pointer)


class FakeCupy(SimpleNamespace):
    """The part of CuPy that the backend uses, with checks of what belongs to a thread."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.calls: list[tuple] = []
        self.launch = lambda *_: None  # what a kernel does
        self.shared_size_bytes = 0
        self.no_loading = 0  # the status of every attempt to
        self.compute_capability = "90"
        self.__version__ = "14.9"
        self.ndarray = Array
        self.asarray = lambda array: array
        fake = self

        class Device:
            def __init__(self, index):
                self.id = index
                self.compute_capability = fake.compute_capability

            def __enter__(self):
                fake.devices().append(self.id)

            def __exit__(self, *_):
                fake.devices().pop()

            def synchronize(self):
                fake.calls.append(("synchronize device", self.id))

        class Stream:
            def __init__(self, non_blocking):
                assert non_blocking
                self.index = fake.index

            def __enter__(self):
                fake.check_stream(self)
                fake.streams().append(self)

            def __exit__(self, *_):
                fake.streams().pop()

            def record(self, event):
                fake.check_stream(self)
                return event

            def wait_event(self, event):
                fake.check_stream(self)
                fake.calls.append(("wait", event))

            def synchronize(self):
                fake.check_stream(self)
                fake.calls.append(("synchronize", self))

        class MemoryPool:
            limit = used = kept = 0

            def malloc(self, size):
                assert fake.streams(), "no current stream"
                room = min(1000, self.limit or 1000) - self.used - self.kept
                if size > room:
                    raise OutOfMemoryError("asked too much")
                self.used += size
                return Pointer(fake, np.full(size, 0xA5, np.uint8))

            def set_limit(self, size):
                assert fake.devices()
                self.limit = size

            def free_all_blocks(self):
                self.kept = 0

            get_limit = property(lambda self: lambda: self.limit)
            used_bytes = property(lambda self: lambda: self.used)
            free_bytes = property(lambda self: lambda: self.kept)

        class RawModule:
            def __init__(self, *, path):
                self.path = path

            def compile(self):
                assert fake.devices()
                fake.calls.append(("load", Path(self.path).name.split("-")[0]))
                binary = Path(self.path).read_bytes()
                if self.path.endswith(".cubin") and binary != elf(binary[64 : -3 * 64 - 56]):
                    raise CUDADriverError(200)
                if fake.no_loading:
                    raise CUDADriverError(fake.no_loading)

            def get_function(self, name):
                return Kernel(name)

        class Kernel:
            def __init__(self, name):
                self.name, self.shared_size_bytes = name, fake.shared_size_bytes

            def __setattr__(self, name, value):
                if name == "max_dynamic_shared_size_bytes":
                    assert self.shared_size_bytes + value == 5000
                super().__setattr__(name, value)

            def __call__(self, grid, block, args, *, shared_mem):
                assert all(type(n) is int for n in (*grid, *block, shared_mem))
                fake.calls.append((self.name, grid, block, args, shared_mem, fake.streams()[-1]))
                fake.launch(*args)

        def get_cubin(program):
            fake.calls.append(("compile", *program))
            return elf(repr(program).encode())[:-1]  # as CuPy does

        def get_ptx(program):
            fake.calls.append(("compile", *program))
            return repr(program).encode()

        self.nvrtc = SimpleNamespace(
            NVRTCError=NVRTCError,
            getVersion=lambda: (13, 1),
            getSupportedArchs=lambda: (75, 80, 90),
            createProgram=lambda text, name, headers, includes: [name],
            compileProgram=lambda program, options: program.append(options),
            getCUBIN=get_cubin,
            getPTX=get_ptx,
            getProgramLog=lambda program: "toy.cu(1): error: no\n",
            destroyProgram=lambda program: None,
        )
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceProperties=lambda index: {"name": b"Fake GPU"},
            cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
            deviceGetAttribute=lambda attribute, index: {97: 5000}[attribute],
            memGetInfo=lambda: (700, 1000),
            runtimeGetVersion=lambda: 13020,
        )
        self.cuda = SimpleNamespace(
            Device=Device,
            Event=lambda disable_timing: SimpleNamespace(timed=not disable_timing),
            MemoryPool=MemoryPool,
            alloc_pinned_memory=lambda size: bytearray(-(-size // 512) * 512),
            Stream=Stream,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            nvrtc=self.nvrtc,
            runtime=self.runtime,
        )
        self.RawModule = RawModule

    def devices(self):
        return self.local.__dict__.setdefault("devices", [])

    def streams(self):
        return self.local.__dict__.setdefault("streams", [])

    @property
    def index(self):
        assert self.devices(), "no current device"
        return self.devices()[-1]

    def check_stream(self, stream):
        assert stream.index == self.index


def imported(monkeypatch: pytest.MonkeyPatch):
    """The module, imported now; gone after the test."""
    monkeypatch.setitem(sys.modules, MODULE, None)
    monkeypatch.setattr(package, "cupy_device", None, raising=False)
    del sys.modules[MODULE], package.cupy_device
    return importlib.import_module(MODULE)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.fixture
def module(cupy, monkeypatch: pytest.MonkeyPatch, cache):
    return imported(monkeypatch)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for compiled sources."""
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pdex_gpu"


@pytest.fixture
def device(module):
    return module.open_device(1)


# --- devices ---------------------------------------------------------------------------------


def test_open(module, cupy):
    assert module.open_device().index == 0
    device = module.open_device(1)
    assert (device.index, device.description) == (1, "Fake GPU, device 1")
    assert device.shared_memory == 5000
    assert cupy.devices() == []
    with pytest.raises(ValueError, match="memory=0 must be at least 1 byte"):
        module.open_device(0, 0)


def test_free_memory(module, device):
    assert device.memory() == (700, 1000)
    device.pool.kept = 100
    assert device.memory() == (800, 1000)
    limited = module.open_device(0, 300)
    limited.pool.used = 120
    assert limited.memory() == (180, 1000)
    limited.pool.used = 400
    assert limited.memory() == (0, 1000)


def test_pinned(device):
    host = device.pinned(24)
    assert (host.dtype, host.shape) == (np.uint8, (24,))
    host.view(np.float64)[:] = 1.5
    assert device.pinned(0).size == 0


@pytest.mark.parametrize("status", [2, 304, 801])
def test_host_memory_that_cannot_be_page_locked(device, cupy, monkeypatch, caplog, status):
    """The run goes on, and says once that it is slower; no device memory has run out."""

    def fail(_):
        raise CUDARuntimeError(status)

    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", fail)
    host = device.pinned(24)
    assert (host.dtype, host.shape) == (np.uint8, (24,))
    values = np.arange(50, dtype=np.float32)
    staging, stream = Staging(device, 2, 64), device.stream()
    array = stream.empty(50, np.float32)
    assert staging.send(lambda a, b: (values[a:b],), [array], map) == set()
    back = np.zeros(50, np.float32)
    staging.receive(array, back, stream, map)
    np.testing.assert_array_equal(back, values)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"cannot page-lock 24 bytes of host memory (cudaError{status}" in record.message


def test_a_device_that_is_lost_while_memory_is_page_locked(device, cupy, monkeypatch):
    def fail(_):
        raise CUDARuntimeError(719)

    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", fail)
    with pytest.raises(DeviceLostError, match="failed while page-locking 24 bytes of host memory"):
        device.pinned(24)


def test_adopt(device, cupy):
    with device.using("making an array"):
        theirs = Array((3,), np.float32, Pointer(cupy, np.zeros(12, np.uint8)))
        elsewhere = Array((3,), np.float32, Pointer(cupy, np.zeros(12, np.uint8)))
        moved = Array((3,), np.float32, Pointer(cupy, np.zeros(12, np.uint8)))
    adopted = device.adopt(theirs)
    assert (adopted.dtype, adopted.size, adopted.nbytes) == (np.float32, 3, 12)
    assert ("synchronize device", 1) in cupy.calls

    elsewhere.device.id = 0
    with pytest.raises(OptionError, match=r"on device 0, but device 1 was chosen. Pass device=0"):
        device.adopt(elsewhere)
    moved.__cuda_array_interface__ = {"data": (7, False)}
    with pytest.raises(ValueError, match="cannot use this Array in place"):
        device.adopt(moved)
    theirs.flags.c_contiguous = False
    with pytest.raises(ValueError, match="one-dimensional and contiguous"):
        device.adopt(theirs)


# --- memory and copies -----------------------------------------------------------------------


def test_there_and_back(device):
    stream = device.stream()
    array = stream.empty(5, np.int16)
    assert (array.dtype, array.size, array.nbytes) == (np.int16, 5, 10)
    stream.upload(np.arange(5, dtype=np.int16), array)
    stream.zero(array[1:3])
    back = np.empty(3, np.int16)
    stream.download(array[:4][1:], back)
    stream.synchronize()
    assert back.tolist() == [0, 0, 3]


def test_slices_have_unit_step(device):
    array = device.stream().empty(5, np.int16)
    for part in (slice(None, None, 2), slice(None, None, -1), 3):
        with pytest.raises(TypeError, match="unit step"):
            array[part]


def test_pairs_that_do_not_match(device):
    stream = device.stream()
    array = stream.empty(4, np.float32)
    for host in (
        np.zeros(5, np.float32), np.zeros(4, np.int32), np.zeros(4, ">f4"),
        np.zeros(8, np.float32)[::2],
    ):  # fmt: skip
        with pytest.raises(ValueError, match="cannot be copied"):
            stream.upload(host, array)
        with pytest.raises(ValueError, match="cannot be copied"):
            stream.download(array, host)
    host = np.zeros(4, np.float32)
    host.flags.writeable = False
    stream.upload(host, array)
    with pytest.raises(ValueError, match="read-only"):
        stream.download(array, host)
    with pytest.raises(TypeError, match="ndarray is not an array of a CUDA device"):
        stream.zero(host)


def test_memory_of_another_stream_is_held_until_the_work_is_done(device):
    here, there = device.stream(), device.stream()
    array, host = there.empty(4, np.int8), np.zeros(4, np.int8)
    count = sys.getrefcount(array), sys.getrefcount(host)
    here.upload(host, array)
    assert (sys.getrefcount(array), sys.getrefcount(host)) == (count[0] + 1, count[1] + 1)
    here.synchronize()
    assert (sys.getrefcount(array), sys.getrefcount(host)) == count
    here.launch("probe", "probe", 1, 32, array, np.uint32(4))
    assert sys.getrefcount(array) == count[0] + 1
    here.synchronize()
    there.zero(array)  # its own: CuPy keeps the order
    assert sys.getrefcount(array) == count[0]


def test_out_of_memory(module):
    device = module.open_device(0, 500)
    stream = device.stream()
    stream.empty(300, np.int8)
    with pytest.raises(DeviceMemoryError) as caught:
        stream.empty(100, np.float64)
    assert str(caught.value) == (
        "Fake GPU, device 0, ran out of memory while allocating 800 bytes: 200 of 1,000 bytes are "
        "free within the limit of 500 bytes. Free memory of the device (nvidia-smi lists what is "
        "using it), raise device_memory, or use backend='cpu'."
    )
    assert isinstance(caught.value.__cause__, OutOfMemoryError)


def test_what_the_pool_keeps_is_given_back_before_memory_runs_out(device, cupy):
    stream = device.stream()
    device.pool.kept = 900
    assert stream.empty(500, np.int8).size == 500
    assert [call[0] for call in cupy.calls] == ["synchronize"]


# --- kernels ---------------------------------------------------------------------------------


def test_launch(device, cupy):
    stream = device.stream()
    out = stream.empty(2, np.int64)
    stream.launch(
        "probe", "probe", np.int64(3), 64, out, np.uint32(7), None, np.bool_(True), shared=4096
    )
    name, grid, block, args, shared, launched_on = cupy.calls[-1]
    assert (name, grid, block, shared) == ("probe", (3,), (64,), 4096)
    assert launched_on is stream._stream
    assert args[0] is out.array
    assert [type(a) for a in args[1:]] == [np.uint32, np.uint64, np.bool_]
    assert args[2] == 0  # a null pointer
    assert cupy.devices() == cupy.streams() == []


def test_a_source_is_compiled_once_and_loaded_once(module, cupy, cache):
    for device in (module.open_device(0), module.open_device(0), module.open_device(1)):
        for kernel in ("probe", "probe", "other"):
            device.stream().launch("probe", kernel, 1, 32)
    compiled = [call for call in cupy.calls if call[0] == "compile"]
    options = ("--std=c++17", "--fmad=false", "--gpu-architecture=sm_90")
    assert compiled == [("compile", "probe.cu", options)]
    # Two kernels on two devices; CuPy remembers modules by path and device.
    assert cupy.calls.count(("load", "probe")) == 4
    assert len(list(cache.iterdir())) == 1
    assert len(module._functions) == 4


def test_shared_memory_leaves_room_for_what_the_kernel_declares(device, cupy):
    cupy.shared_size_bytes = 1000
    device.stream().launch("probe", "probe", 1, 32, shared=4000)


@pytest.mark.parametrize("arg", [1, 1.0, True, "x", np.zeros(3), np.datetime64(0, "s")])
def test_arguments_that_cupy_would_guess(device, arg):
    with pytest.raises(TypeError, match=r"Argument 1 of probe is a \w+: pass a device array"):
        device.stream().launch("probe", "probe", 1, 32, np.int32(1), arg)


@pytest.mark.parametrize("shape", [(0, 32), (1, 0), (1, 33), (-1, 32)])
def test_shapes_of_a_launch(device, shape):
    with pytest.raises(ValueError, match="at least one block of a multiple of 32 threads"):
        device.stream().launch("probe", "probe", *shape)


def test_events(device, cupy):
    one, other = device.stream(), device.stream()
    event = one.record()
    assert not event.timed
    other.wait(event)
    assert cupy.calls == [("wait", event)]


def test_threads(device, cupy):
    """Each thread has its own current device and stream."""
    stream, results = device.stream(), []

    def work():
        array = stream.empty(4, np.int32)
        stream.upload(np.arange(4, dtype=np.int32), array)
        stream.launch("probe", "probe", 1, 32, array)
        results.append(array)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert sum(call[0] == "compile" for call in cupy.calls) == 1


@pytest.mark.parametrize(
    ("architectures", "capability", "option"),
    [
        ((75, 80, 90), "90", "sm_90"),
        ((75, 80, 90), "86", "compute_80"),  # the driver translates PTX
        ((75, 80, 90), "120", "compute_90"),
        ((75, 80, 120), "103", "compute_80"),
    ],
)
def test_architectures(device, cupy, architectures, capability, option):
    cupy.nvrtc.getSupportedArchs = lambda: architectures
    cupy.compute_capability = capability
    device.stream().launch("probe", "probe", 1, 32)
    (options,) = [call[2] for call in cupy.calls if call[0] == "compile"]
    assert options[-1] == f"--gpu-architecture={option}"


def test_an_architecture_that_the_compiler_has_left_behind(device, cupy):
    cupy.compute_capability = "70"
    with pytest.raises(BackendError, match=r"capability 7\.0\. Run: .*cupy-cuda12x\[ctk\]>=14"):
        device.stream().launch("probe", "probe", 1, 32)


def test_compile_all(module, device, cupy):
    done = module.compile_all(device)
    assert done == [(name, "sm_90", True) for name in sources.names()]
    assert {call[1] for call in cupy.calls if call[0] == "load"} == set(sources.names())
    assert module.compile_all(device) == [(name, "sm_90", False) for name in sources.names()]
    with pytest.raises(BackendError, match=r"NVRTC 13\.1 does not compile for sm_70.*sm_75, sm_80"):
        module.compile_for("sm_70")


def test_a_source_that_does_not_compile(device, cupy):
    def fail(*_):
        raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")

    cupy.nvrtc.compileProgram = fail
    with pytest.raises(
        BackendError, match=r"(?s)probe\.cu does not compile.*toy\.cu\(1\)"
    ) as caught:
        device.stream().launch("probe", "probe", 1, 32)
    assert isinstance(caught.value.__cause__, NVRTCError)


def test_no_nvrtc(device, cupy):
    def fail():
        raise RuntimeError("Failure finding libnvrtc.so.13\nand more")

    cupy.nvrtc.getVersion = fail
    with pytest.raises(
        BackendError, match=r'libnvrtc\.so\.13\)\. Run: pip install "cupy-cuda13x\[ctk\]>=14"'
    ):
        device.stream().launch("probe", "probe", 1, 32)


# --- errors of CUDA --------------------------------------------------------------------------


KINDS = pytest.mark.parametrize("kind", [CUDARuntimeError, CUDADriverError])


@KINDS
@pytest.mark.parametrize("status", [3, 46, 214, 220, 304, 702, 709, 719, 805, 999])
def test_a_lost_device(device, cupy, monkeypatch, kind, status):
    stream = device.stream()

    def fail(_):
        raise kind(status)

    monkeypatch.setattr(cupy.cuda.Stream, "synchronize", fail)
    with pytest.raises(DeviceLostError) as caught:
        stream.synchronize()
    text = str(caught.value)
    assert text.startswith(
        f"Fake GPU, device 1, failed while computing: cudaError{status}: what {status} means. "
        "Results were discarded. "
    )
    assert ("dmesg" in text) == (status != 702)
    assert ("display" in text) == (status == 702)
    assert isinstance(caught.value.__cause__, kind)
    assert cupy.devices() == []


@KINDS
@pytest.mark.parametrize("status", [700, 710, 714, 715, 716, 717, 718])
def test_a_kernel_that_goes_wrong(device, cupy, monkeypatch, kind, status):
    """Found when the host waits; told with the kernel that was started last."""
    stream = device.stream()

    def fail(_):
        raise kind(status)

    stream.launch("probe", "probe", 3, 64, shared=1024)
    monkeypatch.setattr(cupy.cuda.Stream, "synchronize", fail)
    with pytest.raises(KernelError) as caught:
        stream.synchronize()
    text = str(caught.value)
    assert text.startswith(
        "Fake GPU, device 1, failed while computing, last probe of probe (3 blocks of 64 threads, "
        f"1,024 bytes of shared memory): cudaError{status}: what {status} means. "
    )
    assert "bug in pdex_gpu: please report it" in text
    assert "Run again" not in text
    assert isinstance(caught.value, BackendError)
    assert isinstance(caught.value.__cause__, kind)


@KINDS
@pytest.mark.parametrize("status", [1, 9, 65, 98, 400, 701, 720, 801, 912, 12345])
def test_a_kernel_that_cannot_be_started(device, cupy, kind, status):
    def fail(*_):
        raise kind(status)

    cupy.launch = fail
    with pytest.raises(KernelError) as caught:
        device.stream().launch("probe", "probe", 3, 64, shared=1024)
    text = str(caught.value)
    assert text.startswith(
        "Fake GPU, device 1, failed while starting probe of probe (3 blocks of 64 threads, 1,024 "
        f"bytes of shared memory): cudaError{status}: what {status} means. "
    )
    wanted = "cannot be loaded. Update the NVIDIA driver" if status == 98 else "please report it"
    assert wanted in text
    assert "backend='cpu'" in text
    assert "Run again" not in text
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("status", [98, 200, 209, 218, 221, 222, 300, 301, 302, 500])
def test_a_binary_that_cannot_be_loaded(device, cupy, status):
    cupy.no_loading = status
    with pytest.raises(KernelError, match=rf"starting probe of probe .*cudaError{status}") as found:
        device.stream().launch("probe", "probe", 1, 32)
    assert "Update the NVIDIA driver, or install the CuPy that matches it" in str(found.value)
    assert "Run again" not in str(found.value)


@pytest.mark.parametrize("status", [34, 35, 36, 100, 101, 216, 803, 804])
def test_a_driver_that_does_not_fit(module, cupy, monkeypatch, status):
    def fail(_):
        raise CUDARuntimeError(status)

    monkeypatch.setattr(cupy.cuda.Device, "__enter__", fail)
    with pytest.raises(BackendError, match=r"device 0, failed while being opened: .*doctor says"):
        module.open_device(0)


def test_any_call_can_run_out_of_memory(device, cupy):
    def fail(*_):
        raise CUDADriverError(2)

    cupy.launch = fail
    with pytest.raises(DeviceMemoryError, match="ran out of memory while starting probe of probe"):
        device.stream().launch("probe", "probe", 1, 32)


def test_no_context_for_lack_of_memory(module, cupy, monkeypatch):
    def fail(_):
        raise CUDARuntimeError(2)

    monkeypatch.setattr(cupy.cuda.Device, "__enter__", fail)
    with pytest.raises(DeviceMemoryError, match="device 0, ran out of memory while being opened"):
        module.open_device(0)


# --- compiled sources on disk ----------------------------------------------------------------


def make(architecture="sm_90", version=(13, 0)) -> tuple[Path, bool]:
    return compile_cache.find_or_make(
        "probe", architecture, version, lambda *args: repr(args).encode()
    )


def test_binaries_are_kept(cache):
    path, made = make()
    assert made
    assert path.parent == cache
    assert re.fullmatch(r"probe-sm_90-[0-9a-f]{32}-[0-9a-f]{32}\.cubin", path.name)
    assert list(cache.iterdir()) == [path]
    assert make() == (path, False)
    assert make("compute_90")[0].suffix == ".ptx"
    assert len({make()[0], make("sm_80")[0], make(version=(13, 1))[0]}) == 3


def test_another_source_is_another_binary(cache, monkeypatch):
    before, _ = make()
    text = sources.text("probe")
    monkeypatch.setattr(sources, "text", lambda name: text + "// changed")
    assert make()[0] != before


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file"))
    path, made = make()
    assert made
    assert path.is_file()
    assert tmp_path not in path.parents


def test_nothing_is_left_of_a_failed_write(cache, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compile_cache.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert list(cache.iterdir()) == []


def compiled(cupy: FakeCupy) -> int:
    return sum(call[0] == "compile" for call in cupy.calls)


def damage(path: Path, how: str) -> None:
    binary = path.read_bytes()
    half = len(binary) // 2
    path.write_bytes(
        {
            "empty": b"",
            "half": binary[:half],
            "a byte short": binary[:-1],
            "a bit": binary[:half] + bytes([binary[half] ^ 1]) + binary[half + 1 :],
            "a byte more": binary + b"\0",
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "half", "a byte short", "a bit", "a byte more"])
@pytest.mark.parametrize("architectures", [(75, 90), (75, 80)])  # machine code, PTX
def test_a_damaged_binary_is_made_again(device, cupy, module, cache, caplog, how, architectures):
    cupy.nvrtc.getSupportedArchs = lambda: architectures
    device.stream().launch("probe", "probe", 1, 32)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    damage(path, how)
    module._functions.clear()
    device.stream().launch("probe", "probe", 1, 32)
    assert compiled(cupy) == 2
    assert path.read_bytes() == whole
    assert f"{path} is damaged: the CUDA source is compiled again" in caplog.text
    module._functions.clear()
    device.stream().launch("probe", "probe", 1, 32)
    assert compiled(cupy) == 2


def test_binaries_of_earlier_versions_are_not_used(device, cupy, cache):
    """They were kept without their last byte, under names that did not tell what is in them."""
    device.stream().launch("probe", "probe", 1, 32)
    (path,) = cache.iterdir()
    old = path.with_name(path.name.rpartition("-")[0] + ".cubin")
    old.write_bytes(path.read_bytes()[:-1])
    path.unlink()
    device.stream().launch("probe", "another", 1, 32)
    assert compiled(cupy) == 2
    assert path.is_file()


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_a_binary_gets_back_the_byte_that_cupy_leaves_out(size):
    whole = elf(b"x" * size)
    assert completed(whole[:-1], "probe.cu") == whole
    assert completed(whole, "probe.cu") == whole  # of a CuPy that gives it


def test_a_binary_whose_missing_byte_nobody_knows():
    whole = elf(b"x" * 100)
    for binary in (whole[:-2], whole[:200], whole[:63], whole[:10], b"", b"PTX or so"):
        with pytest.raises(
            BackendError, match=r"The CUDA binary of probe\.cu cannot be used: CuPy"
        ):
            completed(binary, "probe.cu")
    # Data at the end: a byte of them may be anything.
    at_end = bytearray(whole) + b"data"
    struct.pack_into("<QQ", at_end, 64 + 100 + 64 + 24, len(whole), 4)
    assert completed(bytes(at_end), "probe.cu") == at_end
    with pytest.raises(BackendError, match=f"{len(whole) + 3} bytes, but the binary declares "):
        completed(bytes(at_end[:-1]), "probe.cu")


# --- the real CuPy ---------------------------------------------------------------------------


def real_cupy():
    return pytest.importorskip("cupy", exc_type=ImportError)


def test_cupy_has_what_is_used():
    cupy = real_cupy()
    text = Path(package.__file__).with_name("cupy_device.py").read_text()
    names = set(re.findall(r"\b(?:cupy|runtime|nvrtc)(?:\.[a-zA-Z]\w*)+", text))
    assert len(names) > 25
    names = {re.sub(r"^(runtime|nvrtc)\.", r"cupy.cuda.\1.", name) for name in names}
    for name in names:
        found = cupy
        for part in name.split(".")[1:]:
            found = getattr(found, part)


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("MemoryPointer.copy_from_host_async", "(self, mem, size_t size, stream=None)"),
        ("MemoryPointer.copy_to_host_async", "(self, mem, size_t size, stream=None)"),
        ("MemoryPointer.memset_async", "(self, int value, size_t size, stream=None)"),
        ("MemoryPool.malloc", "(self, size_t size) -> MemoryPointer"),
        ("MemoryPool.set_limit", "(self, size=None, fraction=None)"),
        ("MemoryPool.free_all_blocks", "(self, stream=None)"),
        ("MemoryPool.get_limit", "(self) -> size_t"),
        ("MemoryPool.used_bytes", "(self) -> size_t"),
        ("MemoryPool.free_bytes", "(self) -> size_t"),
        ("alloc_pinned_memory", "(size_t size) -> PinnedMemoryPointer"),
        ("nvrtc.createProgram", "(str src, str name, headers, include_names) -> intptr_t"),
        ("nvrtc.compileProgram", "(intptr_t prog, options)"),
        ("nvrtc.getCUBIN", "(intptr_t prog) -> bytes"),
        ("nvrtc.getPTX", "(intptr_t prog) -> bytes"),
        ("nvrtc.getProgramLog", "(intptr_t prog) -> str"),
        ("nvrtc.destroyProgram", "(intptr_t prog)"),
        ("runtime.deviceGetAttribute", "(int attrib, int device) -> int"),
        ("runtime.getDeviceProperties", "(int device)"),
    ],
)
def test_signatures_in_cupy(name, signature):
    """Compiled functions say in their docstring how they are called."""
    found = real_cupy().cuda
    for part in name.split("."):
        found = getattr(found, part)
    assert f"{name.split('.')[-1]}{signature}" in found.__doc__


def test_classes_in_cupy():
    cupy = real_cupy()
    parameters = {
        cupy.cuda.Stream: {"non_blocking"},
        cupy.cuda.Event: {"disable_timing"},
        cupy.cuda.Stream.record: {"event"},
        cupy.cuda.Stream.wait_event: {"event"},
        cupy.cuda.Stream.synchronize: set(),
    }
    for found, wanted in parameters.items():
        assert wanted <= set(inspect.signature(found).parameters)
    assert "path=None" in cupy.RawModule.__doc__
    assert "RawModule.get_function(self, str name)" in cupy.RawModule.get_function.__doc__
    assert "grid, block, args" in cupy.RawKernel.__call__.__doc__
    assert "shared_mem" in cupy.RawKernel.__call__.__doc__
    for name in ("shared_size_bytes", "max_dynamic_shared_size_bytes"):
        assert hasattr(cupy.RawKernel, name)
    assert cupy.cuda.runtime.CUDARuntimeError(2).status == 2
    assert "cudaErrorMemoryAllocation" in str(cupy.cuda.runtime.CUDARuntimeError(2))
    assert not issubclass(cupy.cuda.memory.OutOfMemoryError, RuntimeError)
    for kind in (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError):
        assert issubclass(kind, RuntimeError)


@pytest.fixture
def compiling(monkeypatch, cache):
    """The module on the real CuPy, where its compiler can be had."""
    real_cupy()
    module = imported(monkeypatch)
    try:
        module.nvrtc_version()
    except BackendError as error:
        pytest.skip(str(error))
    return module


def test_cupy_compiles_without_a_device(compiling, cache, monkeypatch):
    """Ahead of time, as in an image."""
    monkeypatch.setattr(sources, "names", lambda: ["probe"])
    assert compiling.compile_for("sm_90") == [("probe", "sm_90", True)]
    assert compiling.compile_for("sm_90") == [("probe", "sm_90", False)]
    assert compiling.compile_for("compute_90") == [("probe", "compute_90", True)]
    cubin, ptx = sorted(cache.iterdir(), key=lambda path: path.suffix)
    assert cubin.read_bytes().startswith(b"\x7fELF")
    assert b".target sm_90" in ptx.read_bytes()
    monkeypatch.setattr(sources, "text", lambda name: "wrong")
    with pytest.raises(BackendError, match=r"probe\.cu\(1\): error"):
        compiling.compile_for("sm_90")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_cupy_gives_whole_binaries(compiling, cache, architecture):
    """All bytes that the compiler made: as many as an ELF file's headers say, the same ones."""
    compiling.compile_for(architecture)
    assert len(list(cache.iterdir())) == len(sources.names())
    for path in cache.iterdir():
        binary = path.read_bytes()
        # Where the table of segments begins, the size of one, and their number: it is the last.
        (begins,) = struct.unpack_from("<Q", binary, 32)
        size, n = struct.unpack_from("<HH", binary, 54)
        assert len(binary) == begins + size * n, path.name
    plain = nvrtc.compile_text(
        sources.text("probe"), architecture, filename="probe.cu", verbose=False
    )
    (probe_path,) = cache.glob("probe-*")
    assert probe_path.read_bytes() == plain.cubin


def test_cupy_without_a_driver_fails_with_an_error_of_ours(monkeypatch):
    real_cupy()
    if probe.nvidia.ask().version is not None:
        pytest.skip("there is a driver")
    module = imported(monkeypatch)
    with pytest.raises(BackendError, match="device 0, failed while being opened: cudaError"):
        module.open_device()


# --- a real device ---------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch):
    found = probe.probe()
    if not found.usable:
        pytest.skip(f"no CUDA device can be used: {found.reason}")
    return imported(monkeypatch)


@pytest.mark.gpu
def test_a_real_device(real):
    index = probe.usable_device()
    device = real.open_device(index)
    assert device.description.endswith(f", device {index}")
    assert device.shared_memory >= 48 * 1024
    free, total = device.memory()
    assert 0 < free <= total
    one, other = device.stream(), device.stream()
    n = 100_000
    host = device.pinned(4 * n).view(np.uint32)
    array = one.empty(n, np.uint32)
    one.zero(array)
    one.launch("probe", "probe", -(-n // 128), 128, array, np.uint32(n), shared=64 * 1024)
    done = one.record()
    other.wait(done)
    other.download(array[10:], host[10:])
    other.synchronize()
    wanted = np.arange(n, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(1)
    np.testing.assert_array_equal(host[10:], wanted[10:])
    other.upload(host, array)
    back = np.empty(n, np.uint32)
    other.download(device.adopt(array.array), back)
    other.synchronize()
    np.testing.assert_array_equal(back, host)


@pytest.mark.gpu
def test_memory_of_a_real_device_runs_out(real):
    index = probe.usable_device()
    _, total = real.open_device(index).memory()
    with pytest.raises(DeviceMemoryError, match=f"allocating {2 * total:,} bytes"):
        real.open_device(index).stream().empty(2 * total, np.uint8)
    limited = real.open_device(index, 2**20)
    stream = limited.stream()
    for _ in range(10):  # blocks of other sizes are given back
        for size in (900_000, 600_000, 1_000_000):
            stream.zero(stream.empty(size, np.uint8))
    with pytest.raises(DeviceMemoryError, match=r"within the limit of 1,048,576 bytes"):
        stream.empty(2**20 + 1, np.uint8)
