"""Two-sample t-test of the target sample against the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends.contract import KernelSet, Moments
from ..design import Design
from .base import ALTERNATIVES, Measured, StatisticalTest, check_choice, judged
from .student_t import survival


@dataclass(frozen=True)
class TTest(StatisticalTest):
    """``scipy.stats.ttest_ind(target, reference, ...)`` from means and squared deviations.

    Student's test with pooled variance, or Welch's with ``equal_var=False``.
    """

    equal_var: bool = True
    alternative: str = "two-sided"
    options: dict[str, Any] = field(default_factory=dict)

    metric = "t-test"
    needs_m2 = True

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> TTest | None:
        """The test, or None if scipy itself has to run it."""
        known = {"equal_var": True, "alternative": "two-sided"}
        if not set(options) <= set(known):
            return None
        given = {**known, **options}
        check_choice("equal_var", given["equal_var"], (True, False))
        check_choice("alternative", given["alternative"], ALTERNATIVES)
        return cls(**given, options=options)

    def measure(self, kernels: KernelSet, block: Any, genes: slice, design: Design) -> Measured:
        return ()

    def judge(
        self, measured: Measured, moments: Moments, design: Design
    ) -> tuple[np.ndarray, np.ndarray]:
        assert moments.m2 is not None
        return self.finish(moments.mean, moments.m2, design.n_cells)

    def finish(
        self, mean: np.ndarray, m2: np.ndarray, n_cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """t and its p-value, shape (n_targets, n_genes) each.

        Parameters
        ----------
        mean, m2 : numpy.ndarray, shape (n_targets + 1, n_genes)
            Means and sums of squared deviations, the reference first.
        n_cells : numpy.ndarray, shape (n_targets + 1,)
            Cells a group.
        """
        n_ref = float(n_cells[0])
        n_target = n_cells[1:, None].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.equal_var:
                df = n_target + n_ref - 2.0
                pooled = (m2[1:] + m2[0]) / df
                error = np.sqrt(pooled * (1.0 / n_target + 1.0 / n_ref))
            else:
                target = m2[1:] / (n_target - 1.0) / n_target
                reference = m2[0] / (n_ref - 1.0) / n_ref
                df = (target + reference) ** 2 / (
                    target**2 / (n_target - 1.0) + reference**2 / (n_ref - 1.0)
                )
                df = np.where(np.isnan(df), 1.0, df)  # both variances zero: any df will do
                error = np.sqrt(target + reference)
            t = (mean[1:] - mean[0]) / error
        if self.alternative == "less":
            p_value = survival(df, -t)
        elif self.alternative == "greater":
            p_value = survival(df, t)
        else:
            p_value = np.abs(t)
            survival(df, p_value, out=p_value)
            p_value *= 2.0
        return judged(t, p_value)
