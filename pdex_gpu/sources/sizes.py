"""Sizes that a file declares, held against ``memory=`` before anything is allocated for them.

The matrix is left to the plan, which reads it in pieces. What is read whole counts here: labels,
names, lists of categories, where chunks lie, and a chunk, which is decoded whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

from ..errors import FileFormatError, MemoryBudgetError
from ..machine import memory_budget

#: Bytes of a cell: label, code, place in group order and row pointer.
BYTES_PER_CELL = 48
#: Bytes of a text as an object, and of a pointer to it, beside its letters.
BYTES_PER_TEXT = 64
BYTES_PER_PLACE = 24  # of a chunk: offset, length, filters left out
SPARE = 1 << 26  # not worth refusing
# Bytes to which a chunk may grow instead of shrinking when it is encoded, far beyond any codec's.
_GROWTH, _GROWN = 2, 1 << 16


class _Budget:
    """Bytes of a call that may be taken, and those that were."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.claimed = 0


_current: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def within(memory: str | float | int | None) -> Iterator[None]:
    """In the block, all that is claimed together has to fit in ``memory=``."""
    before = _current.get()
    _current.set(_Budget(memory_budget(memory)))
    try:
        yield
    finally:
        # Not by a token: what a task of Dask opened is closed by another thread.
        _current.set(before)


def claim(n_bytes: int, what: str) -> None:
    """Count bytes that are about to be taken, and are kept.

    Parameters
    ----------
    n_bytes : int
    what : str
        What takes them and how many of it there are, for the message.

    Raises
    ------
    MemoryBudgetError
        With those that were claimed before they do not fit.
    """
    budget = _budget()
    _check(n_bytes, budget, what)
    budget.claimed += n_bytes


def check_room(n_bytes: int, what: str) -> None:
    """The same for bytes that are soon given back."""
    _check(n_bytes, _budget(), what)


def left_for_plan(allowed: int, n_cells: int) -> int:
    """Bytes that a plan may use, of those that ``memory=`` allows.

    What was claimed is taken off where it is worth it, and where plans do not count it themselves.
    """
    budget = _current.get()
    claimed = 0 if budget is None else budget.claimed - BYTES_PER_CELL * n_cells
    return max(1, allowed - max(0, claimed - SPARE))


def _budget() -> _Budget:
    return _current.get() or _Budget(memory_budget(None))


def _check(n_bytes: int, budget: _Budget, what: str) -> None:
    needed = budget.claimed + n_bytes
    if needed - budget.allowed > SPARE:
        raise MemoryBudgetError(
            f"memory= allows {budget.allowed:,} bytes, but at least {needed:,} are needed: "
            f"{what} alone would take {n_bytes:,}. If the file is not meant to be so large, it is "
            "damaged: copy or download it again. Else give more with memory=."
        )


def check_grid(
    shape: Sequence[int], chunks: Sequence[int], item: int, file_bytes: int | None, what: str
) -> None:
    """Check how many chunks an array declares, and how large one is.

    Parameters
    ----------
    shape, chunks : sequence of int
    item : int
        Bytes of a value.
    file_bytes : int, optional
        Bytes of the file that holds all chunks, if one does.
    what : str
        The array, for messages.

    Raises
    ------
    FileFormatError
        There are more chunks than the file has bytes.
    MemoryBudgetError
        They take more memory than is allowed.
    """
    n_chunks = prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if file_bytes is not None and n_chunks > file_bytes:
        raise FileFormatError(
            f"{what} is malformed: it declares {' x '.join(f'{n:,}' for n in shape)} values in "
            f"{n_chunks:,} chunks, but the file has {file_bytes:,} bytes. Copy or download it "
            "again, or write it again."
        )
    check_room(item * prod(chunks), f"a chunk of {what}")
    claim(BYTES_PER_PLACE * n_chunks, f"the places of the {n_chunks:,} chunks of {what}")


def most_encoded(decoded: int) -> int:
    """Bytes that a chunk takes in the file at most, more than any codec would make."""
    return _GROWTH * decoded + _GROWN


def check_encoded(n_bytes: int, decoded: int, what: str) -> None:
    """Raise FileFormatError if a chunk takes more bytes in the file than any codec would make."""
    if n_bytes > most_encoded(decoded):
        raise FileFormatError(
            f"{what} is malformed: it takes {n_bytes:,} bytes in the file, but only {decoded:,} "
            "once decoded. Copy or download the file again."
        )


def check_decoded(told: int | None, decoded: int, what: str) -> None:
    """Raise FileFormatError if a chunk says of itself that it decodes to far more than belongs."""
    if told is not None and told > _GROWTH * decoded + _GROWN:
        raise FileFormatError(
            f"{what} is malformed: it decodes to {told:,} bytes, but {decoded:,} belong into it. "
            "Copy or download the file again."
        )


def claim_texts(n: int, n_letters: int, what: str) -> None:
    """Claim what texts take as objects."""
    claim(BYTES_PER_TEXT * n + n_letters, f"{what} ({n:,} texts)")


def pieces(n: int, length: int) -> Iterator[slice]:
    """``[0, n)`` in pieces of so many."""
    ends = [*range(0, n, length), n]
    return (slice(a, b) for a, b in itertools.pairwise(ends))
