"""Progress of a run: a bar, reports to a callable, and log lines that name the phases."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ..errors import OptionError, shown
from .checks import is_flag, kind
from .compile_events import listening
from .keywords import known_keywords_of_init

logger = logging.getLogger("pdex_gpu")

READING, TESTING, WRITING = "reading", "testing", "writing"
COMPILING = "compiling"

# Assumed shares of the cost of a run; testing has the rest.
_READING_SHARE = 0.5
_WRITING_SHARE = 0.1

_UNFINISHED = 0.99  # highest fraction before the end: FDR follows the last advance
_INTERVAL = 0.1  # seconds between reports
_DELAY = 0.5  # a run shorter than this shows no bar
_STEADY = 1.0  # seconds for which the bar stays on a phase when phases interleave


@known_keywords_of_init
@dataclass(frozen=True)
class Progress:
    """The progress of a run at one moment.

    Attributes
    ----------
    phase : {"reading", "testing", "writing", "compiling"}
        The phase that advanced last; reading and testing may take turns. While kernels are
        compiled, which happens once per machine, everything else may wait for them.
    n_bytes, total_bytes : int
        Bytes read from the file so far, and in total; both 0 for a matrix in memory.
    n_genes, total_genes : int
        Genes tested so far, including those that a resumed run found done, and in total.
    n_rows, total_rows : int
        Rows written so far, and in total; both 0 if nothing is written.
    seconds : float
        Time since the start.
    fraction : float
        Part of the run that is done, by estimated cost. It never falls, and is 1.0 only in the
        report of a successful end.
    seconds_left : float or None
        Estimated from the speed over about the last half of the run, since kernels were last
        compiled; None until there is anything to estimate from.
    """

    phase: str
    n_bytes: int
    total_bytes: int
    n_genes: int
    total_genes: int
    n_rows: int
    total_rows: int
    seconds: float
    fraction: float
    seconds_left: float | None


def check_progress(value: object) -> None:
    """Raise OptionError unless `value` is True, False or a callable."""
    if not is_flag(value) and not callable(value):
        raise OptionError(
            f"progress={shown(value)} must be True, False, or a function that takes a "
            f"pdex_gpu.Progress, not {kind(value)}."
        )


@dataclass
class _Counter:
    total: int
    before: int  # done before the run
    share: float
    done: int = 0
    began: float | None = None
    last: float = 0.0
    # The point from which speed is measured.
    since: float = 0.0
    done_since: int = 0

    def reset(self) -> None:
        self.done = self.before
        self.began = None

    def begin(self, now: float) -> None:
        self.began = now
        self.take_speed_from(now)

    def take_speed_from(self, now: float) -> None:
        self.since, self.done_since = now, self.done

    def rate(self, now: float) -> float | None:
        if self.began is None or now <= self.since or self.done <= self.done_since:
            return None
        return (self.done - self.done_since) / (now - self.since)


class Tracker:
    """A context manager around a run that counts what is done and shows it.

    Any thread may advance it. One thread at a time makes a report, and the others do not wait for
    it. If a callable raises, the error leaves the advance that called it, and the callable is not
    called again.

    Parameters
    ----------
    show : bool or callable
        True for a bar on stderr or in a notebook, False for none. A callable gets a
        :class:`Progress` at the start, then at most ten times per second, and at the end if the
        run succeeds; never after the ``with`` block.
    description : str
        Text in front of the bar.
    total_bytes, total_genes, total_rows : int
        Work to do. Anything beyond these totals is not counted, so a source read twice does no
        harm. A phase with a total of 0 is left out.
    done_genes : int
        Genes of `total_genes` that an earlier run did. They count as done, but not for the speed.
    clock : callable
        Returns seconds since any origin.
    """

    def __init__(
        self,
        show: bool | Callable[[Progress], object],
        *,
        description: str,
        total_bytes: int,
        total_genes: int,
        total_rows: int = 0,
        done_genes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_progress(show)
        self._asked = show
        self._description = description
        self._clock = clock
        reading = _READING_SHARE if total_bytes else 0.0
        writing = _WRITING_SHARE if total_rows else 0.0
        self._counters = {
            READING: _Counter(int(total_bytes), 0, reading),
            TESTING: _Counter(
                int(total_genes), min(int(done_genes), int(total_genes)), 1 - reading - writing
            ),
            WRITING: _Counter(int(total_rows), 0, writing),
        }
        self._fraction = 0.0
        self._named: set[str] = set()
        self._bar: _Bar | None = None
        self._show: Callable[[Progress], object] | None = None
        self._due = math.inf
        self._compiling = False
        self._listening: AbstractContextManager[None] = nullcontext()
        self._lock = threading.Lock()  # counters
        self._reporting = threading.Lock()  # reports; taken before the other
        self._began = self._start()

    def __enter__(self) -> Tracker:
        self._began = self._start()
        self._named.add(self._phase)
        self._log(self._phase)
        if callable(self._asked):
            self._show = self._asked
        elif self._asked and sys.stderr is not None:  # as under pythonw
            self._show = self._bar = _Bar(self._description, self._rate)
        if self._show is not None:
            self._due = self._began
            self._report(self._began)
        self._listening = listening(self._compile)
        self._listening.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listening.__exit__(None, None, None)
        with self._reporting:  # waits for a call in another thread
            now = self._clock()
            show, self._show, self._due = self._show, None, math.inf
            try:
                if kind is None and show is not None:
                    show(self._progress(now, ended=True))
            finally:
                if self._bar is not None:
                    self._bar.close()
        if kind is None:
            spans = [
                f"{name} {counter.last - counter.began:.2f} s"
                for name, counter in self._counters.items()
                if counter.began is not None
            ]
            logger.info("done in %.2f s: %s", now - self._began, ", ".join(spans))

    def read(self, n_bytes: int) -> None:
        """Count bytes read from the file."""
        self._advance(READING, n_bytes)

    def tested(self, n_genes: int) -> None:
        """Count genes tested."""
        self._advance(TESTING, n_genes)

    def wrote(self, n_rows: int) -> None:
        """Count rows written."""
        self._advance(WRITING, n_rows)

    def restart(self) -> None:
        """Count from the start again; the fraction stays until the new count passes it.

        No thread may still be working on the abandoned attempt.
        """
        self._start()

    def _start(self) -> float:
        """Reset the counters and return the time."""
        with self._lock:
            now = self._clock()
            for counter in self._counters.values():
                counter.reset()
            self._phase = READING if self._counters[READING].total else TESTING
            first = self._counters[self._phase]
            first.begin(now)
            first.last = self._last = now
            self._take_speed_from(now)
            return now

    def _take_speed_from(self, now: float) -> None:
        # Speed is measured since `older`, which lies a quarter to a half of the time back.
        self._origin = self._older = self._newer = (now, self._work())

    def _advance(self, name: str, n: int) -> None:
        counter = self._counters[name]
        if not counter.total:
            return
        with self._lock:
            now = self._clock()
            if counter.began is None:
                counter.begin(self._last)  # the work of a first advance began before it
            counter.done = min(counter.done + int(n), counter.total)
            counter.last = self._last = now
            self._phase = name
            is_new = name not in self._named
            self._named.add(name)
        if is_new:
            self._log(name)
        if now >= self._due:
            self._report(now)

    def _compile(self, begins: bool) -> None:
        """Note that compiling begins or ends; the speed before it says nothing about the rest."""
        with self._lock:
            now = self._clock()
            self._compiling = begins
            if not begins:
                self._last = now
                self._take_speed_from(now)
                for counter in self._counters.values():
                    counter.take_speed_from(now)
            elif self._show is not None:
                self._due = now  # there may be no other report before it ends
        self._report(now)

    def _log(self, name: str) -> None:
        counter = self._counters[name]
        if name == READING:
            total = amount(counter.total, "B")
        else:
            total = f"{counter.total:,} {'genes' if name == TESTING else 'rows'}"
        if counter.before:
            total += f", {counter.before:,} of them done earlier"
        logger.info("phase %s: %s", name, total)

    def _report(self, now: float) -> None:
        if not self._reporting.acquire(blocking=False):
            return  # another thread is reporting
        try:
            if self._show is None or now < self._due:
                return  # the run ended, or another thread was faster
            try:
                shown = self._progress(now)
                self._show(shown)
                if self._compiling and shown.phase != COMPILING:  # it began in the meantime
                    self._show(self._progress(self._clock()))
            except BaseException:
                self._show, self._due = None, math.inf
                raise
            self._due = self._clock() + _INTERVAL
        finally:
            self._reporting.release()

    def _progress(self, now: float, *, ended: bool = False) -> Progress:
        with self._lock:
            work = self._work()
            if now - self._origin[0] >= 2 * (self._newer[0] - self._origin[0]):
                self._older, self._newer = self._newer, (now, work)
            self._fraction = 1.0 if ended else max(self._fraction, min(work, _UNFINISHED))
            reading, testing, writing = (
                self._counters[name] for name in (READING, TESTING, WRITING)
            )
            return Progress(
                phase=COMPILING if self._compiling and not ended else self._phase,
                n_bytes=reading.done,
                total_bytes=reading.total,
                n_genes=testing.done,
                total_genes=testing.total,
                n_rows=writing.done,
                total_rows=writing.total,
                seconds=now - self._began,
                fraction=self._fraction,
                seconds_left=0.0 if ended else self._seconds_left(now, work),
            )

    def _work(self) -> float:
        """Return the share of the work that is done; it falls at a restart."""
        counters = self._counters.values()
        return sum(c.share * (c.done / c.total) for c in counters if c.total)

    def _seconds_left(self, now: float, work: float) -> float | None:
        if self._compiling:
            return None
        for then, work_then in (self._older, self._origin):
            if now > then and work > work_then:
                return (1 - work) * (now - then) / (work - work_then)
        return None

    def _rate(self, name: str) -> float | None:
        with self._lock:
            counter = self._counters.get(name)
            return None if counter is None else counter.rate(self._clock())


class _Bar:
    """A tqdm bar that shows the fraction, with text made here."""

    def __init__(self, description: str, rate: Callable[[str], float | None]) -> None:
        from tqdm import TqdmWarning

        with warnings.catch_warnings():
            # Raised in every notebook without ipywidgets, where a text bar serves as well.
            warnings.simplefilter("ignore", TqdmWarning)
            from tqdm.auto import tqdm

        description = description.replace("{", "{{").replace("}", "}}")
        # The text goes through {desc}, as tqdm puts a comma before a postfix. Reports already come
        # at intervals, so tqdm shows each of them (`mininterval`, `miniters`).
        self._bar: Any = tqdm(
            total=1.0,
            delay=_DELAY,
            mininterval=0,
            miniters=0,
            dynamic_ncols=True,
            bar_format=description + ": {percentage:3.0f}%|{bar}| {desc}",
        )
        self._rate = rate
        self._phase = ""
        self._since = -math.inf

    def __call__(self, progress: Progress) -> None:
        steady = progress.seconds - self._since >= _STEADY
        if progress.phase != self._phase and (steady or COMPILING in (progress.phase, self._phase)):
            self._phase, self._since = progress.phase, progress.seconds
        text = _text(progress, self._phase, self._rate(self._phase))
        self._bar.set_description_str(text, refresh=False)
        self._bar.n = progress.fraction
        self._bar.update(0)

    def close(self) -> None:
        self._bar.close()


def _text(progress: Progress, phase: str, rate: float | None) -> str:
    """Return the text next to the bar; the least important part is last, as terminals cut it."""
    parts = []
    ended = progress.fraction == 1
    brief = progress.n_rows > 0 and not ended  # completed parts make room for the rows
    if progress.n_bytes < progress.total_bytes:
        parts.append(amount(progress.total_bytes, "B", progress.n_bytes))
    elif progress.total_bytes and not brief:
        parts.append(amount(progress.total_bytes, "B"))
    if progress.n_genes < progress.total_genes or not brief:
        parts.append(f"{progress.n_genes:,}/{progress.total_genes:,} genes")
    if progress.n_rows:
        parts.append(amount(progress.total_rows, " rows", progress.n_rows))
    state = described(phase)
    if ended:
        state = f"took {duration(progress.seconds)}"
    else:
        if progress.seconds_left is not None:
            state = f"{duration(progress.seconds_left)} left, {phase}"
        if rate is not None:
            state += f" {_few(rate) if phase == TESTING else amount(rate, _UNITS[phase])}/s"
    return f"{', '.join(parts)} [{state}]"


def described(phase: str) -> str:
    """Return the text shown for a phase."""
    return "compiling, first run only" if phase == COMPILING else phase


_PREFIXES = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")]
_UNITS = {READING: "B", WRITING: ""}


def amount(total: float, unit: str, n: float | None = None) -> str:
    """Return an amount as text: ``3.4 GB``, or ``1.2/3.4 GB`` if `n` of it are done."""
    size, prefix = next((pair for pair in _PREFIXES if total >= pair[0]), _PREFIXES[-1])
    digits = 1 if size > 1 and total / size < 100 else 0
    text = f"{total / size:.{digits}f}"
    if n is not None:
        text = f"{n / size:.{digits}f}/{text}"
    return f"{text} {(prefix + unit).lstrip()}".rstrip()


def _few(rate: float) -> str:
    """Return a rate as text, with two digits or more."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def duration(seconds: float) -> str:
    """Return seconds as text: ``1:23`` or ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
