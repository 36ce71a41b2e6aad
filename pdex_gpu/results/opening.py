"""Opening results that were written to files."""

from __future__ import annotations

import os

from ..utils.atomic_files import is_there
from ..utils.checks import check_path
from ..utils.keywords import known_keywords
from .file import ResultFile, open_parquet
from .memory import DEResult
from .text_file import SEPARATORS, read_text


@known_keywords
def open_result(path: str | os.PathLike[str]) -> ResultFile | DEResult:
    """Open a result that was written to a file.

    Parameters
    ----------
    path : str or path-like
        A file written by :meth:`DEResult.to_parquet`, :meth:`DEResult.to_csv`, ``out=`` or
        ``pdex-gpu run``: ``.parquet``, ``.csv`` or ``.tsv``.

    Returns
    -------
    ResultFile or DEResult
        Of a Parquet file, only the labels are read. Text is read as a whole, and has no
        provenance; its rows may have been sorted or filtered.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is a folder.
    FileFormatError
        If it is damaged, is not a result of this package, or was written by a newer version; or,
        for text, if a column is missing or unknown, or a value is not a number.
    MemoryBudgetError
        If text takes more memory than is free.

    Examples
    --------
    >>> import os, tempfile
    >>> from pdex_gpu import differential_expression, open_result
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> path = os.path.join(tempfile.mkdtemp(), "results.parquet")
    >>> differential_expression(adata, "target_gene", progress=False).to_parquet(path)
    >>> stored = open_result(path)
    >>> stored.find("GENE00042"), stored.find_feature("GENE00003")
    (1, 3)
    >>> stored.row(1, ["fold_change"])["fold_change"][3].round(2).item()
    0.87
    """
    path = check_path("path", path)
    if path.suffix.lower() in SEPARATORS and is_there(path, "The results file").is_file():
        return read_text(path)
    return open_parquet(path)
