"""The own gene of each target: found in the columns of the data, and later in a result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LabelError, SkippedWarning, listing, warn
from .contrasts import Design
from .labels import Labels

if TYPE_CHECKING:
    from ..results.base import Result

#: Key in the provenance of a result of ``on_target=``: the gene of each target that has one.
OWN_GENES = "own_genes"


def own_genes(
    groups: Labels,
    genes_of_cells: Labels,
    genes: np.ndarray,
    symbols: np.ndarray | None,
    design: Design,
    group_column: str,
    gene_column: str,
) -> np.ndarray:
    """Return the matrix position of each row's target gene, shape (n_rows,), -1 if absent.

    Parameters
    ----------
    groups, genes_of_cells : Labels
        Group of each cell, and the gene it targets.
    genes, symbols : numpy.ndarray, shape (n_genes,), object
        Identifiers, and the symbols by which `genes_of_cells` may name genes, too.
    design : Design
    group_column, gene_column : str
        For messages.

    Raises
    ------
    LabelError
        If a target has several genes, or if no target's gene is in the matrix.
    """
    named = genes_by_group(groups, genes_of_cells)
    targets = list(dict.fromkeys(design.targets))
    several = [target for target in targets if len(named.get(target, ())) > 1]
    if several:
        raise LabelError(
            f"Group {str(several[0])!r} of column {group_column!r} has several genes in "
            f"{gene_column!r}: {listing(named[several[0]])}. On-target tests need exactly one."
        )
    position = positions(genes, symbols)
    own = {t: position.get(named[t][0], -1) if t in named else -1 for t in targets}
    absent = [
        f"{target} ({named[target][0] if target in named else 'no gene'})"
        for target in targets
        if own[target] < 0
    ]
    if len(absent) == len(targets):
        raise LabelError(
            f"The matrix has none of the groups' genes: {listing(absent)}. Check that "
            f"{gene_column!r} holds gene names as in var, such as {listing(genes, limit=3)}."
        )
    if absent:
        warn(
            f"{len(absent)} groups are left out because their gene in {gene_column!r} is not in "
            f"the matrix: {listing(absent)}.",
            SkippedWarning,
        )
    return np.array([own[target] for target in design.targets], np.int64)


def genes_by_group(groups: Labels, genes_of_cells: Labels) -> dict[object, list[str]]:
    """Return the names of the genes that the cells of each group target; none, one or several.

    A group without a gene is left out.

    Parameters
    ----------
    groups, genes_of_cells : Labels
        Group of each cell, and the gene it targets.
    """
    both = (groups.codes >= 0) & (genes_of_cells.codes >= 0)
    pairs = np.unique(np.stack([groups.codes[both], genes_of_cells.codes[both]]), axis=1)
    named: dict[object, list[str]] = {}
    for group, gene in pairs.T.tolist():
        names = named.setdefault(groups.categories[group], [])
        names.append(str(genes_of_cells.categories[gene]))
    return named


def recorded(targets: np.ndarray, own: np.ndarray, genes: np.ndarray) -> dict[str, str]:
    """Return the gene of each target by name, as a result records it for :func:`own_genes_of`.

    Parameters
    ----------
    targets : numpy.ndarray, shape (n_rows,), object
    own : numpy.ndarray, shape (n_rows,), int64
        As :func:`own_genes` returns it.
    genes : numpy.ndarray, shape (n_genes,), object
    """
    pairs = zip(targets, own.tolist(), strict=True)
    return {str(target): str(genes[g]) for target, g in pairs if g >= 0}


def own_genes_of(result: Result) -> np.ndarray:
    """Return the position of each comparison's own gene, shape (n_comparisons,), int64.

    It is -1 where there is no such gene, or where its row is not in the result. In a result of
    ``on_target=``, the own gene is the one that the target was tested at. In any other result, it
    is the first gene with the target's name, as its identifier or else as its symbol.
    """
    named = result.provenance.get(OWN_GENES)
    every = np.arange(len(result.targets))
    if isinstance(named, dict):
        wanted: Iterable[object] = (named.get(str(target)) for target in result.targets)
    elif result.provenance.get("on_target") is not None and result.kept is not None:
        # A file of an earlier version: each row is at the target's own gene.
        return np.where(result.kept.any(axis=1), result.kept.argmax(axis=1), -1).astype(np.int64)
    else:
        wanted = map(str, result.targets)
    position = positions(result.features, result.symbols)
    own = np.array([position.get(name, -1) for name in wanted], np.int64)
    if result.kept is not None:
        own[~result.kept[every, own]] = -1
    return own


def positions(
    genes: Iterable[object], symbols: Iterable[object] | None = None
) -> dict[object, int]:
    """Return the position of each gene name, the first one where a name repeats.

    A symbol that is no identifier of another gene is a name, too.
    """
    found: dict[object, int] = {}
    for names in (genes, () if symbols is None else symbols):
        for g, name in enumerate(names):
            found.setdefault(str(name), g)
    return found
