"""Words for figures without hits: why there are none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..results.plot_values import count


def why_no_hits(adjusted: Iterable[np.ndarray], fdr: float) -> str:
    """Return the reason why no adjusted p-value is at most `fdr`.

    Parameters
    ----------
    adjusted : iterable of numpy.ndarray, float64
        Adjusted p-values; NaN where there is no row, or no test.
    fdr : float
    """
    n, smallest = 0, np.inf
    for values in adjusted:
        n += int(np.count_nonzero(~np.isnan(values)))
        smallest = float(np.fmin(smallest, np.fmin.reduce(values, axis=None, initial=np.inf)))
    if not n:
        return "No hits: no gene has an adjusted p-value."
    return f"No hits: no FDR is ≤ {fdr:g}; the smallest of {count(n, 'test')} is {smallest:.3g}."
