"""From raw counts: normalising while reading, many files as one screen, Cell Ranger's output.

    python benchmarks/raw_counts.py            all (about fifteen minutes on two cores)
    python benchmarks/raw_counts.py --quick    small screens, to see that everything runs

What is compared takes turns, and ratios are taken within a round. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

import raw_counts_data as stored  # noqa: E402
from peer_env import PeerEnvError, ensure  # noqa: E402
from record import Record, Target, at_least, at_most, paired_ratio, summary  # noqa: E402

METRICS = ("wilcoxon", "t-test")
_TARGETS = [
    *(
        at_most(f"{where}_{metric}", 1.3, " x", f"{metric}, {words}: normalising / stored log1p")
        for where, words in (("memory", "in memory"), ("file", "gzip CSR"))
        for metric in METRICS
    ),
    at_least("scanpy_time", 3, "read, normalize_total, log1p, test / one call on the file"),
    at_least("scanpy_peak", 2, "peak memory of the same"),
    at_most("many_files", 1.1, " x", "20 files / one file with the same cells"),
    at_most("many_files_peak", 1.1, " x", "peak memory of the same"),
    at_most("cell_ranger", 10, " s", "Cell Ranger's .h5 to a table, new process"),
]


class RawCountsRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = {target.figure: target for target in _TARGETS}

    def __init__(self, parameters: dict[str, Any], *, full_size: bool) -> None:
        super().__init__(parameters, full_size=full_size)
        self.peers: dict[str, dict[str, str]] = {}  # versions


@dataclass(frozen=True)
class Settings:
    """The amount of measuring."""

    rounds: int
    sizes: stored.Sizes
    threads: int = 2
    scanpy: bool = True


def turns(rounds: int, calls: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Make the calls by turns; the first round, which compiles and fills caches, is left out."""
    found: dict[str, list[Any]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            answer = call()
            if i:
                found[name].append(answer)
    return found


def child(what: str, python: str = sys.executable, **arguments: Any) -> dict[str, Any]:
    """Make a call in a process of its own; see ``raw_counts_child.py``."""
    command = [python, str(HERE / "raw_counts_child.py"), what, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


# --- tasks ----------------------------------------------------------------------------------------


def normalising(record: RawCountsRecord, settings: Settings) -> None:
    """Normalise while reading, against the log-normalised matrix that was stored beforehand."""
    import anndata

    from pdex_gpu import differential_expression

    raw, log = stored.one_screen(settings.sizes)
    data: dict[str, tuple[Any, Any]] = {
        "memory": (anndata.read_h5ad(raw), anndata.read_h5ad(log)),
        "file": (str(raw), str(log)),
    }
    for where, (counts, logs) in data.items():
        for metric in METRICS:

            def seconds(data: Any, metric: str = metric, **options: Any) -> float:
                started = time.perf_counter()
                differential_expression(
                    data, "target_gene", metric=metric, backend="cpu", progress=False,
                    n_threads=settings.threads, **options,
                )  # fmt: skip
                return time.perf_counter() - started

            times = turns(settings.rounds, {
                "normalising": lambda counts=counts, call=seconds: call(counts, normalize=1e4),
                "stored": lambda logs=logs, call=seconds: call(logs),
            })  # fmt: skip
            name = f"{where}_{metric}"
            record.task(name, {"seconds": {k: summary(v) for k, v in times.items()}})
            ratio = paired_ratio(times["normalising"], times["stored"])
            record.figure(name, ratio["median"], ratios=ratio["ratios"])


def scanpy(record: RawCountsRecord, settings: Settings) -> None:
    """Read, normalise and test with scanpy in between, against one call on the file."""
    if not settings.scanpy:
        record.note("scanpy: left out")
        return
    try:
        peers = ensure()
    except PeerEnvError as error:
        record.error("scanpy", str(error))
        return
    if "scanpy" not in peers.tools:
        record.note("scanpy is not installed: left out")
        return
    record.peers = {"scanpy": {"scanpy": peers.tools["scanpy"]}}
    raw, _ = stored.one_screen(settings.sizes)
    given = {"path": str(raw), "threads": settings.threads}
    found = turns(settings.rounds, {
        "scanpy": lambda: child("scanpy", str(peers.python), **given),
        "one call": lambda: child("run", data=given["path"], threads=settings.threads,
                                  normalize=1e4, memory=settings.sizes.little),
    })  # fmt: skip
    _compare(record, "scanpy", found, "scanpy", "one call", suffix="_time")


def many_files(record: RawCountsRecord, settings: Settings) -> None:
    """Twenty files as one screen, against one file with the same cells."""
    parts, whole = stored.twenty_files(settings.sizes)
    given = {"threads": settings.threads, "normalize": 1e4, "memory": settings.sizes.memory}
    found = turns(settings.rounds, {
        "many": lambda: child("run", data=[str(part) for part in parts], **given),
        "one": lambda: child("run", data=str(whole), **given),
    })  # fmt: skip
    _compare(record, "many_files", found, "many", "one")


def cell_ranger(record: RawCountsRecord, settings: Settings) -> None:
    """From Cell Ranger's files to the table, from the command line, as a new process."""
    folder = stored.cell_ranger(settings.sizes)
    table = folder / "results.parquet"
    command = [
        sys.executable, "-m", "pdex_gpu", "run", str(folder / "filtered_feature_bc_matrix.h5"),
        "--guide-calls", str(folder / "crispr_analysis" / "protospacer_calls_per_cell.csv"),
        "--guide-targets", str(folder / "feature_reference.csv"),
        "--normalize", "1e4", "-o", str(table), "--backend", "cpu", "--force",
    ]  # fmt: skip
    there = {**os.environ, "PYTHONPATH": str(HERE.parent)}

    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, env=there)
        return time.perf_counter() - started

    times = turns(settings.rounds, {"cell_ranger": seconds})
    record.task("cell_ranger", {"seconds": {k: summary(v) for k, v in times.items()}})
    record.figure("cell_ranger", summary(times["cell_ranger"])["median"])


def _compare(
    record: RawCountsRecord,
    name: str,
    found: dict[str, list[dict[str, Any]]],
    over: str,
    under: str,
    *,
    suffix: str = "",
) -> None:
    """Record the seconds and peaks of two kinds of calls, and their ratios."""
    seconds = {k: [one["seconds"] for one in v] for k, v in found.items()}
    peaks = {k: [one["peak_bytes"] for one in v] for k, v in found.items()}
    record.task(name, {
        "seconds": {k: summary(v) for k, v in seconds.items()},
        "peak_bytes": peaks,
        "same_bits": found[over][0]["digest"] == found[under][0]["digest"],
    })  # fmt: skip
    for figure, each in ((f"{name}{suffix}", seconds), (f"{name}_peak", peaks)):
        ratio = paired_ratio(each[over], each[under])
        record.figure(figure, ratio["median"], ratios=ratio["ratios"])


TASKS = {
    "normalising": normalising,
    "scanpy": scanpy,
    "many_files": many_files,
    "cell_ranger": cell_ranger,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small screens; nothing is judged")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK",
                        help=f"of {', '.join(TASKS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds of a task (default 5; 2 with --quick)")
    parser.add_argument("--threads", type=int, default=2, help="threads (2)")
    parser.add_argument("--no-peers", action="store_true", help="leave scanpy out")
    parser.add_argument("--record", type=Path, help="the JSON")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    sizes = stored.QUICK if args.quick else stored.FULL
    settings = Settings(rounds, sizes, args.threads, not args.no_peers)
    record = RawCountsRecord(
        {"rounds": rounds, "threads": args.threads, **vars(sizes)}, full_size=not args.quick
    )
    for name in args.only:
        print(f"{name} ...", file=sys.stderr)
        try:
            TASKS[name](record, settings)
        except subprocess.CalledProcessError as error:
            record.error(name, f"{error}\n{error.stderr[-2000:]}")
    names = ("numpy", "scipy", "numba", "h5py")
    record.finish({"pdex_gpu": {name: metadata.version(name) for name in names}, **record.peers})
    suffix = "-quick" if args.quick else ""
    name = f"raw_counts-{date.today().isoformat()}{suffix}.json"
    record.write(args.record or HERE / "results" / name)
    print(record.table())
    return 1 if record.content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
