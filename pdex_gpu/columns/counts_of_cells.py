"""Numbers of cells and strata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Column, GeneByGene

if TYPE_CHECKING:
    import numpy as np

    from .inputs import Values


def _target(values: Values) -> np.ndarray:
    import numpy as np

    target = values.shown.target
    return np.broadcast_to(target.n, target.mean.shape)


def _reference(values: Values) -> np.ndarray:
    import numpy as np

    reference = values.shown.reference
    return np.broadcast_to(reference.n, reference.mean.shape)


def _strata(values: Values) -> np.ndarray:
    import numpy as np

    return np.broadcast_to(values.n_strata, values.shown.target.mean.shape)


COLUMNS = (
    Column(
        "target_n_cells",
        "int64",
        "cells of the target",
        make=GeneByGene(_target, _target, undefined=None, of_design=True),
        formula="n",
        default=True,
    ),
    Column(
        "reference_n_cells",
        "int64",
        "cells of the reference",
        make=GeneByGene(_reference, _reference, undefined=None, of_reference=True, of_design=True),
        formula="m",
        default=True,
    ),
    Column(
        "n_strata",
        "int64",
        "strata that contain both sides and contribute to the row",
        make=GeneByGene(_strata, _strata, undefined=None, of_design=True),
    ),
)
