"""The measurements of `files.py`: from a file to the result.

As in `tasks.py`, one thing computes at a time, what is compared takes turns, and ratios are taken
within a round.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import big_screen
import files_stored
from big_screen import Sizes
from data import CACHE
from files_stored import FORMS
from pool import HERE, LOGS, WorkerError, environment
from record import paired_ratio, summary
from tasks import OURS, Run, Settings, agree_with_last, sample_pairs, say

READER = "h5py"
PEERS = ("illico", "pdex-0.3", "pdex")
IN_MEMORY = "pdex_gpu, in memory"
RESULTS = "results.parquet"


@dataclass
class FileSettings(Settings):
    """The amount of measuring."""

    threads: int = 2
    big_rounds: int = 3
    kills: int = 30
    big: Sizes = big_screen.BIG
    triple: Sizes = big_screen.TRIPLE
    keep: bool = False
    tight: str = "2GB"
    roomy: str = "8GB"
    kill_memory: str = "300MB"
    budgets: tuple[str | None, ...] = ("300MB", "1GB", None)


@dataclass
class FileRun(Run):
    """Everything a task needs."""

    settings: FileSettings
    small: Path = field(default_factory=Path)  # a file on which slow peers warm up

    def stored(self, matrix: str, compression: str) -> Path:
        path = files_stored.ensure(self.files, matrix, compression)
        files_stored.warm(path)
        return path

    def on_file(self, tool: str, path: Path, **options: Any) -> float:
        """Seconds of one call of a long-lived process."""
        request = {"path": str(path), "metric": "wilcoxon", "is_log1p": True, "options": options}
        return self.pool.get(tool).ask("run_file", **request)["seconds"]

    def in_memory(self, matrix: str) -> float:
        client, name = self.pool.get(OURS), f"log1p, {matrix}"
        folder = str(self.files.folder)
        client.load(name, folder=folder, values="log1p", form=matrix)
        request = {"name": name, "metric": "wilcoxon", "is_log1p": True}
        return client.ask("run", **request)["seconds"]

    def digest(self) -> dict[str, str]:
        """Return the digest of each column of the last result of pdex_gpu."""
        return self.pool.get(OURS).ask("digest")["columns"]


def turns(
    run: Run,
    task: str,
    calls: dict[str, Callable[[], float]],
    rounds: int,
    warm: dict[str, Callable[[], float]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each call, round by round; what fails is recorded and left out.

    The calls of `warm`, by default the same ones, come first and are not counted.
    """
    times: dict[str, list[float]] = {label: [] for label in calls}

    def attempt(label: str, call: Callable[[], float]) -> float | None:
        try:
            return call()
        except WorkerError as error:
            run.record.error(f"{task}, {label}", str(error))
            times.pop(label)
            return None

    for label, call in (calls if warm is None else warm).items():
        attempt(label, call)
    for number in range(rounds):
        for label in list(times):
            seconds = attempt(label, calls[label])
            if seconds is not None:
                times[label].append(seconds)
                say(f"{task}: round {number + 1} of {rounds}, {label} {seconds:.3f} s")
    seconds_of = {label: summary(values) for label, values in times.items()}
    run.record.task(task, {"metric": "wilcoxon", "seconds": seconds_of})
    return times


def _ratio(
    run: Run, figure: str, times: dict[str, list[float]], above: str, below: str, **more: Any
) -> None:
    if times.get(above) and times.get(below):
        pairs = paired_ratio(times[above], times[below])
        run.record.figure(figure, pairs["median"], ratios=pairs["ratios"], **more)


# --------------------------------------------------------------------------------------
# The screen that fits in memory
# --------------------------------------------------------------------------------------


def small(run: FileRun) -> None:
    """Every storage form: the whole call, reading X with h5py, the call in memory."""
    for matrix, compression in FORMS:
        form = f"{matrix}_{compression}"
        path = run.stored(matrix, compression)
        calls = {
            READER: lambda path=path: run.on_file(READER, path),
            OURS: lambda path=path: run.on_file(OURS, path),
        }
        if compression == "plain":
            calls[IN_MEMORY] = lambda matrix=matrix: run.in_memory(matrix)
        times = turns(run, form, calls, run.settings.rounds)
        run.record.content["tasks"][form]["file_bytes"] = path.stat().st_size
        _ratio(run, f"{form}_vs_h5py", times, OURS, READER)
        _ratio(run, f"{form}_vs_memory", times, OURS, IN_MEMORY)
        run.pool.release()


def peers(run: FileRun) -> None:
    """The peers on one and the same file."""
    path = run.stored("csr", "gzip")
    tools = [tool for tool in (OURS, *PEERS) if run.pool.has(tool)]
    calls = {tool: lambda tool=tool: run.on_file(tool, path) for tool in tools}
    warm = {tool: lambda tool=tool: run.on_file(tool, run.small) for tool in tools}
    warm[OURS] = calls[OURS]
    times = turns(run, "peers", calls, run.settings.slow_rounds, warm)
    pairs = sample_pairs(run, within_subset=False)
    for peer in PEERS:
        _ratio(run, f"vs_{peer}", times, peer, OURS)
        if times.get(OURS) and times.get(peer):
            if peer == "pdex":  # 0.1.28 leaves the continuity correction out where memory is low
                run.on_file(OURS, path, use_continuity=False, method="asymptotic")
            agree_with_last(run, f"wilcoxon on log1p, p_value: {peer}", peer, pairs)


def bits(run: FileRun) -> None:
    """Every storage form, budget and number of threads against the call in memory."""
    run.in_memory("csr")
    expected = run.digest()
    run.pool.release()
    different = []
    combinations = failures = 0
    for matrix, compression in FORMS:
        path = run.stored(matrix, compression)
        for memory in run.settings.budgets:
            for threads in (1, 2):
                what = f"{matrix}, {compression}, memory {memory}, {threads} threads"
                combinations += 1
                try:
                    run.on_file(OURS, path, memory=memory, n_threads=threads)
                    columns = [c for c, d in run.digest().items() if d != expected[c]]
                except WorkerError as error:
                    columns, failures = [f"failed: {error}"], failures + 1
                if columns:
                    different.append({"run": what, "columns": columns})
        say(f"bits: {matrix}, {compression}; {len(different)} differ so far")
    if failures:
        run.record.error("bits", f"{failures} runs failed: {different[-1]}")
    run.record.task("bits", {"runs": combinations, "different": different})
    run.record.figure("bits_different", len(different), sized=False, runs=combinations)


# --------------------------------------------------------------------------------------
# Processes of their own
# --------------------------------------------------------------------------------------


def _start(run: FileRun, what: str, **arguments: Any) -> subprocess.Popen[str]:
    """A process that is about to make one call."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "files_child.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "files_child.py"), what, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(run.settings.threads),
            cwd=HERE,
        )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        _finish(process)
    return process


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    answer, _ = process.communicate()
    if process.returncode != 0:
        tail = (LOGS / "files_child.log").read_text(errors="replace").strip().splitlines()[-3:]
        raise WorkerError(f"the process ended with {process.returncode}: " + " | ".join(tail))
    return json.loads(answer)


def _call(run: FileRun, path: Path, folder: Path, memory: str | None) -> dict[str, Any]:
    """Arguments of the child for a call that writes its results to `folder`."""
    return {
        "path": str(path),
        "threads": run.settings.threads,
        "out": str(folder / RESULTS),
        "memory": memory,
        "scratch": str(folder),
    }


@contextmanager
def _room() -> Iterator[Path]:
    """A folder on the disk of the cache; a temporary one elsewhere may be memory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".scratch-") as folder:
        yield Path(folder)


def _measured(run: FileRun, path: Path, memory: str, peaks: list[int]) -> float:
    """Seconds of a call in a process of its own."""
    with _room() as folder:
        done = _finish(_start(run, "run", **_call(run, path, folder, memory)))
    peaks.append(done["peak_bytes"])
    return done["seconds"]


def _compiled(run: FileRun) -> None:
    """Fill numba's cache."""
    _measured(run, run.small, run.settings.tight, [])


def _screen_facts(made: big_screen.BigScreen) -> dict[str, Any]:
    return {
        "nonzeros": made.nnz,
        "chunk": made.chunk,
        "file_bytes": made.file_bytes,
        "seconds_to_make": made.seconds,
    }


def big(run: FileRun) -> None:
    """A screen of a billion nonzeros, with little memory and with more."""
    settings = run.settings
    made = big_screen.ensure(settings.big)
    files_stored.warm(made.path)
    _compiled(run)
    peaks: dict[str, list[int]] = {"tight": [], "roomy": []}

    def read(whole: bool = False) -> float:
        return _finish(_start(run, "read", path=str(made.path), whole=whole))["seconds"]

    budgets = {name: getattr(settings, name) for name in peaks}
    calls: dict[str, Callable[[], float]] = {"h5py, in slices": read}
    calls |= {
        memory: lambda memory=memory, name=name: _measured(run, made.path, memory, peaks[name])
        for name, memory in budgets.items()
    }
    times = turns(run, "big", calls, settings.big_rounds, warm={})
    task = run.record.content["tasks"]["big"]
    task |= {"screen": _screen_facts(made), "peak_bytes": peaks}
    if _free_bytes() > 1.3 * 8 * made.nnz:
        task["seconds"]["h5py, whole"] = summary([read(whole=True)])
    else:
        run.record.note("big: h5py did not read X at once, for want of memory")
    for name, memory in budgets.items():
        _ratio(run, f"big_{name}_vs_h5py", times, memory, "h5py, in slices", memory=memory)
    if peaks["tight"]:
        _peak_figure(run, "big_tight_peak", peaks["tight"], settings.tight)


def triple(run: FileRun) -> None:
    """Three times as many cells: a file that no budget here holds."""
    settings = run.settings
    made = big_screen.ensure(settings.triple)
    try:
        files_stored.warm(made.path)
        _compiled(run)
        peaks: list[int] = []
        seconds = _measured(run, made.path, settings.tight, peaks)
        run.record.task(
            "triple",
            {
                "seconds": {settings.tight: summary([seconds])},
                "screen": _screen_facts(made),
                "peak_bytes": peaks,
            },
        )
        _peak_figure(run, "triple_tight_peak", peaks, settings.tight)
    finally:
        if not settings.keep:
            big_screen.remove(settings.triple)


def _peak_figure(run: FileRun, figure: str, peaks: list[int], memory: str) -> None:
    run.record.figure(figure, max(peaks) / 1e9, memory=memory)


def _free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


# --------------------------------------------------------------------------------------
# Killed and run again
# --------------------------------------------------------------------------------------


def kills(run: FileRun) -> None:
    """A run that is killed at a random moment, and run again, leaves the same bytes."""
    settings = run.settings
    path = run.stored("csr", "gzip")
    _compiled(run)
    seconds, expected = [], set()
    for _ in range(3):
        with _room() as folder:
            done = _finish(_start(run, "run", **_call(run, path, folder, settings.kill_memory)))
            seconds.append(done["seconds"])
            expected.add(_digest(folder))
    duration = statistics.median(seconds)
    moments = random.Random(run.files.parameters.seed)
    killed = [
        _kill(run, path, moments.uniform(0, duration), expected) for _ in range(settings.kills)
    ]
    counts = {
        "killed_before_completion": sum(not k["complete"] for k in killed),
        "left_something": sum(bool(k["left"]) and not k["complete"] for k in killed),
        "resumed": sum(bool(k["genes_found_done"]) for k in killed),
        "not_tidied": sum(bool(k["remains"]) for k in killed),
        "different": sum(not k["same"] for k in killed) + len(expected) - 1,
    }
    run.record.task(
        "kills",
        {"undisturbed": summary(seconds), "memory": settings.kill_memory, **counts, "runs": killed},
    )
    run.record.figure("kills_different", counts["different"], sized=False, **counts)


def _kill(run: FileRun, path: Path, delay: float, expected: set[str]) -> dict[str, Any]:
    with _room() as folder:
        arguments = _call(run, path, folder, run.settings.kill_memory) | {"resumable": True}
        process = _start(run, "run", **arguments)
        time.sleep(delay)
        process.kill()
        process.communicate()
        left = _names(folder)
        complete = RESULTS in left  # a second call may not touch it unasked
        done = _finish(_start(run, "run", **arguments, force=complete))
        outcome = {
            "delay": delay,
            "complete": complete,
            "left": left,
            "genes_found_done": done["genes_found_done"],
            "remains": [name for name in _names(folder) if name != RESULTS],
            "same": {_digest(folder)} == expected,
        }
        say(f"kills: after {delay:.3f} s; {'the same' if outcome['same'] else 'DIFFERENT'}")
        return outcome


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _digest(folder: Path) -> str:
    with (folder / RESULTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


TASKS: dict[str, Callable[[FileRun], None]] = {
    "small": small,
    "peers": peers,
    "big": big,
    "triple": triple,
    "kills": kills,
    "bits": bits,
}
