"""Changes to JSON and CSV documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .damage import Rng

_DEEP = 3000
_OTHER: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 1e-320, "",
    "x", "1", "\ud800", "\x00", "é" * 50, [], [1], ["a", None], {}, {"x": 1}, [[]], [{}],
    float("nan"), float("inf"), [[["a"]]], "nan",
]  # fmt: skip


def _paths(node: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a document are; of long lists some."""
    found = [here]
    if isinstance(node, dict):
        for key in node:
            found += _paths(node[key], (*here, key))
    elif isinstance(node, list):
        for i in sorted({0, len(node) // 2, len(node) - 1}) if node else ():
            found += _paths(node[i], (*here, i))
    return found


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _path(rng: Rng, document: Any) -> tuple[Any, ...]:
    """A place in a document, the upper ones more often."""
    paths = sorted(_paths(document), key=len)
    return paths[int(len(paths) * rng.random() ** 1.5)]


def edit(rng: Rng, text: str | bytes) -> tuple[bytes, str]:
    """A document with something changed, and what."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    try:
        document = json.loads(raw)
    except ValueError:
        return raw, "no JSON any more"
    kind = str(rng.choice([*_EDITS, *_TEXT_EDITS, "value", "value", "value", "value", "remove"]))
    if kind in _TEXT_EDITS:
        return _TEXT_EDITS[kind](rng, raw), kind
    path = _path(rng, document)
    document, what = _EDITS[kind](rng, document, path)
    return json.dumps(document).encode(), f"{kind} at {'/'.join(map(str, path))}: {what}"


def _set(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    _at(document, path[:-1])[path[-1]] = value
    return document


def _value(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    value = _OTHER[int(rng.integers(len(_OTHER)))]
    return _set(document, path, value), ascii(value)


def _remove(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    if not path:
        return {}, "all"
    del _at(document, path[:-1])[path[-1]]
    return document, "gone"


def _number(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    found = _at(document, path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        found = 1
    new = [found + 1, found - 1, -found, float(found), found * 10**9, str(found)][
        int(rng.integers(6))
    ]
    return _set(document, path, new), ascii(new)


def _list(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    found = _at(document, path)
    if not isinstance(found, list):
        return _set(document, path, [found]), "in a list"
    kind = int(rng.integers(4))
    new = [found[:-1], found + found[-1:], found[::-1], found[1:] + found[:1]][kind]
    return _set(document, path, new), ["shorter", "longer", "backwards", "turned"][kind]


def _key(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    found = _at(document, path)
    if not isinstance(found, dict):
        return _set(document, path, {"value": found}), "in an object"
    found["unknown"] = {"x": [1]}
    return document, "another key"


def _deep(rng: Rng, document: Any, path: tuple[Any, ...]) -> tuple[Any, str]:
    value: Any = 0
    for _ in range(400):
        value = [value] if rng.random() < 0.5 else {"x": value}
    return _set(document, path, value), "400 deep"


_EDITS: dict[str, Callable[..., tuple[Any, str]]] = {
    "value": _value, "remove": _remove, "number": _number, "list": _list, "key": _key,
    "deep": _deep,
}  # fmt: skip


def _twice(rng: Rng, raw: bytes) -> bytes:
    """A key twice, with different values."""
    document = json.loads(raw)
    if not isinstance(document, dict) or not document:
        return raw + raw
    key = list(document)[int(rng.integers(len(document)))]
    pair = json.dumps({key: None})[1:-1].encode()
    return raw.rstrip()[:-1] + b"," + pair + b"}"


_TEXT_EDITS: dict[str, Callable[[Rng, bytes], bytes]] = {
    "a key twice": _twice,
    "too deep": lambda rng, raw: b"[" * _DEEP + b"]" * _DEEP,
    "far too deep": lambda rng, raw: b'{"x":' * 200_000,
    "not UTF-8": lambda rng, raw: raw.replace(b'"', b'"\xff', 1),
    "UTF-16": lambda rng, raw: raw.decode("utf-8", "replace").encode("utf-16"),
    "a mark of byte order": lambda rng, raw: b"\xef\xbb\xbf" + raw,
    "a long number": lambda rng, raw: raw.replace(b":1", b":" + b"1" * 5000, 1),
    "empty": lambda rng, raw: b"",
    "no JSON": lambda rng, raw: raw[:-1],
    "a comma": lambda rng, raw: raw[:-1] + b",}",
}


# --- CSV ---------------------------------------------------------------------------------------

#: Of these the pairs are the same.
HARMLESS_CSV = {"CRLF", "mark of byte order", "quoted", "columns turned", "another column"}


def edit_csv(rng: Rng, raw: bytes) -> tuple[bytes, str]:
    """A table of pairs with something changed, and what."""
    kind = str(rng.choice(list(_CSV)))
    return _CSV[kind](raw), kind


def _columns(raw: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return b"\n".join(b",".join(change(line.split(b","))) for line in raw.splitlines()) + b"\n"


_CSV: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "mark of byte order": lambda raw: b"\xef\xbb\xbf" + raw,
    "quoted": lambda raw: _columns(raw, lambda c: [b'"' + x.strip(b'"') + b'"' for x in c]),
    "columns turned": lambda raw: _columns(raw, lambda c: c[::-1]),
    "another column": lambda raw: _columns(raw, lambda c: [*c, b"more"]),
    "quote left open": lambda raw: raw.replace(b"STAT1", b'"STAT1', 1),
    "NUL": lambda raw: raw.replace(b"ctrl", b"ct\0rl", 1),
    "not UTF-8": lambda raw: raw.replace(b"STAT1", b"\xff", 1),
    "lone surrogate": lambda raw: raw.replace(b"STAT1", b"\xed\xa0\x80", 1),
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "Latin-1": lambda raw: raw.replace("β".encode(), b"\xe1", 1),
    "no header": lambda raw: raw.partition(b"\n")[2],
    "header twice": lambda raw: raw.replace(b"reference", b"target", 1),
    "semicolons": lambda raw: raw.replace(b",", b";"),
    "tabs": lambda raw: raw.replace(b",", b"\t"),
    "ragged": lambda raw: raw + b"STAT1\n",
    "too many cells": lambda raw: raw + b"STAT1,ctrl,x,y\n",
    "an empty cell": lambda raw: raw + b",ctrl\n",
    "an empty line": lambda raw: raw + b"\n\n",
    "a long cell": lambda raw: raw + b"x" * 200_000 + b",ctrl\n",
    "a pair twice": lambda raw: raw + raw.splitlines()[1] + b"\n",
    "unknown": lambda raw: raw + b"nowhere,ctrl\n",
    "NA": lambda raw: raw + b"NA,ctrl\n",
    "empty": lambda raw: b"",
    "header alone": lambda raw: raw.splitlines()[0] + b"\n",
    "noise": lambda raw: bytes(range(256)) * 4,
}
