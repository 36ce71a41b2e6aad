"""The options that say where results go, and what is shown meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import OptionError
from ..utils.checks import check_flag, check_path
from ..utils.options import option
from ..utils.progress import check_progress


@dataclass(frozen=True)
class TableOptions:
    """The options that say how values are written; see :func:`pdex_gpu.differential_expression`."""

    TITLE: ClassVar = "Output"

    spreadsheet_safe: bool = option(False, "escape names like formulas in .csv and .tsv", "flag")

    def __post_init__(self) -> None:
        check_flag("spreadsheet_safe", self.spreadsheet_safe)


@dataclass(frozen=True)
class OutputOptions:
    """The options that say where results go; see :func:`pdex_gpu.differential_expression`."""

    TITLE: ClassVar = "Output"

    out: str | os.PathLike[str] | None = option(
        None, "results: .parquet, .csv or .tsv", "path", "FILE", names="--output -o"
    )
    force: bool = option(False, "replace an existing output", "flag")
    restart: bool = option(False, "discard what an unfinished run left", "flag")
    progress: bool | Callable[[Any], object] = option(True, "", "library only")

    def __post_init__(self) -> None:
        for name in ("force", "restart"):
            check_flag(name, getattr(self, name))
        check_progress(self.progress)
        if self.out is not None:
            check_path("out", self.out)
        for name in ("force", "restart"):
            check_about_file(name, getattr(self, name), self.out)


def check_about_file(name: str, given: object, out: object) -> None:
    """Raise OptionError for an option about a file that was not named."""
    if given and out is None:
        raise OptionError(f"{name}=True requires an output file. Also pass out=.")
