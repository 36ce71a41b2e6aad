"""The environment the peers run in: found, or made once from ``peers.txt``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "peers.txt"
NEW_PDEX = HERE / "peers-pdex-0.3.txt"  # apart, as both pdex are called pdex
ENVIRONMENTS = HERE / ".env"

PEERS = ("illico", "hpdex", "scanpy", "pdex")
SCANPY_NEEDS = (3, 12)
# The pins of peers.txt were resolved on 3.12; it is tried first.
PREFERRED = ((3, 12), (3, 13), (3, 14))


class PeerEnvError(RuntimeError):
    """The peers' environment cannot be made or used."""


@dataclass
class PeerEnv:
    """A Python that has the peers.

    Attributes
    ----------
    python : Path
        Its interpreter.
    tools : dict[str, str]
        The peers found in it, with their versions.
    notes : list[str]
        What a reader of the record must know: peers left out, versions other than pinned.
    """

    python: Path
    tools: dict[str, str]
    notes: list[str] = field(default_factory=list)


def ensure(
    requirements: Path = REQUIREMENTS, *, env: str | None = None, interpreter: str | None = None
) -> PeerEnv:
    """Find or make the peers' environment.

    Parameters
    ----------
    requirements : pathlib.Path
        The peers, and the versions they were measured with.
    env : str, optional
        A ready environment (its folder or its interpreter), used as it is.
    interpreter : str, optional
        The Python to make the environment with; by default one of 3.12 or later is looked for
        on ``PATH`` and under ``~/.pyenv/versions``.

    Raises
    ------
    PeerEnvError
        If `env` or `interpreter` is no usable Python, or the installation fails.
    """
    if env is not None:
        return _describe(_interpreter_of(env), requirements)
    notes: list[str] = []
    if interpreter is not None:
        base = Path(interpreter)
        version = _version(base)
        if version is None:
            raise PeerEnvError(f"--peer-python {interpreter} is not a working Python interpreter")
    else:
        base, version = find()
    if version < (3, 11):
        raise PeerEnvError(
            f"the peers need Python 3.11 or later; {base.name} is {_dotted(version)}"
        )
    if version < SCANPY_NEEDS and requirements == REQUIREMENTS:
        notes.append(
            f"no Python {_dotted(SCANPY_NEEDS)} or later was found (this one is "
            f"{_dotted(version)}): scanpy 1.12.4 is left out, and the libraries under the other "
            "peers are not the pinned ones. --peer-python PATH names another interpreter."
        )
    found = _describe(_make(base, version, requirements), requirements)
    found.notes[:0] = notes
    return found


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _version(python: Path) -> tuple[int, int] | None:
    """Major and minor version of an interpreter, None where it does not run (a dead shim)."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", "import sys, venv; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=HERE,
        )
        if done.returncode != 0:
            return None
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def find() -> tuple[Path, tuple[int, int]]:
    """The best interpreter for the peers: 3.12 first, then later ones, else this one."""
    candidates = [Path(sys.executable)]
    for wanted in PREFERRED:
        on_path = shutil.which(f"python{_dotted(wanted)}")
        if on_path:
            candidates.append(Path(on_path))
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    versions = {path: _version(path) for path in candidates}
    for wanted in PREFERRED:
        for path, version in versions.items():
            if version == wanted:
                return path, wanted
    return Path(sys.executable), (sys.version_info[0], sys.version_info[1])


def _in_venv(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _interpreter_of(env: str) -> Path:
    path = Path(env)
    python = _in_venv(path) if path.is_dir() else path
    if _version(python) is None:
        raise PeerEnvError(f"--peer-env {env} holds no working Python interpreter")
    return python.absolute()  # not resolved: a venv's python is a link


def _make(base: Path, version: tuple[int, int], requirements: Path) -> Path:
    """Make the environment once; a stamp holds the digest of the requirements it was made from."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder = ENVIRONMENTS / f"{requirements.stem}-{_dotted(version)}"
    stamp = folder / "requirements.sha256"
    python = _in_venv(folder)
    if stamp.exists() and stamp.read_text() == digest and _version(python) == version:
        return python
    print(f"making {folder.name} with Python {_dotted(version)} (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    for command in (
        [str(base), "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
         "-r", str(requirements)],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            shutil.rmtree(folder, ignore_errors=True)
            raise PeerEnvError(
                f"making the peers' environment failed at: {' '.join(command[1:])}\n{tail}"
            )
    stamp.write_text(digest)
    return python


def _pins(requirements: Path) -> dict[str, str]:
    lines = (line.split("#")[0].split(";")[0].strip() for line in requirements.open())
    return dict(line.split("==") for line in lines if "==" in line)


def _describe(python: Path, requirements: Path) -> PeerEnv:
    pins = _pins(requirements)
    script = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    done = subprocess.run(
        [str(python), "-I", "-c", script, *pins],
        capture_output=True, text=True, check=True, cwd=HERE,
    )  # fmt: skip
    versions = dict(line.split() for line in done.stdout.splitlines())
    peers = [name for name in PEERS if name in pins]
    tools = {name: versions[name] for name in peers if name in versions}
    notes = [f"{name} is not installed: left out" for name in peers if name not in versions]
    notes += [
        f"{name} is {versions[name]}, not the pinned {pin}"
        for name, pin in pins.items()
        if name in versions and versions[name] != pin
    ]
    return PeerEnv(python, tools, notes)
