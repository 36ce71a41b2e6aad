"""The comparison of one random split, and the p-values that it gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..design.labels import Labels, object_array
from ..errors import DuplicateGeneWarning, ScaleWarning, SkippedWarning
from ..pipeline.execute import compare_kinds
from ..request.options import Settings
from ..results.memory import DEResult
from ..sources.dataset import Dataset
from ..stats.two_sample.base import StatisticalTest
from .mock_groups import CONTROL, LEFT_OUT, Split
from .parts import EXPRESSION, EXPRESSION_EDGES
from .real_groups import RealGroups

_MOCK_CONTROL, _OTHERS = "mock control", "other cells"


@dataclass(frozen=True)
class KindRun:
    """One kind of p-values of one split.

    Attributes
    ----------
    p_values : numpy.ndarray, shape (n_rows, n_genes), float64
        NaN where the test is not informative or was not made.
    n_false_positives : numpy.ndarray, shape (n_groups, 3), int64
        By class of expression.
    provenance : dict
    """

    p_values: np.ndarray
    n_false_positives: np.ndarray
    provenance: dict[str, Any]


@dataclass(frozen=True)
class SplitRun:
    """The comparison of one split.

    Attributes
    ----------
    group : numpy.ndarray, shape (n_rows,), int64
        Mock group of each row. A group has one row, or one per level.
    expression : numpy.ndarray, shape (n_genes,), int64
        Class of each gene by its mean in the mock control, a position in `EXPRESSION`.
    n_uninformative : numpy.ndarray, shape (n_groups,), int64
    kinds : tuple of KindRun
    doubt : ScaleWarning or None
        Warning about the scale of the values.
    """

    group: np.ndarray
    expression: np.ndarray
    n_uninformative: np.ndarray
    kinds: tuple[KindRun, ...]
    doubt: ScaleWarning | None

    def by_expression(self, chosen: np.ndarray, n_groups: int) -> np.ndarray:
        """Count pairs of each mock group and class of expression, shape (n_groups, 3), int64."""
        found = np.zeros((n_groups, len(EXPRESSION)), np.int64)
        for k in range(len(EXPRESSION)):
            counts = np.count_nonzero(chosen[:, self.expression == k], axis=1)
            np.add.at(found[:, k], self.group, counts)
        return found


def run_split(
    dataset: Dataset,
    settings: Settings,
    real: RealGroups,
    split: Split,
    others: Sequence[StatisticalTest],
    alpha: float,
) -> SplitRun:
    """Relabel the cells and compare; the matrix stays as it is."""
    n_groups = len(split.targets)
    names = [f"mock {k + 1}" for k in range(n_groups)]
    # Cells on neither side get an unused label: missing labels would cause a warning.
    codes = np.full(real.n_cells, n_groups + 1, np.int64)
    codes[real.controls] = np.select(
        [split.codes == CONTROL, split.codes == LEFT_OUT],
        [n_groups, n_groups + 1],
        split.codes,
    )
    labels = Labels(codes, object_array([*names, _MOCK_CONTROL, _OTHERS]))
    relabelled = replace(dataset, labels=labels, close=lambda: None)
    doubtful = None
    with warnings.catch_warnings(record=True) as caught:
        # The real analysis gives these warnings; for mock groups, the counts of tests say enough.
        for category in (SkippedWarning, DuplicateGeneWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("always", ScaleWarning)
        mock = settings.changed(reference=_MOCK_CONTROL, groups=names)
        results = compare_kinds(relabelled, mock, others)
    for said in caught:
        if isinstance(said.message, ScaleWarning):  # given once for all splits
            doubtful = said.message
        else:
            warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    result = results[0]
    number = {name: k for k, name in enumerate(names)}
    group = np.array([number[name] for name in result.targets], np.int64)
    informative, kept = _informative(results)
    known = kept & ~np.isnan(result["reference_mean"])  # leaving out NaN may leave no cell
    n_known = np.maximum(np.count_nonzero(known, axis=0), 1)
    mean = np.sum(result["reference_mean"], axis=0, where=known) / n_known
    left_out = np.count_nonzero(kept & ~informative, axis=1)
    found = SplitRun(
        group,
        np.digitize(mean, EXPRESSION_EDGES),
        np.bincount(group, left_out, n_groups).astype(np.int64),
        (),
        doubtful,
    )
    kinds = []
    for its in results:
        false_positives = found.by_expression(kept & (its["fdr"] <= alpha), n_groups)
        p_values = np.where(informative, its["p_value"], np.nan)
        kinds.append(KindRun(p_values, false_positives, its.provenance))
    return replace(found, kinds=tuple(kinds))


def _informative(results: Sequence[DEResult]) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are judged and not constant, and which are in the result at all."""
    result = results[0]
    kept = np.ones(result["p_value"].shape, bool) if result.kept is None else result.kept
    # A gene with a single nonzero value is expressed in all cells and has equal means.
    target, reference = result["target_mean"], result["reference_mean"]
    expressed = result["target_fraction"] + result["reference_fraction"]
    equal = np.abs(target - reference) <= 1e-9 * np.abs(reference)
    constant = (expressed == 2.0) & equal
    for its in results:
        constant &= its["p_value"] == 1.0
    return kept & ~np.isnan(result["statistic"]) & ~constant & (expressed != 0.0), kept
