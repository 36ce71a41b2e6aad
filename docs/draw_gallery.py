"""Run the code of the galleries and keep their figures: ``python docs/draw_gallery.py``."""

from __future__ import annotations

import os
import re
from pathlib import Path

HERE = Path(__file__).parent

#: Pages whose code draws figures.
PAGES = ("gallery.md", "gallery_calibration.md")

_BLOCK = re.compile(
    r"^```python\n(.*?)^```$(?:\n+!\[[^\]]+\]\((images/gallery/\w+\.png)\)$)?",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: str) -> list[tuple[str, str]]:
    """Code of a page in order, and the file of the figure that follows it; empty without one."""
    return _BLOCK.findall((HERE / page).read_text("utf-8"))


def main() -> None:
    """Draw all figures."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    os.chdir(HERE.parent)
    (HERE / "images" / "gallery").mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        names: dict[str, object] = {}
        for code, figure in blocks(page):
            exec(compile(code, str(HERE / page), "exec"), names)
            if figure:
                plt.savefig(HERE / figure, dpi=90, bbox_inches="tight")
                plt.close("all")


if __name__ == "__main__":
    main()
