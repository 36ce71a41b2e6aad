"""Run the code of the gallery and keep its figures: ``python docs/draw_gallery.py``."""

from __future__ import annotations

import os
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "gallery.md"
FIGURES = HERE / "images" / "gallery"

_SECTION = re.compile(r"^## (\w+)\n+```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIRST = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, str]:
    """Code of each figure, by the name of the function that draws it."""
    return dict(_SECTION.findall(PAGE.read_text("utf-8")))


def main() -> None:
    """Draw all figures."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    os.chdir(HERE.parent)
    FIGURES.mkdir(parents=True, exist_ok=True)
    names: dict[str, object] = {}
    first = _FIRST.search(PAGE.read_text("utf-8"))
    assert first is not None
    exec(compile(first[1], str(PAGE), "exec"), names)
    for name, code in sections().items():
        exec(compile(code, str(PAGE), "exec"), names)
        plt.savefig(FIGURES / f"{name}.png", dpi=90, bbox_inches="tight")
        plt.close("all")


if __name__ == "__main__":
    main()
