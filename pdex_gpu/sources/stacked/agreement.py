"""A look at some values of each file: files of one screen must be on the same scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import DataError
from ..base import CscChunk, Reading, Source
from .rows import rows_of

_ENTRIES = 1 << 12  # approximate values to look at
_SHOWN = 3


def check_agreement(files: Sequence[str], sources: Sequence[Source], what: str) -> None:
    """Check that either all files hold whole numbers or all hold other values.

    Raises
    ------
    DataError
        Some files seem to hold raw counts, and others normalised values.
    """
    seen: dict[bool, tuple[str, np.ndarray]] = {}
    for file, source in zip(files, sources, strict=True):
        values = some_values(source)
        values = values[(values != 0) & np.isfinite(values)]
        others = values[(values < 0) | (values != np.floor(values))]
        if len(values):
            seen.setdefault(len(others) == 0, (file, others if len(others) else values))
    if len(seen) < 2:
        return
    (counts, whole), (other, fractions) = seen[True], seen[False]
    raise DataError(
        f"{what} holds whole numbers in {counts} (such as {_shown(whole)}), as raw counts are, but "
        f"not in {other} (such as {_shown(fractions)}), as if it was normalised or corrected. "
        "Files of one screen must hold values of the same kind: choose raw counts in each with "
        "layer= (--layer), or write the files again."
    )


def _shown(values: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values[:_SHOWN].tolist())


def some_values(source: Source) -> np.ndarray:
    """Return some values of a matrix, from few chunks of its file."""
    if source.n_cells == 0 or source.n_genes == 0:
        return np.empty(0)
    rows = rows_of(source)
    if rows is not None:
        parts = rows.cut(_ENTRIES)
        return rows.block(parts[len(parts) // 2], Reading())[0] if parts else np.empty(0)
    density = source.density(map)
    gene = source.n_genes // 2 if density is None else int(np.argmax(density))
    with source.open([gene, gene + 1], Reading().work) as reader:
        chunk = reader.read(0)
    return chunk.data if isinstance(chunk, CscChunk) else chunk.values.ravel()  # type: ignore[union-attr]
