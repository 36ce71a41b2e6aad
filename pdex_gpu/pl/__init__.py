"""Plots of results, drawn with matplotlib (extra ``plot``).

Every function takes a result in memory, a result file, or the path of one. It draws on ``ax=`` or
on a new figure, and returns the axes. No function opens a window or changes a matplotlib setting.
The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish, brighter
on a dark background; up and down also differ in position. In vector formats, points are drawn as
bitmaps, at the ``dpi=`` with which the figure is saved.

>>> from pdex_gpu import pl
>>> ax = pl.volcano("results.parquet", "STAT1")  # doctest: +SKIP
>>> ax.figure.savefig("volcano.pdf", dpi=300)  # doctest: +SKIP

For contributors: this package may import ``calibration``, ``api`` and the subpackages below them.
To add a kind of figure, write its function in a module here, and name it in ``__all__`` and in
``KINDS`` of ``pdex_gpu/cli/commands/plot.py``.
"""

from __future__ import annotations

from .calibration import calibration, calibration_histogram, calibration_qq
from .dotplot import dotplot
from .heatmap import heatmap
from .hits import hits
from .on_target import on_target
from .overlap import overlap
from .p_values import p_values
from .volcano_ma import ma, volcano

__all__ = [
    "calibration",
    "calibration_histogram",
    "calibration_qq",
    "dotplot",
    "heatmap",
    "hits",
    "ma",
    "on_target",
    "overlap",
    "p_values",
    "volcano",
]


def __dir__() -> list[str]:
    """Return the plots alone, which is what completion then offers."""
    return sorted(__all__)
