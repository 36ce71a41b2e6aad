"""Direct queries to the NVIDIA driver: they need no CuPy, and are quick where there is no driver.

A query starts the driver in this process (`cuInit`) but creates no context and takes no memory.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Any

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

#: Command that installs CuPy and the CUDA runtime for a major version of CUDA. It names the package
#: itself, not an extra of ours, so it is right however pdex_gpu was installed.
INSTALL = 'pip install "cupy-cuda{}x[ctk]>=14"'


@dataclass(frozen=True)
class DriverDevice:
    """A device as the driver lists it."""

    index: int
    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}, device {self.index}"


@dataclass(frozen=True)
class Driver:
    """The driver's answer.

    Attributes
    ----------
    version : tuple of int or None
        The newest CUDA version it can run, ``(13, 0)``; None if there is no driver.
    devices : tuple of DriverDevice
        The devices this process can see.
    problem : str
        Why there is no driver or no device; empty if there are devices.
    """

    version: tuple[int, int] | None
    devices: tuple[DriverDevice, ...]
    problem: str


def ask() -> Driver:
    """Ask the driver for its version and devices; never raises."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = _load(name)
    except OSError as error:
        detail = str(error).removeprefix(f"{name}: ")
        return Driver(
            None,
            (),
            f"no NVIDIA driver ({name}: {detail}): install one, or start the container with "
            "--gpus all",
        )
    try:
        version = _integer(library, library.cuDriverGetVersion)
        major_minor = (version // 1000, version % 1000 // 10)
        return _devices(library, major_minor)
    except (_DriverError, AttributeError) as error:
        return Driver(None, (), f"the NVIDIA driver does not answer: {error}")


def _devices(library: Any, version: tuple[int, int]) -> Driver:
    try:
        _check(library, library.cuInit(0))
        n_devices = _integer(library, library.cuDeviceGetCount)
        if n_devices == 0:
            raise _DriverError(_NO_DEVICE, "no device")
        return Driver(version, tuple(_device(library, i) for i in range(n_devices)), "")
    except _DriverError as error:
        if error.code != _NO_DEVICE:
            return Driver(version, (), f"the NVIDIA driver does not start: {error}")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return Driver(version, (), f"the NVIDIA driver sees no device{hidden}")


def _device(library: Any, index: int) -> DriverDevice:
    handle = _integer(library, library.cuDeviceGet, index)
    text = ctypes.create_string_buffer(256)
    _check(library, library.cuDeviceGetName(text, len(text), handle))
    major, minor = (
        _integer(library, library.cuDeviceGetAttribute, attribute, handle)
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
    )
    return DriverDevice(index, text.value.decode(errors="replace"), (major, minor))


class _DriverError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _load(name: str) -> Any:
    return ctypes.CDLL(name)


def _integer(library: Any, function: Any, *args: int) -> int:
    """Return the int that `function` writes to its first argument."""
    value = ctypes.c_int()
    _check(library, function(ctypes.byref(value), *args))
    return value.value


def _check(library: Any, code: int) -> None:
    if code != 0:
        name, meaning = (
            _error_text(function, code)
            for function in (library.cuGetErrorName, library.cuGetErrorString)
        )
        raise _DriverError(code, f"{name or f'error {code}'}{meaning and f' ({meaning})'}")


def _error_text(function: Any, code: int) -> str:
    text = ctypes.c_char_p()
    function(code, ctypes.byref(text))
    return (text.value or b"").decode(errors="replace")
