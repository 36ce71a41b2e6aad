"""Several files as one screen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..formats import FormatCode, is_url
from .paths import is_pattern, named_paths

if TYPE_CHECKING:
    from ..choice import MatrixChoice
    from ..dataset import Dataset


class StackedFiles(FormatCode):
    """Lists and mappings of paths, and paths that are patterns."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        return isinstance(data, list | tuple | dict) or is_pattern(data)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        from .open import open_files

        return open_files(named_paths(data), groupby, choice)

    def shared_path(self, data: Any) -> dict[str, str]:
        """Return the paths of the files by their names."""
        return {
            name: path if is_url(path) else os.path.abspath(path)
            for name, path in named_paths(data).items()
        }

    def files(self, data: Any) -> list[Path]:
        """See :meth:`.formats.FormatCode.files`."""
        return [Path(path) for path in named_paths(data).values()]
