"""How often p-values are small although nothing differs, and what becomes of strong hits.

    python benchmarks/null_rates.py            all (about half an hour on two cores)
    python benchmarks/null_rates.py --quick    few splits, to see that everything runs

Control cells of real screens are split at random into mock groups, which are compared with the
other controls: with raw and with log-normalised counts, by every test, with asymptotic and with
conditional p-values. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

from record import Record, Target, at_least, at_most  # noqa: E402

if TYPE_CHECKING:
    import anndata

#: Real screens, with the label of their control cells in ``obs["perturbation"]``.
SCREENS = {
    "papalexi_thp1_counts": "non-targeting",
    "heart_celltypes": "aCM",
    "vcc_h1_dense": "non-targeting",
}
FOLDER = Path(os.environ.get("PDEX_GPU_TEST_DATA", HERE.parent.parent / "shared")) / "data"

METRICS = ("wilcoxon", "anderson", "ks", "t-test")
KINDS = ("asymptotic", "conditional")
LEVELS = (0.05, 1e-2, 1e-3, 1e-4)
SIZES = (5, 20, 100, 500)
EDGES = (0.1, 1.0)
CLASSES = ("below 0.1", "0.1 to 1", "1 or more")
FEWEST_TESTS = 100_000  # a rate is judged from so many tests on
FEWEST_GROUPS = 500  # genes of a group are not independent, so tests alone are not enough;
LARGEST_ERROR = 0.1  # nor are groups: the standard error of the excess at 1e-3 tells
STRONG = 1e-4  # FDR of strong hits

_TARGETS = [
    target
    for metric in METRICS
    for target in (
        *(
            at_most(f"{metric}_{level:g}", 1.3, " x", f"{metric}: largest excess at {level:g}")
            for level in LEVELS
        ),
        at_most(f"{metric}_hits", 0.1, "", f"{metric}: false hits per null group, BH 5 %"),
        at_least(f"{metric}_kept", 0.98, f"{metric}: strong hits that stay hits"),
    )
]


class NullRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = {target.figure: target for target in _TARGETS}


class Counts:
    """What was counted among the tests of a setting.

    Attributes
    ----------
    n_tests : numpy.ndarray, shape (splits, classes)
        Tests of each split of the controls, by class of expression.
    n_below : numpy.ndarray, shape (splits, classes, levels)
        Those with p-values of at most a level.
    n_hits : numpy.ndarray, shape (groups,)
        False hits of every mock group.
    """

    def __init__(self) -> None:
        self.n_tests = np.zeros((0, len(CLASSES)), np.int64)
        self.n_below = np.zeros((0, len(CLASSES), len(LEVELS)), np.int64)
        self.n_hits = np.zeros(0, np.int64)

    def add(self, p_value: np.ndarray, informative: np.ndarray, expression: np.ndarray) -> None:
        """Count the p-values of a split: mock groups (rows) and genes (columns)."""
        n_tests, n_below = self.n_tests[:0].sum(axis=0), self.n_below[:0].sum(axis=0)
        for k in range(len(CLASSES)):
            here = p_value[:, expression == k][informative[:, expression == k]]
            n_tests[k] = len(here)
            n_below[k] = [np.count_nonzero(here <= level * (1 + 1e-12)) for level in LEVELS]
        self.n_tests = np.vstack([self.n_tests, n_tests[None]])
        self.n_below = np.vstack([self.n_below, n_below[None]])
        hits = [np.count_nonzero(_adjusted(row) <= 0.05) for row in p_value]
        self.n_hits = np.concatenate([self.n_hits, hits])

    def enough(self, n_tests: int) -> bool:
        """Return whether all classes that occur have so many tests, and rates are known well."""
        tests = self.n_tests.sum(axis=0)
        error = self.error[tests > 0, LEVELS.index(1e-3)]
        return bool(
            (tests[tests > 0] >= n_tests).all()
            and len(self.n_hits) >= FEWEST_GROUPS
            and (error <= LARGEST_ERROR).all()
        )

    @property
    def excess(self) -> np.ndarray:
        """Return observed over expected numbers, by class and level."""
        return self.n_below.sum(axis=0) / self._expected

    @property
    def error(self) -> np.ndarray:
        """Return the standard errors of the excess: splits are independent, their genes are not."""
        here = self.n_tests[:, :, None] * np.array(LEVELS)
        residual = self.n_below - self.excess * here
        splits = len(residual)
        if splits < 2:
            return np.full(residual.shape[1:], np.nan)
        return np.sqrt((residual**2).sum(axis=0) * splits / (splits - 1)) / self._expected

    @property
    def _expected(self) -> np.ndarray:
        return np.maximum(1.0, self.n_tests.sum(axis=0)[:, None] * np.array(LEVELS))

    @property
    def worst(self) -> list[tuple[float, float]]:
        """Return the largest excess at each level, of classes with enough tests, and its error."""
        judged = np.flatnonzero(self.n_tests.sum(axis=0) >= FEWEST_TESTS)
        excess, error = self.excess[judged], self.error[judged]
        if not len(judged):
            return [(0.0, 0.0)] * len(LEVELS)
        at = excess.argmax(axis=0)
        return [(float(excess[k, i]), float(error[k, i])) for i, k in enumerate(at)]


def _adjusted(p_value: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_value))


def controls(name: str, values: str) -> anndata.AnnData:
    """Return the control cells of a screen, with the genes that any of them expresses."""
    import anndata
    import scipy.sparse as sp

    adata = anndata.read_h5ad(FOLDER / f"{name}.h5ad")
    adata = adata[(adata.obs["perturbation"] == SCREENS[name]).to_numpy()].copy()
    x = sp.csr_matrix(adata.X, dtype=np.float64)
    total = np.asarray(x.sum(axis=1)).ravel()
    adata.obs["total"] = total
    kept = np.asarray(x.sum(axis=0)).ravel() > 0
    adata = adata[:, kept].copy()
    mean = np.asarray(x.mean(axis=0)).ravel()[kept]
    adata.var["expression"] = np.digitize(mean, EDGES)
    x = x[:, kept]
    if values == "log":
        x = x.multiply(1e4 / np.maximum(total, 1.0)[:, None]).tocsr()
        x = x.log1p()
    adata.X = x.tocsr()
    return adata


def mock_labels(n_cells: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return labels: mock groups of `size` cells, at most half of the cells, others controls."""
    n_groups = max(1, n_cells // 2 // size)
    labels = np.full(n_cells, "control", dtype="U9")
    chosen = rng.permutation(n_cells)
    for i in range(n_groups):
        labels[chosen[i * size : (i + 1) * size]] = f"mock {i}"
    return labels


def settings(names: list[str]) -> Iterator[tuple[str, str, int]]:
    """Yield screens, kinds of values and sizes of mock groups."""
    for name in names:
        for values in ("raw", "log"):
            for size in SIZES:
                yield name, values, size


def null(record: NullRecord, names: list[str], fewest: int, most_splits: int) -> None:
    """Count small p-values between mock groups."""
    from pdex_gpu import differential_expression

    worst: dict[tuple[str, str, float], tuple[float, float]] = {}
    hits: dict[tuple[str, str], float] = {}
    loaded: tuple[tuple[str, str], Any] | None = None
    for name, values, size in settings(names):
        if loaded is None or loaded[0] != (name, values):
            loaded = (name, values), controls(name, values)
        adata = loaded[1]
        if size > adata.n_obs // 2:
            continue
        print(f"{name}, {values}, groups of {size} ...", file=sys.stderr)
        expression = adata.var["expression"].to_numpy()
        rng = np.random.default_rng(size)
        found = {(metric, kind): Counts() for metric in METRICS for kind in KINDS}
        for _ in range(most_splits):
            adata.obs["mock"] = mock_labels(adata.n_obs, size, rng)
            for (metric, kind), counts in found.items():
                result = differential_expression(
                    adata, "mock", reference="control", metric=metric, p_values=kind,
                    columns=["target_fraction", "reference_fraction"], is_log1p=values == "log",
                    backend="cpu", progress=False,
                )  # fmt: skip
                informative = (result["target_fraction"] > 0) | (result["reference_fraction"] > 0)
                counts.add(result["p_value"], informative, expression)
            if all(counts.enough(fewest) for counts in found.values()):
                break
        for (metric, kind), counts in found.items():
            per_group = float(counts.n_hits.mean())
            record.task(f"{name} {values} {size} {metric} {kind}", {
                "n_groups": len(counts.n_hits),
                "n_tests": counts.n_tests.sum(axis=0).tolist(),
                "n_below": counts.n_below.sum(axis=0).tolist(),
                "excess": np.round(counts.excess, 4).tolist(),
                "standard_error": np.round(counts.error, 4).tolist(),
                "hits_per_group": per_group,
                "groups_with_hits": float(np.mean(counts.n_hits > 0)),
            })  # fmt: skip
            hits[metric, kind] = max(hits.get((metric, kind), 0.0), per_group)
            for level, largest in zip(LEVELS, counts.worst, strict=True):
                key = metric, kind, level
                worst[key] = max(worst.get(key, (0.0, 0.0)), largest)
    for metric in METRICS:
        for level in LEVELS:
            value, error = worst[metric, "conditional", level]
            record.figure(f"{metric}_{level:g}", value, standard_error=error,
                          asymptotic=worst[metric, "asymptotic", level][0])  # fmt: skip
        record.figure(f"{metric}_hits", hits[metric, "conditional"],
                      asymptotic=hits[metric, "asymptotic"])  # fmt: skip


def power(record: NullRecord, names: list[str]) -> None:
    """Count the strong hits of whole screens, and how many of them stay hits."""
    import anndata

    from pdex_gpu import differential_expression

    for metric in METRICS:
        n_strong = n_kept = 0
        for name in names:
            adata = anndata.read_h5ad(FOLDER / f"{name}.h5ad")
            fdr = {}
            for kind in KINDS:
                result = differential_expression(
                    adata, "perturbation", reference=SCREENS[name], metric=metric, p_values=kind,
                    normalize=1e4, backend="cpu", progress=False,
                )  # fmt: skip
                fdr[kind] = result["fdr"]
            strong = fdr["asymptotic"] < STRONG
            kept = strong & (fdr["conditional"] <= 0.05)
            record.task(f"{name} {metric} power", {
                "strong": int(strong.sum()), "kept": int(kept.sum()),
                **{f"hits_{kind}": int((its <= 0.05).sum()) for kind, its in fdr.items()},
            })  # fmt: skip
            n_strong, n_kept = n_strong + int(strong.sum()), n_kept + int(kept.sum())
        record.figure(f"{metric}_kept", n_kept / max(1, n_strong), strong=n_strong)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few splits; nothing is judged")
    parser.add_argument("--screens", nargs="+", choices=SCREENS, default=list(SCREENS))
    parser.add_argument("--tests", type=int, default=2 * FEWEST_TESTS,
                        help="tests per class of expression at which splitting ends")  # fmt: skip
    parser.add_argument("--splits", type=int, default=250, help="most splits of a setting (250)")
    parser.add_argument("--record", type=Path, help="the JSON")
    args = parser.parse_args(argv)
    missing = [name for name in args.screens if not (FOLDER / f"{name}.h5ad").exists()]
    if missing:
        parser.error(f"not in {FOLDER}: {', '.join(missing)}. PDEX_GPU_TEST_DATA names its parent.")
    splits = 1 if args.quick else args.splits
    record = NullRecord(
        {"screens": args.screens, "tests": args.tests, "groups": FEWEST_GROUPS,
         "error": LARGEST_ERROR, "splits": splits,
         "sizes": SIZES, "levels": LEVELS, "classes": CLASSES},
        full_size=not args.quick,
    )  # fmt: skip
    null(record, args.screens, args.tests, splits)
    power(record, args.screens)
    names = ("numpy", "scipy", "numba")
    record.finish({"pdex_gpu": {name: metadata.version(name) for name in names}})
    suffix = "-quick" if args.quick else ""
    name = f"null_rates-{date.today().isoformat()}{suffix}.json"
    record.write(args.record or HERE / "results" / name)
    print(record.table())
    return 1 if record.content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
