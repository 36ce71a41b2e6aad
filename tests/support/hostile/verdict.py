"""What came of a case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: What can be wrong: how a line of ``problems`` begins, before a colon.
WRONG = (
    "wrong table",
    "foreign exception",
    "needless refusal",
    "hang",
    "death",
    "leak",
    "memory",
)

RIGHT = "right"
#: The table is that of values that were changed where nothing can tell.
UNDETECTABLE = "undetectable change"
#: HDF5 itself hangs, which no call can end: see `campaign.hangs_in_hdf5`.
HANG_IN_HDF5 = "hang in HDF5"


@dataclass(frozen=True)
class Verdict:
    """What came of a case.

    Attributes
    ----------
    outcome : str
        `RIGHT`, `UNDETECTABLE`, or the class of the error that the call ended with.
    problems : tuple of str
        What is wrong, a line each; it overrules the outcome.
    """

    outcome: str = RIGHT
    problems: tuple[str, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The words of `WRONG` that the problems begin with, each once."""
        return sorted({kind_of(line) for line in self.problems})


def kind_of(problem: str) -> str:
    """The word of `WRONG` that a problem begins with; a table is wrong where there is none."""
    kind = problem.partition(":")[0]
    return kind if kind in WRONG else "wrong table"


def foreign(error: BaseException) -> str:
    """The line of an error that is none of the package's."""
    return f"foreign exception: {type(error).__module__}.{type(error).__name__}: {error}"


def of_lines(lines: Iterable[str]) -> Verdict:
    """The verdict of a driver that gives problems alone."""
    return Verdict(RIGHT, tuple(lines))
