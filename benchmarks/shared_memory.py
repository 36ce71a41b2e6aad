"""engine="shared_memory" against engine="threads": where worker processes win, and where not.

    python benchmarks/shared_memory.py            all
    python benchmarks/shared_memory.py --quick    a small screen, to see that everything runs

The calls take turns in one process; the start of the workers is part of each call. See
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

from record import Record, Target, at_least, paired_ratio, summary  # noqa: E402

ENGINES = ("threads", "shared_memory")
N_WORKERS = 2


@dataclass(frozen=True)
class Case:
    """A call, and the screen that it is made on."""

    about: str
    n_cells: int
    n_genes: int
    n_perturbations: int
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    # A trimmed t-test is scipy's: one call per pair, all of it under Python's lock.
    "scipy_option": Case(
        "t-test, trim=0.1, which runs through scipy", 20_000, 100, 100,
        {"metric": "t-test", "trim": 0.1},
    ),
    # The compiled kernels release the lock.
    "compiled": Case("Wilcoxon on the compiled kernels", 40_000, 1_000, 300),
}  # fmt: skip
QUICK = {
    "scipy_option": Case(CASES["scipy_option"].about, 4_000, 200, 20,
                         CASES["scipy_option"].options),
    "compiled": Case(CASES["compiled"].about, 4_000, 300, 20),
}  # fmt: skip
_TARGETS = [
    at_least("scipy_option", 1.3, "t-test, trim=0.1: threads / shared_memory"),
]


class SharedMemoryRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = {target.figure: target for target in _TARGETS}


def measure(record: SharedMemoryRecord, name: str, case: Case, rounds: int) -> None:
    """Make a case's call with both engines by turns, and compare their results bit for bit."""
    import pdex_gpu
    from pdex_gpu.simulate import simulate_screen

    screen = simulate_screen(case.n_cells, case.n_genes, case.n_perturbations, seed=0)
    adata = screen.to_anndata()
    times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    tables: dict[str, Any] = {}
    for i in range(rounds + 1):
        for engine in ENGINES:
            share = {"n_workers": N_WORKERS} if engine == "shared_memory" else {}
            share |= {"n_threads": 1 if engine == "shared_memory" else N_WORKERS}
            started = time.perf_counter()
            tables[engine] = pdex_gpu.differential_expression(
                adata, "target_gene", engine=engine, progress=False, **share, **case.options
            )
            if i:  # the first round compiles
                times[engine].append(time.perf_counter() - started)
    threads, processes = (tables[engine] for engine in ENGINES)
    record.task(name, {
        "about": case.about,
        "cells": case.n_cells, "genes": case.n_genes, "perturbations": case.n_perturbations,
        "seconds": {engine: summary(each) for engine, each in times.items()},
        "same_bits": all(
            threads[column].tobytes() == processes[column].tobytes() for column in threads.columns
        ),
    })  # fmt: skip
    ratio = paired_ratio(times["threads"], times["shared_memory"])
    record.figure(name, ratio["median"], ratios=ratio["ratios"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small screen; nothing is judged")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="TASK",
                        help=f"of {', '.join(CASES)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds of a task (default 5; 2 with --quick)")
    parser.add_argument("--record", type=Path, help="the JSON")
    args = parser.parse_args(argv)
    rounds = args.rounds or (2 if args.quick else 5)
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    cases = QUICK if args.quick else CASES
    record = SharedMemoryRecord({"rounds": rounds, "workers": N_WORKERS}, full_size=not args.quick)
    for name in args.only:
        measure(record, name, cases[name], rounds)
    names = ("numpy", "scipy", "numba")
    record.finish({"pdex_gpu": {name: metadata.version(name) for name in names}})
    suffix = "-quick" if args.quick else ""
    name = f"shared_memory-{date.today().isoformat()}{suffix}.json"
    record.write(args.record or HERE / "results" / name)
    print(record.table())
    return 1 if record.content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
