"""The process behind :mod:`.watchdog`, run as a script; it imports little, to start fast.

Arguments: the id of the watched process, a limit in seconds, and the exit code to end it with. Each
line on standard input holds the seconds that the process has computed so far, then the stream and
the text (in hexadecimal digits) to write if no other line comes within the limit. An empty line
means that there is nothing to watch. This process ends with its input, and so with the process that
it watches.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading

_CLOCK_TICKS = 100.0  # where the system does not say
_KILLED_AFTER = 5.0
_LEAST = 0.05  # seconds between checks


def watch(pid: int, limit: float, code: int) -> None:
    """Watch a process until it ends or must be ended."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    before, stream, text, wait = 0.0, 2, b"", None
    while True:
        try:
            line = lines.get(timeout=wait)
        except queue.Empty:
            used = _computed(pid)
            if used is None or used - before >= limit:
                _end(pid, code, stream, text, lines)
                return
            wait = max(_LEAST, limit - (used - before))
            continue
        if not line:
            return
        wait = None
        if parts := line.split():
            before, stream, text = float(parts[0]), int(parts[1]), bytes.fromhex(parts[2].decode())
            wait = limit


def _listen(lines: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    lines.put(b"")


def _end(pid: int, code: int, stream: int, text: bytes, lines: queue.SimpleQueue[bytes]) -> None:
    """Write the text and end the process; on POSIX, by the signal whose number is the exit code."""
    with contextlib.suppress(OSError):
        os.write(stream, text)
    with contextlib.suppress(OSError):
        os.kill(pid, code)  # on Windows, this ends it with this exit code
    with contextlib.suppress(queue.Empty):
        while lines.get(timeout=_KILLED_AFTER):
            pass
        return
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", code))


def _computed(pid: int) -> float | None:
    """Return the seconds that all threads of a process have computed; None if not known."""
    try:
        if os.name == "nt":
            return _computed_on_windows(pid)
        with open(f"/proc/{pid}/stat", "rb") as file:
            user, system = file.read().rpartition(b")")[2].split()[11:13]
        return (int(user) + int(system)) / (os.sysconf("SC_CLK_TCK") or _CLOCK_TICKS)
    except OSError:
        return _computed_by_ps(pid)


def _computed_by_ps(pid: int) -> float | None:
    """Return these seconds from ``ps`` (no /proc), which writes ``1-02:03:04`` or ``3:04.56``."""
    import subprocess

    try:
        told = subprocess.run(
            ["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True
        )
        days, _, time = told.stdout.strip().rpartition("-")
        seconds = 86400.0 * int(days or 0)
        for place, part in enumerate(reversed(time.split(":"))):
            seconds += 60.0**place * float(part)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return seconds


def _computed_on_windows(pid: int) -> float | None:
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    query_limited_information = 0x1000
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return None
    times = [ctypes.c_uint64() for _ in range(4)]  # created, ended, kernel, user; in 100 ns
    told = kernel.GetProcessTimes(ctypes.c_void_p(handle), *map(ctypes.byref, times))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return (times[2].value + times[3].value) / 1e7 if told else None


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # does not wait for the listening thread
