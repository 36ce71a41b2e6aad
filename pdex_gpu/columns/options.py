"""The options that say which columns a result has, and how its means are made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..errors import OptionError
from ..utils.checks import check_flag, check_fraction, check_number
from ..utils.options import internal, option


@dataclass(frozen=True)
class ColumnOptions:
    """The columns of a result; see :func:`pdex_gpu.differential_expression`.

    `default_columns` says whether results have the columns of
    :data:`pdex_gpu.columns.registry.DEFAULT` without being asked; those of drop-ins do not.
    """

    TITLE: ClassVar = "Columns, correction, filters"

    columns: str | Iterable[str] = option(
        (), "extra columns, such as auroc,log10_p; or all", "columns", "NAMES"
    )
    confidence: float = option(0.95, "confidence level of intervals [0.95]", "number", "X")
    pseudocount: float = option(1e-9, "for log2_fold_change_geometric [1e-09]", "number", "X")
    is_log1p: bool | None = option(
        None, "are values log1p? auto: infer from the values", "yes or no"
    )
    exp_post_agg: bool = option(True, "log1p data: mean of expm1, not expm1 of mean", "flag")
    clip_value: float | None = option(
        20.0, "fold change if a mean is 0; or none [20]", "number or none", "X"
    )
    default_columns: bool = internal(True)

    def __post_init__(self) -> None:
        check_fraction("confidence", self.confidence)
        words = "a number of at least 0"
        if check_number("pseudocount", self.pseudocount, words) < 0:
            raise OptionError(f"pseudocount={self.pseudocount!r} must be {words}.")
        check_flag("exp_post_agg", self.exp_post_agg)
        clip = self.clip_value
        words = "a number above 0, or None for no clipping"
        infinite = isinstance(clip, float) and clip == math.inf
        if clip is not None and not infinite and check_number("clip_value", clip, words) <= 0:
            raise OptionError(f"clip_value={clip!r} must be {words}.")
        check_flag("is_log1p", self.is_log1p, may_be_none=True)


@dataclass(frozen=True)
class FilterOptions:
    """The rows to leave out before correction; see :func:`pdex_gpu.differential_expression`.

    `filter_sides` is ``"pooled"``, or ``"either"`` as in pdex 0.3: whether filters count the cells
    of both sides together, or are met by either side.
    """

    TITLE: ClassVar = "Columns, correction, filters"

    min_fraction: float | None = option(
        None, "keep rows expressed in >= this fraction of cells", "number", "X"
    )
    min_cpm: float | None = option(
        None, "keep rows with more counts per million than this", "number", "X"
    )
    filter_sides: str = internal("pooled")

    def __post_init__(self) -> None:
        if self.min_fraction is not None:
            check_fraction("min_fraction", self.min_fraction)
        if self.min_cpm is not None:
            check_number("min_cpm", self.min_cpm)
