"""Every cause why CUDA cannot be used has its words, and no cause hides another."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import pdex_gpu.backends.cuda as package
from pdex_gpu.backends import registry
from pdex_gpu.backends.base import Device, Probed
from pdex_gpu.backends.cuda import driver, probe
from pdex_gpu.backends.registry import choose_backend, compile_kernels
from pdex_gpu.errors import BackendError, DeviceLostError, OptionError

GIB = 2**30
DEVICE_MODULE = "pdex_gpu.backends.cuda.cupy_device"

H200 = ("NVIDIA H200", (9, 0))
K80 = ("Tesla K80", (3, 7))
V100 = ("Tesla V100", (7, 0))


ERRORS = {100: ("NO_DEVICE", "no CUDA-capable device is detected"), 802: ("NOT_READY", "wait")}


class FakeLibrary:
    """The part of libcuda that is asked."""

    def __init__(self, version: int = 13000, devices=(H200,), init: int = 0) -> None:
        self.version, self.devices, self.init = version, devices, init

    def cuDriverGetVersion(self, out):
        return self._give(out, self.version)

    def cuInit(self, flags):
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, out):
        return self._give(out, len(self.devices))

    def cuDeviceGet(self, out, index):
        return self._give(out, index + 40)  # a handle is not an index

    def cuDeviceGetName(self, text, room, handle):
        text.value = self.devices[handle - 40][0].encode()[: room - 1]
        return 0

    def cuDeviceGetAttribute(self, out, attribute, handle):
        return self._give(out, self.devices[handle - 40][1][attribute - 75])

    def cuGetErrorName(self, code, out):
        out._obj.value = f"CUDA_ERROR_{ERRORS[code][0]}".encode()

    def cuGetErrorString(self, code, out):
        out._obj.value = ERRORS[code][1].encode()

    @staticmethod
    def _give(out, value):
        out._obj.value = value
        return 0


class FakeDevice:
    """A device that runs the probe kernel, and fails as told."""

    def __init__(self, index, free=100 * GIB, error=None, wrong=False) -> None:
        self.index, self.free, self.error, self.wrong = index, free, error, wrong

    def memory(self):
        return self.free, 140 * GIB

    def stream(self):
        return self

    def empty(self, size, dtype):
        return np.empty(size, dtype)

    def launch(self, source, kernel, n_blocks, n_threads, out, n):
        assert (source, kernel) == ("probe", "probe")
        assert n_blocks * n_threads >= n == len(out)
        assert n.dtype == out.dtype == np.uint32
        out[:] = np.arange(n) * 2654435761 + 1
        if self.wrong:
            out[3] += 1

    def download(self, array, host):
        host[:] = array

    def synchronize(self):
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "_usable", {})
    for name in ("CUDA_VISIBLE_DEVICES", registry.ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Set up a machine: its driver (None: none), devices and CuPy (None: not installed)."""

    def build(library, cupy: tuple[int, int] | None = (13, 2), **devices):
        def load(name):
            if library is None:
                raise OSError(f"{name}: cannot open shared object file: No such file")
            return library

        opened = []

        def open_device(index):
            opened.append(index)
            return FakeDevice(index, **devices.get(f"d{index}", {}))

        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *a: (cupy and "found") if name == "cupy" else find_spec(name, *a),
        )
        monkeypatch.setattr(driver, "_load", load)
        fake = SimpleNamespace(
            open_device=open_device, runtime_version=lambda: cupy, cupy_version=lambda: "14.2.0"
        )
        monkeypatch.setitem(sys.modules, DEVICE_MODULE, fake)
        monkeypatch.setattr(package, "device", fake, raising=False)
        return opened

    return build


CUDA12, CUDA13 = (f'pip install "cupy-cuda{v}x[ctk]>=14"' for v in (12, 13))


def causes(index: int | None = None) -> str:
    found = probe.probe(index)
    reason = found.reason
    assert not found.usable
    assert found.devices == ()
    with pytest.raises(BackendError) as caught:
        probe.usable_device(index)
    assert reason in str(caught.value)
    assert reason.endswith(".")
    return reason[:-1]


def test_usable(machine):
    machine(FakeLibrary())
    assert probe.probe() == Probed(
        True,
        "compute capability 9.0, 100.0 of 140.0 GiB free, driver with CUDA 13.0, CuPy 14.2.0",
        (Device(0, "NVIDIA H200", 140 * GIB),),
    )
    assert str(probe.probe().devices[0]) == "NVIDIA H200, device 0"
    assert probe.usable_device() == 0


def test_no_driver(machine):
    machine(None)
    assert causes().startswith("no NVIDIA driver (")
    assert "cannot open shared object file: No such file): install one" in causes()
    assert "--gpus all" in causes()
    assert "CuPy" not in causes()  # it is not even imported


def test_neither_driver_nor_cupy(machine):
    machine(None, cupy=None)
    assert "no NVIDIA driver" in causes()
    assert "; CuPy is not installed: run " in causes()
    assert CUDA12 in causes()
    assert CUDA13 in causes()


@pytest.mark.parametrize(
    ("version", "device", "command", "not_command"),
    [
        (13000, H200, CUDA13, CUDA12),
        (13020, H200, CUDA13, CUDA12),
        (12040, H200, CUDA12, CUDA13),
        (13000, V100, CUDA12, CUDA13),  # CUDA 13 compiles for none below 7.5
    ],
)
def test_no_cupy_names_the_command_for_the_driver(machine, version, device, command, not_command):
    machine(FakeLibrary(version, [device]), cupy=None)
    assert causes() == f"CuPy is not installed: run {command}"
    assert not_command not in causes()


def test_driver_too_old(machine):
    opened = machine(FakeLibrary(11080), cupy=None)
    assert (
        "the driver is too old: it supports CUDA up to 11.8, but 12.0 or later is needed: update it"
        in causes()
    )
    assert "CuPy is not installed" in causes()
    assert opened == []


def test_cupy_newer_than_the_driver(machine):
    opened = machine(FakeLibrary(12040))
    assert causes() == (
        "CuPy 14.2.0 is for CUDA 13, but the driver supports CUDA up to 12.4: run pip uninstall "
        f"cupy-cuda13x, then {CUDA12}, or update the driver"
    )
    assert opened == []


@pytest.mark.parametrize("cupy", [(12, 9), (13, 9)])
def test_cupy_of_the_same_or_an_older_cuda(machine, cupy):
    machine(FakeLibrary(13000), cupy)
    assert probe.probe().usable


@pytest.mark.parametrize("library", [FakeLibrary(devices=()), FakeLibrary(init=100)])
def test_no_device(machine, monkeypatch, library):
    machine(library)
    assert causes() == "the NVIDIA driver sees no device"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert causes() == "the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES is '')"


def test_the_driver_does_not_start(machine):
    machine(FakeLibrary(init=802), cupy=None)
    assert "the NVIDIA driver does not start: CUDA_ERROR_NOT_READY (wait)" in causes()
    assert "CuPy is not installed" in causes()


def test_a_library_that_is_no_driver(machine):
    machine(SimpleNamespace())
    assert "the NVIDIA driver does not answer: " in causes()


def test_no_such_device(machine):
    machine(FakeLibrary(devices=(H200, K80)))
    assert causes(2) == "there is no device 2; available: 0 (NVIDIA H200), 1 (Tesla K80)"
    assert "there is no device -1" in causes(-1)


def test_compute_capability(machine):
    opened = machine(FakeLibrary(devices=(K80,)))
    assert causes() == (
        "Tesla K80, device 0 has compute capability 3.7, but 7.0 or later is needed"
    )
    assert opened == []


def test_no_memory(machine):
    machine(FakeLibrary(), d0={"free": 100 * 2**20})
    assert causes() == (
        "no memory is free: 100 MiB of 143,360 MiB, but 256 MiB are needed (nvidia-smi lists what "
        "is using it)"
    )


def test_the_kernel_fails(machine):
    machine(FakeLibrary(), d0={"error": DeviceLostError("NVIDIA H200, device 0, failed.")})
    assert causes() == "the probe kernel failed: NVIDIA H200, device 0, failed"


def test_the_kernel_is_wrong(machine):
    machine(FakeLibrary(), d0={"wrong": True})
    assert causes() == (
        "the probe kernel gave wrong results (1 of 1000): the device, its driver or CuPy is broken"
    )


def test_cupy_cannot_be_imported(machine, monkeypatch, tmp_path):
    machine(FakeLibrary())
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(
        "try:\n    raise OSError('libcudart.so.13 is missing')\n"
        "except OSError as error:\n    raise ImportError('=== a page of advice ===') from error\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n == "cupy" or n.startswith("cupy.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, DEVICE_MODULE)
    monkeypatch.delattr(package, "device")
    assert causes() == (
        "CuPy is installed but cannot be imported (OSError: libcudart.so.13 is missing): run "
        + CUDA13
    )


def test_the_first_usable_device_is_taken(machine):
    library = FakeLibrary(devices=(K80, H200, H200, H200))
    opened = machine(library, d1={"free": 0})
    assert probe.probe() == probe.probe(2)
    assert probe.usable_device() == probe.probe().devices[0].number == 2
    assert 3 not in opened


def test_causes_of_several_devices(machine):
    machine(FakeLibrary(devices=(H200, K80, H200)), d0={"free": 0}, d2={"wrong": True})
    first, second, third = causes().split("; ")
    assert first.startswith("NVIDIA H200, device 0: no memory is free")
    assert second.startswith("NVIDIA H200, device 2: the probe kernel gave wrong results")
    assert third.startswith("Tesla K80, device 1 has compute capability 3.7")


def test_a_device_by_its_index(machine):
    opened = machine(FakeLibrary(devices=(H200, H200)))
    assert str(probe.probe(1).devices[0]) == "NVIDIA H200, device 1"
    assert opened == [1]


def test_success_is_remembered_and_failure_is_not(machine):
    opened = machine(FakeLibrary(), d0={"free": 0})
    assert "no memory" in causes()
    opened = machine(FakeLibrary())
    assert probe.probe() == probe.probe()
    assert opened == [0]
    probe.probe(0)
    assert opened == [0, 0]


# --- the choice ------------------------------------------------------------------------------


def test_auto_takes_cuda_where_it_can_be_used(machine):
    machine(FakeLibrary())
    chosen = choose_backend()
    assert (chosen.name, chosen.device, chosen.engines) == (
        "cuda", "NVIDIA H200, device 0", ("streams",),
    )  # fmt: skip
    assert chosen.reason.startswith("auto: compute capability 9.0")


def test_auto_says_why_not_cuda(machine):
    machine(FakeLibrary(devices=(K80,)), cupy=None)
    chosen = choose_backend()
    assert chosen.name == "cpu"
    assert "cuda not usable: CuPy is not installed: run" in chosen.reason
    assert "compute capability 3.7" in chosen.reason


def test_a_device_is_cuda_or_nothing(machine):
    machine(FakeLibrary(devices=(H200, H200)), d1={"free": 0})
    chosen = choose_backend("auto", 0)
    assert (chosen.name, chosen.reason) == ("cuda", "device=0 was requested")
    assert choose_backend("cuda", np.int64(0)).device == "NVIDIA H200, device 0"
    for name in ("auto", "cuda"):
        with pytest.raises(BackendError, match="no memory is free"):
            choose_backend(name, 1)
    with pytest.raises(BackendError, match=r"device=7 was requested, but .* there is no device 7"):
        choose_backend("auto", 7)


@pytest.mark.parametrize("name", ["cpu", "numpy"])
def test_a_device_of_another_backend(machine, monkeypatch, name):
    machine(FakeLibrary())
    with pytest.raises(
        OptionError, match=rf"device=0 selects a CUDA device, but backend='{name}' was requested"
    ):
        choose_backend(name, 0)
    monkeypatch.setenv(registry.ENVIRONMENT, name)
    with pytest.raises(OptionError, match=f"but PDEX_GPU_BACKEND={name} was requested"):
        choose_backend("auto", 0)


@pytest.mark.parametrize("device", [-1, True, "0", 0.0])
def test_no_number_of_a_device(device):
    with pytest.raises(OptionError, match="must be the number of a CUDA device"):
        choose_backend("auto", device)


def test_compiling_without_device_or_cupy(machine):
    machine(None, cupy=None)
    with pytest.raises(BackendError, match="cannot run here: no NVIDIA driver"):
        compile_kernels()
    with pytest.raises(BackendError, match=r"CuPy is not installed: run .*cuda13.* or .*cuda12"):
        compile_kernels(architectures=["sm_90"])


# --- the real calls --------------------------------------------------------------------------


def test_what_this_machine_has():
    """No fakes: whatever is here, the answer is whole."""
    found = driver.ask()
    assert bool(found.devices) != bool(found.problem)
    answer = probe.probe()
    assert answer.reason
    assert answer.usable == bool(answer.devices)
    if not found.devices:
        assert found.problem in answer.reason


LIBCUDA = r"""
#include <string.h>
int cuDriverGetVersion(int* v) { *v = 12080; return 0; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int* n) { *n = 2; return 0; }
int cuDeviceGet(int* device, int i) { *device = i; return 0; }
int cuDeviceGetName(char* text, int room, int device) {
    strncpy(text, device ? "second" : "first", room); return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : -1; return 0;
}
int cuGetErrorName(int code, const char** text) { *text = "CUDA_ERROR_UNKNOWN"; return 0; }
int cuGetErrorString(int code, const char** text) { *text = 0; return 1; }
"""


@pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="there is no C compiler"
)
def test_the_calls_are_right(monkeypatch, tmp_path):
    """Against a library in C, with the types of cuda.h."""

    def ask(init: int) -> driver.Driver:
        (tmp_path / "cuda.c").write_text(LIBCUDA.replace("INIT", str(init)))
        path = tmp_path / f"libcuda-{init}.so"
        command = ["cc", "-shared", "-fPIC", "-o", str(path), str(tmp_path / "cuda.c")]
        subprocess.run(command, check=True)
        monkeypatch.setattr(driver, "_load", lambda _: ctypes.CDLL(str(path)))
        return driver.ask()

    found = ask(0)
    assert found.version == (12, 8)
    assert [str(d) for d in found.devices] == ["first, device 0", "second, device 1"]
    assert {d.capability for d in found.devices} == {(8, 6)}
    assert ask(999).problem == "the NVIDIA driver does not start: CUDA_ERROR_UNKNOWN"
