"""From stored means and p-values to the columns of the result."""

from __future__ import annotations

import numpy as np

from .arrays import nan_filled
from .backends.contract import KernelSet
from .pools import Map
from .sinks.memory import MemorySink
from .stats.fold_change import expm1_in_place, fold_change, percent_change

_PAIRS_A_TASK = 1 << 15


def finish(
    sink: MemorySink,
    kernels: KernelSet,
    run: Map,
    *,
    is_log1p: bool,
    exp_post_agg: bool,
    clip_value: float | None,
) -> dict[str, np.ndarray]:
    """The value columns of the schema, each of shape (n_targets, n_genes), float64.

    Means of log1p values become those in count space where they stand: ``expm1`` of the mean if
    `exp_post_agg`, else the mean of ``expm1``.
    """
    shape = sink.p_value.shape
    percent, fold = nan_filled(shape, run), nan_filled(shape, run)
    if is_log1p and not exp_post_agg:
        assert sink.mean_expm1 is not None
        means = sink.mean_expm1
    else:
        means = sink.mean
    exponentiate = is_log1p and exp_post_agg

    if exponentiate:
        expm1_in_place(means[:1])
    reference = means[0]

    def changes(targets: slice) -> None:
        groups = slice(targets.start + 1, targets.stop + 1)
        if exponentiate:
            expm1_in_place(means[groups])
        percent_change(means[groups], reference, out=percent[targets])
        fold_change(means[groups], reference, clip_value, out=fold[targets])

    step = max(1, _PAIRS_A_TASK // max(1, shape[1]))
    for _ in run(changes, [slice(t, min(t + step, shape[0])) for t in range(0, shape[0], step)]):
        pass
    return {
        "target_mean": means[1:],
        "reference_mean": np.broadcast_to(reference, shape),
        "percent_change": percent,
        "fold_change": fold,
        "p_value": sink.p_value,
        "statistic": sink.statistic,
        "fdr": kernels.benjamini_hochberg(sink.p_value, run),
    }
