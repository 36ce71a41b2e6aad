"""The resources of this process: processors and memory, as affinity and cgroups allow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import OptionError, shown
from .checks import is_number

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{u}i": 1024**i for i, u in enumerate("KMGT", start=1)}


def cpu_count(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return how many processors this process may use, by affinity mask and cgroup quotas."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    for folder in _cgroup_folders(cgroup, membership):
        quota, period = (_read(folder / "cpu.max") or "max 1").split()  # version 2
        if quota == "max":
            quota = _read(folder / "cpu.cfs_quota_us") or "-1"  # version 1
            period = _read(folder / "cpu.cfs_period_us") or "100000"
        if int(quota) > 0:
            allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(1, allowed)


def available_memory(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return the free memory of this process in bytes: the machine's, within cgroup limits."""
    free = _machine_memory()
    for folder in _cgroup_folders(cgroup, membership):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most, now = _read(folder / limit), _read(folder / used)
            if most and now and most != "max":
                free = min(free, max(0, int(most) - int(now)))
    return free


def _cgroup_folders(cgroup: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroups and of their parents: all limits apply."""
    yield from (cgroup, cgroup / "cpu", cgroup / "memory")  # what a container sees
    for line in (_read(membership) or "").splitlines():
        controllers, path = line.split(":", 2)[1:]
        inner = PurePosixPath(path.strip("/"))
        for name in controllers.split(","):  # empty in version 2
            for place in (inner, *inner.parents):
                if place.name:
                    yield cgroup / name / place


def _machine_memory() -> int:
    meminfo = _read(Path("/proc/meminfo"))
    if meminfo:
        for line in meminfo.splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 10**9  # Windows without further packages: assume a small laptop


def memory_budget(
    memory: str | float | int | None, free: int | None = None, *, option: str = "memory"
) -> int:
    """Return the bytes meant by ``"4GB"``, a byte count or a fraction of free memory (None: 0.5).

    `free` is the number of free bytes, by default the machine's; `option` is the name of the option
    for the message.

    Raises
    ------
    OptionError
        If `memory` is none of these.
    """
    if memory is None:
        memory = 0.5
    wrong = OptionError(
        f"{option}={shown(memory)} is not a size. Pass bytes (an int), a fraction of the free "
        "memory between 0 and 1 (a float), or text such as '4GB' or '512MiB'."
    )
    if isinstance(memory, str):
        text = memory.strip()
        number = text.rstrip("KMGTBibkmgt ")
        unit = text[len(number) :].strip().rstrip("Bb")
        unit = unit[:1].upper() + unit[1:]
        try:
            size = float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            raise wrong from None
    elif not is_number(memory):
        raise wrong
    elif isinstance(memory, float) and 0 < memory <= 1:
        size = memory * (available_memory() if free is None else free)
    else:
        size = float(memory)
    if not math.isfinite(size) or size < 1:
        raise wrong
    return int(size)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
