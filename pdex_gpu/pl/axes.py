"""Helpers that all plots share: figures, colours, names, legends, messages in empty axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import MissingDependencyError
from ..results.plot_values import count
from ..utils.install_hints import how_to_install


@dataclass(frozen=True)
class Palette:
    """The colours of a figure.

    Attributes
    ----------
    up, down : str
        Okabe and Ito 2008, "Color Universal Design": distinguishable with any colour vision.
    neutral, line : str
        Greys of things without an effect, and of lines and remarks.
    is_dark : bool
        Whether the background is dark.
    """

    up: str
    down: str
    neutral: str
    line: str
    is_dark: bool


_ON_LIGHT = Palette("#D55E00", "#0072B2", "0.68", "0.35", False)  # vermillion, blue
_ON_DARK = Palette("#E69F00", "#56B4E9", "0.42", "0.65", True)  # orange, sky blue

#: The most characters shown of a name, in labels of points or bars and in titles.
LABEL_LENGTH = 24
TITLE_LENGTH = 36

SMALLEST_FONT = 5.5  # points


def pyplot() -> Any:
    """Import and return ``matplotlib.pyplot``.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib is not installed. Run: {how_to_install('plot')}"
        ) from error
    return plt


def axes_or_new(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """Return `ax`, or the axes of a new figure of size `figsize` (inches) or the usual size."""
    if ax is not None:
        return ax
    return pyplot().subplots(figsize=figsize, layout="constrained")[1]


def palette(ax: Any) -> Palette:
    """Return the colours that stand out from the background of the axes."""
    from matplotlib.colors import to_rgb

    face = ax.get_facecolor()
    if face[3] == 0.0:
        face = ax.figure.get_facecolor()
    red, green, blue = to_rgb(face)
    return _ON_DARK if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else _ON_LIGHT


def shown(name: object, limit: int = LABEL_LENGTH) -> str:
    """Return a name as drawable text: one line, not too long, only characters that the font has.

    Parameters
    ----------
    name : object
    limit : int
        The most characters; the middle of a longer name is left out.

    Returns
    -------
    str
        Characters that no font of the figure has are shown by number, such as ``[U+1F9EC]``:
        matplotlib would draw the same box for all of them, and warn.
    """
    text = "".join(c if c.isprintable() else " " for c in str(name))
    if not text.isascii():
        known = _letters(*_font_settings())
        text = "".join(c if ord(c) in known else f"[U+{ord(c):04X}]" for c in text)
    if len(text) > limit:
        tail = (limit - 1) // 3
        text = f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
    return text or "''"


def _font_settings() -> tuple[tuple[str, ...], tuple[str, ...]]:
    from matplotlib import rcParams

    family = rcParams["font.family"]
    families = (family,) if isinstance(family, str) else tuple(family)
    return families, tuple(rcParams["font.sans-serif"])


@lru_cache(maxsize=8)
def _letters(families: tuple[str, ...], _sans_serif: tuple[str, ...]) -> frozenset[int]:
    """Return the code points in any of the fonts with which text is drawn."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known: set[int] = set()
    for family in families:
        try:
            path = findfont(FontProperties(family=family), fallback_to_default=False)
        except ValueError:  # not installed
            continue
        known |= set(get_font(path).get_charmap())
    if not known:
        known |= set(get_font(findfont(FontProperties())).get_charmap())
    return frozenset(known)


def literal(text: Any) -> None:
    """Make a matplotlib Text show ``$``, ``_``, ``^`` and backslashes as they are."""
    text.set(parse_math=False, usetex=False)


#: The options that have the same effect as `literal`, for tick labels and new texts.
LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}


def title(ax: Any, text: str) -> None:
    """Set a title that contains names."""
    literal(ax.set_title(text))


def legend_above(
    ax: Any, text: str, handles: list[Any] | None = None, what: str | None = None
) -> None:
    """Put the legend between the axes and their title, clear of the data, in rows that fit.

    By default it has what is drawn with a label; `what` is its heading.
    """
    width = ax.get_window_extent().width
    shown_handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    for columns in range(len(shown_handles), 0, -1):
        legend = ax.legend(
            handles=shown_handles,
            title=what,
            title_fontsize="small",
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=columns,
            frameon=False,
            fontsize="small",
            handletextpad=0.4,
            columnspacing=1.2,
            labelspacing=0.3,
            borderaxespad=0.1,
        )
        if legend.get_window_extent().width <= 1.1 * width:
            break
    for handle in legend.legend_handles:
        if handles is None and hasattr(handle, "set_sizes"):  # points are drawn too small
            handle.set_sizes([24.0])
    height = legend.get_window_extent().height * 72.0 / ax.figure.dpi
    literal(ax.set_title(text, pad=height + 5.0))


def explain_empty(ax: Any, why: str) -> None:
    """State in the middle of empty axes why they are empty, and take their ticks away."""
    ax.set(xticks=[], yticks=[])
    ax.text(
        0.5,
        0.5,
        why,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=palette(ax).line,
        wrap=True,
        **LITERAL,
    )


def fitting_size(points: float, n: int) -> float | None:
    """Return the font size, in points, at which `n` lines fit into a height of `points`.

    It is None if it would be too small to read, and never above the size of tick labels.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    usual = float(FontProperties(size=rcParams["ytick.labelsize"]).get_size_in_points())
    size = points / max(n, 1) / 1.2
    return None if size < min(SMALLEST_FONT, usual) else min(usual, size)


def extent_in_points(ax: Any) -> tuple[float, float]:
    """Return the width and height of the axes, in points."""
    box = ax.get_window_extent()
    scale = 72.0 / ax.figure.dpi
    return box.width * scale, box.height * scale


def lay_out(ax: Any) -> None:
    """Place the axes in the figure as drawing would."""
    ax.figure.canvas.figure.draw_without_rendering()


def thousands(value: float, _position: object = None) -> str:
    """Format a tick label such as ``"2,000"``; negative whole numbers lose their sign."""
    return f"{abs(value):,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def despine(ax: Any) -> None:
    """Hide the upper and right side of the frame."""
    ax.spines[["top", "right"]].set_visible(False)


def name_both(ax: Any, rows: list[str], genes: list[object]) -> None:
    """Write names along both axes, or their number if they would be too small to read."""
    ax.tick_params(length=0)
    parts = (
        (ax.xaxis, [shown(name) for name in genes], count(len(genes), "gene")),
        (ax.yaxis, [shown(name) for name in rows], count(len(rows), "perturbation")),
    )
    ax.tick_params(axis="x", rotation=90)
    # Names take up room: the first pass fits them to the cells, the second to the room left.
    for again in (False, True):
        if again:
            lay_out(ax)
        for (axis, names, number), points in zip(parts, extent_in_points(ax), strict=True):
            size = fitting_size(points, len(names))
            if size is None:
                axis.set_ticks([])
                axis.set_label_text(f"{number} (too many to label)")
            else:
                axis.set_ticks(range(len(names)), labels=names, fontsize=size, **LITERAL)
