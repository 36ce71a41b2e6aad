"""The options that say which test is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..utils.checks import check_text
from ..utils.options import internal


@dataclass(frozen=True)
class MetricOptions:
    """A test by name, and its own options; see :func:`.registry.make_test`."""

    metric: str = "wilcoxon"
    options: Mapping[str, Any] = internal(dict)

    def __post_init__(self) -> None:
        check_text("metric", self.metric)
