"""The tests by name, and the lookup of their options.

A test is added by one line in :data:`METRICS`; from outside the package, by :func:`register`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, TypeVar

from ..errors import OptionError, close_matches, listing, shown
from ..utils.checks import check_choice, check_text
from .two_sample.anderson_darling import AndersonDarling
from .two_sample.base import StatisticalTest
from .two_sample.kolmogorov_smirnov import KolmogorovSmirnov
from .two_sample.options import StatisticOption, options_of, words
from .two_sample.t_test import TTest
from .two_sample.wilcoxon import Wilcoxon

_Test = TypeVar("_Test", bound=type[StatisticalTest])

#: The class of every test, by the name of its metric.
METRICS: dict[str, type[StatisticalTest]] = {
    test.metric: test
    for test in (
        Wilcoxon,
        AndersonDarling,
        TTest,
        KolmogorovSmirnov,
    )
}

#: These names, for type checkers.
MetricName = Literal["wilcoxon", "anderson", "t-test", "ks"]
PValueKind = Literal["conditional", "asymptotic", "interpolated"]


class StatisticKeywords(TypedDict, total=False):
    """The options of all tests, for type checkers; tests declare them themselves."""

    alternative: Literal["two-sided", "less", "greater"]
    nan_policy: Literal["raise", "omit", "propagate"]
    continuity: bool
    tie_correction: bool
    method: Any  # "auto", "asymptotic", "exact", or what scipy takes
    variance: Literal["pooled", "welch", "overestimated"]
    variant: Literal["midrank", "right", "continuous"]
    p_values: PValueKind | Sequence[PValueKind]  # several in calibrate
    # the options of scipy's functions by their own names
    axis: int | None
    equal_var: bool
    keepdims: bool
    midrank: bool
    permutations: int | None
    random_state: Any
    rng: Any
    trim: float
    use_continuity: bool


def register(test: _Test) -> _Test:
    """Add a test, so that ``metric=`` and the command line know it; return it.

    Workers of a Dask cluster must be able to import its class.

    Raises
    ------
    OptionError
        If another test has its name, or has an option of the same name but another kind.
    """
    known = METRICS.get(test.metric)
    if known is not None and known is not test:
        raise OptionError(
            f"metric={test.metric!r} already names {known.__qualname__}. Choose another name "
            "for the test."
        )
    others = {option.name: option for option in all_options()}
    for option in options_of(test):
        other = others.get(option.name, option)
        if other.kind != option.kind:
            raise OptionError(
                f"Option {option.name!r} of metric {test.metric!r} is a {option.kind}, but another "
                f"test has an option of that name that is a {other.kind}. Rename it."
            )
    METRICS[test.metric] = test
    return test


def check_metric(metric: object) -> None:
    """Raise OptionError unless `metric` is text or a test."""
    if isinstance(metric, type) and issubclass(metric, StatisticalTest):
        name = metric.__qualname__
        raise OptionError(f"metric={name} is a class. Pass a test, such as metric={name}().")
    if not isinstance(metric, StatisticalTest):
        check_text("metric", metric)


def make_test(
    metric: str | StatisticalTest, options: Mapping[str, Any], call: Iterable[str] = ()
) -> StatisticalTest:
    """Return the test `metric`, given options by their own or scipy's names.

    Parameters
    ----------
    metric : str or StatisticalTest
        A name, or the test itself, which has its options already.
    options : mapping
    call : iterable of str
        The parameters of the calling function, for messages.

    Raises
    ------
    OptionError
        If the metric, an option or an option's value does not exist, or if options are given in
        addition to a test.
    """
    check_metric(metric)
    if isinstance(metric, StatisticalTest):
        check_options(type(metric), options, call)
        if options:
            raise OptionError(
                f"metric={metric!r} is a test with its options, so {listing(options)} cannot be "
                f"given in addition. Pass options either to {type(metric).__qualname__}(), or "
                f"together with metric={metric.metric!r}."
            )
        return metric
    check_choice("metric", metric, tuple(METRICS))
    test = METRICS[metric]
    check_options(test, options, call)
    made = test.from_options(options)
    if made is not None:
        return made
    from .two_sample.scipy_fallback import ScipyPairs

    return ScipyPairs(test, options)


def metric_of(metric: str | StatisticalTest) -> str:
    """Return the name of a test that was given by name or as an object."""
    return metric.metric if isinstance(metric, StatisticalTest) else metric


def all_options() -> tuple[StatisticOption, ...]:
    """Return the options of all tests. Those of one name are one, with the choices of all."""
    found: dict[str, StatisticOption] = {}
    for test in METRICS.values():
        for option in options_of(test):
            known = found.setdefault(option.name, option)
            choices = tuple(dict.fromkeys([*known.choices, *option.choices]))
            shorthands = tuple(dict.fromkeys([*known.shorthands, *option.shorthands]))
            found[option.name] = replace(known, choices=choices, shorthands=shorthands)
    return tuple(found.values())


def statistics() -> str:
    """Return what the statistic of each test is, as a phrase."""
    return words(list(dict.fromkeys(test.statistic_name for test in METRICS.values())))


def stratified_metrics() -> str:
    """Return the tests that have a stratified form, as a phrase."""
    return words(
        [f"{t.metric!r} ({t.stratified_form})" for t in METRICS.values() if t.stratified_form]
    )


def check_options(
    test: type[StatisticalTest], options: Mapping[str, Any], call: Iterable[str] = ()
) -> None:
    """Refuse options that the test does not have.

    Parameters
    ----------
    test : type of StatisticalTest
    options : mapping
        Keyword arguments of a call other than its own parameters: the test's options, and typos.
    call : iterable of str
        The parameters of the call.

    Raises
    ------
    OptionError
        If there is such an option. The message names close matches among all parameters of the
        call and of the tests, or the test that has the option.
    """
    for name, value in options.items():
        try:
            repr(value)  # options are distinguished by their repr
        except Exception as error:
            raise OptionError(f"{name}={shown(value)} cannot be printed: {error}.") from error
    own = _own(test)
    for name in options:
        if name in own or name in test.scipy_options():
            continue
        scipys = test.scipy_options()
        owners = [m for m, other in METRICS.items() if other is not test and name in _all(other)]
        text = f"Unknown option {name!r}."
        if owners:
            text = f"Option {name!r} belongs to {' and '.join(f'metric={m!r}' for m in owners)}."
        else:
            others = [other for known in METRICS.values() for other in _all(known)]
            close = close_matches(name, list(dict.fromkeys([*call, *own, *scipys, *others])))
            if close:
                meant = " or ".join(_of_whom(c, test, call) for c in close)
                text += f" Did you mean {meant}?"
        if not scipys:
            raise OptionError(
                f"{text} metric {test.metric!r} has no option {name!r}. "
                f"Its options are: {listing(own) or 'none'}."
            )
        raise OptionError(
            f"{text} metric {test.metric!r} has no option {name!r}. "
            f"Its options are {listing(own)}, and in scipy's names {listing(scipys)}. "
            "Options from the two lists cannot be combined."
        )


def _own(test: type[StatisticalTest]) -> list[str]:
    return [option.name for option in options_of(test)]


def _all(test: type[StatisticalTest]) -> list[str]:
    return [*_own(test), *test.scipy_options()]


def _of_whom(name: str, test: type[StatisticalTest], call: Iterable[str]) -> str:
    """Return the name, followed by its metric if it belongs to another test."""
    if name in call or name in _all(test):
        return repr(name)
    owner = next(metric for metric, other in METRICS.items() if name in _all(other))
    return f"{name!r} (of metric={owner!r})"
