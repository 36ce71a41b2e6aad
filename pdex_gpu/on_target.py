"""The gene that each target is about."""

from __future__ import annotations

import warnings

import numpy as np

from .design import Design
from .errors import LabelError, SkippedWarning, listing
from .sources.dataset import Labels


def own_genes(
    groups: Labels,
    genes_of_cells: Labels,
    genes: np.ndarray,
    design: Design,
    group_column: str,
    gene_column: str,
) -> np.ndarray:
    """Where in the matrix the gene of each row's target is, shape (n_rows,), -1 for nowhere.

    Parameters
    ----------
    groups, genes_of_cells : Labels
        Group of each cell, and the gene it targets.
    genes : numpy.ndarray, shape (n_genes,), object
    design : Design
    group_column, gene_column : str
        For messages.

    Raises
    ------
    LabelError
        If a target has several genes, or no target has one in the matrix.
    """
    both = (groups.codes >= 0) & (genes_of_cells.codes >= 0)
    pairs = np.unique(np.stack([groups.codes[both], genes_of_cells.codes[both]]), axis=1)
    named: dict[object, list[str]] = {}
    for group, gene in pairs.T.tolist():
        found = named.setdefault(groups.categories[group], [])
        found.append(str(genes_of_cells.categories[gene]))
    targets = list(dict.fromkeys(design.targets))
    several = [target for target in targets if len(named.get(target, ())) > 1]
    if several:
        raise LabelError(
            f"Group {str(several[0])!r} of column {group_column!r} has several genes in "
            f"{gene_column!r}: {listing(named[several[0]])}. On target, each group needs one."
        )
    position = {str(gene): j for j, gene in reversed(list(enumerate(genes)))}
    own = {t: position.get(named[t][0], -1) if t in named else -1 for t in targets}
    absent = [
        f"{target} ({named[target][0] if target in named else 'no gene'})"
        for target in targets
        if own[target] < 0
    ]
    if len(absent) == len(targets):
        raise LabelError(
            f"No group has its gene in the matrix: {listing(absent)}. Is {gene_column!r} the "
            f"column with gene names as in var, such as {listing(genes, limit=3)}?"
        )
    if absent:
        warnings.warn(
            f"{len(absent)} groups are left out, as their gene in {gene_column!r} is not in the "
            f"matrix: {listing(absent)}.",
            SkippedWarning,
            stacklevel=5,
        )
    return np.array([own[target] for target in design.targets], np.int64)
