"""A check that numba can compile the kernels for the processors of this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

from ..base import AskedDevices, Probed, processors

#: Environment variable that turns off compiling by numba.
NO_COMPILING = "NUMBA_DISABLE_JIT"


def compiling_is_off(environment: Mapping[str, str]) -> bool:
    """Return whether numba is told not to compile."""
    return environment.get(NO_COMPILING, "0") not in ("", "0")


def probe(_: AskedDevices = None) -> Probed:
    """Return whether the kernels can be compiled here; nothing is imported or compiled."""
    if importlib.util.find_spec("numba") is None:
        return Probed(False, "numba is not installed. Run: pip install numba")
    if compiling_is_off(os.environ):
        return Probed(
            False,
            f"{NO_COMPILING} is set, so that numba compiles nothing. Unset it, or give "
            "backend='numpy', which needs no compiling",
        )
    return Probed(True, "compiled with numba", (processors(),))
