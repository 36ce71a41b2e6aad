"""Writing the report of a result: the file is written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..calibration.result import Calibration
from ..errors import OptionError
from ..pl.arguments import as_result, check_fdr
from ..results.base import Result
from ..utils.atomic_files import check_place, check_replaceable, is_folder, write_atomically
from ..utils.checks import check_flag, check_path, check_text, kind
from ..utils.keywords import known_keywords
from .page import page
from .page_data import document
from .payload import MOST_ROWS, collect

_SUFFIXES = (".html", ".htm")


@known_keywords
def write_report(
    result: Result | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    title: str | None = None,
    fdr: float = 0.05,
    force: bool = False,
) -> Path:
    """Write a report for the browser: one HTML file that opens offline.

    It carries the hits (at most 1,000,000, the strongest of each comparison), at least the 20
    strongest rows of each comparison, and all other rows as counts in bins. In the page, readers
    can choose a smaller FDR and a least effect. A result in a file is
    read in blocks, never as a whole.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file.
    path : str or path-like
        The file to write, ``.html``.
    calibration : Calibration, str or path-like, optional
        A calibration to show, or the file that :meth:`.Calibration.to_json` wrote.
    title : str, optional
        Title of the page, by default "Differential expression".
    fdr : float
        Rows with an adjusted p-value at or below this are hits, and cut-offs in the page go up to
        it.
    force : bool
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OptionError
        If the file exists and `force` is false, or an option is invalid.
    FileFormatError
        If `result` or `calibration` is a file of another kind, or from a newer version.
    MissingFileError
        If one of these files does not exist.
    OutputError
        If the file could not be written; no partial file remains.
    """
    fdr = check_fdr(fdr)
    check_text("title", title, may_be_none=True)
    check_flag("force", force)
    path = check_path("path", path)
    _check_path(path, force)
    shown = as_result(result, "A report takes")
    checked = _calibration(calibration)
    data = collect(shown, fdr, MOST_ROWS)
    meta, arrays = document(shown, data, checked, title=title)
    text = page(meta, arrays)
    write_atomically(path, lambda file: _fill(file, text))
    return path


def _fill(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")


def _check_path(path: Path, force: bool) -> None:
    if is_folder(path):
        raise OptionError(f"The report {str(path)!r} is a folder. Name a file in it.")
    if path.suffix.lower() not in _SUFFIXES:
        raise OptionError(
            f"The report is an HTML page, but {str(path)!r} ends in {path.suffix!r}. "
            "Pass a path that ends in .html."
        )
    check_place(path)
    check_replaceable(path, force=force)


def _calibration(calibration: Any) -> Calibration | None:
    if calibration is None or isinstance(calibration, Calibration):
        return calibration
    if isinstance(calibration, str | os.PathLike):
        return Calibration.from_json(calibration)
    raise OptionError(
        f"calibration= takes a Calibration or a path, not a {kind(calibration)}. Pass the return "
        "value of calibrate(), or the path of a file written by Calibration.to_json() or "
        "`pdex-gpu calibrate`."
    )
