"""The options that say which columns a result has, and how its means are made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import OptionError
from ..utils.checks import check_flag, check_fraction, check_number


@dataclass(frozen=True)
class ColumnOptions:
    """The columns of a result; see :func:`pdex_gpu.differential_expression`."""

    columns: str | Iterable[str] = ()
    confidence: float = 0.95
    pseudocount: float = 1e-9
    is_log1p: bool | None = None
    exp_post_agg: bool = True
    clip_value: float | None = 20.0

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
