"""What this process may use: processors and memory, as affinity and cgroups allow."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .errors import OptionError

_CGROUP = Path("/sys/fs/cgroup")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{u}i": 1024**i for i, u in enumerate("KMGT", start=1)}


def cpu_count(cgroup: Path = _CGROUP) -> int:
    """Processors this process may use: the affinity mask, cut by the cgroup's quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


def _cpu_quota(cgroup: Path) -> float | None:
    quota, period = (_read(cgroup / "cpu.max") or "max 1").split()  # version 2
    if quota == "max":
        quota = _read(cgroup / "cpu/cpu.cfs_quota_us") or "-1"  # version 1
        period = _read(cgroup / "cpu/cpu.cfs_period_us") or "100000"
    return int(quota) / int(period) if int(quota) > 0 else None


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory free for this process: the machine's, cut by the cgroup's limit."""
    free = _machine_memory()
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        most, now = _read(cgroup / limit), _read(cgroup / used)
        if most and now and most != "max":
            free = min(free, max(0, int(most) - int(now)))
    return free


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


def memory_budget(memory: str | float | int | None) -> int:
    """Bytes from ``"4GB"``, a number of bytes, or a fraction of what is free; None is half.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if memory is None:
        memory = 0.5
    wrong = OptionError(
        f"memory={memory!r} is not a size. Give bytes (an int), a fraction of the free memory "
        "between 0 and 1 (a float), or text such as '4GB' or '512MiB'."
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
    elif isinstance(memory, bool) or not isinstance(memory, (int, float)):
        raise wrong
    elif isinstance(memory, float) and 0 < memory <= 1:
        size = memory * available_memory()
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
