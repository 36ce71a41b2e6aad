"""The tables of guides that Cell Ranger writes and reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...design.labels import object_array
from ...errors import FileFormatError, shown
from ..sizes import BYTES_PER_TEXT, claim
from .features import GUIDES
from .text_files import read_table

_CALLS = "The table of guide calls"
_TARGETS = "The table of guide targets"
_SEPARATOR = "|"
_NO_GUIDE = ("", "none")


@dataclass(frozen=True)
class GuideTable:
    """The guides that were called in each cell, one row for each pair.

    Attributes
    ----------
    barcodes : numpy.ndarray, shape (n_barcodes,), object
        As str, each once.
    guides : numpy.ndarray, shape (n_guides,), object
        As str, each once.
    cells, which : numpy.ndarray, shape (n,), int64
        Barcode and guide of each call.
    umis : numpy.ndarray, shape (n,), int64
        UMIs of each call; -1 where the table does not give them.
    """

    barcodes: np.ndarray
    guides: np.ndarray
    cells: np.ndarray
    which: np.ndarray
    umis: np.ndarray


def read_calls(path: Path, *, with_umis: bool) -> GuideTable:
    """Read ``protospacer_calls_per_cell.csv``.

    Parameters
    ----------
    path : pathlib.Path
        A table with the columns cell_barcode and feature_call; several calls of a cell are
        separated by ``|``.
    with_umis : bool
        Whether it must have the column num_umis, with a number for each call.

    Raises
    ------
    FileFormatError
        It is not such a table.
    """
    needed = ["cell_barcode", "feature_call", *(["num_umis"] if with_umis else [])]
    barcodes: dict[str, int] = {}
    guides: dict[str, int] = {}
    calls: list[tuple[int, int, int]] = []
    for line, row in read_table(path, _CALLS, needed):
        cell = barcodes.setdefault(row["cell_barcode"], len(barcodes))
        called = [name.strip() for name in row["feature_call"].split(_SEPARATOR)]
        umis = [-1] * len(called)
        if with_umis:
            umis = _umis(row["num_umis"], len(called), path, line)
        calls += [
            (cell, guides.setdefault(guide, len(guides)), n)
            for guide, n in zip(called, umis, strict=True)
            if guide.lower() not in _NO_GUIDE
        ]
    claim(2 * BYTES_PER_TEXT * (len(barcodes) + len(calls)), f"the calls of {str(path)!r}")
    found = np.array(calls, np.int64).reshape(-1, 3)
    return GuideTable(object_array(barcodes), object_array(guides), *found.T)


def _umis(text: str, n: int, path: Path, line: int) -> list[int]:
    parts = text.split(_SEPARATOR)
    try:
        found = [int(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != n or min(found) < 0 or max(found) >= 1 << 62:
        raise FileFormatError(
            f"{_CALLS} {shown(str(path))} is malformed: line {line} has {n} calls, but num_umis is "
            f"{shown(text)} instead of {n} whole numbers."
        )
    return found


def read_targets(path: Path) -> dict[str, str]:
    """Read the target of each guide from ``feature_reference.csv``.

    Parameters
    ----------
    path : pathlib.Path
        A table with the columns id, name and target_gene_name. Features of another type than
        ``CRISPR Guide Capture`` are skipped.

    Returns
    -------
    dict
        The target by id, and by name where that is no id; empty text where the table has none.

    Raises
    ------
    FileFormatError
        It is not such a table, or gives a guide two targets.
    """
    by_id: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for line, row in read_table(path, _TARGETS, ("id", "target_gene_name")):
        if row.get("feature_type", GUIDES) != GUIDES:
            continue
        target = row["target_gene_name"]
        if by_id.setdefault(row["id"], target) != target:
            raise FileFormatError(
                f"{_TARGETS} {shown(str(path))} is malformed: line {line} gives the guide "
                f"{row['id']!r} the target {target!r}, but an earlier line {by_id[row['id']]!r}."
            )
        name = row.get("name", row["id"])
        if by_name.setdefault(name, target) != target:
            by_name[name] = ""  # of two guides with two targets: it identifies none
    return by_name | by_id
