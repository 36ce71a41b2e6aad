"""Calibrations as JSON: every field is exact to the bit, and other programs can read the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from .._version import __version__
from ..errors import FileFormatError, MemoryBudgetError, OptionError
from ..utils.atomic_files import is_there, write_atomically
from ..utils.checks import check_path
from ..utils.foreign_errors import reading
from ..utils.install_hints import UPDATE
from ..utils.resources import available_memory
from .distributions import LEVELS, N_BINS, Distribution, Quantiles
from .judged import Judged
from .parts import EXPRESSION

if TYPE_CHECKING:
    from .result import Calibration

FORMAT = "pdex_gpu calibration"

#: Version of the layout below; increased when older versions of the package cannot read it.
VERSION = 2

# Approximate memory that Python objects take per byte of JSON.
_MEMORY_PER_BYTE = 8

# JSON has no notation for these numbers.
_WORDS = {"Infinity": np.inf, "-Infinity": -np.inf}


def write_json(calibration: Calibration, path: str | os.PathLike[str]) -> None:
    """See :meth:`.result.Calibration.to_json`."""
    document = {"format": FORMAT, "version": VERSION, "pdex_gpu": __version__}
    document |= _json_value(calibration)
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # UTF-8 cannot hold a lone surrogate: write it as a JSON escape.
    data = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: _fill(file, data))


def _fill(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _json_value(value: Any) -> Any:
    """Convert a value, and all that it holds, to the numbers, text, lists and objects of JSON."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _json_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return _json_value(value.tolist())
    if isinstance(value, np.generic):
        return _json_value(value.item())
    if isinstance(value, dict):
        return {str(key): _json_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(part) for part in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a calibration; see :meth:`.result.Calibration.from_json`."""
    path = check_path("path", path)
    shown = repr(str(path))
    if is_there(path, "The calibration file").is_dir():
        raise OptionError(f"{shown} is a folder. Pass the .json file of a calibration in it.")
    size, free = path.stat().st_size, available_memory()
    if _MEMORY_PER_BYTE * size > free:
        raise MemoryBudgetError(
            f"{shown} has {size:,} bytes, too many to read with {free:,} bytes of free memory. "
            "Calibration files are smaller than that: check the file."
        )
    why = "it is not JSON, or it was cut short"
    advice = "Pass a file written by Calibration.to_json() or `pdex-gpu calibrate`."
    with reading(shown, "The JSON reader", why, advice):
        document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(
            f"{shown} is JSON, but not a pdex_gpu calibration. Pass a file written by "
            "Calibration.to_json() or `pdex-gpu calibrate`."
        )
    version = document.get("version")
    if _is_integer(version) and version > VERSION:
        writer = document.get("pdex_gpu", "a newer version")
        raise FileFormatError(
            f"{shown} is a calibration in format {version} (written by pdex_gpu {writer}); this "
            f"version reads formats up to {VERSION}. To read it, {UPDATE}"
        )
    try:
        if version is None:
            raise _Wrong("its 'version' is missing")
        if not _is_integer(version) or version < 1:
            raise _Wrong(f"its 'version' is {version!r}")
        if version < VERSION:
            writer = document.get("pdex_gpu", "an older version")
            raise FileFormatError(
                f"{shown} is a calibration in format {version} (written by pdex_gpu {writer}), "
                "which has no numbers of p-values by expression. Run the calibration again."
            )
        return _calibration(_Fields(document, ""))
    except _Wrong as error:
        raise FileFormatError(
            f"{shown} claims to be a pdex_gpu calibration, but {error}: another program changed "
            "or wrote it. Use the file as pdex_gpu wrote it."
        ) from error


class _Wrong(Exception):
    """A fault in a document; the message says which."""


class _Fields:
    """The fields of an object in a document; each is checked when it is read."""

    def __init__(self, found: Any, path: str) -> None:
        if not isinstance(found, dict):
            raise _Wrong(f"{path.removesuffix('.')!r} is not an object")
        self._found, self._path = found, path

    def _take(self, name: str) -> Any:
        if name not in self._found:
            raise _Wrong(f"{self._path + name!r} is missing")
        return self._found[name]

    def _is(self, name: str, right: Callable[[Any], bool], what: str) -> Any:
        value = self._take(name)
        if not right(value):
            raise _Wrong(f"{self._path + name!r} is not {what}")
        return value

    def object(self, name: str) -> dict[str, Any]:
        """Return an object unchanged."""
        found: dict[str, Any] = self._is(name, lambda value: isinstance(value, dict), "an object")
        return found

    def inside(self, name: str) -> _Fields:
        return _Fields(self._take(name), f"{self._path}{name}.")

    def several(self, name: str) -> list[_Fields]:
        parts = self._is(name, lambda value: isinstance(value, list), "a list")
        return [_Fields(part, f"{self._path}{name}[{k}].") for k, part in enumerate(parts)]

    def text(self, name: str) -> str:
        return str(self._is(name, lambda value: isinstance(value, str), "text"))

    def text_or_none(self, name: str) -> str | None:
        found: str | None = self._is(
            name, lambda value: value is None or isinstance(value, str), "text or null"
        )
        return found

    def counts(self, name: str, *shape: int) -> np.ndarray:
        """Return nested lists of whole numbers, int64 of that shape."""
        value = self._take(name)
        if not _has_shape(value, shape):
            words = " x ".join(map(str, shape))
            raise _Wrong(f"{self._path + name!r} does not consist of {words} whole numbers")
        return np.array(value, np.int64).reshape(shape)

    def whole(self, name: str) -> int:
        return int(self._is(name, _is_whole, "a non-negative integer"))

    def number(self, name: str) -> float:
        return _float(self._is(name, _is_number, "a number"))

    def labels(self, name: str, n: int | None = None) -> np.ndarray:
        values = self._list(name, lambda value: not isinstance(value, list | dict), "labels", n)
        found = np.full(len(values), None)
        found[:] = values
        return found

    def integers(self, name: str, n: int | None = None) -> np.ndarray:
        """Return whole numbers, int64."""
        return np.array(self._list(name, _is_integer, "whole numbers", n), np.int64)

    def rows(self, name: str, width: int) -> np.ndarray:
        """Return rows of whole numbers, shape (n, width), int64."""
        rows = self._list(name, lambda row: isinstance(row, list), "lists", None)
        if any(len(row) != width or not all(map(_is_integer, row)) for row in rows):
            raise _Wrong(f"{self._path + name!r} does not consist of rows of {width} integers")
        return np.array(rows, np.int64).reshape(len(rows), width)

    def floats(self, name: str, n: int | None = None) -> np.ndarray:
        """Return numbers, float64."""
        values = self._list(name, _is_number, "numbers", n)
        return np.array([_float(value) for value in values], np.float64)

    def _list(self, name: str, right: Callable[[Any], bool], what: str, n: int | None) -> list[Any]:
        values: list[Any] = self._is(
            name,
            lambda found: isinstance(found, list) and all(map(right, found)),
            f"a list of {what}",
        )
        if n is not None and len(values) != n:
            raise _Wrong(f"{self._path + name!r} has {len(values)} values, not {n}")
        return values


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return _is_integer(value)
    return (
        isinstance(value, list)
        and len(value) == shape[0]
        and all(_has_shape(part, shape[1:]) for part in value)
    )


def _is_integer(value: Any) -> TypeGuard[int]:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and -(1 << 63) <= value < 1 << 63


def _is_whole(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value in _WORDS
    return value is None or isinstance(value, float) or _is_integer(value)


def _float(value: Any) -> float:
    if isinstance(value, str):
        return _WORDS[value]
    return np.nan if value is None else float(value)


def _calibration(found: _Fields) -> dict[str, Any]:
    groups = found.labels("groups")
    n = len(groups)
    controls = found.integers("control_cells")
    kinds = tuple(_judged(part, n) for part in found.several("kinds"))
    if not kinds:
        raise _Wrong("'kinds' is empty")
    return {
        "groups": groups,
        "repeats": found.integers("repeats", n),
        "targets": found.labels("targets", n),
        "n_target_cells": found.integers("n_target_cells", n),
        "n_cells": found.integers("n_cells", n),
        "n_reference_cells": found.integers("n_reference_cells", n),
        "n_uninformative": found.integers("n_uninformative", n),
        "kinds": kinds,
        "n_targets": found.whole("n_targets"),
        "control_cells": controls,
        "assignment": found.rows("assignment", len(controls)),
        "alpha": found.number("alpha"),
        "metric": found.text("metric"),
        "reference": found.text("reference"),
        "units": found.text_or_none("units"),
        "n_units": found.whole("n_units"),
    }


def _judged(found: _Fields, n: int) -> Judged:
    by_group = tuple(_distribution(part) for part in found.several("by_group"))
    by_expression = found.several("by_expression")
    if len(by_group) != n or len(by_expression) != len(EXPRESSION):
        raise _Wrong("'by_group' or 'by_expression' has too many or too few parts")
    low, middle, high = map(_distribution, by_expression)
    return Judged(
        kind=found.text("kind"),
        n_tests=found.counts("n_tests", n, len(EXPRESSION)),
        n_below=found.counts("n_below", n, len(EXPRESSION), len(LEVELS)),
        n_false_positives=found.counts("n_false_positives", n, len(EXPRESSION)),
        by_group=by_group,
        total=_distribution(found.inside("total")),
        by_expression=(low, middle, high),
        quantiles=_quantiles(found.inside("quantiles")),
        provenance=found.object("provenance"),
    )


def _distribution(found: _Fields) -> Distribution:
    return Distribution(
        found.whole("n_tests"),
        found.integers("n_below", len(LEVELS)),
        found.number("inflation"),
        found.number("ks_distance"),
        found.integers("histogram", N_BINS),
    )


def _quantiles(found: _Fields) -> Quantiles:
    ranks = found.integers("ranks")
    return Quantiles(
        ranks,
        found.floats("expected", len(ranks)),
        found.floats("observed", len(ranks)),
        found.whole("n_tests"),
    )
