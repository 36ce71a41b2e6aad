"""The description of a column of the result table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .at_end import EndValues
    from .inputs import PairValues, StrataValues


class Needs(Flag):
    """The sufficient statistics and values of the test that a column is made from.

    Numbers of cells, numbers of expressing cells and means of the values are always there.
    """

    NOTHING = 0
    #: Squared deviations from the mean.
    SECOND_MOMENTS = auto()
    #: Twice the statistic U.
    U = auto()
    #: Sums of squared placements, U, and its term of ties.
    PLACEMENTS = auto()
    #: Which genes have negative values.
    SIGNS = auto()
    #: Means in count space.
    COUNT_MEANS = auto()
    #: Means in log space.
    LOG_MEANS = auto()
    #: The standard normal deviate of the test.
    Z = auto()
    #: The log10 of the p-value.
    LOG10_P = auto()


@dataclass(frozen=True)
class GeneByGene:
    """Makes a column while genes are computed; the values are stored.

    Attributes
    ----------
    pair : callable
        Returns the values of comparisons of two samples, shape (n_targets, n_genes).
    strata : callable, optional
        Returns the values of rows that combine strata, shape (n_rows, n_genes). None if the column
        is not defined over strata.
    why_no_strata : str
        The reason, as the end of a sentence.
    undefined : float, optional
        The value where a sample has no mean, because NaN is omitted and none is left, or is
        propagated. None if the column describes a sample by itself and has a value there too.
    of_reference : bool
        Whether the column describes the reference only, so that comparisons may share its values.
    of_design : bool
        Whether the design knows the values, so that they are stored only if NaN is omitted.
    """

    pair: Callable[[PairValues], np.ndarray]
    strata: Callable[[StrataValues], np.ndarray] | None = None
    why_no_strata: str = "it compares a single pair of samples"
    undefined: float | None = math.nan
    of_reference: bool = False
    of_design: bool = False


@dataclass(frozen=True)
class AtEnd:
    """Makes a column when all genes are computed, for some rows at a time.

    Attributes
    ----------
    values : callable
        Returns the values, shape (n_rows, n_genes). It must not change its input.
    reads : tuple of str
        Other columns that it reads; they are computed even if they are not requested.
    counts_only : bool
        Whether only counts, or log1p of counts, have such values: NaN everywhere if a value of the
        matrix is negative.
    """

    values: Callable[[EndValues], np.ndarray]
    reads: tuple[str, ...] = ()
    counts_only: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the result table.

    Attributes
    ----------
    name : str
    dtype : str
        ``"label"``, ``"float64"`` or ``"int64"``.
    text : str or callable
        The meaning, or what returns it.
    missing : str
        When the column is NaN; labels and whole numbers never are. In addition, it is NaN with
        ``nan_policy="omit"`` where a side has no value left, and with ``"propagate"`` where a
        value is NaN.
    needs : Needs
        What the column is made from.
    centre : float, optional
        The value that means no change, if there is one: heat maps show columns that have it in two
        colours.
    make : GeneByGene, AtEnd or None
        How the column is computed; None for labels and `fdr`.
    formula : str
        In LaTeX, for the documentation.
    source : str
        Where the formula is from, in Markdown.
    always : bool
        Whether every result has the column.
    default : bool
        Whether a result has the column unless a drop-in for another package makes it. All others
        are added with ``columns=``.
    """

    name: str
    dtype: str
    text: str | Callable[[], str]
    missing: str = "never"
    needs: Needs = Needs.NOTHING
    centre: float | None = None
    make: GeneByGene | AtEnd | None = None
    formula: str = ""
    source: str = ""
    always: bool = False
    default: bool = False

    @property
    def meaning(self) -> str:
        """Return what the column has."""
        return self.text if isinstance(self.text, str) else self.text()


#: When columns are NaN that only counts have.
NEGATIVE = "everywhere if some value of the matrix is negative"
