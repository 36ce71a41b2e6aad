"""Checks of the arguments of plots: results, labels and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError, shown
from ..results.base import Result
from ..results.opening import open_result
from ..utils.checks import check_choice, check_path, is_number, kind

#: Parts of a figure whose colours can be chosen.
_PARTS = ("up", "down", "other")


def as_result(result: Any, taker: str = "Plot functions take") -> Result:
    """Return `result` itself, or open the result file that it names.

    Parameters
    ----------
    result : object
        What the caller passed.
    taker : str
        What takes it, and its verb, for the message.

    Raises
    ------
    OptionError
        If it is neither a result nor a path.
    MissingFileError, FileFormatError
        As in :func:`pdex_gpu.open_result`.
    """
    if isinstance(result, Result):
        return result
    if isinstance(result, str | os.PathLike):
        return open_result(check_path("result", result))
    raise OptionError(
        f"{taker} a pdex_gpu result, not a {kind(result)}. Pass the return value of "
        "differential_expression() or open_result(), or the path of a file written by "
        "to_parquet(), to_csv(), out= or `pdex-gpu run`."
    )


def check_fdr(fdr: Any) -> float:
    """Return a false discovery rate; raise OptionError unless it is above 0 and at most 1."""
    if not is_number(fdr) or not 0.0 < fdr <= 1.0:
        raise OptionError(f"fdr={shown(fdr)} must be a number above 0 and at most 1, such as 0.05.")
    return float(fdr)


def check_colours(colors: Any) -> dict[str, Any]:
    """Return the colours chosen for parts of a figure; raise OptionError for other parts."""
    if colors is None:
        return {}
    if not isinstance(colors, Mapping):
        raise OptionError(f"colors={shown(colors)} must be a dict, such as {{'up': 'red'}}.")
    from .axes import pyplot

    pyplot()
    from matplotlib.colors import is_color_like

    for part, colour in colors.items():
        check_choice("part of the figure (colors=)", part, _PARTS)
        if not is_color_like(colour):
            raise OptionError(
                f"colors: {shown(colour)} of {part!r} is not a color that matplotlib knows. Pass a "
                "name or a hexadecimal code, such as '#D55E00'."
            )
    return dict(colors)


def check_axes(ax: Any) -> None:
    """Raise OptionError unless `ax` is a single matplotlib axes object or None."""
    from .axes import pyplot

    pyplot()
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise OptionError(
            f"ax={shown(ax)} must be matplotlib axes, such as those from plt.subplots()."
        )
