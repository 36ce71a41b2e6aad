"""The calibration section of the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..calibration.distributions import LEVELS
from ..calibration.parts import Part
from ..calibration.result import Calibration
from ..utils.formats import number_text
from .encode import label


def calibration_part(calibration: Calibration) -> dict[str, Any]:
    """Return the numbers and texts of a calibration as JSON values; NaN becomes null.

    Returns
    -------
    dict
        ``head`` and ``rows`` (the table of observed over expected p-values; a cell is a text and
        whether p-values are too frequent), ``checked`` (a sentence), ``kind`` (of the p-values in
        the plot), ``expected``, ``observed``, ``low``, ``high`` (the QQ plot with its 95 % band),
        and ``facts`` (names and text).
    """
    found, several = calibration.summary(), len(calibration.kinds) > 1
    first = calibration.kinds[0]
    q = first.quantiles
    low, high = q.band()
    head = [
        "",
        *(["p-values"] if several else []),
        "tests",
        *(f"p ≤ {level:g}" for level in LEVELS),
        "false hits per group",
    ]
    facts = [
        ("Test", label(calibration.metric)),
        ("P-values", ", ".join(judged.kind for judged in calibration.kinds)),
        ("Mock perturbations", f"{found['n_groups']:,}, of {_range(calibration.n_cells)} cells"),
        ("Control cells", f"{found['n_control_cells']:,} of {label(calibration.reference)}"),
        ("False hits", f"FDR ≤ {calibration.alpha:g}, mean per mock perturbation"),
        ("Random splits", f"{found['n_repeats']:,}"),
        ("Units", label(calibration.units) if calibration.units else "none: cells one by one"),
        ("Uninformative tests", f"{found['n_uninformative']:,}, left out"),
        *(
            (
                f"lambda{f', {judged.kind}' if several else ''}",
                f"{number_text(judged.total.inflation, '.3f')} (ideal: 1; of middle p-values only)",
            )
            for judged in calibration.kinds
        ),
    ]
    return {
        "head": head,
        "rows": [_row(part, several) for part in calibration.parts()],
        "checked": label(calibration.checked),
        "kind": first.kind,
        "facts": facts,
        "expected": _numbers(q.expected),
        "observed": _numbers(q.observed),
        "low": _numbers(low),
        "high": _numbers(high),
    }


def _row(part: Part, several: bool) -> list[tuple[str, bool]]:
    plain = [part.title, *([part.kind] if several else []), f"{part.n_tests:,}"]
    ratios = [
        (f"({text})" if few and part.n_tests else text, off)
        for text, few, off in zip(
            (number_text(ratio, ".2f") for ratio in part.excess),
            part.few,
            part.too_many,
            strict=True,
        )
    ]
    false_positives = number_text(part.false_positives_per_group, ".3g")
    return [*((text, False) for text in plain), *ratios, (false_positives, False)]


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(float(value)) for value in values]
