"""The symbols of genes: a column of var that names genes in addition to their identifiers."""

from __future__ import annotations

import logging

import numpy as np

from ..design.labels import object_array
from ..errors import ColumnError, MissingLabelWarning, warn
from ..sources.dataset import Dataset

logger = logging.getLogger("pdex_gpu")


def symbols_of(dataset: Dataset, column: str | None) -> np.ndarray | None:
    """Return the symbols of genes as str, shape (n_genes,), object; None without a column.

    A gene without a symbol has its identifier.

    Raises
    ------
    ColumnError
        If var has no such column, or no gene has a symbol in it.
    """
    if column is None:
        return None
    labels = dataset.var_column(column)
    texts = [str(label) for label in labels.categories]
    has_one = np.array([*(text.strip() != "" for text in texts), False])[labels.codes]
    n_missing = int(np.count_nonzero(~has_one))
    if n_missing == len(has_one) > 0:
        raise ColumnError(
            f"gene_symbols={column!r}: no gene has a symbol in this column of var; all "
            f"{n_missing:,} values are missing or empty."
        )
    said = f"gene_symbols={column!r}: {n_missing:,} of {len(has_one):,} genes have no symbol"
    if 2 * n_missing > len(has_one):
        warn(f"{said}. Their identifiers are used instead.", MissingLabelWarning)
    elif n_missing:
        logger.info("%s; their identifiers are used instead", said)
    return object_array(
        texts[code] if there else str(gene)
        for code, there, gene in zip(labels.codes.tolist(), has_one.tolist(), dataset.genes,
                                     strict=True)
    )  # fmt: skip
