"""The progress bar of the command line, on stderr; it disappears when the command ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .tables import open_console

if TYPE_CHECKING:
    from ..utils.progress import Progress

_DELAY = 0.5  # seconds; a shorter run shows no bar
_MARGIN = 4  # columns, so that an echoed ^C does not start a new line


@contextmanager
def progress_bar(label: str, *, shown: bool) -> Iterator[Callable[[Progress], object] | bool]:
    """Yield a value for ``progress=``: a function that draws a bar, or False if not `shown`.

    The bar is erased and the cursor restored once the run is done, or however the block ends.
    """
    if not shown:
        yield False
        return
    from rich import progress as rich_progress

    console = open_console(stderr=True)
    console.width = max(1, console.width - _MARGIN)
    bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        transient=True,
    )
    task = bar.add_task(label, total=1.0, detail="")

    def draw(progress: Progress) -> None:
        if progress.seconds >= _DELAY and progress.fraction < 1 and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=progress.fraction, detail=describe(progress))
        if progress.fraction == 1:
            bar.stop()  # so that the caller's next output does not land on it

    try:
        yield draw
    finally:
        bar.stop()


def describe(progress: Progress) -> str:
    """Return the text next to the bar, least important part last, where a terminal cuts it off."""
    from ..utils.progress import amount, described, duration

    parts = [described(progress.phase)]
    if progress.seconds_left is not None:
        parts.insert(0, f"{duration(progress.seconds_left)} left")
    if progress.n_rows:
        parts.append(f"{progress.n_rows:,}/{progress.total_rows:,} rows")
    elif progress.n_bytes < progress.total_bytes:
        parts.append(amount(progress.total_bytes, "B", progress.n_bytes))
    else:
        parts.append(f"{progress.n_genes:,}/{progress.total_genes:,} genes")
    return ", ".join(parts)
