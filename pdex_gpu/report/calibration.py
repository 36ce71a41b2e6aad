"""The calibration section of the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..calibration.distributions import LEVELS
from ..calibration.result import Calibration
from ..utils.formats import number_text
from .encode import label


def calibration_part(calibration: Calibration) -> dict[str, Any]:
    """Return the numbers and texts of a calibration as JSON values; NaN becomes null.

    Returns
    -------
    dict
        ``text``, ``facts`` (names and text), ``expected``, ``observed``, ``low``, ``high`` (the QQ
        plot with its 95 % band) and ``histogram``.
    """
    found, total, q = calibration.summary(), calibration.total, calibration.quantiles
    low, high = q.band()
    facts = [
        ("lambda", f"{_text(total.inflation)} (ideal: 1)"),
        *(
            (f"lambda, {name} expression", _text(part.inflation))
            for name, part in zip(
                ("low", "middle", "high"), calibration.by_expression, strict=True
            )
        ),
        *(
            (f"p ≤ {level:g}", f"{_text(100 * rate)} % of tests")
            for level, rate in zip(LEVELS, total.rates, strict=True)
        ),
        (
            "False positives",
            f"{found['n_false_positives']:,} tests with FDR ≤ {calibration.alpha:g}, in "
            f"{np.count_nonzero(calibration.n_false_positives):,} of {found['n_groups']:,} mock "
            "perturbations",
        ),
        ("Tests", f"{total.n_tests:,}; {found['n_uninformative']:,} uninformative"),
        ("Test", label(calibration.metric)),
        ("Control cells", f"{found['n_control_cells']:,} of {label(calibration.reference)}"),
        ("Random splits", f"{found['n_repeats']:,}"),
    ]  # fmt: skip
    return {
        "lambda": _number(total.inflation),
        "facts": facts,
        "expected": _numbers(q.expected),
        "observed": _numbers(q.observed),
        "low": _numbers(low),
        "high": _numbers(high),
        "histogram": total.histogram.tolist(),
    }


def _text(value: float) -> str:
    """Format a number with three decimals."""
    return number_text(value, ".3f")


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(float(value)) for value in values]
