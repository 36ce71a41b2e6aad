"""A result that was written as text: ``.csv`` and ``.tsv`` files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..design.naming import combined_levels
from ..errors import DuplicateGeneWarning, FileFormatError, MemoryBudgetError, listing, warn
from ..utils.foreign_errors import reading
from ..utils.resources import available_memory
from .footer import as_labels
from .memory import DEResult
from .schema import EXTRA, INTEGERS, LABELS, VALUES
from .table import OF_GENES

if TYPE_CHECKING:
    import pyarrow

#: What separates the fields of a line, by the suffix of the file.
SEPARATORS = {".csv": ",", ".tsv": "\t"}

_WRITE_AGAIN = (
    "Pass the file as DEResult.to_csv(), out= or `pdex-gpu run` wrote it; rows may be in any "
    "order, or left out."
)


def read_text(path: Path) -> DEResult:
    """Read a result from text into memory; text has no provenance.

    Rows may be in any order, and some may be missing: comparisons and genes are in the order of
    their first rows. Columns between reference and feature are levels.

    Raises
    ------
    FileFormatError
        If columns are missing, repeated or unknown, a value is not a number, a row is there twice,
        or a gene has several symbols.
    MemoryBudgetError
        If the pairs of all comparisons and genes take more memory than is free.
    """
    shown = repr(str(path))
    sep = SEPARATORS[path.suffix.lower()]
    names = _names(path, sep, shown)
    levels = _levels(names, shown)
    values = [name for name in names if name in VALUES or name in EXTRA]
    of_genes = [name for name in OF_GENES if name in names]
    table = _table(path, sep, ["target", "reference", *levels, *of_genes], values, shown)
    comparisons, found = _comparisons(table, levels)
    codes, features = _coded(table["feature"])
    place = comparisons.astype(np.int64) * len(features) + codes
    if len(np.unique(place)) < len(place):  # names of genes repeat
        codes, features = _in_matrix_order(comparisons, codes, features, shown)
        place = comparisons.astype(np.int64) * len(features) + codes
    shape = len(found), len(features)
    _check_memory(shape, len(values), levels, shown)
    kept = np.zeros(shape, bool)
    kept.ravel()[place] = True
    columns = {name: _placed(table[name], name, place, shape, shown) for name in values}
    symbols = None
    if "symbol" in of_genes:
        symbols = _symbols(table["symbol"], codes, features, shown)
    targets, references, *of_levels = (
        as_labels([labels[k] for labels in found]) for k in range(2 + len(levels))
    )
    return DEResult(
        targets,
        references,
        as_labels(features),
        columns,
        {},
        within=combined_levels(dict(zip(levels, of_levels, strict=True))),
        kept=None if kept.all() else kept,
        symbols=symbols,
    )


def _names(path: Path, sep: str, shown: str) -> list[str]:
    """Return the names of the columns, from the first line."""
    why = "it is not text in UTF-8"
    with (
        reading(shown, "Python", why, _WRITE_AGAIN),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        names = next(csv.reader(file, delimiter=sep), [])
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FileFormatError(f"{shown} has columns twice: {listing(repeated)}. {_WRITE_AGAIN}")
    missing = [name for name in (*LABELS, *VALUES) if name not in names]
    if missing:
        mark = next((mark for mark in ";,\t" if mark != sep and names and mark in names[0]), None)
        apart = "" if mark is None else f" Fields must be separated by {sep!r}, not {mark!r}."
        raise FileFormatError(
            f"{shown} is not a whole result: it lacks the columns {listing(missing)} (it has "
            f"{listing(names)}).{apart} {_WRITE_AGAIN}"
        )
    return names


def _levels(names: list[str], shown: str) -> list[str]:
    """Return the columns of levels; no other column may be unknown."""
    known = {*LABELS, *OF_GENES, *VALUES, *EXTRA}
    unknown = [name for name in names if name not in known]
    first, last = names.index("reference"), names.index("feature")
    levels = [name for name in unknown if first < names.index(name) < last]
    others = [name for name in unknown if name not in levels]
    if others:
        raise FileFormatError(
            f"{shown} has columns that are not known here: {listing(others)}. Remove them, or "
            "import the package that registers them (pdex_gpu.columns.registry.register) first."
        )
    return levels


def _table(path: Path, sep: str, labels: list[str], values: list[str], shown: str) -> pyarrow.Table:
    import pyarrow as pa
    from pyarrow import csv as text

    types: dict[str, pa.DataType] = dict.fromkeys(labels, pa.dictionary(pa.int32(), pa.string()))
    types |= {name: pa.int64() if name in INTEGERS else pa.float64() for name in values}
    why = "a value is not of the kind that its column has, or lines have different lengths"
    with reading(shown, "pyarrow", why, _WRITE_AGAIN):
        return text.read_csv(
            path,
            parse_options=text.ParseOptions(delimiter=sep, newlines_in_values=True),
            convert_options=text.ConvertOptions(
                column_types=types, include_columns=[*types], strings_can_be_null=False
            ),
        )


def _coded(column: pyarrow.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return the codes of labels, and the labels in order of first appearance."""
    whole = column.unify_dictionaries().combine_chunks()
    codes = whole.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = whole.dictionary.to_pylist()
    firsts, first_rows = np.unique(codes, return_index=True)
    order = firsts[np.argsort(first_rows)]
    renumbered = np.full(len(names), -1, np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[codes], [names[k] for k in order]


def _comparisons(
    table: pyarrow.Table, levels: list[str]
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Return the comparison of each row, and their labels, in order of first appearance."""
    coded = [_coded(table[name]) for name in ("target", "reference", *levels)]
    key = np.zeros(table.num_rows, np.int64)
    for codes, names in coded:
        _, key = np.unique(key * len(names) + codes, return_inverse=True)
    firsts, first_rows = np.unique(key, return_index=True)
    order = np.argsort(first_rows)
    renumbered = np.empty(len(firsts), np.int64)
    renumbered[order] = np.arange(len(order))
    found = [
        tuple(names[codes[row]] for codes, names in coded) for row in first_rows[order].tolist()
    ]
    return renumbered[key], found


def _in_matrix_order(
    comparisons: np.ndarray, codes: np.ndarray, features: list[str], shown: str
) -> tuple[np.ndarray, list[str]]:
    """Return codes of genes whose names repeat: every comparison has all of them, in one order."""
    n_comparisons = int(comparisons.max(initial=-1)) + 1
    n_genes = len(codes) // n_comparisons
    by_comparison = codes[: n_comparisons * n_genes].reshape(n_comparisons, n_genes)
    whole = np.repeat(np.arange(n_comparisons), n_genes)
    if not np.array_equal(comparisons, whole) or (by_comparison != by_comparison[0]).any():
        place = comparisons * len(features) + codes
        _, first = np.unique(place, return_index=True)
        again = np.setdiff1d(np.arange(len(place)), first)[0]
        raise FileFormatError(
            f"{shown} has gene {features[codes[again]]!r} of one comparison twice, the second "
            f"time in row {again + 1}. {_WRITE_AGAIN}"
        )
    warn(
        f"{shown} has several rows of one gene in each comparison. They are taken for different "
        "genes of the same name.",
        DuplicateGeneWarning,
    )
    genes = [features[k] for k in by_comparison[0].tolist()]
    return np.tile(np.arange(n_genes), n_comparisons), genes


def _check_memory(shape: tuple[int, int], n_columns: int, levels: list[str], shown: str) -> None:
    """Raise MemoryBudgetError if the pairs of few rows take more memory than is free."""
    needed, free = (8 * n_columns + 1) * shape[0] * shape[1], available_memory()
    if needed > free:
        taken = f" Columns between reference and feature are levels, here {listing(levels)}."
        raise MemoryBudgetError(
            f"{shown} has {shape[0]:,} comparisons and {shape[1]:,} genes. All pairs of them take "
            f"{needed / 1e9:.1f} GB in memory, but only {free / 1e9:.1f} GB are free."
            f"{taken if levels else ''} Write the result as .parquet, which is read in parts."
        )


def _symbols(
    column: pyarrow.ChunkedArray, codes: np.ndarray, features: list[str], shown: str
) -> np.ndarray:
    """Return the symbol of each gene, which all of its rows have."""
    of_rows, known = _coded(column)
    of_genes = np.zeros(len(features), np.int64)
    of_genes[codes] = of_rows
    differs = np.flatnonzero(of_genes[codes] != of_rows)
    if len(differs):
        raise FileFormatError(
            f"{shown} has several symbols of gene {features[codes[differs[0]]]!r}, one of them in "
            f"row {differs[0] + 1}. {_WRITE_AGAIN}"
        )
    return as_labels(known)[of_genes]


def _placed(
    column: pyarrow.ChunkedArray, name: str, place: np.ndarray, shape: tuple[int, int], shown: str
) -> np.ndarray:
    """Return a column as an array of comparisons and genes; empty fields are NaN."""
    if name in INTEGERS and column.null_count:
        raise FileFormatError(f"{shown} has empty fields in column {name!r}. {_WRITE_AGAIN}")
    kind = np.int64 if name in INTEGERS else np.float64
    found = np.full(shape, 0 if name in INTEGERS else np.nan, kind)
    found.ravel()[place] = column.to_numpy().astype(kind, copy=False)
    return found
