"""A process that runs cases one after the other, and measures what they take and leave."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import logging
import os
import re
import shutil
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

from .verdict import Verdict, foreign, of_lines

#: Seconds that a case may take, where its driver does not say.
LIMIT = 60.0
#: What a call may take beyond the memory that it is given, in bytes.
SLACK = 400_000_000
#: Address space of a process, so that a bomb ends the case and not the machine.
ADDRESS_SPACE = 8 << 30

#: Files with this prefix are kept from case to case.
KEPT = "hostile-kept-"


@dataclass(frozen=True)
class Done:
    """A case that was run.

    Attributes
    ----------
    seed : int
    verdict : Verdict
    seconds : float
    peak : int
        Bytes by which the process grew at most; 0 where that is not told.
    """

    seed: int
    verdict: Verdict
    seconds: float
    peak: int


def driver_of(name: str) -> ModuleType:
    """The driver of a name."""
    return importlib.import_module(f"hostile.{name}")


def serve(name: str, connection: Connection, folder: str) -> None:
    """Run the cases whose numbers come in, until there is none."""
    os.setsid()  # what a case starts ends with this process
    _limit_address_space()
    logging.getLogger("pdex_gpu").addHandler(logging.NullHandler())
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    _redirect(folder)
    driver = driver_of(name)
    limit = float(getattr(driver, "LIMIT", LIMIT))
    faulthandler.enable()
    if warm := getattr(driver, "warm", None):
        warm()
    connection.send(None)
    while (seed := _received(connection)) is not None:
        os.ftruncate(1, 0)
        faulthandler.dump_traceback_later(0.9 * limit)
        done = measured(driver, seed, Path(folder))
        faulthandler.cancel_dump_traceback_later()
        connection.send(done)
    shutil.rmtree(folder, ignore_errors=True)


def _received(connection: Connection) -> int | None:
    """The number of the next case; None where there is none, or nobody to ask for it."""
    try:
        found: int | None = connection.recv()
    except EOFError:
        return None
    return found


def _redirect(folder: str) -> None:
    """Send what is printed, also by libraries, to a file."""
    handle = os.open(_printed(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(handle, standard)
    os.close(handle)


def _printed(folder: str) -> Path:
    return Path(folder) / f"{KEPT}printed"


def said(folder: str) -> str:
    """The end of what a process has printed."""
    with suppress(OSError):
        text = _printed(folder).read_text(errors="replace").strip()
        return text if len(text) < 6000 else f"{text[:700]} ... {text[-5000:]}"
    return ""


def measured(driver: ModuleType, seed: int, folder: Path) -> Done:
    """Run a case; `folder` is where temporary files go."""
    before, start = _reset_peak(), time.perf_counter()
    try:
        judge = getattr(driver, "verdict", None)
        found = of_lines(driver.problems(seed)) if judge is None else judge(seed)
    except Exception as error:  # of the driver, or of a check in it
        where = "".join(traceback.format_exception(error)[-3:])
        found = Verdict(problems=(f"{foreign(error)}\n{where}",))
    seconds, peak = time.perf_counter() - start, max(0, _status("VmHWM") - before)
    more = [*_left(folder)]
    budget = getattr(driver, "BUDGET", 0)
    if peak > budget + SLACK:
        more.append(f"memory: {peak / 1e9:.2f} GB were taken, {budget / 1e9:.2f} GB were given")
    return Done(seed, replace(found, problems=(*found.problems, *more)), seconds, peak)


def _left(folder: Path) -> list[str]:
    """Files, open files and processes that a case leaves."""
    found = [f"leak: the file {p.name}" for p in folder.iterdir() if not p.name.startswith(KEPT)]
    if any(_open_files(folder)):
        gc.collect()  # an error may have kept them
        found += [f"leak: {name} is open" for name in _open_files(folder)]
    return found + [f"leak: the process {pid}" for pid in _children()]


def _open_files(folder: Path) -> list[str]:
    found = []
    for fd in _listed("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if path.startswith(str(folder)) and KEPT not in path:
            found.append(Path(path).name)
    return found


def _children() -> list[str]:
    """Processes that this one has started, but those of multiprocessing itself."""
    found: list[str] = []
    for thread in _listed("/proc/self/task"):
        try:
            pids = Path(f"/proc/self/task/{thread}/children").read_text().split()
            found += [pid for pid in pids if b"resource_tracker" not in _command(pid)]
        except OSError:
            continue
    return found


def _command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _limit_address_space() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def _reset_peak() -> int:
    """Let the peak begin anew; the memory in use, both as Linux tells them."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _status(field: str) -> int:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"{field}:\s+(\d+)", text)
    return 1024 * int(found.group(1)) if found else 0
