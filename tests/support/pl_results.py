"""Results that pictures are drawn of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pdex_gpu import DEResult

#: Names that a careless program would read as markup, as several lines or as a warning.
ODD_NAMES = (
    "a,b;c",
    'say "x"',
    "<script>alert(1)</script>",
    "\N{DNA DOUBLE HELIX} gene",
    "$x_1^2$",
    "_under^\\frac{a}{b}\\",
    "$$",
    "L" * 200,
    "two\nlines\tand a tab",
    "",
    "日本語",
    "%d {0}",
    "lone \ud800 surrogate",
)


def objects(names: Iterable[object]) -> np.ndarray:
    """A one-dimensional array of objects."""
    return np.fromiter(names, dtype=object)


def result(
    n_targets: int = 25,
    n_genes: int = 60,
    *,
    seed: int = 0,
    targets: Iterable[object] | None = None,
    features: Iterable[object] | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> DEResult:
    """A result with effects in a tenth of the pairs; `columns` replaces some of its columns.

    Perturbations are named after the first genes.
    """
    rng = np.random.default_rng(seed)
    shape = (n_targets, n_genes)
    effect = np.where(rng.random(shape) < 0.1, rng.normal(0.0, 1.5, shape), 0.0)
    change = np.exp2(effect + rng.normal(0.0, 0.1, shape))
    reference_mean = np.tile(rng.lognormal(0.0, 1.0, n_genes), (n_targets, 1))
    p_value = np.where(effect == 0.0, rng.random(shape), 10.0 ** (-12.0 * np.abs(effect)))
    values = {
        "target_mean": reference_mean * change,
        "reference_mean": reference_mean,
        "percent_change": change - 1.0,
        "fold_change": change,
        "p_value": p_value,
        "statistic": p_value,
        "fdr": np.minimum(1.0, 20.0 * p_value),
    } | dict(columns or {})
    if options.get("kept") is not None:
        values = {name: np.where(options["kept"], found, np.nan) for name, found in values.items()}
    genes = [f"GENE{g:05d}" for g in range(n_genes)] if features is None else features
    names = [f"GENE{t:05d}" for t in range(n_targets)] if targets is None else targets
    options = {"provenance": {}, "references": objects(["control"] * n_targets)} | options
    return DEResult(objects(names), features=objects(genes), columns=values, **options)


def constant(value: float, n_targets: int = 25, n_genes: int = 60) -> dict[str, np.ndarray]:
    """Columns that are all of one value, to replace those of :func:`result`."""
    names = ("target_mean", "reference_mean", "percent_change", "fold_change", "p_value")
    return {name: np.full((n_targets, n_genes), value) for name in (*names, "statistic", "fdr")}
