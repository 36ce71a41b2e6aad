"""The program of a case, from outside: started, asked, looked at."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pdex_gpu

_SUPPORT = Path(__file__).resolve().parents[2]
_OWN_SHM = 'mount -t tmpfs -o size=256m tmpfs /dev/shm && exec "$@"'


class Hang(Exception):
    """No answer came in time."""


@cache
def may_mount() -> bool:
    """Whether programs can have a mount namespace of their own."""
    try:
        command = ["unshare", "-m", "sh", "-c", _OWN_SHM, "sh", "true"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


class Program:
    """A started program.

    Parameters
    ----------
    process : subprocess.Popen
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._text = b""

    def ask(self, **what: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next answer; None if there is none after so many seconds."""
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._text:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            some = os.read(self._process.stdout.fileno(), 1 << 16)
            if not some:
                raise RuntimeError(f"the program ended: {self._process.wait()}")
            self._text += some
        line, _, self._text = self._text.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def needed(self, seconds: float = 300.0) -> dict[str, Any]:
        """The next answer."""
        found = self.answer(seconds)
        if found is None:
            raise Hang
        return found

    def mount(self, *command: str) -> None:
        """Mount something in the program's namespace."""
        self.ask(do="mount", command=["mount", *command])
        if self.needed()["code"]:
            raise RuntimeError(f"cannot mount: {command}")

    def seen(self, path: Path) -> Path:
        """The path by which this process sees what the program has there."""
        return Path(f"/proc/{self._process.pid}/root{path}") if may_mount() else path


@contextmanager
def program(folder: Path, *words: str) -> Iterator[Program]:
    """The program, its temporary files below `folder`, ready for calls of the kind of `words`."""
    before = ["unshare", "-m", "sh", "-c", _OWN_SHM, "sh"] if may_mount() else []
    path = [str(Path(pdex_gpu.__file__).parents[1]), str(_SUPPORT)]
    # Built once, and not a temporary file of a case.
    built = os.environ.get("PDEX_GPU_EMULATED_CACHE", f"/tmp/pdex-gpu-emulated-{os.getuid()}")
    own = {
        "PYTHONPATH": os.pathsep.join(path),
        "TMPDIR": str(folder / "tmp"),
        "PDEX_GPU_EMULATED_CACHE": built,
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "hostile.faults.program", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | own, cwd=folder, start_new_session=True,
    )  # fmt: skip
    try:
        found = Program(process)
        found.needed(300.0)
        yield found
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()
        process.wait()
