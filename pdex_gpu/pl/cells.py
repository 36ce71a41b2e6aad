"""Values of pairs of comparisons and genes, as colours need them: read, without infinities."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..columns.registry import centre_of
from ..errors import OptionError, unknown
from ..results.base import Result
from ..results.effect import DIFFERENCE, RATIO, direction
from ..results.plot_values import LARGEST, minus_log10_p, p_columns
from .axes import palette

FOLD_CHANGE = RATIO.scaled_column
SIGNED = "signed_log10_p"
EFFECTS = {effect.scaled_column: effect for effect in (RATIO, DIFFERENCE)}


def middle_of(value: str) -> float | None:
    """Return the value that means no change: values with it are shown in two colours."""
    return 0.0 if value == SIGNED else centre_of(value)


def columns_of(result: Result, value: object) -> list[str]:
    """Return the columns to read for a value."""
    if not isinstance(value, str):
        raise _unknown_column(value, result)
    if value == SIGNED:
        return [*p_columns(result), "target_mean", "reference_mean"]
    if value in result.columns:
        means = ["target_mean", "reference_mean"] if value == FOLD_CHANGE else []
        return [value, *means]
    if value in EFFECTS:
        return ["fold_change", "target_mean", "reference_mean"]
    raise _unknown_column(value, result)


def _unknown_column(value: object, result: Result) -> OptionError:
    return OptionError(unknown("column", value, (*EFFECTS, SIGNED, *result.columns)))


def read_cells(
    result: Result, rows: np.ndarray, genes: np.ndarray, value: str, columns: list[str], fdr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Read values and hits, shape (n_rows, n_genes), in the order of `rows` and `genes`."""
    cells = np.full((len(result.targets), len(genes)), np.nan)
    hit = np.full(cells.shape, False)
    for part, values in result.blocks(list(dict.fromkeys([*columns, "fdr"]))):
        few = {name: found[:, genes] for name, found in values.items()}
        if value == SIGNED:
            block = np.minimum(minus_log10_p(few), LARGEST) * direction(few)
        elif value in EFFECTS and value not in columns:
            block = EFFECTS[value].sizes(few)
        else:
            block = few[value].astype(np.float64)
        hit[part] = few["fdr"] <= fdr
        if value == FOLD_CHANGE:
            # The ratio is then clip_value for every gene, so only hits get a colour.
            zero = (few["target_mean"] == 0.0) | (few["reference_mean"] == 0.0)
            block[zero & ~hit[part]] = np.nan
        if result.kept is not None:
            block = np.where(result.kept[part][:, genes], block, np.nan)
        cells[part] = block
    # An infinite change is drawn like the largest finite one.
    far = np.max(np.abs(cells[np.isfinite(cells)]), initial=1.0)
    return np.clip(cells[rows], -far, far), hit[rows]


def limits_of(cells: np.ndarray, value: str) -> tuple[float, float]:
    """Return the values of the first and the last colour."""
    known = cells[~np.isnan(cells)]
    middle = middle_of(value)
    if middle is None:
        low, high = (float(q) for q in np.quantile(known, (0.01, 0.99)))
        return (low, high) if low < high else (low, low + 1.0)
    sizes = np.abs(known - middle)
    far = float(np.quantile(sizes, 0.99)) or float(np.max(sizes)) or 1.0
    return middle - far, middle + far


def colours_around_zero(ax: Any) -> Any:
    """Return two colours for signed values, with small ones close to the background."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    colours = palette(ax)
    if not colours.is_dark:
        return colormaps["RdBu_r"]
    return LinearSegmentedColormap.from_list("on_dark", [colours.down, "0.2", colours.up])


def color_bar(drawn: Any, cells: np.ndarray, limits: tuple[float, float], label: str) -> None:
    """Draw the color bar of what is drawn, pointed where cells are beyond the limits."""
    beyond = (bool((cells < limits[0]).any()), bool((cells > limits[1]).any()))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    bar = drawn.figure.colorbar(
        drawn, ax=drawn.axes, extend=extend.get(beyond, "both"), aspect=30, shrink=0.7, pad=0.02
    )
    bar.set_label(label)
