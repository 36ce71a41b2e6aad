"""pdex_gpu and its peers on the CPU: speed, memory, first call, agreement.

    python benchmarks/cpu.py            the whole of it, as the record in results/ was made
    python benchmarks/cpu.py --quick    a small screen, to see that everything runs

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
sys.path.insert(0, str(HERE))

import data  # noqa: E402
import peer_env  # noqa: E402
from pool import Pool, WorkerError  # noqa: E402
from record import REPOSITORY, Record  # noqa: E402
from tasks import OURS, TASKS, Run, Settings  # noqa: E402

PAPALEXI = "papalexi_thp1_counts.h5ad"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small screen and few rounds; nothing is judged")
    add("--only", nargs="+", choices=TASKS, metavar="TASK", help=f"of {', '.join(TASKS)}")
    add("--without", nargs="+", default=[], choices=peer_env.PEERS, metavar="PEER",
        help=f"leave out peers, of {', '.join(peer_env.PEERS)}")  # fmt: skip
    add("--rounds", type=int, help="rounds of a task (default 5; 2 with --quick)")
    add("--slow-rounds", type=int, help="rounds where a peer takes minutes (default 2; 1)")
    add("--threads", type=int, default=2, help="threads or processes of every tool")
    add("--cells", type=int, help="size of the screen, instead of the one the targets are for")
    add("--genes", type=int)
    add("--perturbations", type=int)
    add("--pdex-genes", type=int, default=100, help="genes that pdex is measured on")
    add("--full-pdex", action="store_true", help="measure pdex on all genes (10 minutes a round)")
    add("--data-dir", type=Path, default=Path("../shared/data"),
        help=f"folder with {PAPALEXI}, from the repository's root")  # fmt: skip
    add("--peer-python", help="a Python 3.12 or later to make the peers' environment with")
    add("--peer-env", help="a ready environment of the peers (its folder or its Python)")
    add("--no-peers", action="store_true", help="pdex_gpu alone")
    add("--record", type=Path, help="the JSON (default benchmarks/results/cpu-DATE.json)")
    add("--check", action="store_true", help="exit code 3 if a target is not met")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.threads < 1 or (args.rounds is not None and args.rounds < 1):
        print("--threads and --rounds must be at least 1", file=sys.stderr)
        return 2

    base = data.QUICK if args.quick else data.FULL
    parameters = data.ScreenParameters(
        args.cells or base.n_cells,
        args.genes or base.n_genes,
        args.perturbations or base.n_perturbations,
    )
    settings = Settings(
        rounds=args.rounds or (2 if args.quick else 5),
        slow_rounds=args.slow_rounds or (1 if args.quick else 2),
        first_calls=args.rounds or (2 if args.quick else 5),
        pdex_genes=min(args.pdex_genes, 20) if args.quick else args.pdex_genes,
        full_pdex=args.full_pdex,
        papalexi=REPOSITORY / args.data_dir / PAPALEXI,
    )
    if args.quick:
        settings.table = (200, 800)
    record_path = args.record or HERE / "results" / (
        f"cpu-{date.today().isoformat()}{'-quick' if args.quick else ''}.json"
    )

    record = Record(
        {
            "screen": asdict(parameters),
            "threads": args.threads,
            "rounds": settings.rounds,
            "slow_rounds": settings.slow_rounds,
            "pdex_genes": settings.pdex_genes,
            "full_pdex": settings.full_pdex,
            "tasks": args.only or list(TASKS),
        },
        full_size=parameters == data.FULL and args.threads == 2,
    )

    peers, peer_python = [], None
    if not args.no_peers:
        try:
            environment = peer_env.ensure(env=args.peer_env, interpreter=args.peer_python)
        except peer_env.PeerEnvError as error:
            print(f"{error}\n--no-peers measures pdex_gpu alone", file=sys.stderr)
            return 2
        peer_python = environment.python
        peers = [peer for peer in environment.tools if peer not in args.without]
        for note in environment.notes:
            record.note(note)
            print(f"note: {note}", file=sys.stderr)
    for peer in sorted(set(peer_env.PEERS) - set(peers)):
        record.note(f"{peer} was not measured")

    files = data.ensure(parameters)
    record.content["screen"] = {"nonzeros": files.nnz, "sparse_bytes": files.sparse_bytes}
    if parameters == data.FULL and files.nnz != data.FULL_NNZ:
        record.note(
            f"the screen has {files.nnz:,} nonzeros, not {data.FULL_NNZ:,}: this numpy draws "
            "other numbers from the same seed"
        )

    started = time.perf_counter()
    with Pool(args.threads, peer_python, [OURS, *peers]) as pool:
        run = Run(pool, record, files, settings)
        try:
            pool.get(OURS)
        except WorkerError as error:
            print(
                f"pdex_gpu does not start; the peers are measured alone: {error}", file=sys.stderr
            )
            record.error(OURS, str(error))
            pool.tools.remove(OURS)
        for name in args.only or TASKS:
            print(f"{name}:", file=sys.stderr)
            try:
                TASKS[name](run)
            except WorkerError as error:
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
