"""Results of a calibration: distributions of p-values, inflation, false positives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.formats import number_text
from ..utils.keywords import known_keywords, known_keywords_of_init
from .distributions import LEVELS, Distribution, Quantiles
from .serialize import read_json, write_json

if TYPE_CHECKING:
    import pandas


@known_keywords_of_init
@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The calibration of a screen's p-values: tests in which both sides are control cells.

    A test is informative if it can be judged and the gene is not constant over both samples. Other
    tests have p-value 1 and are left out of everything except the correction for multiple testing.
    Tests with p-value 1 for other reasons, such as ties, are part of the distribution: for sparse
    genes, few different p-values are possible, so that lambda differs from 1 even for a perfect
    test. `by_expression` shows sparse genes separately.

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
    n_false_positives : numpy.ndarray, shape (n_groups,), int64
        Number of rows with ``fdr <= alpha``.
    by_group : tuple of Distribution, n_groups
    total : Distribution
        All tests of all splits.
    by_expression : tuple of Distribution
        Thirds of the genes that have an informative test: low, middle and high mean.
    quantiles : Quantiles
        All tests.
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
    provenance : dict
        Provenance of the first split's comparison.
    """

    groups: np.ndarray
    repeats: np.ndarray
    targets: np.ndarray
    n_target_cells: np.ndarray
    n_cells: np.ndarray
    n_reference_cells: np.ndarray
    n_uninformative: np.ndarray
    n_false_positives: np.ndarray
    by_group: tuple[Distribution, ...]
    total: Distribution
    by_expression: tuple[Distribution, Distribution, Distribution]
    quantiles: Quantiles
    n_targets: int
    control_cells: np.ndarray
    assignment: np.ndarray
    alpha: float
    metric: str
    reference: str
    provenance: dict[str, Any]

    @property
    def n_repeats(self) -> int:
        """Return the number of random splits."""
        return len(self.assignment)

    @property
    def inflation(self) -> np.ndarray:
        """Return lambda of each mock perturbation, shape (n_groups,), float64."""
        return np.array([d.inflation for d in self.by_group])

    @property
    def rates(self) -> np.ndarray:
        """Return the share of p-values at or below `LEVELS`, shape (n_groups, 3), float64."""
        return np.array([d.rates for d in self.by_group])

    @property
    def histograms(self) -> np.ndarray:
        """Count p-values in bins of width 0.05, shape (n_groups, 20), int64."""
        return np.array([d.histogram for d in self.by_group])

    @known_keywords
    def table(self) -> pandas.DataFrame:
        """Return a pandas frame with one row per mock perturbation."""
        import pandas as pd

        columns: dict[str, Any] = {
            "group": self.groups,
            "repeat": self.repeats,
            "target": self.targets,
            "n_target_cells": self.n_target_cells,
            "n_cells": self.n_cells,
            "n_reference_cells": self.n_reference_cells,
            "n_tests": np.array([d.n_tests for d in self.by_group], np.int64),
            "n_uninformative": self.n_uninformative,
            "lambda": self.inflation,
            "ks_distance": np.array([d.ks_distance for d in self.by_group]),
        }
        columns |= {f"rate_{level}": self.rates[:, k] for k, level in enumerate(LEVELS)}
        columns["n_false_positives"] = self.n_false_positives
        return pd.DataFrame(columns)

    @known_keywords
    def summary(self) -> dict[str, Any]:
        """Return overall results, as plain numbers and text."""
        total = self.total
        found: dict[str, Any] = {
            "metric": self.metric,
            "reference": self.reference,
            "n_control_cells": len(self.control_cells),
            "n_targets": self.n_targets,
            "n_groups": len(self.groups),
            "n_repeats": self.n_repeats,
            "n_tests": total.n_tests,
            "n_uninformative": int(self.n_uninformative.sum()),
            "lambda": total.inflation,
        }
        for name, part in zip(("low", "middle", "high"), self.by_expression, strict=True):
            found[f"lambda_{name}_expression"] = part.inflation
        found["ks_distance"] = total.ks_distance
        found |= {f"rate_{level}": float(total.rates[k]) for k, level in enumerate(LEVELS)}
        return found | {
            "alpha": self.alpha,
            "n_false_positives": int(self.n_false_positives.sum()),
            "share_of_groups_with_false_positives": float(np.mean(self.n_false_positives > 0)),
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
        total, n_false = self.total, self.n_false_positives
        inflation, rate = number_text(total.inflation, ".3g"), number_text(total.rates[0], ".2%")
        splits = "" if self.n_repeats == 1 else f" in {self.n_repeats} random splits"
        return (
            f"Calibration: {self.metric}, {len(self.groups):,} mock perturbations of "
            f"{_range(self.n_cells)} control cells against {_range(self.n_reference_cells)} "
            f"others{splits}, modelled on {self.n_targets:,} targets\n"
            f"lambda {inflation} (ideal: 1); p <= 0.05 in "
            f"{rate} of {total.n_tests:,} tests; fdr <= {self.alpha:g}, all of them "
            f"false, in {n_false.sum():,} tests of {np.count_nonzero(n_false):,} mock perturbations"
        )


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"
