"""What conditional p-values cost: the same calls with both kinds, by turns, in one process.

    python benchmarks/conditional.py            all (about ten minutes on two cores)
    python benchmarks/conditional.py --quick    a small screen, to see that everything runs

See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

from data import FULL, QUICK, REFERENCE, ScreenFiles, ensure  # noqa: E402
from record import Record, Target, at_most, paired_ratio, summary  # noqa: E402

if TYPE_CHECKING:
    import anndata

KINDS = ("conditional", "asymptotic")
VALUES = ("log1p", "counts")
MANY = 2_000  # groups


@dataclass(frozen=True)
class Case:
    """A call that is made with both kinds of p-values."""

    metric: str
    limit: float | None  # the largest ratio that is aimed at
    comparison: str = "reference"
    n_groups: int | None = None  # other than those of the screen

    def names(self) -> list[str]:
        """Return the names of its figures, one for each kind of values."""
        design = "_rest" if self.comparison == "rest" else ""
        many = f"_{self.n_groups}_groups" if self.n_groups else ""
        return [f"{self.metric}{design}{many}_{values}" for values in VALUES]

    def about(self, values: str) -> str:
        """Return what is compared, in words."""
        design = "all others" if self.comparison == "rest" else "a reference"
        groups = f", {self.n_groups:,} groups" if self.n_groups else ""
        return f"{self.metric}, {values}, against {design}{groups}"


CASES = (
    Case("wilcoxon", 1.1),
    Case("wilcoxon", 1.1, "rest"),
    Case("wilcoxon", 1.25, n_groups=MANY),
    Case("anderson", 1.3),
    Case("anderson", 1.3, "rest"),
    Case("ks", 1.5),
    Case("ks", 1.5, "rest"),
    Case("t-test", None),
    Case("t-test", None, "rest"),
    Case("t-test", None, n_groups=MANY),
)
_TARGETS = [
    at_most(name, case.limit, " x", case.about(values))
    for case in CASES
    if case.limit is not None
    for name, values in zip(case.names(), VALUES, strict=True)
]


class ConditionalRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = {target.figure: target for target in _TARGETS}


def screen(files: ScreenFiles, values: str, n_groups: int | None) -> anndata.AnnData:
    """Return the screen with counts or log-normalised values, as CSR of float32."""
    import anndata
    import numpy as np
    import scipy.sparse as sp

    labels = files.labels if n_groups is None else np.load(files.regrouped(n_groups))
    parts = [np.load(files.folder / f"{part}.npy") for part in (values, "indices", "indptr")]
    parts[0] = parts[0].astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(tuple(parts), shape=(len(labels), len(files.genes))))
    adata.obs["target_gene"] = labels
    return adata


def measure(record: ConditionalRecord, case: Case, files: ScreenFiles, args: Any) -> None:
    """Make the calls of a case by turns, and record wall and processor seconds."""
    from pdex_gpu import differential_expression

    for name, values in zip(case.names(), VALUES, strict=True):
        print(f"{name} ...", file=sys.stderr)
        adata = screen(files, values, case.n_groups)
        reference = {"reference": REFERENCE} if case.comparison == "reference" else {}
        wall: dict[str, list[float]] = {kind: [] for kind in KINDS}
        processor: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for i in range(args.rounds + 1):
            for kind in KINDS:
                started, used = time.perf_counter(), time.process_time()
                differential_expression(
                    adata, "target_gene", comparison=case.comparison, metric=case.metric,
                    p_values=kind, is_log1p=values == "log1p", backend="cpu", progress=False,
                    n_threads=args.threads, **reference,
                )  # fmt: skip
                if i:  # the first round compiles
                    wall[kind].append(time.perf_counter() - started)
                    processor[kind].append(time.process_time() - used)
        record.task(name, {
            "seconds": {kind: summary(each) for kind, each in wall.items()},
            "processor_seconds": {kind: summary(each) for kind, each in processor.items()},
        })  # fmt: skip
        ratio = paired_ratio(*wall.values())
        record.figure(name, ratio["median"], ratios=ratio["ratios"],
                      processor=paired_ratio(*processor.values())["median"])  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    metrics = sorted({case.metric for case in CASES})
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small screen; nothing is judged")
    parser.add_argument("--only", nargs="+", choices=metrics, default=metrics, metavar="TEST",
                        help=f"of {', '.join(metrics)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="rounds of a case (default 5; 2 with --quick)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a call (default 2)")
    parser.add_argument("--record", type=Path, help="the JSON")
    args = parser.parse_args(argv)
    args.rounds = args.rounds or (2 if args.quick else 5)
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    files = ensure(QUICK if args.quick else FULL)
    record = ConditionalRecord(
        {"rounds": args.rounds, "threads": args.threads, "screen": asdict(files.parameters)},
        full_size=not args.quick,
    )
    for case in CASES:
        if case.metric in args.only:
            measure(record, case, files, args)
    names = ("numpy", "scipy", "numba")
    record.finish({"pdex_gpu": {name: metadata.version(name) for name in names}})
    suffix = "-quick" if args.quick else ""
    name = f"conditional-{date.today().isoformat()}{suffix}.json"
    record.write(args.record or HERE / "results" / name)
    print(record.table())
    return 1 if record.content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
