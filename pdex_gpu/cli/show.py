"""Tables and lines on stdout: coloured on a terminal, plain aligned text in a pipe.

What is shown holds names from data: they are never read as markup, and can move no cursor.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..console import format_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Categories of signs that a terminal would act on: control characters, line and paragraph breaks,
# lone surrogates.
_ACTIVE = {"Cc", "Zl", "Zp", "Cs"}
# Signs that turn the direction of what follows.
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}

_UNBOUNDED = 1 << 16
_NARROWEST = 20  # columns that text is broken into


@dataclass(frozen=True)
class Cell:
    """Text with a style of rich, as ``"bold red"``."""

    text: str
    style: str = ""

    def __str__(self) -> str:
        return self.text


def open_console(*, stderr: bool = False) -> Console:
    """A console on what stdout or stderr is now; it takes all text literally."""
    from rich.console import Console

    return Console(
        file=sys.stderr if stderr else sys.stdout, markup=False, emoji=False, highlight=False
    )


def printable(name: object) -> str:
    """A name as it can be shown: signs that a terminal would act on are escaped."""
    return "".join(
        sign.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(sign) in _ACTIVE or sign in _TURNING
        else sign
        for sign in str(name)
    )


def show_line(*parts: str | Cell) -> None:
    """One line, however long: nothing is cut, nothing is broken."""
    from rich.text import Text

    line = Text.assemble(*((str(p), p.style if isinstance(p, Cell) else "") for p in parts))
    open_console().print(line, soft_wrap=True)


def show_entry(lead: Sequence[str | Cell], text: str) -> None:
    """A text after its lead; what is too long for a terminal goes on below its beginning."""
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
    """A table.

    Parameters
    ----------
    header : sequence of str
        Column titles.
    rows : sequence of sequences of str or Cell
    right : str
        One letter a column: ``"r"`` aligns it to the right, anything else to the left.
    """
    console = open_console()
    if not console.is_terminal:
        text = format_table(header, [[str(cell) for cell in row] for row in rows], right=right)
        sys.stdout.write(text + "\n")
        return
    table = _table(header, rows, right)
    unbounded = console.options.update(max_width=_UNBOUNDED)
    if console.measure(table, options=unbounded).maximum > console.width:
        # Titles give way before names do.
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
            no_wrap=to_right,  # numbers stay whole, names fold
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(str(c), c.style if isinstance(c, Cell) else "") for c in row))
    return table
