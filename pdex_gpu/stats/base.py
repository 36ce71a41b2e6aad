"""The tests by name, and what a test is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ..backends.contract import KernelSet, Moments
from ..design import Design
from ..errors import OptionError, unknown

METRICS = ("wilcoxon", "anderson", "t-test")

ALTERNATIVES = ("two-sided", "less", "greater")

#: Arrays of shape (n_targets, n_genes): genes can be judged a few at a time.
Measured = tuple[np.ndarray, ...]


class StatisticalTest(ABC):
    """A two-sample test of every (target, gene) pair.

    Attributes
    ----------
    metric : str
    options : dict
        Options as given, for provenance.
    needs_m2 : bool
        Whether `finish` uses second moments.
    why_reference : str or None
        Why the compiled kernels cannot run it, if only the reference kernel set can.
    refuses_nonfinite : bool
        Whether NaN and infinity are refused.
    """

    metric: str
    options: dict[str, Any]
    needs_m2: bool = False
    why_reference: str | None = None
    refuses_nonfinite: bool = True

    @abstractmethod
    def measure(self, kernels: KernelSet, block: Any, genes: slice, design: Design) -> Measured:
        """What `judge` needs from the kernels beside moments."""

    @abstractmethod
    def judge(
        self, measured: Measured, moments: Moments, design: Design
    ) -> tuple[np.ndarray, np.ndarray]:
        """Statistic and p-value, each shape (n_targets, n_genes), float64.

        A pair that cannot be judged has p-value 1 (and statistic NaN unless the test defines it).
        """


def make_test(metric: str, options: dict[str, Any]) -> StatisticalTest:
    """The test `metric` with options named as scipy names them.

    Raises
    ------
    OptionError
        If the metric, an option or an option's value does not exist.
    """
    from .anderson import AndersonDarling
    from .scipy_pairs import ScipyPairs
    from .t_test import TTest
    from .wilcoxon import Wilcoxon

    if metric not in METRICS:
        raise OptionError(unknown("metric", metric, METRICS))
    test: StatisticalTest | None
    if metric == "wilcoxon":
        test = Wilcoxon.from_options(options)
    elif metric == "anderson":
        test = AndersonDarling.from_options(options)
    else:
        test = TTest.from_options(options)
    return test or ScipyPairs(metric, options)


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise OptionError unless `value` is one of `choices`."""
    if value not in choices:
        raise OptionError(unknown(f"value for {name}:", value, choices))


def judged(statistic: np.ndarray, p_value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of pairs that could not be judged become 1, as in pdex."""
    p_value[np.isnan(p_value)] = 1.0
    return statistic, p_value
