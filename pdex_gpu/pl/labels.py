"""Names next to points, placed without overlap."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from ..utils.install_hints import how_to_install
from .axes import LITERAL, palette, shown

# Of the points in a square of this side, in typographic points, names avoid one.
_GRID = 2.0

# The largest distance of a name from its point, as a fraction of the figure.
_FARTHEST = 0.15


def label_points(
    ax: Any,
    x: np.ndarray,
    y: np.ndarray,
    names: list[object],
    obstacles: np.ndarray,
    n_always: int = 0,
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
        Points that names avoid, in data coordinates.
    n_always : int
        The first names, which are shown even where they cover something.

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

    size = FontProperties(size="small").get_size_in_points()
    style: dict[str, Any] = {
        "zorder": 6,
        "in_layout": False,
        "path_effects": [withStroke(linewidth=2.0, foreground=ax.get_facecolor())],
        **LITERAL,
    }

    def place(some: np.ndarray, away: np.ndarray) -> list[Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints if there is no room at all
            _, _, texts, _ = allocate(
                _InFigure(ax),
                x[some],
                y[some],
                [shown(names[k]) for k in some],
                x_scatter=away[:, 0],
                y_scatter=away[:, 1],
                textsize=size,
                textcolor=rcParams["text.color"],
                linecolor=palette(ax).line,
                linewidth=0.6,
                max_distance=_FARTHEST,
                draw_all=False,
                avoid_label_lines_overlap=True,
                avoid_crossing_label_lines=True,
                plot_kwargs={"zorder": 5, "in_layout": False},
                va="bottom",
                **style,
            )
        return list(texts)

    texts = place(np.arange(len(names)), _thinned(ax, obstacles))
    left = np.array([k for k in range(n_always) if texts[k] is None], np.int64)
    if len(left):  # beside other names, on points if need be; at last, on names
        again = place(left, _inside(ax, [text for text in texts if text is not None]))
        for k, text in zip(left, again, strict=True):
            texts[k] = text or ax.annotate(
                shown(names[k]), (x[k], y[k]), (3, 3), textcoords="offset points", fontsize=size,
                **style,
            )  # fmt: skip
    return [text for text in texts if text is not None]


def _inside(ax: Any, texts: list[Any]) -> np.ndarray:
    """Return points that fill the boxes of texts, shape (n, 2), in data coordinates."""
    step = 2.0 * _GRID * ax.figure.dpi / 72.0
    points = [np.empty((0, 2))]
    for text in texts:
        box = text.get_window_extent()
        wide, high = (int(np.ceil(side / step)) + 1 for side in (box.width, box.height))
        across, up = np.linspace(box.x0, box.x1, wide), np.linspace(box.y0, box.y1, high)
        points.append(np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2))
    found: np.ndarray = ax.transData.inverted().transform(np.concatenate(points))
    return found


def _thinned(ax: Any, points: np.ndarray) -> np.ndarray:
    """Return points without those that are drawn in nearly the same place as another one."""
    squares = np.floor(ax.transData.transform(points) * 72.0 / ax.figure.dpi / _GRID)
    return points[np.sort(np.unique(squares, axis=0, return_index=True)[1])]


class _InFigure:
    """Axes that report the whole figure as theirs: textalloc uses methods that subfigures lack."""

    def __init__(self, ax: Any) -> None:
        self._ax = ax

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ax, name)

    def get_figure(self) -> Any:
        return self._ax.figure.canvas.figure
