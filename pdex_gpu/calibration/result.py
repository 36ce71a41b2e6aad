"""Results of a calibration: observed and expected small p-values, false positives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError, unknown
from ..utils.checks import check_text
from ..utils.formats import number_text
from ..utils.keywords import known_keywords, known_keywords_of_init
from .distributions import LEVELS
from .judged import Judged
from .parts import Part, parts_of
from .serialize import read_json, write_json

if TYPE_CHECKING:
    import pandas


@known_keywords_of_init
@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The calibration of a screen's p-values: tests in which both sides are control cells.

    If p-values are right, a share of 0.001 of them is at or below 0.001, and so on. `parts` and
    `excess_table` compare the observed numbers with the expected ones: of all tests, and by
    expression and group size, because sparse genes and small groups are where tests fail. Ratios
    above 1 mean that p-values are too small; below 1, that they are too large, as those of few
    possible values are. Each hit is false; `n_false_positives` counts them.

    A test is informative if it can be judged and the gene is not constant over both samples. Other
    tests have p-value 1 and are left out of everything except the correction for multiple testing.
    Tests with p-value 1 for other reasons, such as ties, are among those that are counted.

    Attributes
    ----------
    groups : numpy.ndarray, shape (n_groups,), object
        Names of the mock perturbations, from ``"mock 1"``.
    repeats : numpy.ndarray, shape (n_groups,), int64
        Random split that each belongs to, from 0. Splits share cells.
    targets : numpy.ndarray, shape (n_groups,), object
        Real target that each takes its size from.
    n_target_cells, n_cells : numpy.ndarray, shape (n_groups,), int64
        Number of cells of that target that have controls to compare with, and of the mock
        perturbation: fewer if the reference has too few.
    n_reference_cells : numpy.ndarray, shape (n_groups,), int64
        Number of cells of the mock control.
    n_uninformative : numpy.ndarray, shape (n_groups,), int64
        Number of tests that are left out, as above.
    kinds : tuple of Judged
        One for each kind of p-values, in the order asked for.
    n_targets : int
        Number of real targets, each the model of at most one mock perturbation per split.
    control_cells : numpy.ndarray, shape (n_control,), int64
        Rows of the control cells in the data.
    assignment : numpy.ndarray, shape (n_repeats, n_control), int64
        Mock perturbation of each control cell, as a position in `groups`; -1 for the mock control,
        -2 for the other cells of a unit that a mock perturbation took only some cells from.
    alpha : float
    metric : str
    reference : str
    units : str or None
        Column of the units that stayed whole; None if cells were split one by one.
    n_units : int
        Number of units of the control cells; 0 without `units`.
    """

    groups: np.ndarray
    repeats: np.ndarray
    targets: np.ndarray
    n_target_cells: np.ndarray
    n_cells: np.ndarray
    n_reference_cells: np.ndarray
    n_uninformative: np.ndarray
    kinds: tuple[Judged, ...]
    n_targets: int
    control_cells: np.ndarray
    assignment: np.ndarray
    alpha: float
    metric: str
    reference: str
    units: str | None
    n_units: int

    @property
    def n_repeats(self) -> int:
        """Return the number of random splits."""
        return len(self.assignment)

    @known_keywords
    def of(self, kind: str | None = None) -> Judged:
        """Return what one kind of p-values says; by default the first.

        Raises
        ------
        OptionError
            If `kind` is not text, or if there is no such kind.
        """
        check_text("kind", kind, may_be_none=True, what="a kind of p-values")
        if kind is None:
            return self.kinds[0]
        for judged in self.kinds:
            if judged.kind == kind:
                return judged
        raise OptionError(unknown("kind of p-values", kind, [its.kind for its in self.kinds]))

    @known_keywords
    def parts(self) -> list[Part]:
        """Return observed and expected numbers of small p-values, as `excess_table` shows them."""
        return parts_of(self)

    @property
    def checked(self) -> str:
        """Return, in a sentence, what this calibration checked and what it did not."""
        if self.units is None:
            return (
                "Sparse counts, ties, outliers and small groups were checked; without units=, "
                "independence between cells (batches, guides, clones) was not checked."
            )
        return (
            f"Cells that share a value of {self.units!r} ({self.n_units:,} units) stayed together, "
            "so dependence within these units was checked; any other dependence between cells was "
            "not."
        )

    @known_keywords
    def excess_table(self) -> pandas.DataFrame:
        """Return observed and expected numbers of small p-values in a pandas frame.

        It has a row for all tests, for genes of each class of expression (by their mean in the mock
        control: on the count scale, as in results) and for mock perturbations of each class of
        size; and of each of these for every kind of p-values. For each level, such as 0.001,
        ``n_0.001`` is the observed number of p-values at or below it, ``excess_0.001`` the ratio to
        the expected number, and ``few_0.001`` tells that fewer than 10 are expected, so that the
        ratio is uncertain. P-values of genes and of groups depend on each other, so
        ratios vary more than independent ones would.
        """
        import pandas as pd

        parts = self.parts()
        columns: dict[str, Any] = {
            "p_values": [part.kind for part in parts],
            "by": [part.by for part in parts],
            "part": [part.name for part in parts],
            "n_groups": [part.n_groups for part in parts],
            "n_tests": [part.n_tests for part in parts],
        }
        for k, level in enumerate(LEVELS):
            columns[f"n_{level:g}"] = [part.n_below[k] for part in parts]
            columns[f"excess_{level:g}"] = [part.excess[k] for part in parts]
            columns[f"few_{level:g}"] = [part.few[k] for part in parts]
        columns["n_false_positives"] = [part.n_false_positives for part in parts]
        columns["false_positives_per_group"] = [part.false_positives_per_group for part in parts]
        return pd.DataFrame(columns)

    @known_keywords
    def table(self, kind: str | None = None) -> pandas.DataFrame:
        """Return a pandas frame with one row per mock perturbation, for one kind of p-values."""
        import pandas as pd

        judged = self.of(kind)
        columns: dict[str, Any] = {
            "group": self.groups,
            "repeat": self.repeats,
            "target": self.targets,
            "n_target_cells": self.n_target_cells,
            "n_cells": self.n_cells,
            "n_reference_cells": self.n_reference_cells,
            "n_tests": judged.n_tests.sum(axis=1),
            "n_uninformative": self.n_uninformative,
        }
        n_below = judged.n_below.sum(axis=1)
        columns |= {f"n_{level:g}": n_below[:, k] for k, level in enumerate(LEVELS)}
        columns["n_false_positives"] = judged.n_false_positives.sum(axis=1)
        columns["lambda"] = np.array([d.inflation for d in judged.by_group])
        columns["ks_distance"] = np.array([d.ks_distance for d in judged.by_group])
        return pd.DataFrame(columns)

    @known_keywords
    def summary(self, kind: str | None = None) -> dict[str, Any]:
        """Return overall results of one kind of p-values, as plain numbers and text."""
        judged = self.of(kind)
        total, by_group = judged.total, judged.n_false_positives.sum(axis=1)
        found: dict[str, Any] = {
            "metric": self.metric,
            "p_values": judged.kind,
            "reference": self.reference,
            "n_control_cells": len(self.control_cells),
            "n_targets": self.n_targets,
            "n_groups": len(self.groups),
            "n_repeats": self.n_repeats,
            "units": self.units or "",
            "n_tests": total.n_tests,
            "n_uninformative": int(self.n_uninformative.sum()),
        }
        for k, level in enumerate(LEVELS):
            found[f"n_{level:g}"] = int(total.n_below[k])
            found[f"excess_{level:g}"] = float(total.excess[k])
        return found | {
            "alpha": self.alpha,
            "n_false_positives": int(by_group.sum()),
            "false_positives_per_group": float(np.mean(by_group)),
            "share_of_groups_with_false_positives": float(np.mean(by_group > 0)),
            "lambda": total.inflation,
            "ks_distance": total.ks_distance,
            "checked": self.checked,
        }

    @known_keywords
    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, completely or not at all; an existing file is replaced.

        Parameters
        ----------
        path : str or path-like
            JSON in UTF-8: an object with the attributes of this class, and ``format``, ``version``
            (of the layout) and ``pdex_gpu``. NaN is null, infinity is text.

        Raises
        ------
        MissingFileError
            The folder does not exist.
        OutputError
            The disk is full or failed, or permission is missing.
        """
        write_json(self, path)

    @classmethod
    @known_keywords
    def from_json(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file that :meth:`to_json` wrote; all numbers are the same to the bit.

        Labels that are neither text nor numbers were written as text. In `provenance`, tuples
        have become lists.

        Raises
        ------
        MissingFileError
            The file does not exist.
        OptionError
            It is a folder.
        FileFormatError
            It is damaged, not a calibration of this package, or written by a newer version of it.
        """
        return cls(**read_json(path))

    def __repr__(self) -> str:
        splits = "" if self.n_repeats == 1 else f" in {self.n_repeats} random splits"
        lines = [
            f"Calibration: {self.metric}, {len(self.groups):,} mock perturbations of "
            f"{_range(self.n_cells)} control cells against {_range(self.n_reference_cells)} "
            f"others{splits}, modelled on {self.n_targets:,} targets"
        ]
        for part in self.parts()[: len(self.kinds)]:
            ratios = [
                f"{number_text(ratio, '.3g')} at {level:g}{' (few tests)' if few else ''}"
                for ratio, few, level in zip(part.excess, part.few, LEVELS, strict=True)
            ]
            lines.append(
                f"{part.kind}: observed over expected p-values {', '.join(ratios)}, of "
                f"{part.n_tests:,} tests; {number_text(part.false_positives_per_group, '.3g')} "
                f"false positives per mock perturbation (fdr <= {self.alpha:g})"
            )
        return "\n".join([*lines, self.checked])


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"
