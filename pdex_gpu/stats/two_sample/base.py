"""The base class of the tests, and the lookup of tests by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends.contract import KernelSet
from ...design.contrasts import Contrast
from ...errors import OptionError
from ...utils.checks import check_choice
from ..samples import Sides

ALTERNATIVES = ("two-sided", "less", "greater")

NAN_POLICIES = ("raise", "omit", "propagate")

#: Arrays of shape (n_targets, n_genes), so that genes can be judged a few at a time.
Measured = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Judged:
    """The results of a test for every (target, gene) pair; shape (n_targets, n_genes), float64.

    Attributes
    ----------
    statistic : numpy.ndarray
        NaN where a pair cannot be judged, unless the test defines a value.
    p_value : numpy.ndarray
        1 where a pair cannot be judged.
    z : numpy.ndarray or None
        Signed standard normal deviate, if requested.
    log10_p : numpy.ndarray or None
        log10 of the p-value, also where the p-value underflows, if requested.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    z: np.ndarray | None = None
    log10_p: np.ndarray | None = None


@dataclass(frozen=True)
class Stratum:
    """The data of the comparisons within one stratum.

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
        Whether the test has a standard normal deviate.
    has_log10_p : bool
        Whether the test has log10 of p-values that underflow.
    nan_policy : {"raise", "omit", "propagate"}
        Treatment of NaN: raise an error, leave the cell out for that gene, or do not judge the
        comparisons that involve it.
    """

    metric: str
    options: dict[str, Any]
    needs_m2: bool = False
    has_z: bool = False
    has_log10_p: bool = True
    nan_policy: str = "raise"

    @property
    def why_numpy(self) -> str | None:
        """Return why the compiled kernels cannot run the test; None if they can."""
        if self.nan_policy == "raise":
            return None
        return f"nan_policy={self.nan_policy!r}: no compiled kernel supports this"

    @property
    def refuses_nan(self) -> bool:
        """Return whether NaN is refused; infinity always is."""
        return self.nan_policy == "raise"

    @abstractmethod
    def measure(self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast) -> Measured:
        """Compute what `judge` needs from the kernels in addition to moments."""

    @abstractmethod
    def judge(
        self, measured: Measured, sides: Sides, *, z: bool = False, log10_p: bool = False
    ) -> Judged:
        """Return the statistic, the p-value and the optional values requested."""

    def judge_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> Judged:
        """Return one statistic and p-value per row, from all its strata.

        Raises
        ------
        OptionError
            If the test has no stratified form.
        """
        raise OptionError(
            f"metric={self.metric!r} has no stratified form with these options, so strata= cannot "
            "be used. Use metric='wilcoxon' (van Elteren), 't-test' or 'anderson'."
        )


def nan_policy_of(options: dict[str, Any]) -> str:
    """Return the option nan_policy=, ``"raise"`` by default; raise OptionError if it is invalid."""
    policy = options.get("nan_policy", "raise")
    check_choice("value for nan_policy:", policy, NAN_POLICIES)
    return str(policy)


def judged(
    statistic: np.ndarray,
    p_value: np.ndarray,
    z: np.ndarray | None = None,
    log10_p: np.ndarray | None = None,
) -> Judged:
    """Build the result, setting p-values of pairs that could not be judged to 1, as pdex does."""
    p_value[np.isnan(p_value)] = 1.0
    if log10_p is not None:
        log10_p[np.isnan(log10_p)] = 0.0
    return Judged(statistic, p_value, z, log10_p)
