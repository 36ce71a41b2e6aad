"""Numbers and fractions of expressing cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Column, GeneByGene

if TYPE_CHECKING:
    import numpy as np

    from .inputs import Values


def _target(values: Values) -> np.ndarray:
    return values.shown.target.n_expressed


def _reference(values: Values) -> np.ndarray:
    return values.shown.reference.n_expressed


def _target_fraction(values: Values) -> np.ndarray:
    from ..stats.effects import fraction

    return fraction(values.shown.target)


def _reference_fraction(values: Values) -> np.ndarray:
    from ..stats.effects import fraction

    return fraction(values.shown.reference)


COLUMNS = (
    Column(
        "target_n_expressed",
        "int64",
        "cells of the target with a nonzero value",
        make=GeneByGene(_target, _target, undefined=None),
        formula=r"\#\{x_t \ne 0\}",
    ),
    Column(
        "reference_n_expressed",
        "int64",
        "cells of the reference with a nonzero value",
        make=GeneByGene(_reference, _reference, undefined=None, of_reference=True),
        formula=r"\#\{x_r \ne 0\}",
    ),
    Column(
        "target_fraction",
        "float64",
        "target_n_expressed / target_n_cells",
        make=GeneByGene(_target_fraction, _target_fraction, undefined=None),
        formula=r"\#\{x_t \ne 0\} / n",
    ),
    Column(
        "reference_fraction",
        "float64",
        "reference_n_expressed / reference_n_cells",
        make=GeneByGene(
            _reference_fraction, _reference_fraction, undefined=None, of_reference=True
        ),
        formula=r"\#\{x_r \ne 0\} / m",
    ),
)
