"""Folders with a matrix of Cell Ranger as text: matrix.mtx.gz, features.tsv.gz, barcodes.tsv.gz."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...design.labels import no_labels
from ...errors import FileFormatError, MissingFileError, listing, shown
from ..choice import MatrixChoice
from ..dataset import Dataset, GuideCounts
from ..formats import FormatCode, is_url
from ..memory.arrays import CsrSource
from ..sizes import BYTES_PER_CELL, claim
from .features import GUIDES, Features, labels_in, unique_names
from .mtx import Entries, Header, read_entries, read_header
from .text_files import read_columns

_MATRIX = ("matrix.mtx.gz", "matrix.mtx")
_FEATURES = ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")
_BARCODES = ("barcodes.tsv.gz", "barcodes.tsv")


class MatrixFolder(FormatCode):
    """Matrix folders; also the matrix in one, whose name may have a prefix that its files share."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        if not isinstance(data, str | os.PathLike):
            return False
        path = os.fspath(data)
        if not isinstance(path, str) or is_url(path):
            return False
        if path.endswith(_MATRIX):
            return os.path.isfile(path)
        return any(os.path.isfile(os.path.join(path, name)) for name in _MATRIX)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        return open_folder(os.fspath(data), groupby, choice)


@dataclass(frozen=True)
class _Files:
    matrix: Path
    features: Path
    barcodes: Path

    @classmethod
    def at(cls, path: str) -> _Files:
        """Find the files in a folder, or next to a matrix whose prefix they share."""
        folder, prefix = path, ""
        if not os.path.isdir(path):
            folder, name = os.path.split(path)
            prefix = name[: -len(next(end for end in _MATRIX if name.endswith(end)))]
            return cls(Path(path), *(_find(folder, prefix, x) for x in (_FEATURES, _BARCODES)))
        return cls(*(_find(folder, prefix, names) for names in (_MATRIX, _FEATURES, _BARCODES)))


def _find(folder: str, prefix: str, names: Sequence[str]) -> Path:
    paths = [Path(folder, f"{prefix}{name}") for name in names]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise MissingFileError(
            f"The folder {shown(folder)} has a matrix, but none of "
            f"{listing(path.name for path in paths)}. Copy the whole folder."
        )
    return found


def open_folder(path: str, groupby: str | None, choice: MatrixChoice) -> Dataset:
    """Open a matrix folder; its entries are read into memory.

    Raises
    ------
    FileFormatError
        A file is truncated or malformed, or belongs to another run.
    MissingFileError
        A file is missing.
    MemoryBudgetError
        The entries do not fit in ``memory=``.
    ColumnError, DataError, LayerError
        See :meth:`.features.Features.chosen`; `groupby` is a column that the files cannot have.
    """
    if groupby is not None:
        labels_in(path, groupby)
    files = _Files.at(path)
    header = read_header(files.matrix)
    features = _features(files.features, path)
    barcodes = read_columns(files.barcodes, "The barcode file")
    names = barcodes[0] if barcodes else np.empty(0, object)
    _check_sizes(files, header, len(features.ids), len(names))
    columns = features.chosen(choice)  # before the matrix is read
    n_cells = header.n_cells
    claim(BYTES_PER_CELL * n_cells, f"the barcodes of {path} ({n_cells:,} cells)")
    entries = read_entries(files.matrix)
    counts = _guide_counts(entries, features)
    chosen = _of_columns(entries, columns, len(features.ids))
    what = f"{files.matrix.name} of {path}"
    return Dataset(
        source=CsrSource(chosen.data, chosen.features, chosen.indptr, len(columns), what),
        labels=no_labels(n_cells),
        genes=unique_names(features.names[columns]),
        cell_name=lambda row: str(names[row]),
        cell_names=lambda: names,
        description=f"{path}, {choice.modality or 'genes'} of Cell Ranger",
        column=lambda name: labels_in(path, name),
        guide_counts=lambda: counts,
    )


def _features(path: Path, place: str) -> Features:
    columns = read_columns(path, "The feature file")
    if not columns:
        raise FileFormatError(f"The feature file {shown(str(path))} is empty. Copy it again.")
    names = columns[1] if len(columns) > 1 else None
    types = columns[2] if len(columns) > 2 else None
    return Features.of(columns[0], names, types, place)


def _check_sizes(files: _Files, header: Header, n_features: int, n_barcodes: int) -> None:
    """Raise FileFormatError if features or barcodes are not those of the matrix."""
    shape = f"{header.n_features:,} features x {header.n_cells:,} cells"
    turned = (n_features, n_barcodes) == (header.n_cells, header.n_features)
    for path, n, expected, what in (
        (files.features, n_features, header.n_features, "features"),
        (files.barcodes, n_barcodes, header.n_cells, "barcodes"),
    ):
        if n == expected:
            continue
        why = "It may belong to another run: copy the files of one run to a folder."
        if turned and header.n_features != header.n_cells:
            why = "The matrix is stored as cells x features: write its transpose."
        raise FileFormatError(
            f"{shown(str(path))} has {n:,} {what}, but the matrix {shown(str(files.matrix))} is "
            f"{shape}. {why}"
        )


def _guide_counts(entries: Entries, features: Features) -> GuideCounts:
    is_guide = np.zeros(len(features.ids), bool)
    is_guide[features.of_type(GUIDES)] = True
    where = np.flatnonzero(is_guide[entries.features])
    cells = np.searchsorted(entries.indptr, where, side="right") - 1
    return features.guide_counts(cells, entries.features[where], entries.data[where])


def _of_columns(entries: Entries, columns: np.ndarray, n_features: int) -> Entries:
    """Return the entries of some columns, which are numbered anew."""
    if len(columns) == n_features:
        return entries
    new = np.full(n_features, -1, np.int32)
    new[columns] = np.arange(len(columns))
    found = new[entries.features]
    keep = found >= 0
    n_bytes = int(np.count_nonzero(keep)) * (entries.data.itemsize + 4) + 5 * len(keep)
    claim(n_bytes, "the entries of the chosen features")
    ends = np.concatenate([[0], np.cumsum(keep)])[entries.indptr]
    return Entries(entries.data[keep], found[keep], ends.astype(np.int64))
