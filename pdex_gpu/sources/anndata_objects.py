"""Datasets from AnnData objects: in memory, backed by a file, and views."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..design.labels import no_labels
from ..errors import LayerError, unknown
from .anndata_files.nodes import is_stored
from .base import Source
from .checks import no_matrix, no_modality, no_raw
from .choice import MatrixChoice
from .dataset import Dataset
from .detect import is_backed
from .formats import FormatCode, source_of
from .pandas_frames import (
    frame_in_memory,
    frame_labels,
    names_of,
    obs_labels,
    obsm_matrix,
    other_matrices,
)
from .views.view import select
from .whole_numbers import for_scipy


class AnnDataObjects(FormatCode):
    """AnnData objects."""

    shares_labels = False  # obs is in memory, and may differ from that of the file

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        # A caller with an AnnData has imported anndata; importing it here would cost seconds.
        anndata = sys.modules.get("anndata")
        return anndata is not None and isinstance(data, anndata.AnnData)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        return _from_anndata(data, groupby, choice)

    def files(self, data: Any) -> list[Path]:
        """See :meth:`.formats.FormatCode.files`."""
        return [Path(data.filename)] if is_backed(data) else []

    def shared_path(self, data: Any) -> str | None:
        """Return the file of a backed AnnData; a view shows only part of it."""
        return os.path.abspath(data.filename) if is_backed(data) and not data.is_view else None


def _from_anndata(adata: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
    layer = choice.layer
    if choice.modality is not None:
        raise no_modality(choice.modality, "this AnnData")
    labels = no_labels(adata.n_obs) if groupby is None else obs_labels(adata, groupby)
    others = other_matrices(adata, "raw" if choice.raw else layer)
    if choice.raw and adata.raw is None:
        raise no_raw("this AnnData", others)
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X among the layers, under None.
        names = [name for name in adata.layers if name is not None]
        raise LayerError(unknown("layer", layer, names))
    where = f"backed by {adata.filename}" if is_backed(adata) else "in memory"
    var = adata.raw.var if choice.raw else adata.var
    return Dataset(
        source=_anndata_source(adata, choice),
        labels=labels,
        genes=names_of(var),
        cell_name=lambda row: str(names_of(adata.obs)[row]),
        cell_names=lambda: names_of(adata.obs),
        description=f"AnnData {where}, {choice.what}",
        column=lambda name: obs_labels(adata, name),
        var_column=lambda name: frame_labels(var, "var", name),
        matrix=lambda name: obsm_matrix(adata, name),
        matrices=lambda: others,
        var=lambda: frame_in_memory(var),
    )


def _anndata_source(adata: Any, choice: MatrixChoice) -> Source:
    what, allow = choice.what, choice.allow
    whole = adata._adata_ref if adata.is_view else adata
    matrix = _matrix(whole, choice)
    if choice.layer is None and is_backed(whole):
        _check_backed(whole, choice)
    if not adata.is_view:
        return source_of(matrix, what, allow)
    if not is_stored(matrix):
        return source_of(_selected(adata, matrix, choice), what)
    source = source_of(matrix, what, allow)
    rows, columns = _selection(adata)
    return select(source, rows, np.arange(source.n_genes) if choice.raw else columns)


def _check_backed(adata: Any, choice: MatrixChoice) -> None:
    """Raise FileFormatError if the matrix is not in the file, though anndata has opened it."""
    from .anndata_files.matrices import matrix_at
    from .stored.hdf5 import reading
    from .stored.hdf5_group import StoredGroup

    with reading(f"{choice.what} of {adata.filename}"):
        matrix_at(StoredGroup(adata.file["/"], choice.allow), choice, str(adata.filename))


def _selection(adata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the first AnnData that a view shows."""
    # Private attributes, but without them anndata loads all that is selected. Views of views also
    # refer to the first AnnData.
    whole = adata._adata_ref
    return np.arange(whole.n_obs)[adata._oidx], np.arange(whole.n_vars)[adata._vidx]


def _selected(adata: Any, matrix: Any, choice: MatrixChoice) -> Any:
    """Return the part of `matrix`, which is in memory, that a view shows."""
    what = choice.what
    if getattr(matrix, "format", None) in ("csr", "csc"):
        usable = for_scipy(matrix, what)
        if usable is not matrix:  # anndata would let scipy slice the unusable one
            rows, columns = _selection(adata)
            return usable[rows] if choice.raw else usable[rows][:, columns]
    return _matrix(adata, choice)


def _matrix(adata: Any, choice: MatrixChoice) -> Any:
    """Return X, a layer or raw, without loading it if it is in a file."""
    if choice.raw:
        return adata.raw.X
    if choice.layer is not None:
        return adata.layers[choice.layer]
    if not is_backed(adata) or adata.is_view:
        return adata.X
    if not adata.file.is_open:
        adata.file.open()
    if "X" not in adata.file:
        raise no_matrix("X")
    return adata.file["X"]
