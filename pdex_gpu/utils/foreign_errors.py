"""The gate for untrusted input: any error that a library raises becomes a FileFormatError.

Everything that others may have made or changed is read through it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ..errors import PACKAGE, FileFormatError, MemoryBudgetError, PdexGpuError, shown

# Errors that only content causes, even where this package decodes it itself.
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
    """Turn errors that a library raises inside the block into a FileFormatError.

    An error raised by a line of this package is our own fault and passes, unless only content can
    cause errors of its kind. So the block must check what it takes from a file before relying on
    it.

    Parameters
    ----------
    what : str
        The file, and the part of it that is read, for the message: ``"X/data of 'screen.h5ad'"``.
    library : str
        The library that reads it: ``"HDF5"``.
    why : str
        What is probably wrong with the file.
    advice : str
        A sentence that says what to do.

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
            f"{what} cannot be read: {library} asks for more memory than is available. If it "
            f"should not be this large, {why}. {advice}"
        ) from error
    except Exception as error:  # libraries raise errors of any kind for unexpected content
        if not isinstance(error, _OF_CONTENT) and _is_ours(error.__traceback__):
            raise
        said = shown(f"{type(error).__name__}: {error}").strip("'\"")
        raise FileFormatError(
            f"{what} cannot be read: {why}. {advice} {library} says: {said}"
        ) from error


def _is_ours(traceback: TracebackType | None) -> bool:
    """Return whether a line of this package raised an error, rather than code that it calls."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(PACKAGE)
