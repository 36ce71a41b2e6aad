"""Power that fails at any moment: what was not brought to the disk may be lost, in any part.

A run is watched: each file and folder that it brings to the disk, each name that it gives or
takes. From that follow the states in which a file system may be left: of names that were given or
taken since their folder was synced any may be there or not; contents of a file that was not synced
may be lost. In each of these states the same call is made again.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stopped_runs import interrupted, names, run

from pdex_gpu.sinks.checkpoint import Checkpoint, checkpoint_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")

_MOST = 5  # names of which every subset is tried


@dataclass
class State:
    """What may be on the disk: a number of a file, or None for a folder, for each path."""

    names: dict[str, int | None]
    lost: frozenset[int]  # files whose contents were not synced


@dataclass
class Disk:
    """Follows what is done in a folder.

    Attributes
    ----------
    folder : pathlib.Path
    store : pathlib.Path
        Where files live on under their numbers, so that they keep their inodes.
    durable, now : dict
        Names on the disk for sure, and as the process sees them.
    pending : list
        What was done to names since, in order.
    """

    folder: Path
    store: Path
    durable: dict[str, int | None] = field(default_factory=dict)
    now: dict[str, int | None] = field(default_factory=dict)
    pending: list[tuple[str, int | None, bool]] = field(default_factory=list)
    synced: set[int] = field(default_factory=set)
    states: list[State] = field(default_factory=list)
    seen: set[Any] = field(default_factory=set)

    def observe(self) -> None:
        """Compare what is there with what was: the difference is not on the disk yet."""
        found: dict[str, int | None] = {}
        for path in sorted(self.folder.rglob("*")):
            info = path.stat()
            found[str(path.relative_to(self.folder))] = None if path.is_dir() else info.st_ino
            kept = self.store / str(info.st_ino)
            if not path.is_dir() and not kept.exists():
                os.link(path, kept)  # so that the inode is not given to another file
        for name in sorted(self.now.keys() - found.keys(), reverse=True):
            self.pending.append((name, self.now[name], False))
        for name, number in found.items():
            if name not in self.now or self.now[name] != number:
                self.pending.append((name, number, True))
        self.now = found

    def sync_file(self, number: int) -> None:
        self.observe()
        self.power_fails()
        self.synced.add(number)

    def sync_folder(self, folder: Path) -> None:
        self.observe()
        self.power_fails()
        where = str(folder.relative_to(self.folder))
        self.pending = [p for p in self.pending if str(Path(p[0]).parent) != where]
        inside = {n: i for n, i in self.now.items() if str(Path(n).parent) == where}
        others = {n: i for n, i in self.durable.items() if str(Path(n).parent) != where}
        self.durable = others | inside

    def power_fails(self) -> None:
        """Keep the states that the disk may be in at this moment."""
        for done in self._subsets():
            there = dict(self.durable)
            for k in done:
                name, number, given = self.pending[k]
                if given:
                    there[name] = number
                else:
                    there.pop(name, None)
            there = {
                name: number
                for name, number in there.items()
                if str(Path(name).parent) == "." or str(Path(name).parent) in there
            }
            lost = frozenset(n for n in there.values() if n is not None and n not in self.synced)
            key = (frozenset(there.items()), lost)
            if key not in self.seen:
                self.seen.add(key)
                self.states.append(State(there, lost))

    def _subsets(self) -> Iterator[tuple[int, ...]]:
        n = len(self.pending)
        if n <= _MOST:
            for size in range(n + 1):
                yield from itertools.combinations(range(n), size)
            return
        for k in range(n + 1):
            yield tuple(range(k))  # as they were done
            yield tuple(range(k, n))  # the other way round
            yield tuple(i for i in range(n) if i != k)

    def make(self, state: State, folder: Path, how: str) -> None:
        """Put a state into a folder; contents that were lost are as `how` says."""
        folder.mkdir()
        for name, number in sorted(state.names.items()):
            path = folder / name
            if number is None:
                path.mkdir()
            elif number not in state.lost or how == "whole":
                os.link(self.store / str(number), path)
            else:
                content = (self.store / str(number)).read_bytes()
                torn = content[: len(content) // 2]
                zeros = bytes(len(content))
                path.write_bytes({"empty": b"", "torn": torn, "zeros": zeros}[how])


def watch(disk: Disk) -> pytest.MonkeyPatch:
    """Let a disk follow what this process does to names, and what it syncs."""
    patch = pytest.MonkeyPatch()
    real_sync = os.fsync

    def fsync(fd: int) -> None:
        info = os.fstat(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path.is_dir():
            if path == disk.folder or disk.folder in path.parents:
                disk.sync_folder(path)
        else:
            disk.sync_file(info.st_ino)
        real_sync(fd)

    patch.setattr(os, "fsync", fsync)
    for name in ("mkdir", "unlink", "rmdir", "replace", "rename"):
        real = getattr(os, name)

        def step(*args: Any, real: Any = real, **options: Any) -> Any:
            disk.observe()
            found = real(*args, **options)
            disk.observe()
            disk.power_fails()
            return found

        patch.setattr(os, name, step)
    return patch


def watched(tmp_path: Path, do: Any, before: Any = None) -> Disk:
    """The states that `do`, which is given an output, may leave if the power fails."""
    folder, store = tmp_path / "watched", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    out = folder / "de.parquet"
    if before is not None:
        before(out)
    disk = Disk(folder, store)
    disk.observe()
    disk.durable, disk.pending = dict(disk.now), []
    disk.synced = {number for number in disk.now.values() if number is not None}
    patch = watch(disk)
    try:
        do(out)
    finally:
        patch.undo()
    disk.observe()
    disk.power_fails()
    return disk


def other_run(out: Path) -> None:
    interrupted(out, 4, clip_value=7)


def stopped(out: Path) -> None:
    interrupted(out, 4)


def old_output(out: Path) -> None:
    out.write_bytes(b"old")


def left_over(out: Path) -> None:
    """An output that is complete, with its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        run(out)


#: What was there before, and the options of the call that is watched and made again.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "from nothing": (None, {}),
    "over an old output": (old_output, {"force": True}),
    "carrying on": (stopped, {}),
    "starting over": (other_run, {"restart": True}),
    "cleaning up": (left_over, {}),
}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "most", [pytest.param(12, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)]
)
def test_power_that_fails(tmp_path, case, most):
    before, options = CASES[case]
    run(tmp_path / "whole.parquet")
    expected = (tmp_path / "whole.parquet").read_bytes()
    disk = watched(tmp_path, lambda out: run(out, gene_chunk_size=3, **options), before)
    assert (disk.folder / "de.parquet").read_bytes() == expected
    tries = [
        (state, how)
        for state in disk.states
        for how in (("empty", "torn", "zeros") if state.lost else ("whole",))
    ]
    assert len(tries) > 10
    if most is not None:
        tries = random.Random(case).sample(tries, most)
    again = dict(options)
    for k, (state, how) in enumerate(tries):
        folder = tmp_path / f"{k}"
        disk.make(state, folder, how)
        out = folder / "de.parquet"
        said = f"{case}: {sorted(state.names)}, {how}"
        if out.exists():  # whole, whatever the moment, or as it was
            assert out.read_bytes() in (expected, b"old"), said
            rest = checkpoint_folder(out)
            left = set(names(rest)) - {"lock"} if rest.exists() else set()
            if out.read_bytes() == expected and not left:
                continue  # all was done, but for a folder with nothing in it
        run(out, **again)  # a warning would be an error
        assert out.read_bytes() == expected, said
        assert names(folder) == [out.name], said
        shutil.rmtree(folder)
