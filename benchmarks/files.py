"""pdex_gpu on files: against reading them, against its peers, in little memory, killed.

    python benchmarks/files.py            all but --triple, as the record in results/ was made
    python benchmarks/files.py --quick    small screens, to see that everything runs

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

import big_screen  # noqa: E402
import data  # noqa: E402
import files_stored  # noqa: E402
import peer_env  # noqa: E402
from files_record import FilesRecord  # noqa: E402
from files_tasks import OURS, PEERS, READER, TASKS, FileRun, FileSettings  # noqa: E402
from pool import Pool, WorkerError  # noqa: E402


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small screens and few rounds; nothing is judged")
    add("--only", nargs="+", choices=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)}")
    add("--rounds", type=int, help="rounds of a storage form (default 5; 2 with --quick)")
    add("--slow-rounds", type=int, help="rounds against the peers (default 3; 1)")
    add("--big-rounds", type=int, help="rounds on the big screen (default 3; 1)")
    add("--kills", type=int, help="how often a run is killed (default 30; 3)")
    add("--threads", type=int, default=2, help="threads or processes of every tool")
    add("--triple", action="store_true", help="also 900,000 cells (7 GB of disk, 10 minutes)")
    add("--keep", action="store_true", help="keep the screen of --triple in the cache")
    add("--peer-python", help="a Python 3.12 or later to make the peers' environments with")
    add("--peer-env", help="a ready environment of illico and pdex 0.1.28")
    add("--new-pdex-env", help="a ready environment of pdex 0.3.0")
    add("--no-peers", action="store_true", help="pdex_gpu alone")
    add("--record", type=Path, help="the JSON (default benchmarks/results/files-DATE.json)")
    add("--check", action="store_true", help="exit code 3 if a target is not met")
    args = parser.parse_args(argv)
    for name in ("rounds", "slow_rounds", "big_rounds", "kills", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.only is None:
        left_out = {"triple"} if not args.triple else set()
        left_out |= {"peers"} if args.no_peers else set()
        args.only = [task for task in TASKS if task not in left_out]
    return args


def settings_of(args: argparse.Namespace) -> FileSettings:
    quick = args.quick
    settings = FileSettings(
        rounds=args.rounds or (2 if quick else 5),
        slow_rounds=args.slow_rounds or (1 if quick else 3),
        big_rounds=args.big_rounds or (1 if quick else 3),
        kills=args.kills or (3 if quick else 30),
        threads=args.threads,
        keep=args.keep,
    )
    if quick:
        settings.big, settings.triple = big_screen.BIG_QUICK, big_screen.TRIPLE_QUICK
        settings.tight, settings.roomy = "200MB", "800MB"
        settings.kill_memory, settings.budgets = "100MB", ("100MB", "300MB", None)
    return settings


def find_peers(args: argparse.Namespace, record: FilesRecord) -> dict[str, Path]:
    """The interpreter of each peer that can be measured."""
    environments = {
        "peers": peer_env.ensure(env=args.peer_env, interpreter=args.peer_python),
        "pdex-0.3": peer_env.ensure(
            peer_env.NEW_PDEX, env=args.new_pdex_env, interpreter=args.peer_python
        ),
    }
    found = {}
    for name, environment in environments.items():
        for note in environment.notes:
            record.note(note)
            print(f"note: {note}", file=sys.stderr)
        for tool in environment.tools:
            found["pdex-0.3" if name == "pdex-0.3" else tool] = environment.python
    return {peer: found[peer] for peer in PEERS if peer in found}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    parameters = data.QUICK if args.quick else data.FULL
    settings = settings_of(args)
    record_path = args.record or HERE / "results" / (
        f"files-{date.today().isoformat()}{'-quick' if args.quick else ''}.json"
    )
    record = FilesRecord(
        {
            "screen": asdict(parameters),
            **{k: v for k, v in vars(args).items() if k in ("quick", "triple", "keep")},
            **{
                name: getattr(settings, name)
                for name in ("threads", "rounds", "slow_rounds", "big_rounds", "kills", "tight",
                             "roomy", "kill_memory", "budgets")
            },
            "big": asdict(settings.big),
            "tasks": args.only,
        },
        full_size=not args.quick and args.threads == 2,
    )  # fmt: skip

    pythons: dict[str, Path] = {}
    if "peers" in args.only and not args.no_peers:
        try:
            pythons = find_peers(args, record)
        except peer_env.PeerEnvError as error:
            print(f"{error}\n--no-peers measures pdex_gpu alone", file=sys.stderr)
            return 2
    for peer in sorted(set(PEERS) - set(pythons)):
        record.note(f"{peer} was not measured")

    files = data.ensure(parameters)
    record.content["screen"] = {"nonzeros": files.nnz, "sparse_bytes": files.sparse_bytes}
    warm_up = files_stored.ensure(data.ensure(data.QUICK), "csr", "gzip")

    started = time.perf_counter()
    with Pool(args.threads, None, [OURS, READER, *pythons], pythons) as pool:
        run = FileRun(pool, record, files, settings, warm_up)
        for name in args.only:
            print(f"{name}:", file=sys.stderr)
            try:
                TASKS[name](run)
            except (WorkerError, big_screen.DiskFullError) as error:
                record.error(name, str(error))
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
