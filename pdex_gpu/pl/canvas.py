"""What all pictures share: figures, colours, names as text, legends, words where nothing is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..errors import MissingDependencyError
from ..installing import how_to_install

# Okabe and Ito 2008, "Color Universal Design": told apart with any kind of colour vision.
UP = "#D55E00"  # vermillion
DOWN = "#0072B2"  # blue
NEUTRAL = "0.68"
LINE = "0.35"

#: Letters of a name that are shown, in labels of points or bars and in titles.
LABEL_LENGTH = 24
TITLE_LENGTH = 36

SMALLEST_FONT = 5.5  # points


def pyplot() -> Any:
    """The module ``matplotlib.pyplot``.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib is not installed. Run: {how_to_install('plot')}"
        ) from error
    return plt


def canvas(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """`ax`, or axes of a new figure, of the usual size unless `figsize` (inches) is given."""
    if ax is not None:
        return ax
    return pyplot().subplots(figsize=figsize, layout="constrained")[1]


def shown(name: object, limit: int = LABEL_LENGTH) -> str:
    """A name as it can be drawn: in one line, without letters that the font lacks, not too long.

    Parameters
    ----------
    name : object
    limit : int
        Letters at most; of a longer name the middle is left out.

    Returns
    -------
    str
        Letters that no font of the figure has are shown by number, as ``[U+1F9EC]``: matplotlib
        would draw one and the same box for all of them, and warn.
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
    """Code points of the fonts that text is drawn with, one after the other."""
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
    """Have a Text of matplotlib show ``$``, ``_``, ``^`` and backslashes as they are."""
    text.set(parse_math=False, usetex=False)


#: The same as an option of tick labels.
LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}


def title(ax: Any, text: str) -> None:
    """A title that has names in it."""
    literal(ax.set_title(text))


def legend_above(ax: Any, text: str) -> None:
    """The legend between the axes and their title, where it covers nothing; in rows that fit."""
    width = ax.get_window_extent().width
    n = len(ax.get_legend_handles_labels()[1])
    for columns in range(n, 0, -1):
        legend = ax.legend(
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
        if hasattr(handle, "set_sizes"):  # points are drawn too small for a legend
            handle.set_sizes([24.0])
    height = legend.get_window_extent().height * 72.0 / ax.figure.dpi
    literal(ax.set_title(text, pad=height + 5.0))


def nothing(ax: Any, why: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    ax.text(
        0.5,
        0.5,
        why,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=LINE,
        wrap=True,
        **LITERAL,
    )


def fitting_size(points: float, n: int) -> float | None:
    """Size of a font, in points, in which `n` lines fit in so many points.

    None if it would be too small to read; never above the size of tick labels.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties

    usual = float(FontProperties(size=rcParams["ytick.labelsize"]).get_size_in_points())
    size = points / max(n, 1) / 1.2
    return None if size < min(SMALLEST_FONT, usual) else min(usual, size)


def extent_in_points(ax: Any) -> tuple[float, float]:
    """Width and height of the axes, in points."""
    box = ax.get_window_extent()
    scale = 72.0 / ax.figure.dpi
    return box.width * scale, box.height * scale


def lay_out(ax: Any) -> None:
    """Give the axes their place in the figure, as drawing it would."""
    ax.figure.canvas.figure.draw_without_rendering()


def thousands(value: float, _position: object = None) -> str:
    """A tick label: ``"2,000"``; of whole numbers below 0 without the sign."""
    return f"{abs(value):,.0f}" if float(value).is_integer() else f"{value:,.3g}"


def spineless(ax: Any) -> None:
    """Leave out the frame's upper and right side."""
    ax.spines[["top", "right"]].set_visible(False)
