"""From stored means and p-values to the columns of the result."""

from __future__ import annotations

import numpy as np

from .arrays import nan_filled
from .backends.contract import KernelSet, Map
from .engines.base import Sink
from .stats.fold_change import fold_change, group_means, percent_change

_PAIRS_A_TASK = 1 << 15


def finish(
    sink: Sink,
    kernels: KernelSet,
    run: Map,
    *,
    is_log1p: bool,
    exp_post_agg: bool,
    clip_value: float | None,
) -> dict[str, np.ndarray]:
    """The value columns of the schema, each of shape (n_targets, n_genes), float64."""
    shape = sink.p_value.shape
    percent, fold = nan_filled(shape, run), nan_filled(shape, run)
    means = nan_filled(sink.mean.shape, run) if is_log1p else sink.mean

    def means_of(groups: slice) -> np.ndarray:
        expm1 = None if sink.mean_expm1 is None else sink.mean_expm1[groups]
        return group_means(sink.mean[groups], expm1, is_log1p=is_log1p, exp_post_agg=exp_post_agg)

    reference = means_of(slice(0, 1))[0]
    means[0] = reference

    def changes(targets: slice) -> None:
        groups = slice(targets.start + 1, targets.stop + 1)
        if is_log1p:
            means[groups] = means_of(groups)
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
