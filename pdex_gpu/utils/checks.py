"""Checks of option values, made before anything is done with them. All such checks are here.

An unusable value is refused with an OptionError, even if the value itself raises when it is
compared, hashed or printed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import OptionError, shown, unknown

if TYPE_CHECKING:
    import numpy as np

# numpy is imported where it is needed: the command line checks paths before it needs numpy.


def kind(value: object) -> str:
    """Name the class of a value, for messages: ``"int"``, ``"pandas.core.frame.DataFrame"``."""
    found = type(value)
    return f"{found.__module__}.{found.__qualname__}".removeprefix("builtins.")


def is_flag(value: object) -> TypeGuard[bool | np.bool_]:
    """Return whether this is True or False."""
    import numpy as np

    return isinstance(value, bool | np.bool_)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether this is a real number, neither NaN nor infinite."""
    import numpy as np

    if is_flag(value) or isinstance(value, np.timedelta64):  # an integer to numpy
        return False
    if not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number beyond float64
        return False


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether this is a whole number that fits in a machine word."""
    import numpy as np

    if not isinstance(value, int | np.integer) or not is_number(value):
        return False
    return abs(int(value)) < 2**63


def is_array(
    value: object, shape: tuple[int | None, ...], dtype: np.dtype | None = None
) -> TypeGuard[np.ndarray]:
    """Return whether this is an array of that shape (None for any length) and dtype."""
    import numpy as np

    return (
        isinstance(value, np.ndarray)
        and value.ndim == len(shape)
        and all(want in (None, found) for want, found in zip(shape, value.shape, strict=True))
        and (dtype is None or value.dtype == dtype)  # not `in`: float64 equals None
    )


def described(value: object) -> str:
    """Describe an array by dtype and shape, anything else by its class."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return kind(value)


def check_text(name: str, value: object, *, may_be_none: bool = False, what: str = "") -> None:
    """Raise OptionError unless `value` is text; `what` says what the text names."""
    if not isinstance(value, str) and not (may_be_none and value is None):
        more = f": {what}" if what else ""
        raise OptionError(f"{name}={shown(value)} must be text, not {kind(value)}{more}.")


def check_flag(name: str, value: object, *, may_be_none: bool = False) -> None:
    """Raise OptionError unless `value` is True or False, or None if that is allowed."""
    if is_flag(value) or (may_be_none and value is None):
        return
    words = "True, False or None" if may_be_none else "True or False"
    raise OptionError(f"{name}={shown(value)} must be {words}.")


def check_count(
    name: str, value: Any, *, least: int = 1, most: int | None = None, may_be_none: bool = True
) -> None:
    """Raise OptionError unless `value` is None or a whole number from `least` to `most`."""
    if value is None and may_be_none:
        return
    if not is_whole(value) or value < least or (most is not None and value > most):
        otherwise = "" if most is None else f" and at most {most}"
        otherwise += ", or None" if may_be_none else ""
        raise OptionError(
            f"{name}={shown(value)} must be a whole number of at least {least}{otherwise}."
        )


def check_number(name: str, value: object, words: str = "a number") -> float:
    """Return the number as a float; raise OptionError, quoting `words`, if it is not a number."""
    if not is_number(value):
        raise OptionError(f"{name}={shown(value)} must be {words}.")
    return float(value)


def check_fraction(name: str, value: object) -> None:
    """Raise OptionError unless `value` is a number from 0 to 1."""
    if is_number(value) and 0.0 <= value <= 1.0:
        return
    percent = is_number(value) and 1.0 < value <= 100.0
    hint = f" For {shown(value)}%, pass {float(value) / 100:g}." if percent else ""  # type: ignore[arg-type]
    raise OptionError(f"{name}={shown(value)} must be a number between 0 and 1.{hint}")


def check_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Raise OptionError unless `value` is one of `choices`: words, or True and False."""
    known = isinstance(value, str) or is_flag(value)
    if not known or value not in choices:
        raise OptionError(unknown(what, value, choices))


def check_path(name: str, value: object) -> Path:
    """Return the path, given as text or as a path-like object.

    Raises
    ------
    OptionError
        It is neither, or is empty, or holds a character that a file name cannot have.
    """
    path = value
    if isinstance(value, os.PathLike):
        try:
            path = os.fspath(value)
        except Exception as error:  # raised by the object itself
            raise OptionError(f"{name}={shown(value)} cannot be turned into a path.") from error
    if not isinstance(path, str):
        raise OptionError(f"{name}={shown(value)} must be a path, not {kind(value)}.")
    if not path.strip():
        raise OptionError(f"{name}={shown(value)} is empty. Pass a file or folder.")
    if "\0" in path:
        raise OptionError(f"{name}={shown(value)} contains a null character. Correct the path.")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise OptionError(
            f"{name}={shown(value)} contains characters not allowed in a file name: {error}."
        ) from error
    return Path(path)


def names_of(name: str, value: object, what: str, example: str) -> list[str]:
    """Return the names that an option lists; it may also be a single name.

    Raises
    ------
    OptionError
        It is neither text nor a list of texts; `what` says what is named, `example` shows a name.
    """
    try:
        found = [value] if isinstance(value, str) else listed(value)
    except TypeError:
        found = [None]
    if not all(isinstance(one, str) for one in found):
        raise OptionError(f"{name}={shown(value)} must be names of {what}, such as {example}.")
    return [str(one) for one in found]


def listed(value: object) -> list[Any]:
    """List the items of a collection; raise TypeError if it is not one or is too long."""
    if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Iterable):
        raise TypeError(f"{kind(value)} is not a list")
    if isinstance(value, range) and len(value) > 1 << 24:
        raise TypeError(f"{shown(value)} is too long")
    try:
        return list(value)
    except Exception as error:  # raised by the object itself
        raise TypeError(f"{kind(value)} cannot be listed: {shown(error)}") from error


def check_label(name: str, label: object, option: object = None) -> None:
    """Raise OptionError unless `label` can label a group: be hashed, compared and shown.

    `option` is the value of the option, if it is more than this label.
    """
    if isinstance(label, tuple):  # shown part by part
        for part in label:
            check_label(name, part, label if option is None else option)
    try:
        hash(label)
        str(label)
        bool(label == label)
    except Exception as error:  # a list, pandas.NA, or the caller's own class
        raise OptionError(
            f"{name}={shown(label if option is None else option)} must be labels of the column. "
            f"Got {kind(label)}: {error}. Pass strings or numbers that match the column's values."
        ) from error


def labels_of(name: str, labels: object) -> list[Any] | None:
    """Return a list of labels, or None; a single label may be given as text.

    Raises
    ------
    OptionError
        It is not a list, or holds something that cannot be a label, such as a list.
    """
    if labels is None:
        return None
    try:
        found = [labels] if isinstance(labels, str) else listed(labels)
    except TypeError as error:
        raise OptionError(
            f"{name}={shown(labels)} must be labels of the column, in a list: {error}."
        ) from error
    for label in found:
        check_label(name, label, labels)
    return found
