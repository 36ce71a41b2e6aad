"""Worker processes, seen from the benchmark: started once, asked one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
LOGS = HERE / ".data" / "logs"

# Tools that run under this Python.
OWN = ("pdex_gpu", "h5py")

THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


class WorkerError(RuntimeError):
    """A worker could not do what it was asked."""


def environment(threads: int) -> dict[str, str]:
    """The environment every measured process gets: the same thread counts for all."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PDEX_GPU_", "PYTHON"))}
    env.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    env["OMP_WAIT_POLICY"] = "PASSIVE"  # idle threads of one tool must not spin next to another
    return env


class Client:
    """One worker process."""

    def __init__(self, tool: str, python: Path, threads: int, *, label: str | None = None) -> None:
        self.tool = tool
        LOGS.mkdir(parents=True, exist_ok=True)
        self.log = LOGS / f"{label or tool}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), str(HERE / "worker.py"), tool, "--threads", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=environment(threads),
                cwd=HERE,
            )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except WorkerError:
            self.close()
            raise
        self.loaded: set[str] = set()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request, wait for its answer; raises WorkerError with the tool's error."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # _answer tells why
            self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def load(self, name: str, **arguments: Any) -> None:
        """Load an input unless it is there already."""
        if name not in self.loaded:
            self.ask("load", name=name, **arguments)
            self.loaded.add(name)

    def drop(self, name: str | None = None) -> None:
        """Forget one input, or everything."""
        self.ask("drop", name=name)
        if name is None:
            self.loaded.clear()
        else:
            self.loaded.discard(name)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            tail = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise WorkerError(f"{self.tool}: the process ended with {code}: " + " | ".join(tail))
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise WorkerError(f"{self.tool}: {answer['error']}")
        return answer

    def close(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Pool:
    """The workers of one run; each is started when first asked for."""

    def __init__(
        self,
        threads: int,
        peer_python: Path | None,
        tools: list[str],
        pythons: dict[str, Path] | None = None,
    ) -> None:
        self.threads = threads
        self.peer_python = peer_python
        self.tools = tools
        # Tools that run under neither this Python nor the peers'.
        self.pythons = pythons or {}
        self.clients: dict[str, Client] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def has(self, tool: str) -> bool:
        return tool in self.tools

    def python(self, tool: str) -> Path:
        if tool in OWN:
            return Path(sys.executable)
        if tool in self.pythons:
            return self.pythons[tool]
        if self.peer_python is None:
            raise WorkerError(f"{tool}: there is no environment of the peers")
        return self.peer_python

    def get(self, tool: str) -> Client:
        """The long-lived worker of a tool."""
        client = self.clients.get(tool)
        if client is None or client.process.poll() is not None:
            client = self.clients[tool] = self.fresh(tool)
        return client

    def fresh(self, tool: str, label: str | None = None) -> Client:
        """A new worker that the caller closes."""
        client = Client(tool, self.python(tool), self.threads, label=label)
        self.versions[tool] = client.versions
        return client

    def release(self) -> None:
        """Let every worker forget its data."""
        for client in self.clients.values():
            if client.process.poll() is None:
                client.drop()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self.clients.values():
            if kind is not None:
                client.process.kill()
            client.close()
