"""Parsing of command-line texts into values; an invalid text is a usage error."""

from __future__ import annotations

import csv
import math
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import typer

from ..errors import MissingFileError, OptionError, listing, unknown
from ..utils.atomic_files import mode_of
from ..utils.formats import PROGRAM as PROGRAM

# A name in a list: quoted, up to the next comma or the end of the text, or as it is.
_LISTED = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)')


def names(texts: Iterable[str] | None) -> list[str]:
    """Split texts into the names that they list.

    Commas separate names, and blanks around them do not count. A name in double quotes is taken as
    it is, with commas and blanks; two double quotes in it stand for one.
    """
    return [name for text in texts or () for name in _names_in(text)]


def _names_in(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _LISTED.match(text, at)
        assert found is not None  # the second form matches anything, up to a comma
        quoted, plain = found.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif plain.strip():
            yield plain.strip()
        at = found.end()


def lists_by_comma(text: str) -> bool:
    """Return whether a text lists several names."""
    return len(names([text])) > 1


def one_of(choices: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Return a parser that accepts one of a few words, those that `choices` returns then."""

    def parse(text: str) -> str:
        if text not in choices():
            raise typer.BadParameter(unknown("value", text, choices()))
        return text

    return parse


def some_of(choices: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Return a parser that checks a list of words, each one of those that `choices` returns."""
    word = one_of(choices)

    def parse(text: str) -> str:
        for one in names([text]):
            word(one)
        return text

    return parse


def number(text: str | float) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise typer.BadParameter(f"{text!r} is not a number")
    return value


def number_at_least_zero(text: str | float) -> float:
    """Parse a number that is not negative."""
    value = number(text)
    if value < 0.0:
        raise typer.BadParameter(f"{text!r} is below 0")
    return value


def number_or_none_text(text: str | float) -> str:
    """Check a text that :func:`number_or_none` parses, and return it."""
    number_or_none(text)
    return str(text)


def number_or_none(text: str | float) -> float | None:
    """Parse a finite number above zero, or ``none``."""
    if text == "none":
        return None
    value = number(text)
    if value <= 0:
        raise typer.BadParameter(f"{text!r} is neither a number above 0 nor none")
    return value


def number_or_name(text: str) -> float | str:
    """Return the number that a text is, or the text itself."""
    try:
        return float(text)
    except ValueError:
        return text


def fraction(text: str | float) -> float:
    """Parse a number above 0 and below 1."""
    value = number(text)
    if not 0.0 < value < 1.0:
        raise typer.BadParameter(f"{text!r} is not a number between 0 and 1")
    return value


def at_least_one(text: str | int) -> int:
    """Parse a whole number above zero."""
    return _whole(text, 1)


def at_least_zero(text: str | int) -> int:
    """Parse a whole number that is not negative."""
    return _whole(text, 0)


def _whole(text: str | int, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise typer.BadParameter(f"{text!r} is not a whole number of at least {least}")
    return value


def memory_size(text: str | int) -> int:
    """Parse a size such as ``4GB``, ``512MiB`` or a plain number into bytes."""
    from ..utils.resources import memory_budget

    try:
        return memory_budget(text)
    except OptionError:
        raise typer.BadParameter(
            f"{text!r} is not a size; pass bytes, or a number with a unit such as 4GB or 512MiB"
        ) from None


def device_number(text: str | int) -> int:
    """Parse the number of a device."""
    if not str(text).isdecimal():
        raise typer.BadParameter(
            f"{text!r} is not a device number; nvidia-smi lists them, starting at 0"
        )
    return int(text)


def devices(texts: Iterable[str]) -> int | list[int] | str:
    """Parse lists of numbers of devices, or ``all``, that :func:`devices_text` has checked."""
    found = names(texts)
    if "all" in found:
        return "all"
    return int(found[0]) if len(found) == 1 else [int(word) for word in found]


def devices_text(text: str) -> str:
    """Check a list of numbers of devices, or ``all``, and return it."""
    words = [word.strip() for word in text.split(",")]
    if text != "all" and not all(word.isdecimal() for word in words):
        raise typer.BadParameter(
            f"{text!r} is not a device number, a comma-separated list of them, or all; nvidia-smi "
            "lists them, starting at 0"
        )
    return text


def architectures(texts: Iterable[str]) -> list[str]:
    """Parse ``sm_90``, ``90`` or ``9.0`` into ``sm_90``; a text may list several, with commas."""
    found = []
    for text in names(texts):
        match = re.fullmatch(r"(?:sm_)?(\d{1,2})\.?(\d)", text)
        if not match:
            raise OptionError(
                f"--arch {text!r} is not a CUDA architecture. Pass one such as sm_90."
            )
        found.append(f"sm_{match[1]}{match[2]}")
    return found


def pairs(texts: Iterable[str] | None) -> list[tuple[str, str]] | None:
    """Parse pairs of targets and references from ``TARGET:REFERENCE`` or from tables in files.

    Parameters
    ----------
    texts : iterable of str, optional
        Lists, see :func:`names`. What ends in ``.csv`` or ``.tsv`` is a table with the columns
        target and reference.

    Raises
    ------
    OptionError
        If a text is neither, or a table has other columns.
    MissingFileError
        If there is no such file.
    """
    if not texts:
        return None
    found: list[tuple[str, str]] = []
    for text in names(texts):
        if text.lower().endswith((".csv", ".tsv")):
            found += _read_pairs(Path(text))
        elif text.count(":") == 1 and all(text.split(":")):
            target, reference = text.split(":")
            found.append((target, reference))
        else:
            raise OptionError(
                f"--pairs {text!r} must be TARGET:REFERENCE with one colon, or a .csv or .tsv file "
                "with the columns target and reference (for names that contain colons)."
            )
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    mode = mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise OptionError(
            f"The table of pairs {str(path)!r} is not a regular file. Pass a .csv or .tsv file."
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=separator) if row]
    except FileNotFoundError:
        raise MissingFileError(f"The table of pairs {str(path)!r} does not exist.") from None
    except (OSError, ValueError, csv.Error) as error:  # for example a folder, or not text
        raise OptionError(f"The table of pairs {str(path)!r} cannot be read: {error}.") from error
    header = rows[0] if rows else []
    if not {"target", "reference"} <= set(header):
        raise OptionError(
            f"The table of pairs {str(path)!r} must have the columns target and reference; its "
            f"first line has {listing(header)}."
        )
    places = header.index("target"), header.index("reference")
    short = next((n for n, row in enumerate(rows, 1) if len(row) <= max(places)), None)
    if short is not None:
        raise OptionError(
            f"Line {short} of the table of pairs {str(path)!r} has too few columns. Every line "
            "needs a target and a reference."
        )
    return [(row[places[0]], row[places[1]]) for row in rows[1:]]
