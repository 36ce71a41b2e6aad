"""MuData: several matrices of the same cells, of which one has to be named."""

from __future__ import annotations

import os
from typing import Any

from ..errors import LayerError, UnsupportedDataError, listing, unknown
from .nodes import encoding_of, is_array, members

_SUFFIX = ".h5mu"
_MODALITIES = "mod"


def is_multimodal(data: Any) -> bool:
    """Whether this is a MuData; mudata is not imported for it."""
    named = any(kind.__name__ == "MuData" for kind in type(data).__mro__)
    return named and hasattr(data, _MODALITIES)


def many_modalities(data: Any) -> UnsupportedDataError:
    """The error for a MuData where one modality is needed."""
    names = [str(name) for name in data.mod]
    example = f": data.mod[{names[0]!r}]" if names else ""
    return UnsupportedDataError(
        f"This is a MuData with the modalities {listing(names)}, and one of them is needed. Give "
        f"its AnnData{example}."
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
        f"{name} holds a MuData with the modalities {listing(names)}, and one of them is needed. "
        f"Add its name to the path{example}."
    )


def split_path(path: str) -> tuple[str, str]:
    """The file of a path, and the modality that follows it: ``"screen.h5mu/mod/rna"``."""
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
    """The group of a modality, given as ``"rna"`` or ``"mod/rna"``; raises LayerError."""
    found = members(root, _MODALITIES)
    short = name.removeprefix(f"{_MODALITIES}/")
    if short not in found:
        raise LayerError(unknown(f"modality of {path}:", short, list(found)))
    return found[short]
