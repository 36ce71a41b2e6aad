"""Processes of a session, looked at from outside (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Seconds after which a test gives up waiting: no answer depends on them.
LIMIT = 600.0


def living(session: int) -> list[int]:
    """Processes of a session that have not ended, the oldest first."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError, IndexError, ValueError):
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append((int(fields[19]), int(entry)))
    return [pid for _, pid in sorted(found)]


def workers(session: int) -> list[int]:
    """Worker processes that multiprocessing started by spawn."""
    return [pid for pid in living(session) if b"spawn_main" in _command(pid)]


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path("/proc", str(pid), "cmdline").read_bytes()
    return b""


def shared_files(session: int) -> list[str]:
    """Files in /dev/shm that processes of the session have open or mapped."""
    found = []
    for pid in living(session):
        with suppress(OSError):
            for link in Path("/proc", str(pid), "fd").iterdir():
                with suppress(OSError):
                    found.append(os.readlink(link))
            for line in Path("/proc", str(pid), "maps").read_text().splitlines():
                found.append(line.split(maxsplit=5)[-1])
    return [name for name in found if name.startswith("/dev/shm/")]


def wait_until(true: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait; raise AssertionError if it does not come to pass."""
    until = time.monotonic() + limit
    while not true():
        if time.monotonic() > until:
            raise AssertionError(f"in {limit:.0f} s, not: {what}")
        time.sleep(0.02)
