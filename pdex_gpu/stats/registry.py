"""The tests by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..utils.checks import check_choice
from .options import METRICS
from .two_sample.base import StatisticalTest
from .two_sample.options import check_options


def make_test(metric: str, options: Mapping[str, Any], call: Iterable[str] = ()) -> StatisticalTest:
    """Return the test `metric`, given options by their scipy names.

    `call` lists the parameters of the calling function, for messages.

    Raises
    ------
    OptionError
        If the metric, an option or an option's value does not exist.
    """
    from .two_sample.anderson_darling import AndersonDarling
    from .two_sample.kolmogorov_smirnov import KolmogorovSmirnov
    from .two_sample.scipy_fallback import ScipyPairs
    from .two_sample.t_test import TTest
    from .two_sample.wilcoxon import Wilcoxon

    check_choice("metric", metric, METRICS)
    options = dict(options)
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
