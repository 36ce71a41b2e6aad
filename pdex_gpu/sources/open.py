"""Datasets, opened from the data that users pass: objects, open files, and paths."""

from __future__ import annotations

import os
from typing import Any

from ..errors import OptionError, UnsupportedDataError
from ..utils.checks import check_path, kind
from .choice import MatrixChoice, X
from .dataset import Dataset
from .formats import code_for, supported
from .stacked.files import StackedFiles
from .stacked.paths import is_pattern


def open_dataset(data: Any, groupby: str | None, choice: MatrixChoice = X) -> Dataset:
    """Find the matrix, labels and names in the data that a user passed.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, binary file, Dataset, or of a registered format
        An AnnData, in memory or backed, or a view of one; the path of an h5ad file or a zarr
        store; an h5ad file opened with ``open(path, "rb")`` or the like, which stays open; several
        paths, or a pattern of paths; or what another of :data:`.formats.FORMATS` claims. A Dataset
        is returned as it is.
    groupby : str or None
        Column of obs that holds the label of each cell; None to leave cells without labels.
    choice : MatrixChoice
        The matrix to read; by default X.

    Raises
    ------
    ColumnError, LayerError
        There is no such column or layer.
    DataError, FileFormatError, MissingFileError, UnsupportedDataError
        The data cannot be read; see :mod:`pdex_gpu.errors`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        check_path("data", data)
        if choice.batch is not None and not is_pattern(data):
            data = [data]  # one of several files
    code = code_for(data)
    if code is None:
        raise UnsupportedDataError(f"Cannot read a {kind(data)}. Supported: {supported()}.")
    if choice.batch is not None and not isinstance(code, StackedFiles):
        raise OptionError(
            f"batch={choice.batch!r} holds the names of files, but the data are a {kind(data)}. "
            "Pass paths, or use a column of obs."
        )
    return code.open(data, groupby, choice)
