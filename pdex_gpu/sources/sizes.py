"""Checks of the sizes that a file declares against ``memory=``, before anything is allocated.

The matrix itself is left to the plan, which reads it in pieces. This module counts everything that
is read whole: labels, names, lists of categories, chunk locations, and single decoded chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

from ..errors import FileFormatError, MemoryBudgetError
from ..utils.resources import memory_budget

#: Bytes per cell, six arrays of 8: codes of labels and of groups, position in group order and row
#: pointer, and while cells are grouped the selected cells and their sorted places.
BYTES_PER_CELL = 48
#: Bytes of a string object and of a pointer to it, not counting its characters.
BYTES_PER_TEXT = 64
BYTES_PER_PLACE = 24  # per chunk: offset, length, skipped filters
SPARE = 1 << 26  # bytes; an excess up to this is not worth refusing
# Factor and bytes by which encoding may enlarge a chunk, far beyond any codec.
_GROWTH, _GROWN = 2, 1 << 16


class _Budget:
    """Bytes that a call may claim, and bytes already claimed."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.claimed = 0


_current: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def within(memory: str | float | int | None) -> Iterator[None]:
    """Require that everything claimed within the block fits in ``memory=`` together."""
    before = _current.get()
    _current.set(_Budget(memory_budget(memory)))
    try:
        yield
    finally:
        # Not reset by token: what a Dask task opened is closed by another thread.
        _current.set(before)


def claim(n_bytes: int, what: str) -> None:
    """Count bytes that are about to be allocated and kept.

    Parameters
    ----------
    n_bytes : int
    what : str
        What the bytes are for, and how many items there are, for the message.

    Raises
    ------
    MemoryBudgetError
        They do not fit together with what was claimed before.
    """
    budget = _budget()
    _check(n_bytes, budget, what)
    budget.claimed += n_bytes


def give_back(n_bytes: int) -> None:
    """Count bytes that were claimed as free again."""
    budget = _budget()
    budget.claimed = max(0, budget.claimed - n_bytes)


def check_room(n_bytes: int, what: str) -> None:
    """Check the room for bytes that will soon be freed; errors are those of :func:`claim`."""
    _check(n_bytes, _budget(), what)


def left_for_plan(allowed: int, n_cells: int) -> int:
    """Return how many bytes a plan may use, out of those that ``memory=`` allows.

    Claims beyond a small allowance are subtracted, except for what plans count themselves.
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
            f"memory= allows {budget.allowed:,} bytes, but at least {needed:,} are needed: {what} "
            f"alone would take {n_bytes:,}. If the file should not be this large, it is damaged: "
            "copy or download it again. Otherwise, allow more with memory=."
        )


def check_grid(
    shape: Sequence[int], chunks: Sequence[int], item: int, file_bytes: int | None, what: str
) -> None:
    """Check how many chunks an array declares, and how large each is.

    Parameters
    ----------
    shape, chunks : sequence of int
    item : int
        Bytes per value.
    file_bytes : int, optional
        Size of the file, if a single file holds all chunks.
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
    claim(BYTES_PER_PLACE * n_chunks, f"the positions of the {n_chunks:,} chunks of {what}")


def most_encoded(decoded: int) -> int:
    """Return the maximum bytes of a chunk in the file, more than any codec would produce."""
    return _GROWTH * decoded + _GROWN


def check_encoded(n_bytes: int, decoded: int, what: str) -> None:
    """Raise FileFormatError if a chunk has more bytes in the file than any codec produces."""
    if n_bytes > most_encoded(decoded):
        raise FileFormatError(
            f"{what} is malformed: it takes {n_bytes:,} bytes in the file, but only {decoded:,} "
            "once decoded. Copy or download the file again."
        )


def check_decoded(told: int | None, decoded: int, what: str) -> None:
    """Raise FileFormatError if a chunk declares a decoded size far above the expected one."""
    if told is not None and told > _GROWTH * decoded + _GROWN:
        raise FileFormatError(
            f"{what} is malformed: it decodes to {told:,} bytes, but should decode to {decoded:,}. "
            "Copy or download the file again."
        )


def claim_texts(n: int, n_letters: int, what: str) -> None:
    """Claim the bytes that texts take as string objects."""
    claim(BYTES_PER_TEXT * n + n_letters, f"{what} ({n:,} texts)")


def pieces(n: int, length: int) -> Iterator[slice]:
    """Yield slices that cut ``[0, n)`` into pieces of `length`."""
    ends = [*range(0, n, length), n]
    return (slice(a, b) for a, b in itertools.pairwise(ends))
