"""Checks of environment variables that change what a run does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ..backends.cpu.probe import NO_COMPILING, compiling_is_off
from ..backends.registry import ENVIRONMENT, choose_backend
from ..errors import PdexGpuError
from ..utils.atomic_files import UMASK
from ..utils.watchdog import STUCK_SECONDS, stuck_seconds
from .base import NOTE, OK, PROBLEM, Check

TOPIC = "Environment"

#: The meaning of each variable.
_KNOWN = {
    "CUDA_VISIBLE_DEVICES": "limits which devices are visible",
    "CUPY_CACHE_DIR": "where compiled CUDA kernels are kept",
    "CUPY_GPU_MEMORY_LIMIT": "most device memory that CuPy uses",
    "NUMBA_CACHE_DIR": "where compiled CPU kernels are kept",
    UMASK: "permissions that checkpoints withhold from others",
    "TMPDIR": "the scratch folder, unless --scratch names one",
}


def checks(environment: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Check the variables that are set."""
    environment = os.environ if environment is None else environment
    n = 0
    if environment.get(ENVIRONMENT):
        n += 1
        yield _backend(environment[ENVIRONMENT])
    if compiling_is_off(environment):
        n += 1
        yield Check(
            TOPIC,
            NO_COMPILING,
            PROBLEM,
            "kernels cannot be compiled, so the cpu backend cannot run",
            f"unset {NO_COMPILING}",
            required=True,
        )
    if environment.get(STUCK_SECONDS):
        n += 1
        yield _watchdog(environment)
    for name, meaning in _KNOWN.items():
        if environment.get(name):
            n += 1
            yield Check(TOPIC, name, OK, f"{environment[name]} ({meaning})")
    if n == 0:
        yield Check(TOPIC, "variables", OK, "none that changes a run is set")


def _backend(name: str) -> Check:
    """Check that the backend that replaces "auto" can run."""
    fix = f"unset {ENVIRONMENT}"
    try:
        choose_backend(name)
    except PdexGpuError as error:
        return Check(TOPIC, ENVIRONMENT, PROBLEM, str(error), fix, required=True)
    found = f'{name}: replaces backend="auto"'
    return Check(TOPIC, ENVIRONMENT, NOTE, found, fix)


def _watchdog(environment: Mapping[str, str]) -> Check:
    """Check after how long the command line gives up a file that HDF5 never finishes."""
    try:
        seconds = stuck_seconds(environment)
    except PdexGpuError as error:
        fix = f"unset {STUCK_SECONDS}"
        return Check(TOPIC, STUCK_SECONDS, PROBLEM, str(error), fix, required=True)
    found = f"{seconds:g} seconds until a run gives up on a file" if seconds else "0: no watchdog"
    return Check(TOPIC, STUCK_SECONDS, OK, f"{found} (if HDF5 never finishes reading)")
