"""The options of commands that compare groups of cells: those of the library's own call."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import make_dataclass
from typing import Any

from ..errors import OptionError
from ..request.options import GROUPS
from ..utils.options import option
from . import options as o

Command = Callable[..., None]


def takes_options(*, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command all options of a comparison, except `but`; see :func:`.options.takes`."""
    groups: list[Any] = []
    for name, group in GROUPS.items():
        groups += [group, _tests()] if name == "test" else [group]
    return o.takes(groups, but=but)


def _choice(default: str, help: str, *choices: str) -> Any:
    return option(default, help, "choice", choices=lambda: choices)


def _tests() -> Any:
    """Return a group with the options of all tests."""
    found = {
        "alternative": _choice(
            "two-sided", "two-sided, less or greater", "two-sided", "less", "greater"
        ),
        "method": _choice(
            "auto", "Wilcoxon: auto, asymptotic or exact", "auto", "asymptotic", "exact"
        ),
        "continuity": option(True, "Wilcoxon: no continuity correction", "flag"),
        "tie_correction": option(True, "Wilcoxon: no tie correction", "flag"),
        "variance": _choice(
            "pooled", "t-test: pooled, welch or overestimated", "pooled", "welch", "overestimated"
        ),
        "welch": option(False, "short for --variance welch", "flag"),
        "variant": _choice(
            "midrank", "anderson: midrank, right or continuous", "midrank", "right", "continuous"
        ),
        "p_values": _choice(
            "asymptotic", "anderson: asymptotic or interpolated", "asymptotic", "interpolated"
        ),
        "nan_policy": _choice(
            "raise", "NaN: raise, omit or propagate", "raise", "omit", "propagate"
        ),
    }
    members = [(name, Any, made) for name, made in found.items()]
    return make_dataclass("TestsOptions", members, namespace={"TITLE": o.TEST})


def need_groups(options: dict[str, Any], *, guides: bool = True) -> None:
    """Check the options that were given, and complete what they say in short.

    Raises
    ------
    OptionError
        Without groups of cells, or if ``--welch`` contradicts ``--variance``.
    """
    if "groupby" not in options and "guides" not in options:
        otherwise = " (or --guides NAME, a matrix in obsm)" if guides else ""
        raise OptionError(
            f"Missing option --groupby. Pass the obs column that holds the groups{otherwise}."
        )
    if "pairs" in options:
        options.setdefault("comparison", "pairs")
    if options.pop("welch", False) and options.setdefault("variance", "welch") != "welch":
        raise OptionError(
            f"--welch and --variance {options['variance']} contradict each other. Pass only one."
        )
