"""Pictures of results, with matplotlib (extra ``plot``).

Every function takes a result in memory, a result in a file, or the path of one; draws on ``ax=`` or
on a new figure; and returns the axes. None shows a window or changes a setting of matplotlib.
Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; up and down
differ in position, too. Clouds of points are bitmaps in vector formats, of the ``dpi=`` that the
figure is saved with.

>>> from pdex_gpu import pl
>>> ax = pl.volcano("results.parquet", "STAT1")  # doctest: +SKIP
>>> ax.figure.savefig("volcano.pdf", dpi=300)  # doctest: +SKIP
"""

from __future__ import annotations

from .clouds import ma, volcano
from .expression_left import on_target
from .hit_counts import hits
from .matrix import heatmap
from .p_value_histogram import p_values
from .quantile_plot import calibration

__all__ = ["calibration", "heatmap", "hits", "ma", "on_target", "p_values", "volcano"]
