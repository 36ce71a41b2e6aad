"""Calls whose results are kept: every design, test and form of storage, on one small screen.

``python recorded_calls.py record`` in `tests/support` records them anew, ``record default`` only
those with "default" in their names; ``compare`` tells which results have other bits than those
recorded. Numbers of floating point may differ in their last
bits from machine to machine, as do those of numpy and scipy; on one machine they must not.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hostile.calls.values import FILES, MEMORY, store
from repository import DATA

import pdex_gpu

RECORD = DATA / "recorded_calls.parquet"
#: The form of storage that results are recorded from; all others give the same bits.
RECORDED_FROM = "csr"
FORMS = [form for form in (*MEMORY, *FILES) if form not in ("csr, explicit zeros", "csr, repeated")]

_N_CELLS, _N_GENES = 90, 11
_GROUPS = ["ctl", "A", "B", "B+A", "few"]

_DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {"reference": "ctl"},
    "reference of two": {"reference": ["ctl", "B"], "min_cells": 4},
    "each reference": {"comparison": "each_reference", "reference": ["ctl", "A"]},
    "rest": {"comparison": "rest"},
    "perturbed": {"comparison": "perturbed", "reference": "ctl"},
    "pairs": {"comparison": "pairs", "pairs": [("A", "B"), ("B", "A"), ("few", "ctl")]},
    "levels": {"groupby": ["group", "kind"], "reference": "ctl"},
    "levels, rest": {"groupby": ["group", "kind", "donor"], "comparison": "rest"},
    "strata": {"reference": "ctl", "strata": "donor"},
    "strata, rest": {"comparison": "rest", "strata": "donor"},
    "guides": {"groupby": None, "guides": "guides", "reference": "ctl"},
    "guides, rest": {"groupby": None, "guides": "guides", "comparison": "rest"},
    "own gene": {"reference": "ctl", "on_target": "aimed at"},
    "filters": {"reference": "ctl", "min_fraction": 0.3, "fdr_scope": "target"},
}
_TESTS: dict[str, dict[str, Any]] = {
    "wilcoxon": {},
    "wilcoxon, normal, less": {"method": "asymptotic", "alternative": "less", "continuity": False},
    "wilcoxon, exact": {"method": "exact", "tie_correction": False},
    "t-test": {},
    "t-test, welch, greater": {"variance": "welch", "alternative": "greater"},
    "anderson": {},
    "anderson, continuous": {"variant": "continuous"},
    "ks": {},
}
#: For calls whose p-values are not to be those of a call that names no kind.
_ASYMPTOTIC = {"p_values": "asymptotic"}
_STRATIFIED = ("wilcoxon", "wilcoxon, normal, less", "t-test", "anderson")


def data_of(values: np.ndarray, form: str, folder: Path) -> Any:
    """Return the screen with these values, in one form of storage."""
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(_N_CELLS)])
    rng = np.random.default_rng(5)
    obs["group"] = rng.choice(_GROUPS, _N_CELLS, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    obs["kind"] = pd.Categorical(rng.choice(["T cell", "B cell"], _N_CELLS))
    obs["donor"] = rng.choice(["d1", "d2", "d3"], _N_CELLS)
    aimed = {"A": "gene0", "B": "gene3", "B+A": "gene5", "few": "gene9"}
    obs["aimed at"] = obs["group"].map(aimed).fillna("none")
    carried = rng.random((_N_CELLS, 4)) < 0.3
    guides = pd.DataFrame(carried, index=obs.index, columns=["ctl", "A", "B", "C"])
    return store(form, values, obs, folder, rng, guides)


def matrices() -> dict[str, np.ndarray]:
    """Return counts, log1p of scaled counts, large integers, and values of both signs."""
    rng = np.random.default_rng(3)
    rates = rng.gamma(0.6, 3.0, _N_GENES)
    counts = rng.poisson(rates, (_N_CELLS, _N_GENES)).astype(np.float32)
    counts[:, 4] = 0
    depth = rng.uniform(0.5, 2.0, (_N_CELLS, 1))
    return {
        "counts": counts,
        "log1p": np.log1p(counts * depth).astype(np.float32),
        "integers": counts.astype(np.int64) * (1 << 40),
        "scaled": (counts - counts.mean(axis=0)) / (1 + counts.std(axis=0)),
    }


def calls() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the matrix and the options of every call, by name."""
    found = {}
    for design, options in _DESIGNS.items():
        for test, of_test in _TESTS.items():
            metric = test.split(",")[0]
            if "strata" in options and test not in _STRATIFIED:
                continue
            asked = options | of_test | {"metric": metric}
            for kind in ("counts", "log1p") if not of_test else ("log1p",):
                found[f"{design}; {test}; {kind}"] = kind, asked | _ASYMPTOTIC
            if not of_test:
                found[f"{design}; {test}, default; counts"] = "counts", asked
    for kind in ("log1p", "integers", "scaled"):
        for metric in ("wilcoxon", "t-test", "anderson", "ks"):
            asked = {"reference": "ctl", "metric": metric}
            found[f"reference; {metric}; {kind}"] = kind, asked | _ASYMPTOTIC
            found[f"reference; {metric}, default; {kind}"] = kind, asked
    return found


def result_of(data: Any, kind: str, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run a call; return its columns of values by name, and the joined labels of each row."""
    options = {
        "groupby": "group", "columns": "all", "is_log1p": kind == "log1p", "backend": "cpu",
        "progress": False,
    } | options  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = pdex_gpu.differential_expression(data, **options).to_pandas()
    numbers = [name for name in table if table[name].dtype.kind in "if"]
    labels = table.drop(columns=numbers).astype(str).agg("|".join, axis=1)
    return {"rows": labels.to_numpy(str)} | {name: table[name].to_numpy() for name in numbers}


def results(form: str, select: Callable[[str], bool] = bool) -> Iterator[tuple[str, Any]]:
    """Yield the name and the result of each selected call."""
    stored: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, options) in calls().items():
            if not select(name):
                continue
            if kind not in stored:
                own = Path(folder) / kind
                own.mkdir()
                stored[kind] = data_of(matrices()[kind], form, own)
            if "layer" in form:
                options = options | {"layer": "values"}
            yield name, result_of(stored[kind], kind, options)


def recorded() -> dict[str, dict[str, np.ndarray]]:
    """Read the recorded results, by call name."""
    table = pq.read_table(RECORD)
    found: dict[str, dict[str, np.ndarray]] = {}
    starts = np.flatnonzero(np.append(True, np.diff(table["call"].combine_chunks().indices)))
    for start, stop in pairwise([*starts.tolist(), table.num_rows]):
        rows = table.slice(start, stop - start)
        columns = {name: rows[name] for name in rows.column_names[1:]}
        found[rows["call"][0].as_py()] = {
            name: column.to_numpy().astype(str) if name == "rows" else column.to_numpy()
            for name, column in columns.items()
            if not column.null_count  # else it has no such column
        }
    return found


def record(text: str = "") -> None:
    """Record the results of all calls, or of those with this text in their names."""
    kept = {name: found for name, found in recorded().items() if text not in name} if text else {}
    made = dict(results(RECORDED_FROM, lambda name: name not in kept))
    tables = [
        pa.table({"call": [name] * len(found["rows"]), **found})
        for name, found in {**kept, **made}.items()
    ]
    table = pa.concat_tables(tables, promote_options="default")
    coded = table.set_column(0, "call", table["call"].combine_chunks().dictionary_encode())
    pq.write_table(coded, RECORD, compression="zstd", compression_level=19)


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Return the columns in which the bits of two results differ."""
    return [
        name
        for name in dict.fromkeys([*one, *other])
        if name not in one or name not in other or one[name].tobytes() != other[name].tobytes()
    ]


def main() -> int:
    if sys.argv[1:2] == ["record"] and len(sys.argv) <= 3:
        record(*sys.argv[2:])
        return 0
    if sys.argv[1:] != ["compare"]:
        print(__doc__)
        return 2
    kept, differing = recorded(), 0
    for name, found in results(RECORDED_FROM):
        columns = same_bits(found, kept.pop(name))
        differing += bool(columns)
        if columns:
            print(f"{name}: {', '.join(columns)}")
    print(f"{differing} results with other bits, {len(kept)} calls that are gone")
    return int(bool(differing or kept))


if __name__ == "__main__":
    sys.exit(main())
