"""The gate through which everything is read that others may have made or changed: any error that a
library raises there becomes a FileFormatError."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from .errors import PACKAGE, FileFormatError, MemoryBudgetError, PdexGpuError, shown

# What only content gives rise to, also where this package itself decodes it.
_OF_CONTENT = (
    OSError,
    EOFError,
    UnicodeError,
    RecursionError,
    json.JSONDecodeError,
    struct.error,
    zlib.error,
)


@contextmanager
def reading(
    what: str,
    library: str,
    why: str = "it is truncated or damaged",
    advice: str = "Copy or download it again.",
) -> Iterator[None]:
    """Turn what a library raises in the block into a FileFormatError.

    An error that arises in a line of this package is a fault of ours and passes, unless only
    content can give rise to its kind. So the block has to check what it takes from a file before it
    counts on it.

    Parameters
    ----------
    what : str
        The file, and what in it is read, for the message: ``"X/data of 'screen.h5ad'"``.
    library : str
        Who reads it: ``"HDF5"``.
    why : str
        What is probably wrong with it.
    advice : str
        What to do, in a sentence.

    Raises
    ------
    FileFormatError
        The library raised something.
    MemoryBudgetError
        The library was refused memory.
    """
    try:
        yield
    except PdexGpuError:
        raise
    except MemoryError as error:
        raise MemoryBudgetError(
            f"{what} cannot be read: {library} asks for more memory than this machine gives. If "
            f"it is not meant to be so large, {why}. {advice}"
        ) from error
    except Exception as error:  # libraries raise errors of every kind for what they do not expect
        if not isinstance(error, _OF_CONTENT) and _is_ours(error.__traceback__):
            raise
        said = shown(f"{type(error).__name__}: {error}").strip("'\"")
        raise FileFormatError(
            f"{what} cannot be read: {why}. {advice} {library} says: {said}"
        ) from error


def _is_ours(traceback: TracebackType | None) -> bool:
    """Whether an error arose in a line of this package, not in what it calls."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(PACKAGE)
