"""The tests' options by name: which exist, which test has them, and suggestions for typos."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...errors import OptionError, close_matches, listing, shown

#: Options that this package handles itself, by metric.
OWN = {
    "wilcoxon": ("continuity", "tie_correction", "alternative", "method", "nan_policy"),
    "t-test": ("variance", "alternative", "nan_policy"),
    "anderson": ("variant", "p_values", "nan_policy"),
    "ks": ("alternative", "nan_policy"),
}

_SAMPLES = {"x", "y", "a", "b", "samples", "args", "kwargs", "kwds"}


def scipy_function(metric: str) -> Callable[..., Any]:
    """Return scipy's function for the test."""
    from scipy import stats

    return {
        "wilcoxon": stats.mannwhitneyu,
        "t-test": stats.ttest_ind,
        "anderson": stats.anderson_ksamp,
        "ks": stats.ks_2samp,
    }[metric]


def scipy_options(metric: str) -> list[str]:
    """Return the options that scipy has for a metric."""
    return [p for p in inspect.signature(scipy_function(metric)).parameters if p not in _SAMPLES]


def check_options(metric: str, options: Mapping[str, Any], call: Iterable[str] = ()) -> None:
    """Refuse options that the test does not have.

    Parameters
    ----------
    metric : str
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
    for name in options:
        if name in OWN[metric] or name in scipy_options(metric):
            continue
        known = [*OWN[metric], *scipy_options(metric)]
        owners = [m for m in OWN if m != metric and name in (*OWN[m], *scipy_options(m))]
        text = f"Unknown option {name!r}."
        if owners:
            text = f"Option {name!r} belongs to {' and '.join(f'metric={m!r}' for m in owners)}."
        else:
            others = [other for m in OWN for other in (*OWN[m], *scipy_options(m))]
            close = close_matches(name, list(dict.fromkeys([*call, *known, *others])))
            if close:
                meant = " or ".join(_of_whom(c, metric, call) for c in close)
                text += f" Did you mean {meant}?"
        raise OptionError(
            f"{text} metric {metric!r} has no option {name!r}. "
            f"Its options are {listing(OWN[metric])}, and in scipy's names "
            f"{listing(scipy_options(metric))}. Options from the two lists cannot be combined."
        )


def _of_whom(name: str, metric: str, call: Iterable[str]) -> str:
    """Return the name, followed by its metric if it belongs to another test."""
    if name in call or name in OWN[metric] or name in scipy_options(metric):
        return repr(name)
    owner = next(m for m in OWN if name in (*OWN[m], *scipy_options(m)))
    return f"{name!r} (of metric={owner!r})"
