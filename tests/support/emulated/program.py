"""Runs a program to which the emulated device is a GPU.

python tests/support/emulated/program.py SCRIPT ARGUMENTS...
python tests/support/emulated/program.py -m MODULE ARGUMENTS...
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parents[1]
ROOT = SUPPORT.parents[1]


def main(arguments: list[str]) -> None:
    sys.path[:1] = [str(ROOT), str(SUPPORT), str(ROOT / "benchmarks")]
    import gpu_meter
    import pytest

    from emulated.backend import EmulatedCuda
    from emulated.meter import EmulatedMeter

    patch = pytest.MonkeyPatch()  # for as long as the process lives
    EmulatedCuda().install(patch)
    patch.setattr(gpu_meter, "open_meter", lambda index: EmulatedMeter())
    is_module = arguments[0] == "-m"
    sys.argv = arguments[is_module:]
    if is_module:
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
