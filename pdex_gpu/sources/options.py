"""The options that say which matrix is read, and what may be read besides the given file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from ..utils.checks import check_text
from ..utils.options import option
from .allowed import NAMES, Allowed, check_allow
from .choice import MatrixChoice


@dataclass(frozen=True)
class DataOptions:
    """The matrix of the data to read; see :func:`pdex_gpu.differential_expression`."""

    TITLE: ClassVar = "Compare"

    layer: str | None = option(None, "use this layer instead of X")
    allow: str | Collection[str] = option(
        (), f"accept data not in the file: {', '.join(NAMES)}", "choices", choices=lambda: NAMES
    )

    def __post_init__(self) -> None:
        check_text("layer", self.layer, may_be_none=True)
        check_allow(self.allow)

    @property
    def allowed(self) -> Allowed:
        """Return what may be read from outside the given file."""
        return check_allow(self.allow)

    @property
    def choice(self) -> MatrixChoice:
        """Return the matrix to read."""
        return MatrixChoice(self.layer, allow=self.allowed)
