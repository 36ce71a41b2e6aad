"""The tests by name, and what a test is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.contract import KernelSet
from ..checks import check_choice
from ..design import Contrast
from ..errors import OptionError
from .options import check_options
from .samples import Sides

METRICS = ("wilcoxon", "anderson", "t-test", "ks")

ALTERNATIVES = ("two-sided", "less", "greater")

NAN_POLICIES = ("raise", "omit", "propagate")

#: Arrays of shape (n_targets, n_genes): genes can be judged a few at a time.
Measured = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Judged:
    """What a test says of every (target, gene), each shape (n_targets, n_genes), float64.

    Attributes
    ----------
    statistic : numpy.ndarray
        NaN where a pair cannot be judged, unless the test defines it.
    p_value : numpy.ndarray
        1 where a pair cannot be judged.
    z : numpy.ndarray or None
        Signed standard normal deviate, if it was asked for.
    log10_p : numpy.ndarray or None
        Logarithm of the p-value, also where that underflows, if it was asked for.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    z: np.ndarray | None = None
    log10_p: np.ndarray | None = None


@dataclass(frozen=True)
class Stratum:
    """What is known of the comparisons within a stratum.

    Attributes
    ----------
    measured : tuple of numpy.ndarray
    sides : Sides
    rows : numpy.ndarray, shape (n_targets,), int64
        Row of the result that each target belongs to, -1 for none.
    """

    measured: Measured
    sides: Sides
    rows: np.ndarray


class StatisticalTest(ABC):
    """A two-sample test of every (target, gene) pair.

    Attributes
    ----------
    metric : str
    options : dict
        Options as given, for provenance.
    needs_m2 : bool
        Whether `judge` uses second moments.
    has_z : bool
        Whether it has a standard normal deviate.
    has_log10_p : bool
        Whether it has the logarithm of p-values that underflow.
    nan_policy : {"raise", "omit", "propagate"}
        What NaN does: it is refused; the cell is left out at that gene; or comparisons that it
        takes part in cannot be judged.
    """

    metric: str
    options: dict[str, Any]
    needs_m2: bool = False
    has_z: bool = False
    has_log10_p: bool = True
    nan_policy: str = "raise"

    @property
    def why_reference(self) -> str | None:
        """Why the compiled kernels cannot run it, if only the reference kernel set can."""
        if self.nan_policy == "raise":
            return None
        return f"nan_policy={self.nan_policy!r}: no compiled kernel does this"

    @property
    def refuses_nan(self) -> bool:
        """Whether NaN is refused; infinity always is."""
        return self.nan_policy == "raise"

    @abstractmethod
    def measure(self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast) -> Measured:
        """What `judge` needs from the kernels beside moments."""

    @abstractmethod
    def judge(
        self, measured: Measured, sides: Sides, *, z: bool = False, log10_p: bool = False
    ) -> Judged:
        """Statistic and p-value, and what else is asked for."""

    def judge_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> Judged:
        """One statistic and p-value a row, from all its strata.

        Raises
        ------
        OptionError
            If the test has no stratified form.
        """
        raise OptionError(
            f"metric={self.metric!r} has no stratified form with these options, so strata= cannot "
            "be given. Use metric='wilcoxon' (van Elteren), 't-test' or 'anderson'."
        )


def make_test(metric: str, options: dict[str, Any], call: Iterable[str] = ()) -> StatisticalTest:
    """The test `metric` with options named as scipy names them.

    `call` are the parameters of the call that took them, for messages.

    Raises
    ------
    OptionError
        If the metric, an option or an option's value does not exist.
    """
    from .anderson import AndersonDarling
    from .kolmogorov_smirnov import KolmogorovSmirnov
    from .scipy_pairs import ScipyPairs
    from .t_test import TTest
    from .wilcoxon import Wilcoxon

    check_choice("metric", metric, METRICS)
    check_options(metric, options, call)
    test: StatisticalTest | None
    if metric == "wilcoxon":
        test = Wilcoxon.from_options(options)
    elif metric == "anderson":
        test = AndersonDarling.from_options(options)
    elif metric == "ks":
        test = KolmogorovSmirnov.from_options(options)
    else:
        test = TTest.from_options(options)
    return test or ScipyPairs(metric, options)


def nan_policy_of(options: dict[str, Any]) -> str:
    """The option nan_policy=, ``"raise"`` by default; raises OptionError if it makes no sense."""
    policy = options.get("nan_policy", "raise")
    check_choice("value for nan_policy:", policy, NAN_POLICIES)
    return str(policy)


def judged(
    statistic: np.ndarray,
    p_value: np.ndarray,
    z: np.ndarray | None = None,
    log10_p: np.ndarray | None = None,
) -> Judged:
    """P-values of pairs that could not be judged become 1, as in pdex."""
    p_value[np.isnan(p_value)] = 1.0
    if log10_p is not None:
        log10_p[np.isnan(log10_p)] = 0.0
    return Judged(statistic, p_value, z, log10_p)
