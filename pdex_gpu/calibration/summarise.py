"""From the p-values of all splits to a calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..design.labels import object_array
from .distributions import LEVELS, distribution, quantiles
from .judged import Judged
from .mock_groups import CONTROL, Split
from .parts import EXPRESSION
from .real_groups import RealGroups
from .result import Calibration
from .split_run import SplitRun


def summarise(
    real: RealGroups,
    splits: Sequence[Split],
    runs: Sequence[SplitRun],
    *,
    kinds: Sequence[str],
    alpha: float,
    metric: str,
    units: str | None,
) -> Calibration:
    """Return the calibration; `kinds` are the names of the kinds of p-values of each run."""
    n_groups = [len(split.targets) for split in splits]
    first = np.cumsum([0, *n_groups])
    targets = np.concatenate([split.targets for split in splits])
    n_control = [np.count_nonzero(split.codes == CONTROL) for split in splits]
    return Calibration(
        groups=object_array(f"mock {k + 1}" for k in range(len(targets))),
        repeats=np.repeat(np.arange(len(splits)), n_groups),
        targets=real.targets[targets],
        n_target_cells=real.wanted[targets].sum(axis=1),
        n_cells=np.concatenate([split.n_cells for split in splits]),
        n_reference_cells=np.repeat(n_control, n_groups),
        n_uninformative=np.concatenate([run.n_uninformative for run in runs]),
        kinds=tuple(_judged(kind, k, runs, n_groups) for k, kind in enumerate(kinds)),
        n_targets=len(real.targets),
        control_cells=real.controls,
        assignment=np.stack([
            np.where(split.codes < 0, split.codes, split.codes + start)
            for split, start in zip(splits, first[:-1], strict=True)
        ]),
        alpha=alpha,
        metric=metric,
        reference=real.reference,
        units=units,
        n_units=0 if real.units is None else len(np.unique(real.units)),
    )  # fmt: skip


def _judged(kind: str, k: int, runs: Sequence[SplitRun], n_groups: Sequence[int]) -> Judged:
    """Describe the k-th kind of p-values over all splits."""
    n_tests, n_below = [], []
    for run, n in zip(runs, n_groups, strict=True):
        p_values = run.kinds[k].p_values
        n_tests.append(run.by_expression(~np.isnan(p_values), n))
        below = [run.by_expression(p_values <= level, n) for level in LEVELS]
        n_below.append(np.stack(below, axis=2))
    pooled = _sorted(*(run.kinds[k].p_values for run in runs))
    by_expression = (
        distribution(_sorted(*(run.kinds[k].p_values[:, run.expression == e] for run in runs)))
        for e in range(len(EXPRESSION))
    )
    low, middle, high = by_expression
    return Judged(
        kind=kind,
        n_tests=np.concatenate(n_tests),
        n_below=np.concatenate(n_below),
        n_false_positives=np.concatenate([run.kinds[k].n_false_positives for run in runs]),
        by_group=tuple(
            distribution(_sorted(run.kinds[k].p_values[run.group == group]))
            for run, n in zip(runs, n_groups, strict=True)
            for group in range(n)
        ),
        total=distribution(pooled),
        by_expression=(low, middle, high),
        quantiles=quantiles(pooled),
        provenance=runs[0].kinds[k].provenance,
    )


def _sorted(*p_values: np.ndarray) -> np.ndarray:
    """Return the p-values that are not NaN, in ascending order."""
    found = np.concatenate([p[~np.isnan(p)] for p in p_values])
    found.sort()
    return found
