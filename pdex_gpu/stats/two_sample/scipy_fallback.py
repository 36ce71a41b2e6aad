"""Tests with options that only scipy has: one scipy call per pair, on the numpy kernel set."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...backends.contract import scale_exponent
from ...design.contrasts import Contrast
from ...errors import OptionError, listing, shown
from ...utils.checks import check_choice
from ..samples import SamplePair
from .base import StatisticalTest, SufficientStatistics, TestResult, make_result
from .options import NAN_POLICIES, options_of

_LARGEST_INTEGER = 2.0**53  # beyond this, float64 does not distinguish all integers


class ScipyPairs(StatisticalTest):
    """A scipy test, called on every pair of samples with the options as given.

    NaN is dealt with beforehand: samples arrive without it.

    Parameters
    ----------
    test : type of StatisticalTest
        The test whose options only scipy has.
    options : mapping
    """

    has_log10_p = False
    p_values = "scipy"

    def __init__(self, test: type[StatisticalTest], options: Mapping[str, Any]) -> None:
        self.test = test
        self.metric = test.metric
        self.options = dict(options)
        # scipy does not know the names that this package changes or adds.
        renamed = {
            option.name: option.scipy_name
            for option in options_of(test)
            if option.scipy_name is not None and option.scipy_values is None
        }
        self._scipy_options = {
            renamed.get(name, name): v for name, v in options.items() if name != "nan_policy"
        }
        self.nan_policy = options.get("nan_policy", "raise")
        check_choice("value for nan_policy:", self.nan_policy, NAN_POLICIES)
        self._function = test.scipy_function()
        self._check()

    @property
    def why_numpy(self) -> str:
        """See :attr:`.two_sample.base.StatisticalTest.why_numpy`."""
        given = ", ".join(f"{k}={shown(v)}" for k, v in self.options.items())
        return f"{given}: no compiled kernel supports this"

    def _check(self) -> None:
        """Refuse options that scipy does not know, and values that it does not accept."""
        known = self.test.scipy_options()
        for name in self._scipy_options:
            if name not in known:
                raise OptionError(
                    f"Option {name!r} of metric {self.metric!r} cannot be combined with options "
                    f"that only scipy has: {listing(set(self._scipy_options) & set(known))}. "
                    "Leave out one or the other."
                )
        x = np.linspace(0.0, 3.0, 12)
        try:
            self._call(x, x**2)
        except Exception as error:  # scipy may raise anything for bad values
            raise OptionError(
                f"scipy rejects the options {shown(self.options)} for metric {self.metric!r}: "
                f"{shown(error)}. Correct them."
            ) from error

    def measure(
        self, kernels: Any, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        found: SufficientStatistics = kernels.each_pair(block, genes, contrast, self._pair)
        return found

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        statistic, p_value = measured
        with np.errstate(divide="ignore"):
            return make_result(statistic, p_value, None, np.log10(p_value) if log10_p else None)

    def _pair(self, target: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        try:
            return self._call(*_as_floats(target, reference, ranked=self.test.uses_ranks))
        except (ValueError, IndexError, ZeroDivisionError):  # undefined for this pair
            return np.nan, 1.0

    def _call(self, target: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        options = copy.deepcopy(
            self._scipy_options
        )  # so that a random generator starts in the same state for every pair
        with _SILENCE, np.errstate(all="ignore"):
            if self.test.scipy_takes_list:
                result = self._function([target, reference], **options)
            else:
                result = self._function(target, reference, **options)
        return float(result.statistic), float(result.pvalue)


def _as_floats(
    target: np.ndarray, reference: np.ndarray, *, ranked: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Convert samples to float64, replacing extreme values by others that give the same test.

    A t-test does not change when values are divided by a power of two, or when a constant is
    subtracted. A rank test does not change when values are replaced by their ranks.
    """
    both = np.concatenate([target, reference])
    largest = float(np.abs(both.astype(np.float64)).max(initial=0.0))
    if both.dtype.kind != "f" and largest >= _LARGEST_INTEGER:
        if ranked:
            both = np.unique(both, return_inverse=True)[1]
        else:
            lowest = int(both.min())
            both = np.array([float(x - lowest) for x in both.tolist()])
    elif not ranked and largest > 0.0:
        shift = scale_exponent(max(int(np.frexp(largest)[1]) - 1, -1023))
        both = np.ldexp(both, -shift) if shift else both
    values = both.astype(np.float64)
    return values[: len(target)], values[len(target) :]


class _Silence:
    """A context without warnings while any thread is in it: the result tells what scipy warns of.

    Warning filters belong to the process. With one `warnings.catch_warnings` per thread, the first
    thread to leave would restore the filters for the others, and the last could leave "ignore" in
    force for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_SILENCE = _Silence()
