"""Text as files store it: UTF-8 of fixed or variable length, and what older writers left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import FileFormatError, TextEncodingWarning, shown, warn


def decode_texts(values: Iterable[Any], what: str) -> np.ndarray:
    """Return values as str in an object array; bytes that are not UTF-8 are read as Latin-1.

    Parameters
    ----------
    values : iterable of bytes or str
    what : str
        Where the values come from, for the warning.
    """
    foreign: list[str] = []

    def decode(value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            foreign.append(value.decode("latin-1"))
            return foreign[-1]

    found = np.fromiter(map(decode, values), dtype=object)
    if foreign:
        warn(
            f"{what} holds text that is not UTF-8; {len(foreign)} of {len(found)} values, such as "
            f"{foreign[0]!r}, are read as Latin-1. If that is wrong, rewrite the file in UTF-8.",
            TextEncodingWarning,
        )
    return found


def plain_text(value: Any) -> str:
    """Return an attribute as str, even if it is stored as bytes or as an array of one value."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        # As h5py decodes names, so that an attribute can name a dataset.
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def shown_name(name: str | bytes) -> str:
    """Return the name of a node as users see it.

    Names that are not UTF-8 are read as Latin-1. h5py lists such names as bytes, but in attributes
    it returns them as str with surrogates.
    """
    name = stored_name(name)
    return name if isinstance(name, str) else name.decode("latin-1")


def stored_name(name: str | bytes) -> str | bytes:
    """Return the name of a node as h5py finds it: bytes if it is not UTF-8."""
    if isinstance(name, bytes):
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape")
    return name


def plain_texts(values: Any, what: str) -> Sequence[str]:
    """Return the list in an attribute as str; an empty list if it is stored as empty.

    Raises FileFormatError if it holds anything but text.
    """
    if values is None or getattr(values, "shape", ()) is None:  # h5py.Empty
        return []
    found = np.asarray(values, dtype=object).reshape(-1).tolist()
    if not all(isinstance(value, str | bytes) for value in found):
        raise FileFormatError(
            f"{what} should be a list of names, but is {shown(values)}. The file is damaged, or "
            "not laid out as anndata writes it."
        )
    return [plain_text(value) for value in found]
