"""The genes of a comparison, the strongest first, with the columns that are looked at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..design.naming import level_columns
from .effect import effect_of, strongest_first

if TYPE_CHECKING:
    from .base import Result

# What is looked at first, after the effect; other columns follow in the order of the result.
_FIRST = ("p_value", "fdr", "target_mean", "reference_mean", "target_n_cells", "reference_n_cells")


def strongest(result: Result, t: int, n: int) -> dict[str, np.ndarray]:
    """Return labels and columns of the `n` genes of comparison `t` with the smallest p-values.

    Ties in p are broken by `log10_p` where the result has it, then by the larger effect, then by
    matrix order. Pairs that are not kept are left out.

    Returns
    -------
    dict of str to numpy.ndarray, shape (n or fewer,)
        Labels (object), then ``log2_fold_change`` (computed if the result lacks it) or, where
        values are negative, ``mean_difference``, then p-value, FDR, means and numbers of cells, and
        all other columns.
    """
    effect = effect_of(result)
    values = result.row(t, result.columns)
    p_keys = [values[name] for name in ("p_value", "log10_p") if name in values]
    sizes = effect.sizes(values)
    order = strongest_first(tuple(p_keys), sizes)
    if result.kept is not None:
        order = order[result.kept[t, order]]
    order = order[:n]
    labels = {"target": result.targets[t], "reference": result.references[t]}
    labels |= {name: levels[t] for name, levels in level_columns(result.within).items()}
    found: dict[str, np.ndarray] = {}
    for name, label in labels.items():
        found[name] = np.empty(len(order), object)
        found[name][:] = [label] * len(order)  # a label may itself be a sequence
    found["feature"] = result.features[order]
    if result.symbols is not None:
        found["symbol"] = result.symbols[order]
    values = {effect.scaled_column: sizes} | values
    names = [effect.scaled_column, *(name for name in _FIRST if name in values)]
    names += [name for name in values if name not in names]
    return found | {name: values[name][order] for name in names}
