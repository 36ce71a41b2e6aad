"""Other comparisons than one reference, further columns, other tests: speed, and that of the peers.

    python benchmarks/comparisons.py            the whole of it, as the record in results/ was made
    python benchmarks/comparisons.py --quick    a small screen, to see that everything runs

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import data  # noqa: E402
import peer_env  # noqa: E402
from pool import Pool, WorkerError  # noqa: E402
from record import REPOSITORY, Record, Target, at_least, at_most, paired_ratio  # noqa: E402
from tasks import OURS, Entry, Run, Settings, agree, interleave, sample_pairs  # noqa: E402

sys.path.insert(0, str(REPOSITORY))
from pdex_gpu.results.schema import EXTRA  # noqa: E402

NEW_PDEX = "pdex-0.3"
VALUES = ("log1p", "counts")
REST = {"comparison": "rest"}
PERTURBED = {"comparison": "perturbed"}
CONDITIONAL = {"p_values": "conditional"}

# Columns that come in pairs are one computation.
COLUMN_SETS = {
    **{name: (name,) for name in EXTRA if not name.endswith(("_low", "_high"))},
    "auroc interval": ("auroc_low", "auroc_high"),
    "mean_difference interval": ("mean_difference_low", "mean_difference_high"),
    "all": ("all",),
}


class ComparisonsRecord(Record):
    """A record of `comparisons.py`."""

    targets: ClassVar[dict[str, Target]] = {
        target.figure: target
        for target in (
            at_least("rest_log1p_vs_illico", 3.5, "one-vs-rest, log1p: illico / pdex_gpu"),
            at_least("rest_counts_vs_illico", 3.5, "one-vs-rest, counts: illico / pdex_gpu"),
            at_least("rest_log1p_vs_pdex-0.3", 12, "one-vs-rest, log1p: pdex 0.3 / pdex_gpu"),
            at_least("rest_counts_vs_pdex-0.3", 12, "one-vs-rest, counts: pdex 0.3 / pdex_gpu"),
            at_most("perturbed_log1p_vs_rest", 1.0, " x", "log1p: vs all perturbed / vs rest"),
            at_most("perturbed_counts_vs_rest", 1.0, " x", "counts: vs all perturbed / vs rest"),
            *(
                at_most(f"column_{values}_{name}", 1.1, " x", f"{values}: with {name}")
                for values in VALUES
                for name in COLUMN_SETS
                if name != "all"
            ),
        )
    }


def rest(run: Run) -> None:
    """Time one-vs-rest Wilcoxon, next to illico and pdex 0.3."""
    pairs = sample_pairs(run, within_subset=False)
    peers = {"illico": {"reference": None}, NEW_PDEX: {"mode": "all"}}
    for values in VALUES:
        entries = [Entry(OURS, OURS, values, options=REST)]
        entries += [Entry(p, p, values, options=o) for p, o in peers.items() if run.pool.has(p)]
        times = interleave(run, f"rest-{values}", "wilcoxon", entries, run.settings.rounds)
        for peer in peers:
            if times.get(peer) and times.get(OURS):
                found = paired_ratio(times[peer], times[OURS])
                name = f"rest_{values}_vs_{peer}"
                run.record.figure(name, found["median"], ratios=found["ratios"])
                _agree(run, values, peer, pairs)
        run.pool.release()


def _agree(run: Run, values: str, peer: str, pairs: list[tuple[str, str]]) -> None:
    for column in ("p_value", "statistic"):

        def of(tool: str, column: str = column) -> Any:
            client = run.pool.get(tool)
            return lambda: client.ask("lookup", column=column, pairs=pairs)["values"]

        agree(run, f"rest on {values}, {column}: {peer}", of(OURS), of(peer))


def perturbed(run: Run) -> None:
    """Time the comparison with all perturbed cells, next to that with the rest."""
    for values in VALUES:
        entries = [
            Entry("rest", OURS, values, options=REST),
            Entry("perturbed", OURS, values, options=PERTURBED),
        ]
        rounds = 3 * run.settings.rounds
        times = interleave(run, f"perturbed-{values}", "wilcoxon", entries, rounds)
        found = paired_ratio(times["perturbed"], times["rest"])
        run.record.figure(f"perturbed_{values}_vs_rest", found["median"], ratios=found["ratios"])
        run.pool.release()


def columns(run: Run) -> None:
    """Time each further column, against one reference."""
    for values in VALUES:
        entries = [Entry("none", OURS, values)]
        entries += [
            Entry(name, OURS, values, options={"columns": list(wanted)})
            for name, wanted in COLUMN_SETS.items()
        ]
        times = interleave(run, f"columns-{values}", "wilcoxon", entries, run.settings.rounds)
        for name in COLUMN_SETS:
            found = paired_ratio(times[name], times["none"])
            run.record.figure(f"column_{values}_{name}", found["median"], ratios=found["ratios"])
        run.pool.release()


def designs(run: Run) -> None:
    """Time every comparison and test, with p-values as peers have them and conditional ones."""
    asked = {"reference": {}, "rest": REST, "perturbed": PERTURBED}
    for values in VALUES:
        for metric in ("wilcoxon", "t-test", "ks", "anderson"):
            entries = [
                Entry(name, OURS, values, options=options) for name, options in asked.items()
            ]
            entries += [
                Entry(f"{name}, conditional", OURS, values, options=options | CONDITIONAL)
                for name, options in asked.items()
            ]
            interleave(run, f"{metric}-{values}", metric, entries, run.settings.slow_rounds)
        run.pool.release()


TASKS = {"rest": rest, "perturbed": perturbed, "columns": columns, "designs": designs}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small screen and few rounds; nothing is judged")
    add("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK",
        help=f"of {', '.join(TASKS)}")  # fmt: skip
    add("--rounds", type=int, help="rounds of a task (default 5; 2 with --quick)")
    add("--threads", type=int, default=2, help="threads of every tool")
    add("--peer-python", help="a Python 3.12 or later to make the peers' environments with")
    add("--peer-env", help="a ready environment of the peers")
    add("--new-pdex-env", help="a ready environment of pdex 0.3")
    add("--no-peers", action="store_true", help="pdex_gpu alone")
    add("--record", type=Path, help="the JSON (default benchmarks/results/comparisons-DATE.json)")
    add("--check", action="store_true", help="exit code 3 if a target is not met")
    return parser.parse_args(argv)


def find_peers(args: argparse.Namespace, record: Record) -> dict[str, Path]:
    """The interpreters of illico and pdex 0.3."""
    peers = peer_env.ensure(env=args.peer_env, interpreter=args.peer_python)
    new_pdex = peer_env.ensure(
        peer_env.NEW_PDEX, env=args.new_pdex_env, interpreter=args.peer_python
    )
    for environment in (peers, new_pdex):
        for note in environment.notes:
            record.note(note)
    found = {"illico": peers.python} if "illico" in peers.tools else {}
    return found | ({NEW_PDEX: new_pdex.python} if "pdex" in new_pdex.tools else {})


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    parameters = data.QUICK if args.quick else data.FULL
    settings = Settings(
        rounds=args.rounds or (2 if args.quick else 5), slow_rounds=1 if args.quick else 3
    )
    name = f"comparisons-{date.today().isoformat()}{'-quick' if args.quick else ''}.json"
    record_path = args.record or HERE / "results" / name
    record = ComparisonsRecord(
        {
            "screen": asdict(parameters),
            "threads": args.threads,
            "rounds": settings.rounds,
            "tasks": args.only,
        },
        full_size=not args.quick and args.threads == 2,
    )
    pythons: dict[str, Path] = {}
    if not args.no_peers:
        try:
            pythons = find_peers(args, record)
        except peer_env.PeerEnvError as error:
            print(f"{error}\n--no-peers measures pdex_gpu alone", file=sys.stderr)
            return 2
    files = data.ensure(parameters)
    record.content["screen"] = {"nonzeros": files.nnz, "sparse_bytes": files.sparse_bytes}
    started = time.perf_counter()
    with Pool(args.threads, None, [OURS, *pythons], pythons) as pool:
        run = Run(pool, record, files, settings)
        for task in args.only:
            print(f"{task}:", file=sys.stderr)
            try:
                TASKS[task](run)
            except WorkerError as error:
                record.error(task, str(error))
            record.finish(pool.versions)
            record.write(record_path)  # after each task: a run cut short leaves what it has
    print(record.table())
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes; recorded in {record_path}", file=sys.stderr)
    if record.content["errors"]:
        return 1
    return 3 if args.check and record.unmet else 0


if __name__ == "__main__":
    sys.exit(main())
