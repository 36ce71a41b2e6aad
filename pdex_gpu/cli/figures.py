"""Writing figures to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError
from ..utils.install_hints import how_to_install

SUFFIXES = (".png", ".svg", ".pdf")


def draw_on_files() -> None:
    """Make matplotlib draw without a display.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib is not installed. Run: {how_to_install('plot')}"
        ) from error
    matplotlib.use("Agg")


def save_figure(axes: Any, path: Path, *, dpi: int = 200) -> None:
    """Write the figure of some axes, completely or not at all, and close it."""
    import matplotlib.pyplot as plt

    from ..utils.atomic_files import write_atomically

    figure = axes.figure
    try:
        write_atomically(
            path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=dpi)
        )
    finally:
        plt.close(figure)
