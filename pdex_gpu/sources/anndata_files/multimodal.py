"""MuData: several matrices of the same cells, one of which must be named."""

from __future__ import annotations

import os
from typing import Any

from ...errors import LayerError, UnsupportedDataError, listing, unknown
from ..choice import MatrixChoice
from ..dataset import Dataset
from ..formats import FormatCode
from .nodes import encoding_of, is_array, members

_SUFFIX = ".h5mu"
_MODALITIES = "mod"


class MuData(FormatCode):
    """MuData objects, which are refused with what to pass in their place."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        return is_multimodal(data)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """Raise UnsupportedDataError."""
        raise many_modalities(data)


def is_multimodal(data: Any) -> bool:
    """Return whether this is a MuData, without importing mudata."""
    named = any(kind.__name__ == "MuData" for kind in type(data).__mro__)
    return named and hasattr(data, _MODALITIES)


def many_modalities(data: Any) -> UnsupportedDataError:
    """Return the error for a MuData where one modality is needed."""
    names = [str(name) for name in data.mod]
    example = f": data.mod[{names[0]!r}]" if names else ""
    return UnsupportedDataError(
        f"This is a MuData object with the modalities {listing(names)}. Pass the AnnData of one of "
        f"them{example}."
    )


def check_one_modality(root: Any, name: str) -> None:
    """Raise UnsupportedDataError if a store holds a MuData.

    Parameters
    ----------
    root : h5py.Group or zarr.Group
    name : str
        Its path.
    """
    if encoding_of(root) != "MuData":
        return
    found = root.get(_MODALITIES)
    names = [] if found is None or is_array(found) else list(found)
    example = f": {os.path.join(name, _MODALITIES, names[0])!r}" if names else ""
    raise UnsupportedDataError(
        f"{name} holds a MuData object with the modalities {listing(names)}. Add the name of one "
        f"of them to the path{example}."
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
