"""What the counts of each cell are divided by, and what becomes of the ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from ...errors import DataError
from ..sizes import claim

_BYTES_PER_CELL = 8

#: Sums of whole numbers up to this are exact in float64.
LARGEST_TOTAL = 2.0**53


@dataclass
class Scaling:
    """The scaling of the counts of every cell: ``log1p(target * (count / divisor))``.

    Attributes
    ----------
    divisors : numpy.ndarray, shape (n_cells,), float64
        Total or size factor of each cell. Totals are NaN until they are known.
    target : float or None
        Sum to which the values of each cell are scaled; None for the median of the totals above 0,
        until they are known.
    log1p : bool
        Whether log1p is taken.
    column : str or None
        Column of obs that gives the divisors; None if they are the totals of the cells.
    what : str
        Name of the matrix in messages.
    cell_name, gene_name : callable
        Return the names of a row and of a column of the matrix.
    """

    divisors: np.ndarray
    target: float | None
    log1p: bool
    column: str | None = None
    what: str = "X"
    cell_name: Callable[[int], str] = field(default=str)
    gene_name: Callable[[int], str] = field(default=str)
    _whole: tuple[Scaling, np.ndarray] | None = None  # that of more cells, and which these are

    @classmethod
    def by_totals(cls, n_cells: int, target: float | None, log1p: bool) -> Self:
        """Return the scaling by totals that are not known yet."""
        claim(_BYTES_PER_CELL * n_cells, f"the totals of {n_cells:,} cells")
        return cls(np.full(n_cells, np.nan), target, log1p)

    @property
    def n_cells(self) -> int:
        """Return the number of cells."""
        return len(self.divisors)

    @property
    def known(self) -> bool:
        """Return whether the divisors of all cells are known."""
        return not np.isnan(self.divisors).any()

    @property
    def n_empty(self) -> int:
        """Return the number of cells that are known to have a total of 0."""
        return int((self.divisors == 0.0).sum())

    def find_target(self) -> float:
        """Return the target; if it is the median, the totals must be known.

        The median is over the totals above 0, as in ``scanpy.pp.normalize_total``.
        """
        if self.target is None:
            above = self.divisors[self.divisors > 0.0]
            self.target = float(np.median(above)) if len(above) else 1.0
        return self.target

    def set_totals(self, rows: slice, totals: np.ndarray) -> None:
        """Set the totals of some cells, now that they are known.

        Raises
        ------
        DataError
            A total is above 2^53, so it may not be exact.
        """
        if (totals > LARGEST_TOTAL).any():
            cell = int(np.arange(self.n_cells)[rows][np.argmax(totals)])
            name = self.cell_name(cell)
            raise DataError(
                f"The values of {self.what} in cell {name!r} (row {cell}) add up to "
                f"{totals.max():.6g}, more than 2^53. normalize= needs raw counts."
            )
        self.divisors[rows] = totals
        if self._whole is not None:
            whole, cells = self._whole
            whole.divisors[cells[rows]] = totals

    def of_cells(self, cells: np.ndarray) -> Scaling:
        """Return the scaling of some cells, given by their rows; totals become known to both."""
        name = self.cell_name
        return replace(
            self,
            divisors=self.divisors[cells],
            cell_name=lambda row: name(int(cells[row])),
            _whole=(self, cells),
        )

    def refused(self, value: float, cell: int, gene: int) -> DataError:
        """Return the error for a value that cannot be scaled."""
        where = (
            f"{self.what} is {value:.6g} in cell {self.cell_name(cell)!r} (row {cell}), gene "
            f"{self.gene_name(gene)!r} (column {gene})"
        )
        if value < 0.0:
            return DataError(
                f"{where}. normalize= needs raw counts, which are not negative. Leave it out if "
                "the values are scaled, centred or residuals, or choose raw counts with layer= "
                "(--layer) or raw=True (--raw)."
            )
        if not np.isfinite(value):
            return DataError(
                f"{where}. normalize= needs finite counts: replace the value, or remove the cell "
                "or the gene."
            )
        if value != np.floor(value):
            return DataError(
                f"{where}. normalize= needs raw counts, which are whole numbers. If the values are "
                "normalised already, leave it out. If they are counts corrected by another tool, "
                "round them first (numpy.rint). Raw counts may be in a layer: layer= (--layer), "
                "or in raw: raw=True (--raw)."
            )
        if value > 0.0 and self.divisors[cell] == 0.0:
            return DataError(
                f"{where}, but its total in column {self.column!r} of obs is 0. Give that cell its "
                "total, or leave out totals= to have totals computed."
            )
        return DataError(f"{where}, which is too large for a count: normalize= takes up to 2^53.")
