"""The options that say which matrix is read, and what may be read besides the given file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..utils.checks import check_text
from .allowed import Allowed, check_allow


@dataclass(frozen=True)
class DataOptions:
    """Which matrix of the data is read; see :func:`pdex_gpu.differential_expression`."""

    layer: str | None = None
    allow: str | Collection[str] = ()

    def __post_init__(self) -> None:
        check_text("layer", self.layer, may_be_none=True)
        check_allow(self.allow)

    @property
    def allowed(self) -> Allowed:
        """Return what may be read from outside the given file."""
        return check_allow(self.allow)

    @property
    def matrix(self) -> str:
        """Return the name of the matrix for messages."""
        return "X" if self.layer is None else f"layer {self.layer!r}"
