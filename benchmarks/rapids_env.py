"""An environment for rapids-singlecell, made once from ``peers-rapids.txt``.

python benchmarks/rapids_env.py    prints its Python, and the folder of the unpacked wheel
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import peer_env

REQUIREMENTS = Path(__file__).resolve().with_name("peers-rapids.txt")
NEEDS = (3, 12)
_WHEEL = "# wheel: "


def wheel_pin() -> str:
    """The requirement of the wheel itself, in a comment of the requirements."""
    lines = REQUIREMENTS.read_text().splitlines()
    (pin,) = (line.removeprefix(_WHEEL) for line in lines if line.startswith(_WHEEL))
    return pin


def unpack(python: Path) -> Path:
    """Install the wheel without what it depends on into a folder of its own; the folder.

    Raises
    ------
    peer_env.PeerEnvError
        If it cannot be installed.
    """
    wheel = wheel_pin()
    folder = python.parents[1] / wheel
    if folder.exists():
        return folder
    made = folder.with_name(f"{wheel}.part")
    shutil.rmtree(made, ignore_errors=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--target", str(made), wheel],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise peer_env.PeerEnvError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return made.rename(folder)


def libraries(python: Path) -> str:
    """The loader's path, with the CUDA runtime of the environment first."""
    found = (python.parents[1] / "lib").glob("python3*/site-packages/nvidia/cuda_runtime/lib")
    before = os.environ.get("LD_LIBRARY_PATH")
    return os.pathsep.join([*map(str, found), *([before] if before else [])])


def main() -> int:
    try:
        base, version = peer_env.find()
        if version < NEEDS:
            raise peer_env.PeerEnvError(
                f"it needs Python 3.12 or later; the newest here is {version[0]}.{version[1]}"
            )
        python = peer_env.ensure(REQUIREMENTS, interpreter=str(base)).python
        found = {"python": str(python), "wheel": str(unpack(python))}
    except (peer_env.PeerEnvError, OSError) as error:
        print(f"rapids-singlecell cannot be installed: {error}", file=sys.stderr)
        return 1
    print(json.dumps({**found, "libraries": libraries(python)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
