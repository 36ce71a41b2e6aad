"""Machine-readable output: one JSON document on stdout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def write_json(document: Any) -> None:
    """Write a document to stdout as one line of ASCII."""
    sys.stdout.write(json_line(document))


def json_line(document: Any) -> str:
    """Return a document as one line of ASCII.

    Numbers that are not finite become null, because JSON has no other value for them.
    """
    return json.dumps(plain(document), allow_nan=False) + "\n"


def error_document(code: int, name: str, message: str) -> dict[str, Any]:
    """Return the document of an error, given the name of its class."""
    return {"error": {"code": code, "class": name, "message": message}}


def plain(value: Any) -> Any:
    """Convert a value for JSON, including NumPy numbers and arrays, paths and dataclasses."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
