"""The matrices of an AnnData in a store: X, layers and raw."""

from __future__ import annotations

from typing import Any

from ...errors import LayerError, unknown
from ..checks import no_matrix, no_raw
from ..choice import MatrixChoice
from .frames import StoredFrame, open_frame
from .nodes import encoding_of, is_array, members


def matrix_at(root: Any, choice: MatrixChoice, store: str) -> tuple[str, Any]:
    """Return the name of the chosen matrix, for messages, and its node.

    Parameters
    ----------
    root : StoredGroup or StoredZarrGroup
        The AnnData.
    choice : MatrixChoice
    store : str
        Its path, for messages.

    Raises
    ------
    DataError
        It is None.
    LayerError
        There is no such layer, or no raw.
    """
    if choice.raw:
        if not _has_raw(root):
            raise no_raw(store, other_matrices(root, choice))
        node = root["raw"].get("X") if "raw" in root else root["raw.X"]
    elif choice.layer is None:
        node = root.get("X")
    else:
        layers = members(root, "layers")
        if choice.layer not in layers:
            raise LayerError(unknown("layer", choice.layer, list(layers)))
        node = layers[choice.layer]
    if node is None or encoding_of(node) == "null" or (is_array(node) and node.shape is None):
        raise no_matrix(choice.what)
    return choice.what, node


def var_of(root: Any, choice: MatrixChoice, store: str) -> StoredFrame | None:
    """Return the frame that describes the genes of the chosen matrix; None if there is none."""
    place, name = root, "var"
    if choice.raw:
        place, name = (root["raw"], "var") if "raw" in root else (root, "raw.var")
    return open_frame(place, name, store) if name in place else None


def other_matrices(root: Any, choice: MatrixChoice) -> list[str]:
    """Return the names of the matrices that are not chosen: see :attr:`.Dataset.matrices`."""
    named = choice.raw or choice.layer is not None
    found = ["X"] if named and "X" in root else []
    found += [str(name) for name in members(root, "layers") if name != choice.layer]
    return found + (["raw"] if not choice.raw and _has_raw(root) else [])


def _has_raw(root: Any) -> bool:
    """Return whether there is a raw; before 0.7, anndata stored its parts next to X."""
    found = root.get("raw")
    if found is None:
        return "raw.X" in root
    return not is_array(found) and encoding_of(found) != "null"
