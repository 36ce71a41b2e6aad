"""``pdex-gpu doctor``: what it finds on this machine, and on machines made up."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

import pdex_gpu
from pdex_gpu import doctor
from pdex_gpu.backends.cuda.driver import INSTALL, Driver, DriverDevice
from pdex_gpu.backends.registry import BackendInfo
from pdex_gpu.cli import main
from pdex_gpu.doctor import Check, caches, cuda, diagnose, healthy, machine, packages, variables
from pdex_gpu.doctor.packages import Requirement
from pdex_gpu.utils import resources as limits
from pdex_gpu.utils.exit_codes import Exit

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def found() -> list[Check]:
    return diagnose()


# This machine


def test_every_topic_is_examined(found: list[Check]):
    topics = list(dict.fromkeys(check.topic for check in found))
    assert topics == ["Packages", "Machine", "CUDA", "Caches", "Environment"]
    names = {check.name for check in found}
    assert {"python", "numpy", "typer", "matplotlib", "threads", "memory", "shared memory",
            "scratch", "NVIDIA driver", "CuPy", "kernel", "CPU kernels"} <= names  # fmt: skip
    assert all(check.status in ("ok", "note", "problem") for check in found)
    assert all(check.found for check in found)


def test_what_runs_these_tests_is_fine(found: list[Check]):
    required = {check.name: check for check in found if check.required}
    assert {"python", "numpy", "anndata", "numba"} <= set(required)
    assert [c for c in required.values() if c.status == "problem"] == []
    assert required["numpy"].found == packages.installed("numpy")
    assert pdex_gpu.__version__ in required["python"].found


def test_a_section_that_fails_is_a_finding(monkeypatch):
    def broken():
        yield Check("A", "first", "ok", "fine")
        raise RuntimeError("of\nthe library")

    monkeypatch.setattr(doctor, "_SECTIONS", (("A", broken),))
    first, second = diagnose()
    assert first.found == "fine"
    assert second.status == "problem"
    assert second.found == "the check failed (RuntimeError: of the library)"


@pytest.mark.parametrize(
    ("status", "required", "fine"),
    [("ok", True, True), ("note", True, True), ("problem", False, True), ("problem", True, False)],
)
def test_healthy(status: str, required: bool, fine: bool):
    checks = [Check("T", "a", "ok", "x"), Check("T", "b", status, "y", required=required)]
    assert healthy(checks) is fine


# The command


SOME = [
    Check("One", "a", "ok", "[bold]1[/bold]"),
    Check("One", "bcd", "note", "two\x1b", "pip install 'x[y]' " + "z" * 100),
    Check("Two", "e", "problem", "three", required=True),
]


def test_the_command_shows_it(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "diagnose", lambda: SOME)
    assert main(["doctor"]) == Exit.BACKEND
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "One",
        "  ok       a    [bold]1[/bold]",
        "  note     bcd  two\\x1b",
        "                fix: pip install 'x[y]' " + "z" * 100,
        "",
        "Two",
        "  problem  e    three",
        "",
        "1 ok, 1 note, 1 problem",
    ]


def test_the_command_as_json(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "diagnose", lambda: SOME)
    assert main(["doctor", "--json"]) == Exit.BACKEND
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] is False
    assert document["checks"][1] == {
        "topic": "One", "name": "bcd", "status": "note", "found": "two\x1b",
        "fix": "pip install 'x[y]' " + "z" * 100, "required": False,
    }  # fmt: skip


def test_the_command_where_all_is_well(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "diagnose", lambda: SOME[:2])
    assert main(["doctor", "-q"]) == Exit.OK
    assert capsys.readouterr() == ("", "")


# Packages


@pytest.mark.parametrize(
    ("version", "pythons", "status", "fix"),
    [
        ((3, 11), ">=3.11,<3.15", "ok", None),
        ((3, 14), ">=3.11,<3.15", "ok", None),
        ((3, 10), ">=3.11,<3.15", "problem", "python3.14 -m venv"),
        ((3, 15), "<3.15,>=3.11", "problem", "python3.14 -m venv"),
        ((3, 12), "", "ok", None),
    ],
)
def test_python(version: tuple[int, int], pythons: str, status: str, fix: str | None):
    check = packages.python_version(version, pythons, "Python")
    assert check.status == status
    assert check.required
    assert check.fix is None if fix is None else check.fix.startswith(fix)


@pytest.mark.parametrize(
    ("version", "least", "old"),
    [
        ("2.1", "2.1", False),
        ("2.0.9", "2.1", True),
        ("2.10", "2.9", False),
        ("2", "2.0.0", False),
        ("2.1rc1", "2.1", False),
        ("1.26.4", "2.1", True),
        ("5", "", False),
    ],
)
def test_older(version: str, least: str, old: bool):
    assert packages.older(version, least) is old


@pytest.mark.parametrize(
    ("installed", "error", "status", "says", "fix"),
    [
        ("2.3", None, "ok", "2.3", None),
        (None, None, "problem", "not installed", 'pip install "thing>=2.1"'),
        ("2.0", None, "problem", "2.1 or later", 'pip install --upgrade "thing>=2.1"'),
        (
            "2.3",
            ImportError("undefined\nsymbol"),
            "problem",
            "2.3 cannot be imported (ImportError: undefined symbol)",
            'pip install --force-reinstall "thing>=2.1"',
        ),
    ],
)
def test_required(monkeypatch, installed, error, status: str, says: str, fix: str | None):
    monkeypatch.setattr(packages, "installed", lambda name: installed)

    def load(name: str) -> None:
        assert name == "thing"
        if error is not None:
            raise error

    check = packages.required(Requirement("thing", "2.1"), load)
    assert (check.status, check.fix, check.required) == (status, fix, True)
    assert says in check.found


@pytest.mark.parametrize(
    ("installed", "status", "fix"),
    [
        ("2.3", "ok", None),
        (None, "note", 'pip install "polars>=2.1"'),
        ("1.0", "note", 'pip install --upgrade "polars>=2.1"'),
    ],
)
def test_optional(monkeypatch, installed, status: str, fix: str | None):
    monkeypatch.setattr(packages, "installed", lambda name: installed)
    check = packages.optional(Requirement("polars", "2.1", "polars"))
    assert (check.status, check.fix, check.required) == (status, fix, False)
    assert "pdex 0.3" in check.found


def test_what_is_declared_in_a_checkout():
    tomllib = pytest.importorskip("tomllib")
    file = Path(pdex_gpu.__file__).parents[1] / "pyproject.toml"
    if not file.exists():
        pytest.skip("not run from a checkout")
    project = tomllib.loads(file.read_text())["project"]
    pythons, requirements = packages._declared()
    assert pythons == project["requires-python"]
    assert [r.text for r in requirements if r.extra is None] == project["dependencies"]
    extras = {r.extra for r in requirements}
    assert set(packages._EXTRAS) <= extras


def test_what_is_declared_by_an_installation(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    listed = ["numpy>=2.1", 'polars>=1.0; extra == "polars"', "x[y]~=1", 'z<3,>=2.5; extra == "z"']
    monkeypatch.setattr(packages.metadata, "metadata", lambda _: {"Requires-Python": ">=3.11"})
    monkeypatch.setattr(packages.metadata, "requires", lambda _: listed)
    assert packages._declared() == (
        ">=3.11",
        [
            Requirement("numpy", "2.1"),
            Requirement("polars", "1.0", "polars"),
            Requirement("x", ""),
            Requirement("z", "2.5", "z"),
        ],
    )


def test_not_installed_at_all(monkeypatch, tmp_path: Path):
    def missing(name: str) -> None:
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setattr(packages.metadata, "metadata", missing)
    python, versions = packages.checks()
    assert python.status == "ok"
    assert versions.status == "note"
    assert versions.fix == "pip install ."


# The machine


@pytest.mark.parametrize(
    ("there", "allowed", "used", "status", "says"),
    [
        (8, 8, 8, "ok", "8 used by default: the machine has 8, affinity allows 8"),
        (8, 4, 4, "note", "4 used by default: the machine has 8, affinity allows 4"),
        (8, 8, 2, "note", "affinity allows 8, the cgroup quota allows 2"),
    ],
)
def test_threads(monkeypatch, there: int, allowed: int, used: int, status: str, says: str):
    monkeypatch.setattr(os, "cpu_count", lambda: there)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(machine, "cpu_count", lambda: used)
    monkeypatch.setattr(machine, "in_container", lambda: True)
    check = machine.threads()
    assert check.status == status
    assert says in check.found
    assert check.fix == ("docker run --cpus=8 ..." if used == 2 else None)


def test_threads_are_those_that_a_run_uses():
    assert machine.threads().found.startswith(f"{limits.cpu_count()} used")


def test_memory(monkeypatch, tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable: 1 kB\n")
    monkeypatch.setattr(machine, "available_memory", lambda: 8 * 10**9)
    monkeypatch.setattr(machine, "memory_budget", lambda memory: 4 * 10**9)
    check = machine.memory(tmp_path / "meminfo")
    assert check.status == "ok"
    assert check.found.startswith("8 GB free of 16.4 GB in the machine; a run uses up to 4 GB")
    monkeypatch.setattr(machine, "available_memory", lambda: 10**9)
    check = machine.memory(tmp_path / "none")
    assert check.status == "note"
    assert check.found.startswith("1 GB free; ")


@pytest.mark.parametrize(
    ("total", "container", "status", "fix"),
    [
        (64 * 2**20, True, "note", "docker run --shm-size=8g ..."),
        (64 * 2**20, False, "note", "sudo mount -o remount,size=8G "),
        (65 * 2**20, True, "ok", None),
    ],
)
def test_shared_memory(
    monkeypatch, tmp_path: Path, total: int, container: bool, status: str, fix: str | None
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, 10**6, total - 10**6))
    monkeypatch.setattr(machine, "in_container", lambda: container)
    check = machine.shared_memory(tmp_path)
    assert check.status == status
    assert check.fix is None if fix is None else check.fix.startswith(fix)
    assert machine.shared_memory(tmp_path / "none").status == "ok"


@pytest.mark.parametrize(
    ("kind", "free", "status"),
    [("ext4", 10**12, "ok"), ("tmpfs", 10**12, "note"), ("ext4", 10**9, "note")],
)
def test_scratch(monkeypatch, tmp_path: Path, kind: str, free: int, status: str):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / overlay rw 0 0\nb {tmp_path.resolve()} {kind} rw 0 0\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * free, free, free))
    check = machine.scratch(tmp_path, mounts)
    assert (check.status, check.required) == (status, False)
    assert (check.fix is not None and "--scratch" in check.fix) is (status == "note")
    assert ("memory" in check.found) is (status == "note")
    assert list(tmp_path.iterdir()) == [mounts]


def test_scratch_that_cannot_be_written(tmp_path: Path):
    check = machine.scratch(tmp_path / "none")
    assert (check.status, check.required) == ("problem", True)
    assert f"{tmp_path}/none cannot be written (No such file or directory)" in check.found
    assert not healthy([check])


def test_file_system(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "short\na / overlay rw\nb /tm xfs rw\nc /tmp ext4 rw\nd /tmp tmpfs rw\n"
        "e /tmp/a\\040b/c nfs4 rw\n"
    )
    assert machine.file_system(Path("/"), mounts) == "overlay"
    assert machine.file_system(Path("/tmp"), mounts) == "tmpfs"
    assert machine.file_system(Path("/tmp/a b/c/d"), mounts) == "nfs4"
    assert machine.file_system(Path("/tmq"), mounts) == "overlay"
    assert machine.file_system(Path("/"), tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (67_108_864, "67.1 MB"), (4e9, "4 GB"), (2.5e15, "2,500.0 TB")],
)
def test_size(n_bytes: float, text: str):
    assert machine.size(n_bytes) == text


# CUDA

DEVICE = DriverDevice(0, "NVIDIA H200", (9, 0))
GOOD = Driver((12, 4), (DEVICE,), "")
NO_DRIVER = Driver(None, (), "no NVIDIA driver (libcuda.so.1: not there): install one, or start")
NO_DEVICE = Driver((12, 4), (), "the NVIDIA driver sees no device (CUDA_VISIBLE_DEVICES is '')")
OLD = Driver((11, 8), (DEVICE,), "")


@pytest.fixture
def pci(tmp_path: Path):
    """The folder of PCI devices, with a graphics card of NVIDIA or without."""

    def make(there: bool) -> Path:
        for name, vendor, kind in (
            ("a", "0x8086", "0x030000"),
            ("b", "0x10de", "0x030200" if there else "0x0c0330"),
        ):
            (tmp_path / name).mkdir()
            (tmp_path / name / "vendor").write_text(vendor + "\n")
            (tmp_path / name / "class").write_text(kind + "\n")
        (tmp_path / "c").mkdir()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("driver", "card", "container", "status", "says", "fix"),
    [
        (GOOD, True, False, "ok", "driver 580.65 with CUDA 12.4: NVIDIA H200, device 0", None),
        (OLD, True, False, "problem", "too old; CUDA 12.0", "sudo apt-get"),
        (NO_DRIVER, False, False, "note", "no NVIDIA device was found, so CPUs are used", None),
        (NO_DRIVER, True, True, "problem", "libcuda.so.1: not there)", "docker run --gpus all"),
        (NO_DRIVER, True, False, "problem", "although there is an NVIDIA device", "sudo apt-get"),
        (NO_DEVICE, True, True, "problem", "sees no device", "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_driver(
    monkeypatch, pci, driver: Driver, card: bool, container: bool, status: str, says: str, fix
):
    monkeypatch.setattr(cuda, "in_container", lambda: container)
    monkeypatch.setattr(cuda, "_driver_number", lambda: "580.65")
    check = cuda.driver_check(driver, pci(card))
    assert (check.status, check.required) == (status, False)
    assert says in check.found
    assert "install one" not in check.found
    assert check.fix is None if fix is None else check.fix.startswith(fix)


@pytest.mark.parametrize(
    ("driver", "found", "status", "says", "fix"),
    [
        (NO_DRIVER, {}, "note", "only needed for NVIDIA devices", None),
        (GOOD, {}, "problem", "not installed", INSTALL.format(12)),
        (GOOD, {"cupy-cuda12x": "14.1.0"}, "ok", "cupy-cuda12x 14.1.0, for CUDA 12", None),
        (NO_DRIVER, {"cupy-cuda13x": "14.1.0"}, "ok", "for CUDA 13", None),
        (GOOD, {"cupy": "14.1.0"}, "ok", "cupy 14.1.0", None),
        (
            GOOD,
            {"cupy-cuda13x": "14.1.0"},
            "problem",
            "is for CUDA 13, but the driver supports CUDA up to 12.4",
            f"pip uninstall -y cupy-cuda13x && {INSTALL.format(12)}",
        ),
        (
            GOOD,
            {"cupy-cuda12x": "13.6.0"},
            "problem",
            "too old",
            'pip install --upgrade "cupy-cuda12x[ctk]>=14.0"',
        ),
        (
            GOOD,
            {"cupy-cuda12x": "14.1.0", "cupy-cuda13x": "14.1.0"},
            "problem",
            "overwrite each other",
            f"pip uninstall -y cupy-cuda12x cupy-cuda13x && {INSTALL.format(12)}",
        ),
    ],
)
def test_cupy(driver: Driver, found: dict, status: str, says: str, fix: str | None):
    check = cuda.cupy_check(driver, found)
    assert (check.status, check.fix, check.required) == (status, fix, False)
    assert says in check.found


@pytest.mark.parametrize(
    ("usable", "driver", "status", "says"),
    [
        (True, GOOD, "ok", "ran on NVIDIA H200, device 0: 100 GiB free"),
        (False, GOOD, "problem", "does not run: 100 GiB free"),
        (False, NO_DRIVER, "note", "there is no device"),
    ],
)
def test_kernel(monkeypatch, usable: bool, driver: Driver, status: str, says: str):
    info = BackendInfo("cuda", usable, "100 GiB free", str(DEVICE) if usable else "", ("streams",))
    monkeypatch.setattr(cuda, "info", lambda name: info)
    check = cuda.kernel_check(driver)
    assert check.status == status
    assert says in check.found


def test_compiler(monkeypatch):
    """With CuPy or without; the message of what compiles is taken apart."""
    import types

    from pdex_gpu.backends import cuda as package
    from pdex_gpu.errors import BackendError

    def fail() -> tuple[int, int]:
        raise BackendError("NVRTC cannot be loaded (x). Run: pip install y")

    name = "pdex_gpu.backends.cuda.cupy_device"
    for call, status, says, fix in (
        (lambda: (12, 9), "ok", "12.9", None),
        (fail, "problem", "cannot be loaded (x).", "pip install y"),
    ):
        module = types.SimpleNamespace(nvrtc_version=call)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(package, "device", module, raising=False)
        check = cuda.compiler_check()
        assert (check.status, check.fix) == (status, fix)
        assert says in check.found


def test_driver_number(monkeypatch, tmp_path: Path):
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\nGCC 12")
    assert cuda._driver_number(file) == "580.65.06"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert cuda._driver_number(tmp_path / "none") == ""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.12\necho 570.12\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    assert cuda._driver_number(tmp_path / "none") == "570.12"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert cuda._driver_number(tmp_path / "none") == ""


# Caches


def test_the_cache_of_the_cpu_kernels(monkeypatch, tmp_path: Path):
    """As numba chooses: NUMBA_CACHE_DIR, beside the source, the user's cache folder."""
    closed: set[Path] = set()
    monkeypatch.setattr(caches, "writable", lambda folder: folder not in closed)
    package, home = tmp_path / "package", tmp_path / "home"
    check = caches.cpu_cache({}, package, home)
    assert check.found == f"kept in {package}/__pycache__"
    closed.add(package / "__pycache__")
    assert caches.cpu_cache({}, package, home).found == f"kept in {home}/.cache/numba"
    check = caches.cpu_cache({"XDG_CACHE_HOME": str(tmp_path / "x")}, package, home)
    assert check.found == f"kept in {tmp_path}/x/numba"
    closed.add(home / ".cache" / "numba")
    check = caches.cpu_cache({}, package, home)
    assert check.status == "note"
    assert check.fix == "export NUMBA_CACHE_DIR=/path/to/a/writable/folder"
    closed.clear()
    named = tmp_path / "named"
    closed.add(named)
    assert caches.cpu_cache({"NUMBA_CACHE_DIR": str(named)}, package, home).status == "note"


def test_the_cache_of_the_cuda_kernels(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    assert caches.cuda_cache(folder).found == f"0 kept in {folder}"
    folder.mkdir(parents=True)
    (folder / "sort.cubin").touch()
    assert caches.cuda_cache(folder).found == f"1 kept in {folder}"
    file = tmp_path / "file"
    file.touch()
    check = caches.cuda_cache(file / "b")
    assert check.status == "note"
    assert check.fix == "export CUPY_CACHE_DIR=/path/to/a/writable/folder"
    assert not folder.joinpath("b").exists()


# Environment variables


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [("variables", "ok", False)]),
        ({"NUMBA_DISABLE_JIT": "0", "TMPDIR": ""}, [("variables", "ok", False)]),
        ({"PDEX_GPU_BACKEND": "numpy"}, [("PDEX_GPU_BACKEND", "note", False)]),
        ({"PDEX_GPU_BACKEND": "gpu"}, [("PDEX_GPU_BACKEND", "problem", True)]),
        ({"PDEX_GPU_STUCK_SECONDS": "60"}, [("PDEX_GPU_STUCK_SECONDS", "ok", False)]),
        ({"PDEX_GPU_STUCK_SECONDS": "0"}, [("PDEX_GPU_STUCK_SECONDS", "ok", False)]),
        ({"PDEX_GPU_STUCK_SECONDS": "soon"}, [("PDEX_GPU_STUCK_SECONDS", "problem", True)]),
        ({"NUMBA_DISABLE_JIT": "1"}, [("NUMBA_DISABLE_JIT", "problem", True)]),
        (
            {"CUDA_VISIBLE_DEVICES": "1", "TMPDIR": "/x"},
            [("CUDA_VISIBLE_DEVICES", "ok", False), ("TMPDIR", "ok", False)],
        ),
    ],
    ids=str,
)
def test_variables(environment: dict[str, str], expected: list[tuple[str, str, bool]]):
    found = list(variables.checks(environment))
    assert [(c.name, c.status, c.required) for c in found] == expected
    for check in found:
        assert (check.fix == f"unset {check.name}") is (check.status != "ok")
