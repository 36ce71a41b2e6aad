"""Changes to results in Parquet files: by other programs, and in what the file says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pdex_gpu.results.table import LAYOUT_KEY, METADATA_KEY

from . import documents
from .damage import Rng

_Change = Callable[[Rng, pa.Table], tuple[pa.Table, str]]


def _rewritten(change: _Change) -> Callable[[Rng, Path], str]:
    """A table changed and written with pyarrow, which keeps the metadata."""

    def changed(rng: Rng, path: Path) -> str:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError, ValueError):
            return "no table any more"
        table, what = change(rng, table)
        options = [{}, {"row_group_size": 7}, {"compression": "zstd"}, {"version": "1.0"},
                   {"use_dictionary": False}, {"write_statistics": False}]  # fmt: skip
        pq.write_table(table, path, **options[int(rng.integers(len(options)))])
        return what

    return changed


def _column(rng: Rng, table: pa.Table) -> str:
    return str(rng.choice(table.column_names))


def _sorted(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    name = _column(rng, table)
    order = str(rng.choice(["ascending", "descending"]))
    return table.sort_by([(name, order)]), f"sorted by {name}, {order}"


def _permuted(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    rows = rng.permutation(len(table))
    if rng.random() < 0.5:  # two rows alone
        rows = np.arange(len(table))
        i, j = rng.integers(len(table), size=2)
        rows[[i, j]] = rows[[j, i]]
    return table.take(rows), "rows exchanged"


def _filtered(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    n = len(table)
    kinds: dict[str, Any] = {
        "head": lambda: table.slice(0, n // 2),
        "without the last": lambda: table.slice(0, n - 1),
        "none": lambda: table.slice(0, 0),
        "fdr": lambda: table.filter(pc.less_equal(table["fdr"], 0.5)),
        "a target": lambda: table.filter(pc.equal(table["target"], table["target"][0])),
        "twice": lambda: pa.concat_tables([table, table]),
        "a row twice": lambda: pa.concat_tables([table.slice(0, n - 1), table.slice(0, 1)]),
    }
    kind = str(rng.choice(list(kinds)))
    return kinds[kind](), f"rows: {kind}"


def _columns(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    name = _column(rng, table)
    i = table.column_names.index(name)
    kind = str(rng.choice(["dropped", "twice", "renamed", "added", "turned", "swapped"]))
    if kind == "dropped":
        return table.drop_columns([name]), f"{name} dropped"
    if kind == "twice":
        return table.append_column(name, table[name]), f"{name} twice"
    if kind == "renamed":
        new = str(rng.choice(["x", name.upper(), "fdr", "target", ""]))
        names = [new if n == name else n for n in table.column_names]
        return table.rename_columns(names), f"{name} renamed {new!r}"
    if kind == "added":
        name = str(rng.choice(["gene_id", "auroc", "log10_p", "z"]))
        return table.append_column(name, pa.array(np.arange(len(table)) / 7)), f"{name} added"
    if kind == "turned":
        return table.select(table.column_names[::-1]), "columns backwards"
    other = _column(rng, table)
    j = table.column_names.index(other)
    meta, one, two = table.schema.metadata, table[name], table[other]
    found = table.set_column(i, name, two).set_column(j, other, one)
    return found.replace_schema_metadata(meta), f"{name} and {other} exchanged"


_TYPES = [pa.float32(), pa.float16(), pa.int64(), pa.int8(), pa.string(), pa.large_string(),
          pa.bool_(), pa.decimal128(30, 5), pa.binary(), pa.null(), pa.string_view()]  # fmt: skip


def _retyped(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    name = _column(rng, table)
    i = table.column_names.index(name)
    column = table[name]
    kinds = [*_TYPES, "dictionary", "list", "struct", "nulls", "all null"]
    kind = kinds[int(rng.integers(len(kinds)))]
    try:
        if kind == "dictionary":
            new: Any = column.dictionary_encode()
        elif kind == "list":
            new = pa.array([[x] for x in column.to_pylist()])
        elif kind == "struct":
            new = pa.array([{"x": x} for x in column.to_pylist()])
        elif kind == "nulls":
            mask = np.arange(len(table)) == rng.integers(max(1, len(table)))
            new = pa.array(column.to_pylist(), column.type, mask=mask)
        elif kind == "all null":
            new = pa.nulls(len(table), column.type)
        else:
            new = column.cast(kind, safe=False)
    except (pa.ArrowException, TypeError, ValueError):
        return table, f"{name} cannot be {kind}"
    meta = table.schema.metadata
    return table.set_column(i, name, new).replace_schema_metadata(meta), f"{name} as {kind}"


def _value(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    name = _column(rng, table)
    i, row = table.column_names.index(name), int(rng.integers(max(1, len(table))))
    values = table[name].to_pylist()
    if not values:
        return table, "no values"
    found = values[row]
    if isinstance(found, str):
        values[row] = str(rng.choice(["STAT1", "gene0", "", "nowhere", "x" * 1000]))
    elif isinstance(found, int):
        values[row] = found + 1
    else:
        values[row] = float(rng.choice([0.0, np.nan, np.inf, -1.0, 1e-300, 2.0]))
    try:
        new = pa.array(values, table.schema.field(i).type)
    except (pa.ArrowException, TypeError, ValueError):
        return table, f"{name} cannot be changed"
    meta = table.schema.metadata
    found_table = table.set_column(i, name, new).replace_schema_metadata(meta)
    return found_table, f"{name}[{row}] = {values[row]!r:.30}, was {found!r}"


def _metadata(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    found = dict(table.schema.metadata or {})
    keys = sorted(found)
    if not keys:
        return table, "no metadata"
    key = [LAYOUT_KEY, LAYOUT_KEY, METADATA_KEY, *keys][int(rng.integers(len(keys) + 3))]
    if key not in found:
        return table, "no such key"
    kind = str(rng.choice(["gone", "noise", "edit", "edit", "edit", "edit", "edit"]))
    if kind == "gone":
        del found[key]
        what = "gone"
    elif kind == "noise":
        found[key], what = rng.bytes(50), "noise"
    else:
        found[key], what = documents.edit(rng, found[key])
    return table.replace_schema_metadata(found), f"{key.decode()}: {what}"


_LABELS: dict[str, Callable[[Rng, dict[str, Any]], Any]] = {
    "targets backwards": lambda rng, lay: lay["targets"].reverse(),
    "features backwards": lambda rng, lay: lay["features"].reverse(),
    "two features exchanged": lambda rng, lay: lay["features"].insert(0, lay["features"].pop()),
    "a target renamed": lambda rng, lay: lay["targets"].__setitem__(0, "another"),
    "references renamed": lambda rng, lay: lay.update(references=["x"] * len(lay["references"])),
    "filtered turned": lambda rng, lay: lay.update(filtered=not lay["filtered"]),
    "features twice": lambda rng, lay: lay["features"].__setitem__(0, lay["features"][1]),
    "a newer schema": lambda rng, lay: lay.update(schema=99),
    "an older schema": lambda rng, lay: lay.update(schema=0),
    "targets and features": lambda rng, lay: lay.update(
        targets=lay["features"], features=lay["targets"]
    ),
}


def _layout(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    found = dict(table.schema.metadata or {})
    kind = str(rng.choice(list(_LABELS)))
    try:
        layout = json.loads(found[LAYOUT_KEY])
        _LABELS[kind](rng, layout)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return table, "no layout any more"
    found[LAYOUT_KEY] = json.dumps(layout).encode()
    return table.replace_schema_metadata(found), kind


def _same(rng: Rng, table: pa.Table) -> tuple[pa.Table, str]:
    return table, "written again by pyarrow"


def _by_pandas(rng: Rng, path: Path) -> str:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError):
        return "no table any more"
    frame.to_parquet(path, index=bool(rng.integers(2)))
    return "written again by pandas"


def _by_polars(rng: Rng, path: Path) -> str:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except Exception:  # polars has errors of its own, and panics
        return "no table any more"
    if rng.random() < 0.5 and "fdr" in frame.columns:
        frame = frame.sort("fdr")
    frame.write_parquet(path)
    return "written again by polars"


FILE: dict[str, Callable[[Rng, Path], str]] = {
    "sorted": _rewritten(_sorted),
    "rows exchanged": _rewritten(_permuted),
    "rows filtered": _rewritten(_filtered),
    "columns": _rewritten(_columns),
    "column retyped": _rewritten(_retyped),
    "value": _rewritten(_value),
    "metadata": _rewritten(_metadata),
    "layout": _rewritten(_layout),
    "written again": _rewritten(_same),
    "pandas": _by_pandas,
    "polars": _by_polars,
}
HARMLESS = {"written again"}


def footer(path: Path) -> list[tuple[int, int]]:
    """Where a file's footer is."""
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    return [(max(0, len(content) - 8 - size), min(len(content), size + 8))]
