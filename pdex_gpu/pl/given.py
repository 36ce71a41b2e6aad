"""What a picture was asked for: results, labels and options, checked."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import OptionError
from ..result_base import Result
from ..result_file import open_result


def as_result(result: Any) -> Result:
    """The result itself, or the one in the file that is named.

    Raises
    ------
    OptionError
        If it is neither.
    FileNotFoundError, FileFormatError
        As :func:`pdex_gpu.open_result`.
    """
    if isinstance(result, Result):
        return result
    if isinstance(result, str | os.PathLike):
        return open_result(result)
    kind = f"{type(result).__module__}.{type(result).__qualname__}"
    raise OptionError(
        f"A picture is made of a result of pdex_gpu, not of a {kind.removeprefix('builtins.')}. "
        "Pass what differential_expression() returned, what open_result() opened, or the path of a "
        ".parquet file that to_parquet(), out= or `pdex-gpu run` wrote."
    )


def check_fdr(fdr: Any) -> float:
    """A false discovery rate above 0, at most 1; OptionError otherwise."""
    number = isinstance(fdr, int | float | np.number) and not isinstance(fdr, bool)
    if not number or not 0.0 < fdr <= 1.0:
        raise OptionError(f"fdr={fdr!r} must be a number above 0 and at most 1, such as 0.05.")
    return float(fdr)


def check_count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; OptionError otherwise."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise OptionError(f"{name}={value!r} must be a whole number of at least {least}.")
    return int(value)


def check_axes(ax: Any) -> None:
    """OptionError unless `ax` is one axes of matplotlib, or None."""
    from .canvas import pyplot

    pyplot()
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise OptionError(f"ax={ax!r} must be matplotlib axes, such as those of plt.subplots().")
