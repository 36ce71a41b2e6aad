"""MuData: several matrices of the same cells, one of which must be named."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from ...design.labels import Labels, no_labels
from ...errors import DataError, LayerError, UnsupportedDataError, listing, unknown
from ..checks import no_modality
from ..choice import MatrixChoice
from ..dataset import Dataset
from ..formats import FormatCode, code_for
from ..pandas_frames import names_of, obs_labels
from .nodes import encoding_of, is_array, members

_SUFFIX = ".h5mu"
_MODALITIES = "mod"


class MuData(FormatCode):
    """MuData objects, of which one modality is read."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        return is_multimodal(data)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`.

        Raises
        ------
        UnsupportedDataError
            No modality is named.
        LayerError
            There is no such modality.
        """
        if choice.modality is None:
            raise many_modalities(data)
        names = [str(name) for name in data.mod]
        if choice.modality not in names:
            raise LayerError(unknown("modality of this MuData:", choice.modality, names))
        adata = data.mod[choice.modality]
        code = code_for(adata)
        if code is None or is_multimodal(adata):
            raise UnsupportedDataError(
                f"Modality {choice.modality!r} is a {type(adata).__name__}, not an AnnData."
            )
        dataset = code.open(adata, None, replace(choice, modality=None))

        def column(name: str) -> Labels:
            if name in adata.obs.columns or name not in data.obs.columns:
                return obs_labels(adata, name)
            return matched(obs_labels(data, name), names_of(data.obs), names_of(adata.obs))

        return replace(
            dataset,
            labels=no_labels(adata.n_obs) if groupby is None else column(groupby),
            column=column,
            description=f"modality {choice.modality!r} of a MuData: {dataset.description}",
        )


def is_multimodal(data: Any) -> bool:
    """Return whether this is a MuData, without importing mudata."""
    named = any(kind.__name__ == "MuData" for kind in type(data).__mro__)
    return named and hasattr(data, _MODALITIES)


def many_modalities(data: Any) -> UnsupportedDataError:
    """Return the error for a MuData where one modality is needed."""
    names = [str(name) for name in data.mod]
    example = f": modality={names[0]!r} (--modality), or data.mod[{names[0]!r}]" if names else ""
    return UnsupportedDataError(
        f"This is a MuData object with the modalities {listing(names)}. Name one of them, or pass "
        f"its AnnData{example}."
    )


def matched(labels: Labels, of: np.ndarray, cells: np.ndarray) -> Labels:
    """Return the labels of some cells, found by their names among more cells.

    Parameters
    ----------
    labels : Labels
    of : numpy.ndarray, object
        Name of the cell of each label.
    cells : numpy.ndarray, object
        Names of the cells that need labels. A cell that is not found has none.

    Raises
    ------
    DataError
        A name that is looked for occurs twice in `of`.
    """
    row = {name: i for i, name in enumerate(of.tolist())}
    if len(row) < len(of):
        repeated = {name for i, name in enumerate(of.tolist()) if row[name] != i}
        found = next((name for name in cells.tolist() if name in repeated), None)
        if found is not None:
            raise DataError(
                f"obs of the MuData has several cells named {found!r}, so its columns cannot be "
                "matched to the cells of the modality. Make the names unique "
                "(obs_names_make_unique), or copy the column to obs of the modality."
            )
    rows = np.fromiter((row.get(name, -1) for name in cells.tolist()), np.int64, len(cells))
    return replace(labels, codes=np.append(labels.codes, -1)[rows])


def chosen_modality(root: Any, name: str | None, path: str) -> Any:
    """Return the group of the AnnData in a store: a modality of a MuData, or the root itself.

    Parameters
    ----------
    root : StoredGroup or StoredZarrGroup
    name : str, optional
        The modality.
    path : str
        Path of the store.

    Raises
    ------
    LayerError
        There is no such modality, or the store has none.
    UnsupportedDataError
        It holds a MuData, and no modality is named.
    """
    if encoding_of(root) != "MuData":
        if name is not None:
            raise no_modality(name, path)
        return root
    if name is not None:
        return modality(root, name, path)
    found = root.get(_MODALITIES)
    names = [] if found is None or is_array(found) else list(found)
    example = f": {os.path.join(path, _MODALITIES, names[0])!r}" if names else ""
    raise UnsupportedDataError(
        f"{path} holds a MuData object with the modalities {listing(names)}. Name one of them with "
        f"modality= (--modality), or add its name to the path{example}."
    )


def split_path(path: str) -> tuple[str, str]:
    """Split a path such as ``"screen.h5mu/mod/rna"`` into the file and the modality in it."""
    if os.path.exists(path):
        return path, ""
    file, inner = path, ""
    while file and not os.path.exists(file):
        file, last = os.path.split(file.rstrip(os.sep))
        if not last:
            return path, ""
        inner = f"{last}/{inner}" if inner else last
    return (file, inner) if file.endswith(_SUFFIX) and os.path.isfile(file) else (path, "")


def modality(root: Any, name: str, path: str) -> Any:
    """Return the group of a modality, ``"rna"`` or ``"mod/rna"``; raise LayerError if missing."""
    found = members(root, _MODALITIES)
    short = name.removeprefix(f"{_MODALITIES}/")
    if short not in found:
        raise LayerError(unknown(f"modality of {path}:", short, list(found)))
    return found[short]
