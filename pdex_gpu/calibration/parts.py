"""Observed and expected numbers of small p-values, of all tests and of parts of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .distributions import LEVELS

if TYPE_CHECKING:
    from .judged import Judged
    from .result import Calibration

#: Classes of genes by their mean in the mock control, and what they are called.
EXPRESSION_EDGES = (0.1, 1.0)
EXPRESSION = ("mean below 0.1", "mean 0.1 to 1", "mean 1 or more")

#: Classes of mock perturbations by their number of cells.
SIZE_EDGES = (10, 50, 200)
SIZES = ("2 to 9 cells", "10 to 49 cells", "50 to 199 cells", "200 or more cells")

#: With fewer expected p-values at or below a level, the ratio to these is uncertain.
FEW = 10.0

#: Ratios of observed to expected numbers above this are pointed out.
TOO_FREQUENT = 1.3


@dataclass(frozen=True)
class Part:
    """The tests of one kind of p-values in one part of genes or mock perturbations.

    Attributes
    ----------
    kind : str
        Kind of p-values.
    by : str
        ``"all"``, ``"expression"`` or ``"size"``.
    name : str
        The part: ``"all"``, or one of `EXPRESSION` or `SIZES`.
    n_groups, n_tests : int
        Numbers of mock perturbations and of informative tests.
    n_below : tuple of int
        Number of p-values at or below each of `LEVELS`.
    n_false_positives : int
        Number of tests with ``fdr <= alpha``.
    """

    kind: str
    by: str
    name: str
    n_groups: int
    n_tests: int
    n_below: tuple[int, ...]
    n_false_positives: int

    @property
    def title(self) -> str:
        """Return the part in words."""
        if self.by == "all":
            return "all tests"
        kind = "genes with" if self.by == "expression" else "groups of"
        return f"{kind} {self.name}"

    @property
    def expected(self) -> tuple[float, ...]:
        """Return how many p-values at or below each of `LEVELS` are expected."""
        return tuple(self.n_tests * level for level in LEVELS)

    @property
    def excess(self) -> tuple[float, ...]:
        """Return the observed over the expected numbers; NaN without tests."""
        return tuple(
            observed / expected if expected else np.nan
            for observed, expected in zip(self.n_below, self.expected, strict=True)
        )

    @property
    def few(self) -> tuple[bool, ...]:
        """Return whether so few p-values are expected (below 10) that `excess` says little."""
        return tuple(expected < FEW for expected in self.expected)

    @property
    def too_many(self) -> tuple[bool, ...]:
        """Return where p-values are too frequent: by more than 1.3, and beyond chance.

        Chance is three standard deviations of a Poisson number, and three more.
        """
        return tuple(
            observed > TOO_FREQUENT * expected
            and observed > expected + 3.0 * math.sqrt(expected) + 3.0
            for observed, expected in zip(self.n_below, self.expected, strict=True)
        )

    @property
    def false_positives_per_group(self) -> float:
        """Return the mean number of false positives of a mock perturbation."""
        return self.n_false_positives / self.n_groups if self.n_groups else np.nan


def parts_of(calibration: Calibration) -> list[Part]:
    """Return all tests, then those by expression, then by size; of each part, every kind."""
    size = np.digitize(calibration.n_cells, SIZE_EDGES)
    found = [
        part
        for its in zip(*(_parts(judged, size) for judged in calibration.kinds), strict=True)
        for part in its
    ]
    return [part for part in found if part.by != "size" or part.n_groups]


def _parts(judged: Judged, size: np.ndarray) -> Iterator[Part]:
    every = np.ones(len(size), bool)
    genes = slice(None)
    yield _part(judged, "all", "all", every, genes)
    for k, name in enumerate(EXPRESSION):
        yield _part(judged, "expression", name, every, slice(k, k + 1))
    for k, name in enumerate(SIZES):
        yield _part(judged, "size", name, size == k, genes)


def _part(judged: Judged, by: str, name: str, groups: np.ndarray, genes: slice) -> Part:
    return Part(
        judged.kind,
        by,
        name,
        int(np.count_nonzero(groups)),
        int(judged.n_tests[groups, genes].sum()),
        tuple(judged.n_below[groups, genes].sum(axis=(0, 1)).tolist()),
        int(judged.n_false_positives[groups, genes].sum()),
    )
