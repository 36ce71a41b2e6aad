"""Run each kernel of ``toys/overruns.cu`` under the sanitizers, and tell what they say.

Started by the tests in a process with the variables of ``build.sanitizer_environment``. A report
ends the process, so each launch has one of its own. Writes a JSON object to stdout: for each
"kernel at" the exit status and what was written to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

_SUPPORT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_SUPPORT.parents[1]), str(_SUPPORT)]

from emulated.device import EmulatedDevice, from_device, on_device  # noqa: E402


def launch(device: EmulatedDevice, name: str, at: int) -> None:
    """One launch of a block of 64 threads, arrays of 64 items each."""
    kernel = device.kernel("overruns", name)
    floats = on_device(device, np.zeros(64, np.float32))
    integers = on_device(device, np.zeros(64, np.int32))
    arguments = {"pf4": floats, "pi4": integers, "pu4": integers, "i4": np.int32(at)}
    stream = device.stream()
    shared = 64 * 4 if "dynamic" in name else 0
    stream.launch("overruns", name, 2, 64, *(arguments[c] for c in kernel.signature), shared=shared)
    stream.synchronize()
    from_device(floats)


def in_child(device: EmulatedDevice, name: str, at: int) -> tuple[int, str]:
    """Exit status and stderr of a process that does it."""
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            launch(device, name, at)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return status, errors.read().decode(errors="replace")


def main() -> None:
    device = EmulatedDevice(folder=Path(__file__).with_name("toys"))
    told = {
        f"{name} {at}": in_child(device, name, at)
        for name in device.library("overruns").kernels
        for at in (20, 64, -1)
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
