"""Names next to points, placed without overlap."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from ..utils.install_hints import how_to_install
from .axes import LINE, LITERAL, shown

# The most points that names avoid: more would take longer and leave no room.
_MOST_OBSTACLES = 500

# The largest distance of a name from its point, as a fraction of the figure.
_FARTHEST = 0.15


def label_points(
    ax: Any, x: np.ndarray, y: np.ndarray, names: list[object], obstacles: np.ndarray
) -> list[Any]:
    """Name points, the most important first; points without room for a name stay unnamed.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Axes with all points drawn and the limits set.
    x, y : numpy.ndarray, shape (n,), float64
        Points in data coordinates.
    names : list of object, n
    obstacles : numpy.ndarray, shape (m, 2), float64
        Points that names avoid, in data coordinates; only the first 500 count.

    Returns
    -------
    list of matplotlib.text.Text
        The names that are shown. The same call gives the same places.

    Raises
    ------
    MissingDependencyError
        If textalloc (extra ``plot``) is not installed.
    """
    if not names:
        return []
    try:
        from textalloc import allocate
    except ImportError as error:
        raise MissingDependencyError(
            "textalloc, which places labels, is not installed. Run: "
            f"{how_to_install('plot')}, or pass n_labels=0."
        ) from error
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.patheffects import withStroke

    away = obstacles[:_MOST_OBSTACLES]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints if there is no room at all
        _, _, texts, _ = allocate(
            _InFigure(ax),
            x,
            y,
            [shown(name) for name in names],
            x_scatter=away[:, 0],
            y_scatter=away[:, 1],
            textsize=FontProperties(size="small").get_size_in_points(),
            textcolor=rcParams["text.color"],
            linecolor=LINE,
            linewidth=0.6,
            max_distance=_FARTHEST,
            draw_all=False,
            avoid_label_lines_overlap=True,
            avoid_crossing_label_lines=True,
            plot_kwargs={"zorder": 5, "in_layout": False},
            va="bottom",
            zorder=6,
            in_layout=False,
            path_effects=[withStroke(linewidth=2.0, foreground=ax.get_facecolor())],
            **LITERAL,
        )
    return [text for text in texts if text is not None]


class _InFigure:
    """Axes that report the whole figure as theirs: textalloc uses methods that subfigures lack."""

    def __init__(self, ax: Any) -> None:
        self._ax = ax

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ax, name)

    def get_figure(self) -> Any:
        return self._ax.figure.canvas.figure
