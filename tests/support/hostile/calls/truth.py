"""What a call has to answer: rows read off the labels, numbers by scipy and fractions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from .draw import Case

POOLED = ("rest", "perturbed")


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes
    ----------
    target : object
    references : tuple
        Labels of the cells on the other side.
    level : tuple
        Of each level column.
    strata : tuple of (numpy.ndarray, numpy.ndarray)
        Cells of target and reference, in each stratum that has both.
    """

    target: Any
    references: tuple[Any, ...]
    level: tuple[Any, ...]
    strata: tuple[tuple[np.ndarray, np.ndarray], ...]

    def sides(self, gene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of target and reference."""
        x, y = zip(*self.strata, strict=True)
        return gene[np.concatenate(x)], gene[np.concatenate(y)]

    @property
    def sizes(self) -> tuple[int, int]:
        return sum(len(x) for x, _ in self.strata), sum(len(y) for _, y in self.strata)


def plain(label: Any) -> Any:
    """A label as a Python object."""
    return label.item() if isinstance(label, np.generic) else label


def labels_of(obs: pd.DataFrame, column: str) -> list[Any]:
    """The label of each cell, None where it is missing."""
    return [None if pd.isna(x) else plain(x) for x in obs[column].tolist()]


def rows_of(case: Case) -> list[Row]:
    """All rows of a case, those left out for too few cells excepted."""
    if case.guides is not None:
        return list(_rows_of_guides(case))
    labels = labels_of(case.obs, case.groupby[0])
    levels = list(zip(*(labels_of(case.obs, c) for c in case.groupby[1:]), strict=True))
    levels = levels or [()] * len(labels)
    stratum = case.options.get("strata")
    strata = [None] * len(labels) if stratum is None else labels_of(case.obs, stratum)
    found = []
    for target, references in _compared(case, labels):
        for level in dict.fromkeys(levels):
            parts = []
            for value in dict.fromkeys(strata):
                here = [
                    i
                    for i, label in enumerate(labels)
                    if label is not None and levels[i] == level and strata[i] == value
                ]
                x = [i for i in here if labels[i] == target]
                y = [
                    i
                    for i in here
                    if labels[i] in references
                    and (labels[i] != target or case.options["comparison"] not in POOLED)
                ]
                if x and y:
                    parts.append((np.array(x), np.array(y)))
            row = Row(target, references, level, tuple(parts))
            if parts and min(row.sizes) >= case.options.get("min_cells", 1):
                found.append(row)
    return found


def _rows_of_guides(case: Case) -> Iterator[Row]:
    """A cell that carries both guides counts on both sides."""
    assert case.guides is not None
    reference = case.options.get("reference")
    for target in case.guides:
        carried = case.guides[target].to_numpy()
        others = ~carried if reference is None else case.guides[reference].to_numpy()
        parts = np.flatnonzero(carried), np.flatnonzero(others)
        row = Row(target, (reference,), (), (parts,))
        if target != reference and min(row.sizes) >= max(case.options.get("min_cells", 1), 1):
            yield row


def _compared(case: Case, labels: list[Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    options, present = case.options, list(dict.fromkeys(x for x in labels if x is not None))
    comparison = options["comparison"]
    if comparison == "pairs":
        for target, reference in dict.fromkeys(options["pairs"]):
            yield target, (reference,)
        return
    reference = options.get("reference")
    references = reference if isinstance(reference, list) else [reference]
    references = [] if comparison == "rest" else references
    if "groups" in options:
        targets = options["groups"]
    else:
        targets = [x for x in present if x not in references]
    for target in targets:
        if comparison == "each_reference":
            yield from ((target, (r,)) for r in references if r != target)
        elif target in references:
            continue
        elif comparison in POOLED:
            yield target, tuple(x for x in present if x not in (*references, target))
        else:
            yield target, tuple(references)


# --- one comparison of one gene ----------------------------------------------------------------


def expected(case: Case, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Columns of a row and gene that is not stratified; those that the truth here knows.

    Beside these: ``slack_of_means``, how far a difference of means may be off where the means are
    much larger, and ``error``, the standard error that t is made with.
    """
    options = case.options
    if options.get("nan_policy") == "omit":
        x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    if not len(x) or not len(y):
        return {"p_value": 1.0, "statistic": math.nan}
    n, m = len(x), len(y)
    found = _cells(x, y)
    test = {"wilcoxon": _wilcoxon, "t-test": _t, "anderson": _anderson, "ks": _ks}
    found |= test[options["metric"]](options, x, y)
    if _conditional(options) and found.get("p_value") != 1.0:
        found.pop("p_value", None)
    if found.get("p_value", 1.0) > 1e-290 and options["metric"] != "anderson":
        found["log10_p"] = math.log10(found["p_value"]) if "p_value" in found else math.nan
    if "p_value" not in found:
        found.pop("log10_p", None)
    u = _u(x, y)
    found |= {"auroc": u / (n * m), "rank_biserial": 2.0 * u / (n * m) - 1.0}
    if options.get("is_log1p") is False:
        found |= {"target_mean": float(_mean(x)), "reference_mean": float(_mean(y))}
    return found


def _conditional(options: dict[str, Any]) -> bool:
    """Whether p-values are conditional, of which the truth here knows only those that are 1."""
    of_the_limit = {
        "continuity": True, "tie_correction": True, "method": "auto", "variance": "pooled",
        "variant": "midrank",
    }  # fmt: skip
    chosen = any(options.get(name, value) != value for name, value in of_the_limit.items())
    return "p_values" not in options and not chosen


def _ranks(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Small whole numbers in the order of the values, however large these are."""
    places = np.unique(np.concatenate([x, y]), return_inverse=True)[1].astype(float)
    return places[: len(x)], places[len(x) :]


def _u(x: np.ndarray, y: np.ndarray) -> float:
    a, b = _ranks(x, y)
    return float((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum())


def _exactly(values: np.ndarray) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]


def _mean(values: np.ndarray) -> Fraction:
    return sum(_exactly(values), Fraction(0)) / len(values)


def _squares(values: np.ndarray) -> Fraction:
    mean = _mean(values)
    return sum(((v - mean) ** 2 for v in _exactly(values)), Fraction(0))


def _root(square: Fraction) -> float:
    """Square root of a fraction whose value may be beyond float64."""
    if square == 0:
        return 0.0
    scale = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    reduced = square / Fraction(2) ** (2 * scale)
    try:
        return math.ldexp(math.sqrt(float(reduced)), scale)
    except OverflowError:
        return math.inf


def _cells(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {}
    for side, values in (("target", x), ("reference", y)):
        expressed = int(np.count_nonzero(values))
        found[f"{side}_n_cells"] = len(values)
        found[f"{side}_n_expressed"] = expressed
        found[f"{side}_fraction"] = expressed / len(values)
    difference = _mean(x) - _mean(y)
    found["mean_difference"] = _float(difference)
    # Means are float64: of large values that differ by little, rounding is part of what is left.
    largest = max(abs(v) for v in (*_exactly(x), *_exactly(y)))
    found["slack_of_means"] = 2.0**-50 * _float(largest)
    n, m = len(x), len(y)
    squares = _squares(x) + _squares(y)
    found["spread"] = _root(squares / max(n + m - 2, 1))
    if n + m > 2 and squares:
        found["cohens_d"] = _signed_root(difference, difference**2 * (n + m - 2) / squares)
    else:
        found["cohens_d"] = math.nan
    return found


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _signed_root(sign: Fraction, square: Fraction) -> float:
    return math.copysign(_root(square), -1 if sign < 0 else 1)


def _wilcoxon(options: dict[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    a, b = _ranks(x, y)
    n, m = len(a), len(b)
    alternative = options.get("alternative", "two-sided")
    method = options.get("method", "auto")
    continuity = options.get("continuity", True)
    u = _u(x, y)
    counts = np.unique(np.concatenate([a, b]), return_counts=True)[1].astype(float)
    ties = float((counts**3 - counts).sum())
    exact = method == "exact" or (method == "auto" and min(n, m) <= 8 and not ties)
    if exact:
        found = stats.mannwhitneyu(a, b, alternative=alternative, method="exact")
        return {"statistic": u, "p_value": float(found.pvalue)}
    total = n + m
    correction = ties / (total * (total - 1)) if options.get("tie_correction", True) else 0.0
    spread = math.sqrt(n * m / 12 * (total + 1 - correction)) if total > 1 else 0.0
    if len(counts) == 1 and options.get("tie_correction", True):
        return {"p_value": 1.0, "statistic": u}
    excess = {"less": n * m / 2 - u, "greater": u - n * m / 2}.get(alternative, abs(u - n * m / 2))
    z = (excess - 0.5 * continuity) / spread
    p = stats.norm.sf(z) * (2.0 if alternative == "two-sided" else 1.0)
    return {"statistic": u, "p_value": float(min(p, 1.0))}


def _t(options: dict[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    n, m = len(x), len(y)
    kind = options.get("variance", "pooled")
    difference, a, b = _mean(x) - _mean(y), _squares(x), _squares(y)
    if kind == "pooled":
        if n + m < 3:
            return {"p_value": 1.0, "statistic": math.nan}
        error, df = (a + b) / (n + m - 2) * Fraction(n + m, n * m), float(n + m - 2)
    else:
        if n < 2 or m < 2:
            return {"p_value": 1.0, "statistic": math.nan}
        u, v = a / (n - 1) / n, b / (m - 1) / (n if kind == "overestimated" else m)
        w = n if kind == "overestimated" else m
        error = u + v
        df = float(error**2 / (u**2 / (n - 1) + v**2 / (w - 1))) if error else math.nan
    if error == 0:
        if difference == 0:
            return {"p_value": 1.0, "statistic": math.nan}
        return {}  # infinite t: by what rounding leaves of it, in scipy as well
    t = _signed_root(difference, difference**2 / error)
    alternative = options.get("alternative", "two-sided")
    if alternative == "two-sided":
        p = float(2.0 * special.stdtr(df, -abs(t)))
    else:
        p = float(special.stdtr(df, t if alternative == "less" else -t))
    return {"statistic": t, "p_value": p, "error": _root(error)}


def _anderson(options: dict[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    a, b = _ranks(x, y)
    if len(np.unique(np.concatenate([a, b]))) < 2:
        return {"p_value": 1.0, "statistic": math.nan}
    if min(len(a), len(b)) < 2:
        return {}
    import warnings

    variant = options.get("variant", "midrank")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found = stats.anderson_ksamp([a, b], variant=variant)
        except ValueError:
            return {}
    result = {"statistic": float(found.statistic)}
    if options.get("p_values") == "interpolated":
        result["p_value"] = float(found.pvalue)
    return result if math.isfinite(result["statistic"]) else {}


def _ks(options: dict[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    a, b = _ranks(x, y)
    if len(np.unique(np.concatenate([a, b]))) < 2:
        return {"p_value": 1.0}
    alternative = options.get("alternative", "two-sided")
    # scipy's "greater" is that the first sample's distribution function lies above.
    values = np.unique(np.concatenate([a, b]))
    f = np.searchsorted(np.sort(a), values, side="right") / len(a)
    g = np.searchsorted(np.sort(b), values, side="right") / len(b)
    d = {"greater": (f - g).max(), "less": (g - f).max()}.get(alternative, abs(f - g).max())
    return {"statistic": float(max(d, 0.0))}
