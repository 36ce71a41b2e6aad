"""Checks of threads, memory, shared memory and scratch space."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..utils.resources import available_memory, cpu_count, memory_budget
from .base import NOTE, OK, PROBLEM, Check

TOPIC = "Machine"

_SHARED = Path("/dev/shm")
_MOUNTS = Path("/proc/mounts")
_MEMINFO = Path("/proc/meminfo")

_DOCKER_DEFAULT = 64 * 2**20
_LITTLE_MEMORY = 2 * 10**9
_LITTLE_SCRATCH = 10 * 10**9
_IN_MEMORY = ("tmpfs", "ramfs")


def checks() -> Iterator[Check]:
    """Check the resources that a run uses."""
    yield threads()
    yield memory()
    yield shared_memory()
    yield scratch()


def threads() -> Check:
    """Check the processors of the machine, and how many affinity and cgroups allow."""
    there = os.cpu_count() or 1
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = there
    used = cpu_count()
    found = f"{used} used by default: the machine has {there}, affinity allows {allowed}"
    if used < allowed:
        found += f", the cgroup quota allows {used}"
    if used == there:
        return Check(TOPIC, "threads", OK, found)
    fix = f"docker run --cpus={there} ..." if used < allowed and in_container() else None
    return Check(TOPIC, "threads", NOTE, found, fix)


def memory(meminfo: Path = _MEMINFO) -> Check:
    """Check the memory that is free for this process, and the budget of a run."""
    free, budget = available_memory(), memory_budget(None)
    found = f"{size(free)} free"
    total = _total(meminfo)
    if total:
        found += f" of {size(total)} in the machine"
    found += f"; a run uses up to {size(budget)} by default (--memory)"
    if free < _LITTLE_MEMORY:
        return Check(TOPIC, "memory", NOTE, f"{found}; this is little", None)
    return Check(TOPIC, "memory", OK, found)


def shared_memory(folder: Path = _SHARED) -> Check:
    """Check the shared memory available to the engine shared_memory."""
    name = "shared memory"
    if not folder.is_dir():
        return Check(
            TOPIC, name, OK, f"no {folder} on this system; the default engine does not need it"
        )
    usage = shutil.disk_usage(folder)
    found = f"{size(usage.free)} free of {size(usage.total)} in {folder}"
    if usage.total > _DOCKER_DEFAULT:
        return Check(TOPIC, name, OK, found)
    found += "; the shared_memory engine needs room for the matrix, the default engine does not"
    if in_container():
        return Check(TOPIC, name, NOTE, found, "docker run --shm-size=8g ...")
    return Check(TOPIC, name, NOTE, found, f"sudo mount -o remount,size=8G {folder}")


def scratch(folder: Path | None = None, mounts: Path = _MOUNTS) -> Check:
    """Check the folder for data that do not fit in memory while a file is read."""
    name = "scratch"
    other = "pdex-gpu run --scratch /path/on/a/disk ..."
    try:
        folder = Path(tempfile.gettempdir()) if folder is None else folder
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"{folder or 'the temporary folder'} cannot be written ({error.strerror or error})"
        return Check(TOPIC, name, PROBLEM, found, other, required=True)
    found = f"{size(free)} free in {folder}"
    kind = file_system(folder, mounts)
    if kind in _IN_MEMORY:
        found += f", which is in memory ({kind}): files there reduce the free memory"
        return Check(TOPIC, name, NOTE, found, other)
    if free < _LITTLE_SCRATCH:
        return Check(TOPIC, name, NOTE, f"{found}; screens larger than memory need more", other)
    return Check(TOPIC, name, OK, found)


def file_system(folder: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of file system that a folder is on; empty if unknown."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    place, kind, longest = folder.resolve(), "", -1
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        # Of several mounts at one place, the last one is visible.
        if place.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = fields[2], len(point.parts)
    return kind


def in_container() -> bool:
    """Return whether this seems to be a container."""
    return any(Path(p).exists() for p in ("/.dockerenv", "/run/.containerenv"))


def size(n_bytes: float) -> str:
    """Format a number of bytes, such as ``3.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} TB"


def _total(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
