"""A heat map of perturbations and genes, with similar ones next to each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..columns.registry import centre_of
from ..errors import OptionError, unknown
from ..errors import shown as worded
from ..results.base import Result
from ..results.effect import DIFFERENCE, RATIO, direction, effect_of
from ..results.plot_values import LARGEST, axis_text, count, minus_log10_p, p_columns
from ..utils.checks import check_count, listed
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import (
    LITERAL,
    axes_or_new,
    explain_empty,
    extent_in_points,
    fitting_size,
    lay_out,
    shown,
    title,
)

_FOLD_CHANGE, _DIFFERENCE = RATIO.scaled_column, DIFFERENCE.scaled_column
_SIGNED = "signed_log10_p"
_EFFECTS = {effect.scaled_column: effect for effect in (RATIO, DIFFERENCE)}

_LABELS = {
    **{name: axis_text(effect) for name, effect in _EFFECTS.items()},
    _SIGNED: "signed $-\\log_{10}(p)$",
}

# Ordering the leaves of a tree takes time at least quadratic in their number.
_MOST_SORTED = 500

_INCHES_PER_CELL = 0.135

# Up to this many rows, each is sure to get a line of pixels.
_MOST_PIXELS = 200
_NO_VALUE = "0.75"


@known_keywords
def heatmap(
    result: Any,
    *,
    value: str | None = None,
    targets: Iterable[object] | None = None,
    features: Iterable[object] | None = None,
    n_features: int = 50,
    fdr: float = 0.05,
    ax: Any = None,
) -> Any:
    """Draw values of many comparisons and genes as colours, in the order of a clustering.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its Parquet file; a file is read in blocks.
    value : str, optional
        A column of the result, ``"log2_fold_change"`` (of `fold_change`), ``"mean_difference"``
        (``target_mean - reference_mean`` if the result has no such column), or
        ``"signed_log10_p"`` (-log10 of the p-value with the sign of the change of the mean). By
        default log2 fold changes, or mean differences if there are negative values, which have no
        ratios.
    targets : iterable of object, or str, optional
        Targets to show, with all their comparisons; all by default.
    features : iterable of object, or str, optional
        Genes to show, each once; by default the `n_features` genes that are hits most often in the
        comparisons shown. Smaller p-values break ties, and decide if there is no hit at all.
    n_features : int
        The most genes to show without `features`.
    fdr : float
        Hits are the pairs with at most this adjusted p-value. If cells are large enough, hits are
        marked by triangles: up where the value is no less than that of no change (0, or 0.5 for
        `auroc`), else down. If no value means no change, as for means, they are marked by circles.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure, as large as its names need.

    Returns
    -------
    matplotlib.axes.Axes
        Rows and columns are in the order of average-linkage clustering of Euclidean distances. If
        there are at most 500 leaves, they are in optimal order (Bar-Joseph 2001). Pairs without a
        value are grey; they are clustered as if unchanged, or as the smallest value if none means
        no change. For fold changes, pairs with a mean of 0 that are not hits are grey too: their
        ratio only shows how it was clipped. Colours run to the 99th percentile of the sizes of
        changes, the same for up and down, or from the 1st to the 99th percentile of the values if
        none means no change. Names too small to read are left out; the axis then says so. If
        nothing can be drawn, the axes are empty but for the reason.

    Raises
    ------
    LabelError
        If a target or gene is not in the result.
    OptionError
        If `result` is not a result, there is no such column, or an option is invalid.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_count("n_features", n_features, may_be_none=False)
    check_axes(ax)
    value = effect_of(found).scaled_column if value is None else value
    columns = _columns(found, value)
    rows = _rows(found, targets)
    if features is None:
        genes, text = _most_hits(found, rows, n_features, fdr)
    else:
        genes = np.array([found.find_feature(name) for name in _several(features)], np.int64)
        genes = genes[np.sort(np.unique(genes, return_index=True)[1])]
        text = count(len(genes), "gene")
    if not len(rows) or not len(genes):
        ax = axes_or_new(ax)
        title(ax, "perturbations and genes")
        lacking = "comparisons" if not len(rows) else "genes with a p-value"
        explain_empty(ax, f"The result has no {lacking} to draw.")
        return ax
    cells, hit = _read(found, rows, genes, value, columns, fdr)
    if np.isnan(cells).all():
        ax = axes_or_new(ax)
        title(ax, "perturbations and genes")
        explain_empty(ax, f"None of these pairs has a value of {value}.")
        return ax
    low, high = _limits(cells, value)
    # Cluster what the eye sees: differences beyond the colour range do not count.
    middle = _middle(value)
    unchanged = low if middle is None else middle
    known = np.nan_to_num(np.clip(cells, low, high), nan=unchanged)
    by_row, by_gene = _order(known), _order(known.T)
    cells, hit = cells[np.ix_(by_row, by_gene)], hit[np.ix_(by_row, by_gene)]
    rows, genes = rows[by_row], genes[by_gene]
    if ax is None:
        ax = axes_or_new(None, _size(len(rows), len(genes)))
    _paint(ax, cells, value, (low, high))
    lay_out(ax)
    if _marks(ax, hit, cells, value):
        text += " (marked)" if "FDR" in text else f"; marked: FDR ≤ {fdr:g}"
    title(ax, text)
    _names(ax, [found.name(t) for t in rows], [found.features[g] for g in genes])
    return ax


def _middle(value: str) -> float | None:
    """Return the value that means no change: values with it are shown in two colours."""
    return 0.0 if value == _SIGNED else centre_of(value)


def _columns(result: Result, value: object) -> list[str]:
    """Return the columns to read for a value."""
    if not isinstance(value, str):
        raise _unknown_column(value, result)
    if value == _SIGNED:
        return [*p_columns(result), "target_mean", "reference_mean"]
    if value in result.columns:
        means = ["target_mean", "reference_mean"] if value == _FOLD_CHANGE else []
        return [value, *means]
    if value in _EFFECTS:
        return ["fold_change", "target_mean", "reference_mean"]
    raise _unknown_column(value, result)


def _unknown_column(value: object, result: Result) -> OptionError:
    return OptionError(unknown("column", value, (*_EFFECTS, _SIGNED, *result.columns)))


def _several(names: Iterable[object]) -> list[object]:
    try:
        return [names] if isinstance(names, str) else listed(names)
    except TypeError as error:
        raise OptionError(f"{worded(names)} must be a list of names.") from error


def _rows(result: Result, targets: Iterable[object] | None) -> np.ndarray:
    """Return the positions of the comparisons of these targets, in the order requested."""
    if targets is None:
        return np.arange(len(result.targets))
    labels = np.array([str(target) for target in result.targets], object)
    rows: dict[int, None] = {}
    for target in _several(targets):
        matching = np.flatnonzero(labels == str(target))
        if not len(matching):
            result.find(target)  # raises an error that lists what there is
        rows |= dict.fromkeys(matching.tolist())
    return np.array(list(rows), np.int64)


def _most_hits(result: Result, rows: np.ndarray, n: int, fdr: float) -> tuple[np.ndarray, str]:
    """Return the positions of the genes that are hits most often, and a description of them."""
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


def _read(
    result: Result, rows: np.ndarray, genes: np.ndarray, value: str, columns: list[str], fdr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Read values and hits, shape (n_rows, n_genes), in the order of `rows` and `genes`."""
    cells = np.full((len(result.targets), len(genes)), np.nan)
    hit = np.full(cells.shape, False)
    for part, values in result.blocks(list(dict.fromkeys([*columns, "fdr"]))):
        few = {name: found[:, genes] for name, found in values.items()}
        if value == _SIGNED:
            block = np.minimum(minus_log10_p(few), LARGEST) * direction(few)
        elif value in _EFFECTS and value not in columns:
            block = _EFFECTS[value].sizes(few)
        else:
            block = few[value].astype(np.float64)
        hit[part] = few["fdr"] <= fdr
        if value == _FOLD_CHANGE:
            # The ratio is then clip_value for every gene, so only hits get a colour.
            zero = (few["target_mean"] == 0.0) | (few["reference_mean"] == 0.0)
            block[zero & ~hit[part]] = np.nan
        if result.kept is not None:
            block = np.where(result.kept[part][:, genes], block, np.nan)
        cells[part] = block
    # An infinite change is drawn like the largest finite one.
    far = np.max(np.abs(cells[np.isfinite(cells)]), initial=1.0)
    return np.clip(cells[rows], -far, far), hit[rows]


def _order(rows: np.ndarray) -> np.ndarray:
    """Return the positions of rows in an order that puts similar ones side by side."""
    if len(rows) < 3:
        return np.arange(len(rows))
    from scipy.cluster.hierarchy import leaves_list, linkage

    tree = linkage(rows, "average", optimal_ordering=len(rows) <= _MOST_SORTED)
    return leaves_list(tree).astype(np.int64)


def _size(n_rows: int, n_genes: int) -> tuple[float, float]:
    """Return the size of a new figure in inches: room for names, up to a page."""
    return (
        float(np.clip(2.4 + _INCHES_PER_CELL * n_genes, 6.4, 14.0)),
        float(np.clip(1.6 + _INCHES_PER_CELL * n_rows, 4.8, 10.0)),
    )


def _limits(cells: np.ndarray, value: str) -> tuple[float, float]:
    """Return the values of the first and the last colour."""
    known = cells[~np.isnan(cells)]
    middle = _middle(value)
    if middle is None:
        low, high = (float(q) for q in np.quantile(known, (0.01, 0.99)))
        return (low, high) if low < high else (low, low + 1.0)
    sizes = np.abs(known - middle)
    far = float(np.quantile(sizes, 0.99)) or float(np.max(sizes)) or 1.0
    return middle - far, middle + far


def _paint(ax: Any, cells: np.ndarray, value: str, limits: tuple[float, float]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    # Red and blue, and the steps of cividis, are distinguishable with any kind of colour vision.
    name = "cividis" if _middle(value) is None else "RdBu_r"
    colours = colormaps[name].with_extremes(bad=_NO_VALUE)
    known = cells[~np.isnan(cells)]
    beyond = (bool((known < limits[0]).any()), bool((known > limits[1]).any()))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    wide = cells
    if cells.shape[0] > _MOST_PIXELS:  # thinning out rows must not blur columns
        wide = np.repeat(cells, max(1, round(cells.shape[0] / cells.shape[1])), axis=1)
    edges = (-0.5, cells.shape[1] - 0.5, cells.shape[0] - 0.5, -0.5)
    image = ax.imshow(wide, colours, Normalize(*limits), aspect="auto", extent=edges)
    bar = ax.figure.colorbar(
        image, ax=ax, extend=extend.get(beyond, "both"), aspect=30, shrink=0.7, pad=0.02
    )
    label = _LABELS.get(value, value)
    why = "a mean is 0" if value == _FOLD_CHANGE else "no value"
    bar.set_label(f"{label} (grey: {why})" if np.isnan(cells).any() else label)


def _marks(ax: Any, hit: np.ndarray, cells: np.ndarray, value: str) -> bool:
    """Mark every hit, by direction, if cells are large enough; return whether marks were drawn."""
    width, height = extent_in_points(ax)
    side = min(width / hit.shape[1], height / hit.shape[0])
    if side < 5.0 or not hit.any():
        return False
    size = min(0.4 * side, 5.0) ** 2
    middle = _middle(value)
    kinds = [(np.full(cells.shape, True), "o")]
    if middle is not None:
        kinds = [(cells >= middle, "^"), (cells < middle, "v")]
    for which, marker in kinds:
        row, column = np.nonzero(hit & which)
        ax.scatter(column, row, size, "black", marker=marker, edgecolors="white", linewidths=0.4)
    return True


def _names(ax: Any, rows: list[str], genes: list[object]) -> None:
    """Write names along both axes, or their number if they would be too small to read."""
    ax.tick_params(length=0)
    parts = (
        (ax.xaxis, [shown(name) for name in genes], count(len(genes), "gene")),
        (ax.yaxis, [shown(name) for name in rows], count(len(rows), "perturbation")),
    )
    ax.tick_params(axis="x", rotation=90)
    # Names take up room: the first pass fits them to the cells, the second to the room left.
    for again in (False, True):
        if again:
            lay_out(ax)
        for (axis, names, number), points in zip(parts, extent_in_points(ax), strict=True):
            size = fitting_size(points, len(names))
            if size is None:
                axis.set_ticks([])
                axis.set_label_text(f"{number} (too many to label)")
            else:
                axis.set_ticks(range(len(names)), labels=names, fontsize=size, **LITERAL)
