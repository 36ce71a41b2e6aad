"""What one kind of p-values says of mock perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .distributions import Distribution, Quantiles


@dataclass(frozen=True, eq=False)
class Judged:
    """What one kind of p-values says of the mock perturbations.

    Attributes
    ----------
    kind : str
        The kind of p-values, such as ``"conditional"`` or ``"asymptotic"``.
    n_tests : numpy.ndarray, shape (n_groups, 3), int64
        Informative tests of each mock perturbation, by class of expression.
    n_below : numpy.ndarray, shape (n_groups, 3, 4), int64
        How many of these have a p-value at or below 0.05, 0.01, 0.001 and 0.0001.
    n_false_positives : numpy.ndarray, shape (n_groups, 3), int64
        Number of tests with ``fdr <= alpha``.
    by_group : tuple of Distribution, n_groups
    total : Distribution
        All tests of all splits.
    by_expression : tuple of Distribution
        Genes with a mean below 0.1, from 0.1 to 1, and above.
    quantiles : Quantiles
        All tests.
    provenance : dict
        Provenance of the first split's comparison.
    """

    kind: str
    n_tests: np.ndarray
    n_below: np.ndarray
    n_false_positives: np.ndarray
    by_group: tuple[Distribution, ...]
    total: Distribution
    by_expression: tuple[Distribution, Distribution, Distribution]
    quantiles: Quantiles
    provenance: dict[str, Any]
