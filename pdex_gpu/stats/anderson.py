"""Two-sample Anderson-Darling test of the target sample against the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..backends.contract import KernelSet, Moments
from ..design import Design
from .base import Measured, StatisticalTest, judged

# Critical values for two samples, Scholz and Stephens 1987, table 2: b0 + b1 + b2.
_CRITICAL = (
    np.array([0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085])
    + np.array([-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615])
    + np.array([-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154])
)
_LEVEL = np.array([0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001])


@dataclass(frozen=True)
class AndersonDarling(StatisticalTest):
    """``scipy.stats.anderson_ksamp([target, reference])``, midrank version.

    The statistic is normalised as there; the p-value is interpolated in the table of Scholz and
    Stephens (1987) and so lies in [0.001, 0.25].
    """

    options: dict[str, Any] = field(default_factory=dict)

    metric = "anderson"

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> AndersonDarling | None:
        """The test, or None if scipy itself has to run it."""
        default = {"midrank": True, "variant": "midrank", "method": None}
        if any(k not in default or options[k] != default[k] for k in options):
            return None
        return cls(options=options)

    def measure(self, kernels: KernelSet, block: Any, genes: slice, design: Design) -> Measured:
        return (kernels.anderson_darling(block, genes, design),)

    def judge(
        self, measured: Measured, moments: Moments, design: Design
    ) -> tuple[np.ndarray, np.ndarray]:
        (a2,) = measured
        return self.finish(a2, design.n_cells)

    def finish(self, a2: np.ndarray, n_cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised statistic and p-value, shape (n_targets, n_genes) each.

        Parameters
        ----------
        a2 : numpy.ndarray, shape (n_targets, n_genes)
            A2 of eq. 7, NaN where it is undefined.
        n_cells : numpy.ndarray, shape (n_targets + 1,)
            Cells a group, the reference first.
        """
        n_ref = int(n_cells[0])
        sigma = np.array([_sigma(n_ref, n) for n in n_cells[1:].tolist()])
        statistic = (a2 - 1.0) / sigma[:, None]
        fit = np.polyfit(_CRITICAL, np.log(_LEVEL), 2)
        inside = np.clip(statistic, _CRITICAL[0], _CRITICAL[-1])
        p_value = np.exp(np.polyval(fit, inside))
        p_value[statistic < _CRITICAL[0]] = _LEVEL[0]
        p_value[statistic > _CRITICAL[-1]] = _LEVEL[-1]
        return judged(statistic, p_value)


@lru_cache(maxsize=65536)
def _sigma(n_ref: int, n_target: int) -> float:
    """Standard deviation of A2 under the null, eq. 4 for k = 2; NaN below four cells."""
    n = n_ref + n_target
    if n < 4:
        return math.nan
    inverse = 1.0 / n_ref + 1.0 / n_target
    sums, g = _harmonic(n)
    h = sums + 1.0
    a = (4 * g - 6) + (10 - 6 * g) * inverse
    b = (2 * g - 4) * 4 + 16 * h + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * inverse + 4 * h
    d = (2 * h + 6) * 4 - 8 * h
    variance = (a * n**3 + b * n**2 + c * n + d) / ((n - 1.0) * (n - 2.0) * (n - 3.0))
    return math.sqrt(variance)


@lru_cache(maxsize=65536)
def _harmonic(n: int) -> tuple[float, float]:
    """``sum 1/i`` for i = 2 ... n - 1, and the double sum g of eq. 4."""
    sums = (1.0 / np.arange(n - 1, 1, -1)).cumsum()
    return float(sums[-1]), float((sums / np.arange(2, n)).sum())
