"""Which comparisons and genes a table of both shows, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import OptionError
from ..errors import shown as worded
from ..results.base import Result
from ..results.plot_values import LARGEST, count, minus_log10_p, p_columns
from ..utils.checks import check_count, listed

# Ordering the leaves of a tree takes time at least quadratic in their number.
_MOST_SORTED = 500


def comparisons_of(
    result: Result,
    targets: Iterable[object] | None,
    n_targets: int | None = None,
    fdr: float = 0.05,
    usual: int | None = None,
) -> np.ndarray:
    """Return the positions of the comparisons to show.

    Parameters
    ----------
    result : Result
    targets : iterable of object, or str, optional
        Targets, all of whose comparisons are shown, in this order.
    n_targets : int, optional
        The most comparisons to show without `targets`, those with the most hits.
    fdr : float
    usual : int, optional
        `n_targets` if it is not given; by default all comparisons are shown, in their order.

    Raises
    ------
    LabelError
        If a target was not compared.
    OptionError
        If `targets` is not a list of names, or is given together with `n_targets`.
    """
    if targets is None:
        most = usual if n_targets is None else n_targets
        if most is None:
            return np.arange(len(result.targets))
        return most_hits_first(result, fdr)[0][:most]
    if n_targets is not None:
        raise OptionError("targets= and n_targets= both choose perturbations. Pass only one.")
    labels = np.array([str(target) for target in result.targets], object)
    rows: dict[int, None] = {}
    for target in _several(targets):
        matching = np.flatnonzero(labels == str(target))
        if not len(matching):
            result.find(target)  # raises an error that lists what there is
        rows |= dict.fromkeys(matching.tolist())
    return np.array(list(rows), np.int64)


def genes_of(
    result: Result,
    rows: np.ndarray,
    features: Iterable[object] | None,
    n_features: Any,
    best_per: Any,
    fdr: float,
    usual: int,
) -> tuple[np.ndarray, str]:
    """Return the positions of the genes to show, and a description of them.

    Parameters
    ----------
    result : Result
    rows : numpy.ndarray, int64
        Positions of the comparisons that are shown.
    features, n_features, best_per
        Options of the figure, one of which chooses the genes.
    fdr : float
    usual : int
        The number of genes if no option is given.

    Raises
    ------
    LabelError
        If some of `features` are not in the result.
    OptionError
        If more than one of the options is given, or one is invalid.
    """
    check_count("n_features", n_features)
    check_count("best_per", best_per)
    options = {"features": features, "n_features": n_features, "best_per": best_per}
    given = [f"{name}=" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} choose the genes in two ways. Pass only one.")
    if features is not None:
        genes = result.find_features(features)
        return genes, count(len(genes), "gene")
    if best_per is not None:
        return _best_of_each(result, rows, best_per, fdr)
    return _most_hits(result, rows, usual if n_features is None else n_features, fdr)


def most_hits_first(result: Result, fdr: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of comparisons by number of hits, then smallest p-value; and the numbers.

    Returns
    -------
    order, hits : numpy.ndarray, shape (n_comparisons,), int64
        `hits` is in the order of the result.
    """
    hits = np.zeros(len(result.targets), np.int64)
    score = np.zeros(len(result.targets))
    for part, values in result.blocks(["fdr", *p_columns(result)]):
        hits[part] = np.count_nonzero(values["fdr"] <= fdr, axis=1)
        score[part] = np.fmax.reduce(minus_log10_p(values), axis=1, initial=0.0)
    return np.lexsort((-score, -hits)), hits


def by_similarity(rows: np.ndarray) -> np.ndarray:
    """Return the positions of rows in an order that puts similar ones side by side."""
    if len(rows) < 3:
        return np.arange(len(rows))
    from scipy.cluster.hierarchy import leaves_list, linkage

    tree = linkage(rows, "average", optimal_ordering=len(rows) <= _MOST_SORTED)
    return leaves_list(tree).astype(np.int64)


def _several(names: Iterable[object]) -> list[object]:
    try:
        return [names] if isinstance(names, str) else listed(names)
    except TypeError as error:
        raise OptionError(f"{worded(names)} must be a list of names.") from error


def _most_hits(result: Result, rows: np.ndarray, n: int, fdr: float) -> tuple[np.ndarray, str]:
    """Return the genes that are hits most often."""
    n_genes = len(result.features)
    hits, known = np.zeros(n_genes, np.int64), np.full(n_genes, False)
    strength = np.zeros(n_genes)
    chosen = np.full(len(result.targets), False)
    chosen[rows] = True
    for part, values in result.blocks(["fdr", *p_columns(result)]):
        which = chosen[part]
        hits += np.count_nonzero(values["fdr"][which] <= fdr, axis=0)
        score = np.minimum(minus_log10_p({k: v[which] for k, v in values.items()}), LARGEST)
        strength += np.nansum(score, axis=0)
        known |= ~np.isnan(score).all(axis=0)
    candidates = np.flatnonzero(hits if hits.any() else known)
    genes = candidates[np.lexsort((-strength[candidates], -hits[candidates]))][:n]
    if hits.any():
        return genes, f"the {count(len(genes), 'gene')} that most often have FDR ≤ {fdr:g}"
    return genes, f"no FDR ≤ {fdr:g}; the {count(len(genes), 'gene')} with the smallest p-values"


def _best_of_each(result: Result, rows: np.ndarray, n: int, fdr: float) -> tuple[np.ndarray, str]:
    """Return the hits with the smallest p-values of each comparison, or the best genes if
    there is no hit at all.
    """
    best, best_without_hits = np.full((2, len(result.features)), False)
    chosen = np.full(len(result.targets), False)
    chosen[rows] = True
    for part, values in result.blocks(["fdr", *p_columns(result)]):
        for row in np.flatnonzero(chosen[part]):
            score = minus_log10_p({name: found[row] for name, found in values.items()})
            order = np.argsort(-score, kind="stable")  # NaN last
            order = order[~np.isnan(score[order])]
            best_without_hits[order[:n]] = True
            best[order[values["fdr"][row][order] <= fdr][:n]] = True
    if best.any():
        genes = np.flatnonzero(best)
        each = "the best hit" if n == 1 else f"the {n} best hits"
        return genes, f"{each} of each perturbation: {count(len(genes), 'gene')}, FDR ≤ {fdr:g}"
    genes = np.flatnonzero(best_without_hits)
    return genes, f"no FDR ≤ {fdr:g}; the {count(len(genes), 'gene')} with the smallest p-values"
