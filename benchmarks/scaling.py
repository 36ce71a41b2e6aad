"""The accuracy of `pdex-gpu estimate`: predicted against measured, at several sizes.

    python benchmarks/scaling.py            all sizes, as the record in results/ is made
    python benchmarks/scaling.py --quick    small screens, to see that everything runs

At three sizes one factor is fitted: by how much runs take longer than the plan says. At three
others, the last a file of a billion nonzeros, the plan is judged, with that factor and without.
See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

import big_screen  # noqa: E402
from files_stored import warm  # noqa: E402
from gpu_screen import GROUPBY, Sizes  # noqa: E402
from record import Record, Target, at_most, summary  # noqa: E402

import pdex_gpu  # noqa: E402
from pdex_gpu.estimation.estimate import Estimate  # noqa: E402
from pdex_gpu.estimation.model import MachineRates  # noqa: E402

MEMORY = "2GB"
FACTOR = 1.3  # by which a prediction may be off


@dataclass(frozen=True)
class Case:
    """A run that is predicted and measured.

    Attributes
    ----------
    sizes : Sizes
    fitted : bool
        Whether the factor is fitted on it; else it is judged.
    in_memory : bool
        Whether the result stays in memory; else it goes to a Parquet file.
    rounds : int
    """

    sizes: Sizes
    fitted: bool
    in_memory: bool
    rounds: int

    @property
    def name(self) -> str:
        s = self.sizes
        where = "memory" if self.in_memory else "file"
        return f"{s.cells}x{s.genes}x{s.perturbations}-{where}"


def cases(*, quick: bool, rounds: int) -> list[Case]:
    """Three sizes to fit, three to judge; the result of the last only goes to a file."""
    if quick:
        fit = [Sizes(4_000, 300, 20), Sizes(6_000, 300, 40), Sizes(8_000, 400, 60)]
        judge = [Sizes(5_000, 300, 30), Sizes(7_000, 400, 80)]
        big = Sizes(20_000, 1_000, 100)
    else:
        fit = [Sizes(20_000, 2_000, 100), Sizes(40_000, 2_000, 300), Sizes(100_000, 4_000, 500)]
        judge = [Sizes(30_000, 3_000, 200), Sizes(80_000, 4_000, 1_000)]
        big = big_screen.BIG
    both = [(s, True) for s in fit] + [(s, False) for s in judge]
    found = [Case(s, fitted, inside, rounds) for s, fitted in both for inside in (False, True)]
    return [*found, Case(big, False, False, max(1, rounds - 1))]


def _targets() -> dict[str, Target]:
    judged = [case for case in cases(quick=False, rounds=2) if not case.fitted]
    found = [
        at_most(f"off_{case.name}", FACTOR, " x", f"{case.name}: plan off by") for case in judged
    ]
    return {target.figure: target for target in found}


class ScalingRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = _targets()


def off_by(predicted: float, measured: float) -> float:
    """Return how many times too large or too small, 1 or more."""
    return max(predicted / measured, measured / predicted)


def _options(case: Case, folder: Path) -> dict[str, Any]:
    return {"out": None if case.in_memory else folder / "results.parquet", "memory": MEMORY}


def _measure(case: Case, path: Path, folder: Path) -> tuple[list[float], int]:
    """Seconds of each run, and bytes of the output."""
    times, n_bytes = [], 0
    options = _options(case, folder)
    for _ in range(case.rounds):
        started = time.perf_counter()
        result = pdex_gpu.differential_expression(path, GROUPBY, progress=False, **options)
        times.append(time.perf_counter() - started)
        del result
        if options["out"] is not None:
            n_bytes = options["out"].stat().st_size
            options["out"].unlink()
    return times, n_bytes


def _plan(case: Case, path: Path, folder: Path) -> tuple[Estimate, float]:
    """The estimate, and the seconds that it took."""
    started = time.perf_counter()
    found = pdex_gpu.estimate(path, GROUPBY, **_options(case, folder))
    return found, time.perf_counter() - started


def run(case: Case, path: Path, folder: Path) -> dict[str, Any]:
    """Return what the plan says, before and after the runs, and what they take."""
    warm(path)
    planned = [_plan(case, path, folder)]
    times, n_bytes = _measure(case, path, folder)
    planned.append(_plan(case, path, folder))
    seconds = [found.seconds for found, _ in planned]
    assert all(second is not None for second in seconds)
    first = planned[0][0]
    rates = [found.rates for found, _ in planned]
    facts = asdict(first)
    for name in ("rates", "phases", "lacks", "problems", "assumptions"):
        del facts[name]
    return {
        "seconds": {"pdex_gpu": summary(times), "plan": summary(seconds)},
        "fitted": case.fitted,
        "measured": statistics.median(times),
        "predicted": statistics.fmean(seconds),
        "phases": {
            name: statistics.fmean(found.phases[name] for found, _ in planned)
            for name in first.phases
        },
        "rates": {
            name: statistics.fmean(getattr(each, name) for each in rates)
            for name in asdict(rates[0])
        },
        "planning_seconds": [round(took, 2) for _, took in planned],
        "output_bytes": {"predicted": first.output_bytes, "measured": n_bytes},
        "counted": facts,
    }


def judge(record: ScalingRecord) -> None:
    """The factor, and how far off the plan is without it and with it."""
    tasks = record.content["tasks"]
    ratios = [t["measured"] / t["predicted"] for t in tasks.values() if t["fitted"]]
    factor = statistics.median(ratios)
    record.figure("factor", factor, ratios=ratios)
    for name, task in tasks.items():
        task["ratio"] = task["predicted"] / task["measured"]
        task["ratio_with_factor"] = factor * task["ratio"]
        if not task["fitted"]:
            record.figure(f"off_{name}", off_by(task["predicted"], task["measured"]))
            record.figure(
                f"off_{name}_with_factor", off_by(factor * task["predicted"], task["measured"])
            )
    found = {name: [t["rates"][name] for t in tasks.values()] for name in asdict(MachineRates())}
    record.content["rates"] = {
        name: statistics.median([rate for rate in rates if rate] or [0.0])
        for name, rates in found.items()
    }


def _versions() -> dict[str, str]:
    packages = ("numpy", "scipy", "numba", "h5py", "pyarrow", "imagecodecs")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "pdex_gpu": pdex_gpu.__version__, **found}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small screens; nothing is judged")
    add("--rounds", type=int, default=3, help="runs at each size; of the largest one less")
    add("--record", type=Path, help="the JSON (default benchmarks/results/scaling-DATE.json)")
    add("--check", action="store_true", help="exit code 3 if a target is not met")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    record_path = args.record or HERE / "results" / (
        f"scaling-{date.today().isoformat()}{'-quick' if args.quick else ''}.json"
    )
    record = ScalingRecord(
        {"quick": args.quick, "rounds": args.rounds, "memory": MEMORY}, full_size=not args.quick
    )
    chosen = cases(quick=args.quick, rounds=args.rounds)
    paths = {}
    for case in chosen:
        try:
            paths[case.sizes] = big_screen.ensure(case.sizes).path
        except big_screen.DiskFullError as error:
            record.error(case.name, str(error))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pdex_gpu-scaling-") as name:
        _measure(chosen[0], paths[chosen[0].sizes], Path(name))  # compiles
        for case in chosen:
            if case.sizes not in paths:
                continue
            done = run(case, paths[case.sizes], Path(name))
            print(
                f"{case.name}: {done['predicted']:.2f} s predicted, {done['measured']:.2f} s",
                file=sys.stderr,
            )
            record.task(case.name, done)
    judge(record)
    record.finish({"pdex_gpu": _versions()})
    record.write(record_path)
    print(record.table())
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes; recorded in {record_path}", file=sys.stderr)
    if record.content["errors"]:
        return 1
    return 3 if args.check and record.unmet else 0


if __name__ == "__main__":
    sys.exit(main())
