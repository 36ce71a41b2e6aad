"""AnnCollection: AnnData objects that anndata stacks without copying them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...design.labels import Labels, object_array
from ...errors import OptionError, UnsupportedDataError
from ..choice import MatrixChoice
from ..dataset import Dataset
from ..detect import is_backed
from ..formats import FormatCode, code_for
from ..pandas_frames import frame_labels, obsm_matrix
from .labels import Matrix
from .open import File, naming, stacked

_MODULE = "anndata.experimental."


class Collections(FormatCode):
    """``anndata.experimental.AnnCollection``, and selections of one."""

    shares_labels = False

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        return bool({"AnnCollection", "AnnCollectionView"} & _names(data))

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        if "AnnCollectionView" in _names(data):
            raise UnsupportedDataError(
                "The data are a selection of an AnnCollection, which would load it. Pass the whole "
                "collection, and select with cells= and genes=."
            )
        if data.convert is not None:
            raise UnsupportedDataError(
                "The AnnCollection has converters (convert=), which are not applied here: values "
                "are read as they are in its AnnData objects. Set data.convert = None, and convert "
                "the objects themselves."
            )
        if choice.join != MatrixChoice.join:
            raise OptionError(
                f"join={choice.join!r} is for files: the genes of an AnnCollection are already "
                "joined. Make it with the genes that are needed, or pass the paths of the files."
            )
        return _opened(data, groupby, choice)

    def files(self, data: Any) -> list[Path]:
        """See :meth:`.formats.FormatCode.files`."""
        return [Path(adata.filename) for adata in data.adatas if is_backed(adata)]


def _names(data: Any) -> set[str]:
    """Return the names of the classes of `data` that anndata's experimental modules define."""
    # By name: only a caller with a collection has imported them, and this must not.
    kinds = type(data).__mro__
    return {kind.__name__ for kind in kinds if str(kind.__module__).startswith(_MODULE)}


def _opened(collection: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
    parts = [_part(i, adata, choice) for i, adata in enumerate(collection.adatas)]
    dataset = stacked(parts, choice)
    joined_obs = "obs" not in collection._view_attrs_keys  # private, but nothing else says so
    joined_obsm = collection.obsm is not None
    inner_column, inner_matrix = dataset.column, dataset.matrix

    def column(name: str) -> Labels:
        if joined_obs or name in collection.obs.columns:
            return frame_labels(collection.obs, "obs", name)
        return inner_column(name)

    def matrix(name: str) -> Matrix:
        return obsm_matrix(collection, name) if joined_obsm else inner_matrix(name)

    def cell_names() -> np.ndarray:
        return object_array(map(str, collection.obs_names))

    return replace(
        dataset,
        labels=dataset.labels if groupby is None else column(groupby),
        cell_name=lambda row: str(collection.obs_names[row]),
        cell_names=cell_names,
        description=f"AnnCollection of {len(parts):,} AnnData objects, {choice.what}",
        column=column,
        matrix=matrix,
    )


def _part(i: int, adata: Any, choice: MatrixChoice) -> File:
    code = code_for(adata)
    where = f"adatas[{i}] of the AnnCollection"
    if code is None:
        raise UnsupportedDataError(f"{where} cannot be read. Make it of AnnData objects.")
    with naming(where):
        dataset = code.open(adata, None, choice)
    if dataset.source.on_device:
        raise UnsupportedDataError(
            f"{choice.what} of {where} is on a CUDA device, but collections are read in host "
            "memory. Move the matrix with .get()."
        )
    if dataset.source.take_apart()[1] is not None:
        raise UnsupportedDataError(
            f"{where} is a view of a backed AnnData with its cells in another order than in the "
            "file. Select them in the order of the file, or load the view: .to_memory()."
        )
    return File(f"adatas[{i}]", where, dataset)
