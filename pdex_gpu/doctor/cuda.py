"""Checks of the NVIDIA driver, CuPy, CUDA's compiler, and whether a kernel runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..backends.cuda import BACKEND
from ..backends.cuda import driver as nvidia
from ..backends.cuda.driver import Driver
from ..backends.cuda.probe import MINIMUM_CUDA, install_command
from ..backends.registry import info
from ..utils.formats import dotted
from .base import NOTE, OK, PROBLEM, Check
from .machine import in_container
from .packages import installed, older

TOPIC = "CUDA"

#: Distributions of CuPy, and the major version of CUDA that each is for; 0 if built locally.
_CUPY = {"cupy-cuda11x": 11, "cupy-cuda12x": 12, "cupy-cuda13x": 13, "cupy": 0}
_LEAST_CUPY = "14.0"

_PCI = Path("/sys/bus/pci/devices")
_VERSION_FILE = Path("/proc/driver/nvidia/version")
_NVIDIA = "0x10de"
_DISPLAYS = ("0x0300", "0x0302")  # classes: VGA and 3D controllers


def checks() -> Iterator[Check]:
    """Check everything from the driver to a kernel; none is required, as the CPU suffices."""
    driver = nvidia.ask()
    found = found_cupy()
    yield driver_check(driver)
    yield cupy_check(driver, found)
    if len(found) == 1:
        yield compiler_check()
    yield kernel_check(driver)


def driver_check(driver: Driver, pci: Path = _PCI) -> Check:
    """Check whether a driver answers, and which CUDA it runs."""
    name = "NVIDIA driver"
    if driver.version is not None and driver.version < MINIMUM_CUDA:
        text = f"{_driver_text(driver)}: too old; CUDA {dotted(MINIMUM_CUDA)} or later is needed"
        return Check(TOPIC, name, PROBLEM, text, "sudo apt-get install --upgrade nvidia-driver-580")
    if not driver.problem:
        devices = ", ".join(str(device) for device in driver.devices)
        return Check(TOPIC, name, OK, f"{_driver_text(driver)}: {devices}")
    found = driver.problem.partition("): ")[0]
    found += ")" if found.count("(") > found.count(")") else ""
    if not has_device(pci):
        return Check(TOPIC, name, NOTE, f"{found}; no NVIDIA device was found, so CPUs are used")
    if driver.version is not None and "CUDA_VISIBLE_DEVICES" in driver.problem:
        return Check(TOPIC, name, PROBLEM, found, "unset CUDA_VISIBLE_DEVICES")
    if in_container():
        return Check(TOPIC, name, PROBLEM, found, "docker run --gpus all ...")
    fix = (
        "sudo apt-get install nvidia-driver-580  # or as your system installs drivers; then reboot"
    )
    return Check(TOPIC, name, PROBLEM, f"{found}, although there is an NVIDIA device", fix)


def cupy_check(driver: Driver, found: dict[str, str]) -> Check:
    """Check that there is one CuPy, and that it is for the CUDA that the driver runs."""
    if not found:
        text = "not installed; only needed for NVIDIA devices"
        if not driver.devices:
            return Check(TOPIC, "CuPy", NOTE, text)
        return Check(TOPIC, "CuPy", PROBLEM, "not installed", install_command(driver))
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        fix = f"pip uninstall -y {' '.join(found)} && {install_command(driver)}"
        return Check(TOPIC, "CuPy", PROBLEM, f"{listed}: they overwrite each other", fix)
    ((name, version),) = found.items()
    if older(version, _LEAST_CUPY):
        fix = f'pip install --upgrade "{name}[ctk]>={_LEAST_CUPY}"'
        return Check(
            TOPIC, "CuPy", PROBLEM, f"{listed} is too old; {_LEAST_CUPY} or later is needed", fix
        )
    major = _CUPY[name]
    runs = driver.version
    if runs is not None and major > runs[0]:
        text = f"{listed} is for CUDA {major}, but the driver supports CUDA up to {dotted(runs)}"
        fix = f"pip uninstall -y {name} && {install_command(driver)}"
        return Check(TOPIC, "CuPy", PROBLEM, text, fix)
    return Check(TOPIC, "CuPy", OK, listed + (f", for CUDA {major}" if major else ""))


def compiler_check() -> Check:
    """Check that NVRTC can be loaded; the kernels need no headers of the CUDA toolkit."""
    from ..errors import BackendError

    try:
        from ..backends.cuda import cupy_device as device
    except Exception as error:
        text = " ".join(f"CuPy cannot be imported ({type(error).__name__}: {error})".split())
        return Check(TOPIC, "NVRTC", PROBLEM, text, install_command())
    try:
        version = device.nvrtc_version()
    except BackendError as error:
        text, _, fix = str(error).partition(" Run: ")
        return Check(TOPIC, "NVRTC", PROBLEM, text, fix or None)
    text = f"{dotted(version)}; CUDA toolkit headers are not needed"
    return Check(TOPIC, "NVRTC", OK, text)


def kernel_check(driver: Driver) -> Check:
    """Check that a kernel ran on a device and gave the expected result."""
    cuda = info(BACKEND.name)
    if cuda.usable:
        return Check(TOPIC, "kernel", OK, f"ran on {cuda.device}: {cuda.reason}")
    if not driver.devices:
        return Check(TOPIC, "kernel", NOTE, "not run: there is no device")
    return Check(TOPIC, "kernel", PROBLEM, f"does not run: {cuda.reason}")


def found_cupy() -> dict[str, str]:
    """Return the installed distributions of CuPy, with their versions."""
    versions = {name: installed(name) for name in _CUPY}
    return {name: version for name, version in versions.items() if version is not None}


def has_device(pci: Path = _PCI) -> bool:
    """Return whether the PCI bus has an NVIDIA display or 3D controller, with or without driver."""
    for device in pci.glob("*"):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()[:6]
        except OSError:
            continue
        if vendor == _NVIDIA and kind in _DISPLAYS:
            return True
    return False


def _driver_text(driver: Driver) -> str:
    number = _driver_number()
    text = f"driver {number}" if number else "a driver"
    return text if driver.version is None else f"{text} with CUDA {dotted(driver.version)}"


def _driver_number(file: Path = _VERSION_FILE) -> str:
    """Return the version of the driver itself, such as ``580.65.06``; empty if unknown."""
    try:
        match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", file.read_text())
        if match:
            return match[1]
    except OSError:
        pass
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.split("\n")[0].strip()
