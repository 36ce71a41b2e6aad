"""What a picture was asked for: results, labels and options, checked."""

from __future__ import annotations

import os
from typing import Any

from ..checks import check_path, is_number, kind
from ..errors import OptionError, shown
from ..result_base import Result
from ..result_file import open_result


def as_result(result: Any) -> Result:
    """The result itself, or the one in the file that is named.

    Raises
    ------
    OptionError
        If it is neither.
    MissingFileError, FileFormatError
        As :func:`pdex_gpu.open_result`.
    """
    if isinstance(result, Result):
        return result
    if isinstance(result, str | os.PathLike):
        return open_result(check_path("result", result))
    raise OptionError(
        f"A picture is made of a result of pdex_gpu, not of a {kind(result)}. "
        "Pass what differential_expression() returned, what open_result() opened, or the path of a "
        ".parquet file that to_parquet(), out= or `pdex-gpu run` wrote."
    )


def check_fdr(fdr: Any) -> float:
    """A false discovery rate above 0, at most 1; OptionError otherwise."""
    if not is_number(fdr) or not 0.0 < fdr <= 1.0:
        raise OptionError(f"fdr={shown(fdr)} must be a number above 0 and at most 1, such as 0.05.")
    return float(fdr)


def check_axes(ax: Any) -> None:
    """OptionError unless `ax` is one axes of matplotlib, or None."""
    from .canvas import pyplot

    pyplot()
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise OptionError(
            f"ax={shown(ax)} must be matplotlib axes, such as those of plt.subplots()."
        )
