"""The values of a gene in each sample of a contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GeneSamples:
    """The values of a gene in each sample of a contrast.

    Attributes
    ----------
    values : numpy.ndarray, shape (n,)
        Not negative; zeros may be left out.
    starts, stops : numpy.ndarray, shape (n_samples,), int64
        Those of sample i are ``values[starts[i]:stops[i]]``. The first sample is what targets are
        compared with, unless `rest`.
    n_cells : numpy.ndarray, shape (n_samples,), int64
        Number of cells of each sample.
    pooled : bool
        Whether the cells that a target is compared with include its own.
    rest : bool
        Whether all samples are targets, each compared with all the others.
    """

    values: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    n_cells: np.ndarray
    pooled: bool
    rest: bool
