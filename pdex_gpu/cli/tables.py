"""Tables and lines on stdout: coloured on a terminal, plain aligned text in a pipe.

The output contains names from data. They are never read as markup, and cannot move the cursor.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .console import format_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Categories of characters that a terminal would act on: control characters, line and paragraph
# separators, lone surrogates.
_ACTIVE = {"Cc", "Zl", "Zp", "Cs"}
# Characters that change the direction of the following text.
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}

_UNBOUNDED = 1 << 16
_NARROWEST = 20  # fewest columns for wrapped text


@dataclass(frozen=True)
class Cell:
    """Text with a rich style, such as ``"bold red"``."""

    text: str
    style: str = ""

    def __str__(self) -> str:
        return self.text


def open_console(*, stderr: bool = False) -> Console:
    """Open a console on the current stdout or stderr that takes all text literally."""
    from rich.console import Console

    return Console(
        file=sys.stderr if stderr else sys.stdout, markup=False, emoji=False, highlight=False
    )


def printable(name: object) -> str:
    """Return a name with the characters escaped that a terminal would act on."""
    return "".join(
        sign.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(sign) in _ACTIVE or sign in _TURNING
        else sign
        for sign in str(name)
    )


def show_line(*parts: str | Cell) -> None:
    """Print one line of any length, without cutting or wrapping it."""
    from rich.text import Text

    line = Text.assemble(*((str(p), p.style if isinstance(p, Cell) else "") for p in parts))
    open_console().print(line, soft_wrap=True)


def show_entry(lead: Sequence[str | Cell], text: str) -> None:
    """Print a text after its lead; on a terminal, it wraps with a hanging indent."""
    import textwrap

    console = open_console()
    indent = sum(len(str(part)) for part in lead)
    if console.is_terminal:
        width = max(_NARROWEST, console.width - indent)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        text = ("\n" + " " * indent).join(lines)
    show_line(*lead, text)


def show_table(
    header: Sequence[str], rows: Sequence[Sequence[str | Cell]], *, right: str = ""
) -> None:
    """Print a table.

    Parameters
    ----------
    header : sequence of str
        Column titles.
    rows : sequence of sequences of str or Cell
    right : str
        One letter per column: ``"r"`` aligns it to the right, anything else to the left.
    """
    console = open_console()
    if not console.is_terminal:
        text = format_table(header, [[str(cell) for cell in row] for row in rows], right=right)
        sys.stdout.write(text + "\n")
        return
    table = _table(header, rows, right)
    unbounded = console.options.update(max_width=_UNBOUNDED)
    if console.measure(table, options=unbounded).maximum > console.width:
        # Wrap titles before names.
        table = _table([title.replace(" ", "\n") for title in header], rows, right)
    console.print(table)


def _table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]], right: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for i, title in enumerate(header):
        to_right = right[i : i + 1] == "r"
        table.add_column(
            Text(title),
            justify="right" if to_right else "left",
            no_wrap=to_right,  # numbers stay whole, names wrap
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(str(c), c.style if isinstance(c, Cell) else "") for c in row))
    return table
