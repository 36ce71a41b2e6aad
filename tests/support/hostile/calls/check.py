"""A case run on the kernel sets, and its answers judged."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import pdex_gpu
from pdex_gpu.errors import PdexGpuError
from pdex_gpu.results.schema import EXTRA, VALUES

from ..verdict import RIGHT, Verdict, foreign
from .draw import TAKEN, Case, draw
from .truth import expected, labels_of, plain, rows_of
from .values import FILES, SUMS_OVERFLOW, guides_matrix, store

#: Worst seen against the truth: see `test_hostile_calls.py`.
RTOL = 1e-9
_SMALLEST = 1e-290


@dataclass(frozen=True)
class Outcome:
    """What a call gave: columns by row and gene with the labels of rows, or an error."""

    error: Exception | None = None
    columns: dict[str, np.ndarray] | None = None
    labels: list[tuple[Any, Any, Any]] | None = None
    kept: np.ndarray | None = None


#: Kernel sets that every machine has.
BACKENDS = ("numpy", "cpu")


def problems(seed: int, backends: tuple[str, ...] = BACKENDS) -> list[str]:
    """What is wrong with the answers to a case; nothing if all is right."""
    return list(verdict(seed, backends).problems)


def verdict(seed: int, backends: tuple[str, ...] = BACKENDS) -> Verdict:
    """What came of a case."""
    case = draw(seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        outcomes = {backend: _run(case, backend) for backend in backends}
        lines = tuple(_problems(case, outcomes))
    errors = [type(found.error).__name__ for found in outcomes.values() if found.error is not None]
    return Verdict(errors[0] if errors else RIGHT, lines)


# --- calls -------------------------------------------------------------------------------------


def _run(case: Case, backend: str) -> Outcome:
    with TemporaryDirectory() as name, _stored(case, Path(name)) as data:
        try:
            return _CALLS[case.entry](case, data, backend, Path(name))
        except Exception as error:  # judged later
            return Outcome(error)


@contextmanager
def _stored(case: Case, folder: Path) -> Iterator[Any]:
    rng = np.random.default_rng([82, case.seed])
    guides = None
    if case.guides is not None:
        guides = guides_matrix(case.guides, case.guides_as)
    try:
        data = store(case.storage, case.values, case.obs, folder, rng, guides)
    except Exception:  # anndata cannot write such labels or values
        if case.storage not in FILES and case.storage != "unwritable":
            raise
        data = store("csr", case.values, case.obs, folder, rng, guides)
    try:
        yield data
    finally:
        if getattr(data, "isbacked", False):
            data.file.close()


def _groupby(case: Case) -> Any:
    if case.guides is not None:
        return None
    return case.groupby[0] if len(case.groupby) == 1 else case.groupby


def _options(case: Case) -> dict[str, Any]:
    found = dict(case.options)
    if "layer" in case.storage:
        found["layer"] = "values"
    if case.guides is not None:
        found["guides"] = "guides"
    return found | {"progress": False, "n_threads": 2}


def _of(result: Any) -> Outcome:
    names = [n for n in (*VALUES, *EXTRA) if n in VALUES or n in result.columns]
    columns = {name: np.asarray(result[name], np.float64) for name in names}
    within = [()] * len(result.targets) if result.within is None else result.within[1]
    labels = [
        (plain(t), plain(r), level)
        for t, r, level in zip(result.targets, result.references, within, strict=True)
    ]
    return Outcome(None, columns, labels, result.kept)


def _native(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    options = _options(case)
    if backend == "cuda":
        options.pop("engine", None)
    result = pdex_gpu.differential_expression(data, _groupby(case), backend=backend, **options)
    return _of(result)


def _file(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    options = _options(case)
    if backend == "cuda":
        options.pop("engine", None)
    out = folder / "result.parquet"
    pdex_gpu.differential_expression(data, _groupby(case), backend=backend, out=out, **options)
    return _of(pdex_gpu.open_result(out).load())


def _frame(table: pd.DataFrame) -> Outcome:
    numbers = table.select_dtypes("number")
    columns = {str(name): numbers[name].to_numpy(np.float64) for name in numbers}
    return Outcome(None, columns, None, None)


def _pdex(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    mode = "all" if case.options["comparison"] == "rest" else "ref"
    more = {} if mode == "all" else {"reference": case.options.get("reference")}
    return _frame(
        pdex_gpu.pdex(
            data, case.groupby[0], mode=mode, is_log1p=case.options.get("is_log1p"),
            as_pandas=True, threads=2, backend=backend, **more,
        )
    )  # fmt: skip


def _pdex_old(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    metric = case.options["metric"]
    return _frame(
        pdex_gpu.parallel_differential_expression(
            data, reference=case.options.get("reference"), groupby_key=case.groupby[0],
            metric="wilcoxon" if metric == "ks" else metric, show_progress=False, num_workers=1,
            is_log1p=case.options.get("is_log1p"), num_threads=2, backend=backend,
        )
    )  # fmt: skip


def _scanpy(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    data = data.copy()
    method = "t-test" if case.options["metric"] == "t-test" else "wilcoxon"
    rest = case.options["comparison"] in ("rest", "pairs")
    reference = "rest" if rest else case.options["reference"]
    pdex_gpu.rank_genes_groups(
        data, case.groupby[0], method=method, reference=reference, backend=backend, pts=True
    )
    found = data.uns["rank_genes_groups"]
    columns = {
        f"{name} {group}": np.asarray(found[name][group], np.float64)
        for name in ("scores", "pvals", "pvals_adj", "logfoldchanges")
        for group in found[name].dtype.names
    }
    return Outcome(None, columns, None, None)


def _pseudobulk(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    layer = "values" if "layer" in case.storage else None
    bulk = pdex_gpu.pseudobulk(data, list(case.obs.columns[:2]), layer=layer)
    labels = [
        tuple(plain(x) for x in row) for row in bulk.obs[sorted(case.obs.columns[:2])].to_numpy()
    ]
    if bulk.obs_names.nunique() < bulk.n_obs:
        raise AssertionError(f"samples share a name: {bulk.obs_names.tolist()}")
    return Outcome(None, {"sum": np.asarray(bulk.X)}, labels, None)  # type: ignore[arg-type]


def _command(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    from pdex_gpu.cli import main

    if not isinstance(data, str):
        return _native(case, data, backend, folder)
    options, out = case.options, folder / "result.parquet"
    arguments = ["run", data, "-o", str(out), "--quiet", "--backend", backend]
    for column in case.groupby:
        arguments += ["--groupby", column]
    arguments += ["--metric", options["metric"], "--comparison", "rest"]
    code = main(arguments)
    if code:
        return Outcome(PdexGpuError(f"exit code {code}"))
    result = pdex_gpu.open_result(out).load()
    return Outcome(None, {name: np.asarray(result[name]) for name in VALUES}, None, None)


def _calibrate(case: Case, data: Any, backend: str, folder: Path) -> Outcome:
    metric = case.options["metric"]
    found = pdex_gpu.calibrate(
        data, case.groupby[0], reference=case.options.get("reference"), metric=metric,
        seed=case.seed, backend=backend, progress=False,
        layer="values" if "layer" in case.storage else None,
    )  # fmt: skip
    return _frame(found.table().drop(columns=["seconds"], errors="ignore"))


_CALLS = {
    "calibrate": _calibrate,
    "native": _native,
    "file": _file,
    "command": _command,
    "pdex": _pdex,
    "pdex 0.1": _pdex_old,
    "scanpy": _scanpy,
    "pseudobulk": _pseudobulk,
}


# --- judgement ---------------------------------------------------------------------------------


def _problems(case: Case, outcomes: dict[str, Outcome]) -> Iterator[str]:
    for backend, outcome in outcomes.items():
        error = outcome.error
        if error is not None and not isinstance(error, PdexGpuError):
            yield f"{foreign(error)} ({backend})"
        elif error is not None and not str(error).strip():
            yield f"foreign exception: {type(error).__name__} without a word ({backend})"
    first, *others = outcomes.items()
    for name, outcome in others:
        yield from _differ(case, first[0], first[1], name, outcome)
    if any(outcome.error is not None for outcome in outcomes.values()):
        yield from _needless(case, first[1])
        return
    if case.entry in ("native", "file"):
        yield from _wrong(case, first[1])
    elif case.entry == "pseudobulk":
        yield from _wrong_sums(case, first[1])


def _differ(case: Case, name: str, one: Outcome, other_name: str, other: Outcome) -> Iterator[str]:
    if (one.error is None) != (other.error is None) or type(one.error) is not type(other.error):
        yield f"{name}: {one.error!r}, but {other_name}: {other.error!r}"
        return
    if one.columns is None or other.columns is None:
        return
    if list(one.columns) != list(other.columns) or one.labels != other.labels:
        yield f"{name} and {other_name} differ in columns or rows"
        return
    for column, values in one.columns.items():
        if not _close(values, other.columns[column], _rounding(case, column, values)):
            yield (
                f"{column}: {name} {values.ravel()[:8]}, {other_name} "
                f"{other.columns[column].ravel()[:8]}"
            )


def _close(a: np.ndarray, b: np.ndarray, atol: float | np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=RTOL, atol=atol, equal_nan=True))


def _rounding(case: Case, name: str, values: np.ndarray) -> float | np.ndarray:
    """How far two kernel sets may be apart, absolutely, where large values cancel."""
    if _DIFFERENT.search(name):
        return 1e-12
    if not name.endswith("_mean"):
        return 0.0
    size = np.abs(case.values.astype(np.float64))
    largest: np.ndarray = np.max(size, axis=0, where=np.isfinite(size), initial=0.0)
    in_order = values.shape[-1:] == largest.shape  # else rows are in an order of the entry's own
    return 2.0**-50 * (largest if in_order else largest.max(initial=0.0))


_DIFFERENT = re.compile(
    "log2|logfold|difference|percent|statistic|scores|cohens_d|hedges_g|^z$|log10"
)


#: Options that a test may refuse to combine; the message is what matters.
def may_refuse(case: Case) -> str | None:
    """Why a case may be refused, if it may."""
    options, values = case.options, case.values
    if case.storage in ("zarr csr", "zarr csc"):
        indices = np.nonzero(values)[1 if case.storage == "zarr csr" else 0]
        if len(indices) and not indices.any():
            return "zarr leaves out chunks of zeros, and indices that are not there may be lost"
    labels = [x for x in labels_of(case.obs, case.groupby[0]) if x is not None]
    if case.guides is not None:
        labels = [name for name in case.guides if case.guides[name].any()]
    if len({str(x) for x in labels}) < len(set(labels)):
        return "labels are told apart by their type alone"
    if any(name in TAKEN for name in case.obs):
        return "columns are named like those of results"
    if values.dtype.kind == "f":
        size = np.abs(values[np.isfinite(values) & (values != 0)].astype(float))
        if not np.isfinite(values).all():
            return "not finite"
        if len(size) and (size.max() > 1e150 or size.min() < 1e-150):
            return "far out"
    if options.get("strata") is not None:
        return "strata go with some options only"
    if "nan_policy" in options and {"log10_p", "all"} & {*options.get("columns", ())}:
        return "scipy gives p-values alone"
    if case.entry not in ("native", "file"):
        return "other calls take some of the options only"
    if not rows_of(case):
        return "nothing to compare"
    if options["comparison"] != "rest" and not _known(options, labels):
        return "unknown labels"
    if options.get("min_cpm") is not None and (values.astype(float) < 0).any():
        return "counts per million of negative values"
    if len(set(labels)) < 2 or options.get("min_cells", 1) > 1:
        return "few cells"
    return None


def _known(options: dict[str, Any], labels: list[Any]) -> bool:
    if options["comparison"] == "pairs":
        asked = [x for pair in options["pairs"] for x in pair]
        if any(a == b for a, b in options["pairs"]):
            return False
    else:
        reference = options["reference"]
        asked = [*(reference if isinstance(reference, list) else [reference])]
        groups = options.get("groups")
        if groups is not None:
            asked += groups
    return bool(asked) and all(label in labels for label in asked)


def _needless(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.error is not None and may_refuse(case) is None:
        yield f"needless refusal: {type(outcome.error).__name__}: {outcome.error}"


def _row_of(case: Case, outcome: Outcome, row: Any) -> int | None:
    assert outcome.labels is not None
    named = case.options["comparison"] in ("pairs", "each_reference")

    def same(found: Any, asked: Any) -> bool:  # files have labels as text
        return found == asked if case.entry == "native" else str(found) == str(asked)

    for t, (target, reference, level) in enumerate(outcome.labels):
        if not same(target, row.target) or (named and not same(reference, row.references[0])):
            continue
        if _same_level(level, row.level):
            return t
    return None


def _same_level(found: Any, asked: tuple[Any, ...]) -> bool:
    if not asked:
        return True
    texts = tuple(str(x) for x in asked)
    return tuple(map(str, found)) == texts if isinstance(found, tuple) else found == "+".join(texts)


def _wrong(case: Case, outcome: Outcome) -> Iterator[str]:
    rows, columns = rows_of(case), outcome.columns
    assert columns is not None
    assert outcome.labels is not None
    if len(rows) != len(outcome.labels):
        yield f"{len(outcome.labels)} rows {outcome.labels[:9]}, where {len(rows)} are right"
        return
    kept = np.ones(columns["p_value"].shape, bool) if outcome.kept is None else outcome.kept
    rng = np.random.default_rng([83, case.seed])
    sample = [(row, g) for row in rows for g in range(case.values.shape[1])]
    for k in rng.permutation(len(sample))[:6]:
        row, gene = sample[k]
        t = _row_of(case, outcome, row)
        if t is None:
            yield f"no row for {row.target!r} against {row.references!r} in {row.level}"
            return
        x, y = row.sides(case.values[:, gene])
        yield from _filtered(case, row, kept[t, gene], x, y, gene)
        if not kept[t, gene] or case.options.get("strata") is not None:
            continue
        if not (np.isfinite(x).all() and np.isfinite(y).all()) and "nan_policy" not in case.options:
            yield f"gene {gene} of {row.target!r} is not finite, and was accepted"
            continue
        if np.isinf(x).any() or np.isinf(y).any():
            continue
        truth = expected(case, x, y)
        slack = _slack(truth)
        for name, value in truth.items():
            found = float(columns[name][t, gene]) if name in columns else None
            if found is not None and not _right(found, value, name, slack.get(name, 0.0)):
                yield (
                    f"{name} of {row.target!r} against {row.references!r} in {row.level}, gene "
                    f"{gene} ({case.kinds[gene]}): {columns[name][t, gene]!r}, right is {value!r}"
                )
    yield from _wrong_fdr(case, columns, kept)


def _slack(truth: dict[str, float]) -> dict[str, float]:
    """How far columns may be off because means are rounded to float64, absolutely."""
    means = truth.pop("slack_of_means", 0.0)
    error, spread = truth.pop("error", math.inf), truth.pop("spread", 0.0)
    t, p = truth.get("statistic", 0.0), truth.get("p_value", 1.0)
    of_t = means / error * (1.0 + abs(t)) if error else 0.0
    return {
        "target_mean": means,
        "reference_mean": means,
        "mean_difference": means,
        "cohens_d": means / spread if spread else 0.0,
        "statistic": of_t if math.isfinite(error) else 0.0,
        "p_value": of_t * (1.0 + abs(t)) * p if math.isfinite(error) else 0.0,
        "log10_p": of_t * (1.0 + abs(t)) if math.isfinite(error) else 0.0,
    }


def _right(found: float, value: float, name: str, slack: float) -> bool:
    if math.isnan(value):
        return math.isnan(found) or slack > 0.0 < abs(found) < slack
    if name == "p_value" and max(found, value) < _SMALLEST:
        return True
    atol = 1e-12 if name in _DIFFERENCES else 0.0
    if name in ("cohens_d", "statistic") and math.isnan(found):  # deviations are below rounding
        return slack > 1e-3 * max(abs(value), 1e-300)
    return math.isclose(found, value, rel_tol=1e-7, abs_tol=atol + slack)


_DIFFERENCES = {"mean_difference", "statistic", "cohens_d", "log10_p"}


def _filtered(
    case: Case, row: Any, kept: bool, x: np.ndarray, y: np.ndarray, gene: int
) -> Iterator[str]:
    least = case.options.get("min_fraction")
    if least is None or case.options.get("min_cpm") is not None:
        return
    both = np.concatenate([x, y])
    if case.options.get("nan_policy") == "omit":
        both = both[~np.isnan(both)]
    fraction = np.count_nonzero(both) / max(len(both), 1)
    if abs(fraction - least) > 1e-9 and kept != (fraction >= least):
        yield f"min_fraction={least}: gene {gene} of {row.target!r} has {fraction}, kept: {kept}"


def _wrong_fdr(case: Case, columns: dict[str, np.ndarray], kept: np.ndarray) -> Iterator[str]:
    p, fdr = columns["p_value"], columns["fdr"]
    if not kept.any() or np.isnan(p[kept]).any():
        if np.isnan(p[kept]).any():
            yield "p_value is NaN"
        return
    scope = case.options.get("fdr_scope", "all")
    families: list[Any] = [(slice(None), slice(None))]
    if scope == "target":
        families = [(t, slice(None)) for t in range(len(p))]
    elif scope == "gene":
        families = [(slice(None), g) for g in range(p.shape[1])]
    method = case.options.get("fdr_method", "benjamini-hochberg")
    for family in families:
        some, used = p[family], kept[family]
        if not used.any():
            continue
        if method == "bonferroni":
            right = np.minimum(some[used] * used.sum(), 1.0)
        else:
            how = "bh" if method == "benjamini-hochberg" else "by"
            right = stats.false_discovery_control(some[used], method=how)
        if not np.allclose(fdr[family][used], right, rtol=1e-12, atol=0):
            yield f"fdr {fdr[family][used][:8]}, right is {right[:8]}"


def _wrong_sums(case: Case, outcome: Outcome) -> Iterator[str]:
    assert outcome.columns is not None
    assert outcome.labels is not None
    if SUMS_OVERFLOW & set(case.kinds):
        return
    names = sorted(case.obs.columns[:2])
    cells = list(zip(*(labels_of(case.obs, name) for name in names), strict=True))
    values = case.values.astype(np.float64)
    for sample, sums in zip(outcome.labels, outcome.columns["sum"], strict=True):
        here = [i for i, labels in enumerate(cells) if labels == tuple(sample)]
        right = np.array([math.fsum(column) for column in values[here].T])
        rounding = 2.0**-50 * np.abs(values[here]).sum(axis=0)  # where large values cancel
        if not np.allclose(sums, right, rtol=1e-12, atol=rounding, equal_nan=True):
            yield f"sums of {sample} are {sums}, right is {right}"
