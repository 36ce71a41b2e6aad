"""Numbers and labels as text that a browser reads quickly and cannot mistake for HTML."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

# Characters that could end the element that holds the JSON, or a line of a script.
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Packed:
    """An array as text.

    Attributes
    ----------
    kind : str
        Its type: u1, u2, u4, i4 or f4, little-endian.
    n : int
        Its length.
    text : str
        Base64 of its zlib-compressed bytes: the first byte of every number, then the second byte
        of every number, and so on, which compresses better.
    """

    kind: str
    n: int
    text: str


def pack(values: np.ndarray, kind: str) -> Packed:
    """Encode an array of shape (n,) as text.

    Parameters
    ----------
    values : numpy.ndarray, shape (n,)
        Numbers that the type can hold.
    kind : str
        u1, u2, u4, i4 or f4.

    Raises
    ------
    ValueError
        If a whole number does not fit the type.
    """
    wanted: np.dtype[Any] = np.dtype(f"<{kind}")
    if wanted.kind != "f" and len(values):
        limits = np.iinfo(wanted)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"{values.min()} to {values.max()} do not fit into {kind}")
    stored = np.ascontiguousarray(values, dtype=wanted)
    planes = stored.view(np.uint8).reshape(len(stored), wanted.itemsize).T
    squeezed = zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)
    return Packed(kind, len(stored), base64.b64encode(squeezed).decode("ascii"))


def unpack(packed: Packed) -> np.ndarray:
    """Decode an array of shape (n,), as the page does."""
    wanted: np.dtype[Any] = np.dtype(f"<{packed.kind}")
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed.text)), np.uint8)
    return planes.reshape(wanted.itemsize, packed.n).T.copy().view(wanted).reshape(packed.n)


def whole(values: np.ndarray) -> Packed:
    """Encode nonnegative whole numbers in the shortest type that holds them."""
    top = int(values.max(initial=0))
    return pack(values, "u1" if top < 1 << 8 else "u2" if top < 1 << 16 else "u4")


def json_text(value: Any) -> str:
    """Return JSON for an HTML element; no character in it can end the element."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).translate(_ESCAPED)  # fmt: skip


def label(value: object) -> str:
    """Return a label as text that UTF-8 can encode; lone surrogates become question marks."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def coded(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the distinct labels in order of first appearance, and each label's code, int64."""
    position: dict[str, int] = {}
    texts = (label(value) for value in labels)
    codes = [position.setdefault(text, len(position)) for text in texts]
    return list(position), np.array(codes, np.int64)
