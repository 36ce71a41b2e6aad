"""Progress of a run: what is counted, reported, shown and logged."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.errors import OptionError
from pdex_gpu.utils import progress
from pdex_gpu.utils.compile_events import compiling, listening
from pdex_gpu.utils.progress import Progress, Tracker, check_progress


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tracker(show: Any, clock: Callable[[], float] = time.monotonic, **given: Any) -> Tracker:
    totals = {"total_bytes": 1000, "total_genes": 100} | given
    return Tracker(show, description="wilcoxon", clock=clock, **totals)


# --- what may be asked for


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_, print, Clock()])
def test_switches_and_callables_are_taken(value):
    check_progress(value)


@pytest.mark.parametrize("value", [None, 1, 0, "yes", [print]])
def test_anything_else_is_an_error(value):
    with pytest.raises(OptionError) as caught:
        check_progress(value)
    assert str(caught.value) == (
        f"progress={value!r} must be True, False, or a function that takes a "
        f"pdex_gpu.Progress, not {type(value).__name__}."
    )
    with pytest.raises(OptionError, match="must be True, False, or a function"):
        tracker(value)


# --- what a callable gets


def test_the_reports_of_a_run(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, total_rows=50) as run:
        clock.now += 2
        run.read(500)
        clock.now += 2
        run.read(500)
        clock.now += 1
        run.tested(50)
        clock.now += 1
        run.tested(50)
        clock.now += 1
        run.wrote(50)
        clock.now += 1
    totals = {"total_bytes": 1000, "total_genes": 100, "total_rows": 50}
    expected = [
        # phase, bytes, genes, rows, seconds, fraction
        ("reading", 0, 0, 0, 0.0, 0.0),
        ("reading", 500, 0, 0, 2.0, 0.25),
        ("reading", 1000, 0, 0, 4.0, 0.5),
        ("testing", 1000, 50, 0, 5.0, 0.7),
        ("testing", 1000, 100, 0, 6.0, 0.9),
        ("writing", 1000, 100, 50, 7.0, 0.99),
        ("writing", 1000, 100, 50, 8.0, 1.0),
    ]
    assert len(seen) == len(expected)
    for report, (phase, n_bytes, n_genes, n_rows, seconds, fraction) in zip(
        seen, expected, strict=True
    ):
        assert asdict(report) == totals | {
            "phase": phase, "n_bytes": n_bytes, "n_genes": n_genes, "n_rows": n_rows,
            "seconds": seconds, "fraction": pytest.approx(fraction, abs=1e-12),
            "seconds_left": report.seconds_left,
        }  # fmt: skip
    assert seen[-1].fraction == 1.0
    # Speed is that of the time since 0, 0, 0, 2, 2 s: never less than the last half of the run.
    left = [None, 2 / 0.25 * 0.75, 4 / 0.5 * 0.5, 3 / 0.45 * 0.3, 4 / 0.65 * 0.1, 0.0, 0.0]
    assert [r.seconds_left for r in seen] == [
        None if x is None else pytest.approx(x, abs=1e-9) for x in left
    ]


def test_a_matrix_in_memory_is_all_testing(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, total_bytes=0) as run:
        clock.now += 1
        run.read(123)  # not declared: not counted
        assert len(seen) == 1
        run.tested(25)
    assert [(r.phase, r.n_bytes, r.total_bytes, r.fraction) for r in seen] == [
        ("testing", 0, 0, 0.0),
        ("testing", 0, 0, 0.25),
        ("testing", 0, 0, 1.0),
    ]


def test_more_than_declared_is_clipped(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock) as run:
        for _ in range(2):  # the source is read twice
            clock.now += 1
            run.read(1000)
        clock.now += 1
        run.tested(99)
        clock.now += 1
        run.tested(99)
    assert [(r.n_bytes, r.n_genes) for r in seen] == [
        (0, 0), (1000, 0), (1000, 0), (1000, 99), (1000, 100), (1000, 100),
    ]  # fmt: skip
    assert [r.fraction for r in seen] == [0, 0.5, 0.5, 0.99, 0.99, 1.0]


def test_an_advance_that_adds_nothing_leaves_an_estimate(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock) as run:
        clock.now += 1
        run.read(1000)
        clock.now += 1
        run.read(1000)
        clock.now += 6
        run.read(1000)
        clock.now += 8
        run.read(1000)
    # Once nothing was added for half of the run, its whole speed is what there is to go by.
    assert [r.seconds_left for r in seen] == [None, 1.0, 2.0, 8.0, 16.0, 0.0]


def test_numpy_numbers_become_plain_ones(clock):
    seen: list[Progress] = []
    given = {"total_bytes": np.int64(1000), "total_genes": np.int32(100), "done_genes": np.int64(9)}
    with tracker(seen.append, clock, **given) as run:
        clock.now += 1
        run.read(np.int64(10))
        run.tested(np.int32(1))
    assert json.loads(json.dumps(asdict(seen[-1])))["n_genes"] == 10


def test_genes_done_before_count_as_done_but_not_as_speed(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, total_bytes=0, done_genes=60) as run:
        clock.now += 10
        run.tested(10)
        assert run._rate("testing") == 1.0
    assert [(r.n_genes, r.fraction) for r in seen] == [(60, 0.6), (70, 0.7), (70, 1.0)]
    assert seen[1].seconds_left == pytest.approx(30)
    seen.clear()
    with tracker(seen.append, clock, total_bytes=0, done_genes=100):
        pass
    assert [(r.n_genes, r.fraction, r.seconds_left) for r in seen] == [
        (100, 0.99, None),
        (100, 1.0, 0.0),
    ]


def test_speed_follows_a_change_of_pace(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, total_bytes=0) as run:
        for _ in range(40):
            clock.now += 0.1
            run.tested(1)
        for _ in range(20):  # a tenth of the speed
            clock.now += 1
            run.tested(1)
    assert seen[40].seconds_left == pytest.approx(6)
    assert seen[-2].seconds_left == pytest.approx(40, rel=0.05)


def test_a_restart_counts_anew_and_the_fraction_stands_still(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, done_genes=20) as run:
        clock.now += 4
        run.read(1000)
        run.tested(40)
        clock.now += 1
        run.tested(0)
        run.restart()
        clock.now += 2
        run.read(500)
        assert run._rate("reading") == 250
        clock.now += 2
        run.read(500)
        clock.now += 2
        run.tested(60)
        assert run._rate("testing") == 30
    assert [(r.n_bytes, r.n_genes) for r in seen] == [
        (0, 20), (1000, 20), (1000, 60), (500, 20), (1000, 20), (1000, 80), (1000, 80),
    ]  # fmt: skip
    fractions = [0.1, 0.6, 0.8, 0.8, 0.8, 0.9, 1.0]
    assert [r.fraction for r in seen] == pytest.approx(fractions, abs=1e-12)
    assert seen[3].seconds_left == pytest.approx(2 / 0.25 * 0.65)  # of the second attempt


def test_nothing_to_go_by_yet(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock) as run:
        clock.now += 1
        assert run._rate("reading") is None  # not 0
        assert run._rate("testing") is None
        run.restart()
        run.read(500)  # no time has passed since
        assert run._rate("reading") is None
    assert [(r.n_bytes, r.seconds_left) for r in seen] == [(0, None), (500, None), (500, 0.0)]


# --- compiling


def test_compiling_is_a_phase_and_gives_no_estimate(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock, total_bytes=0) as run:
        clock.now += 1
        run.tested(10)
        assert seen[-1].seconds_left == 9
        with compiling():
            assert (seen[-1].phase, seen[-1].seconds_left) == ("compiling", None)
            clock.now += 5
            with compiling():  # a kernel that this one calls
                clock.now += 25
            run.read(0)
            assert seen[-1].phase == "compiling"
        assert (seen[-1].phase, seen[-1].seconds_left) == ("testing", None)
        assert run._rate("testing") is None
        clock.now += 2
        run.tested(10)
        assert seen[-1].seconds_left == pytest.approx(16)  # 5 genes a second since
        assert run._rate("testing") == 5
        assert run._rate("compiling") is None
        fractions = [r.fraction for r in seen]
        assert fractions == sorted(fractions)
    assert (seen[-1].phase, seen[-1].fraction) == ("testing", 1.0)
    with compiling():  # nobody listens any more
        assert seen[-1].fraction == 1.0


def test_a_run_that_begins_while_another_compiles(clock):
    seen: list[Progress] = []
    with compiling(), tracker(seen.append, clock):
        assert seen[-1].phase == "compiling"


def test_compiling_that_begins_during_a_report_is_reported(clock):
    seen: list[Progress] = []
    entered, leave = threading.Event(), threading.Event()

    def show(report: Progress) -> None:
        seen.append(report)
        if report.n_genes == 1 and report.phase == "testing":
            entered.set()
            assert leave.wait(600)

    with tracker(show, clock, total_bytes=0) as run:
        clock.now += 1
        thread = threading.Thread(target=run.tested, args=(1,))
        thread.start()
        assert entered.wait(600)
        with compiling():
            leave.set()
            thread.join()
            assert seen[-1].phase == "compiling"


def test_what_a_callable_raises_while_compiling_comes_out(clock):
    def show(report: Progress) -> None:
        if report.phase == "compiling":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"), tracker(show, clock), compiling():
        pass
    with compiling():  # it is not counted as going on
        pass
    seen: list[Progress] = []
    with tracker(seen.append, clock):
        assert seen[-1].phase == "reading"


@pytest.mark.thorough
def test_numba_compiling_is_seen_and_its_cache_is_not(tmp_path):
    """In a process of its own, with a cache of its own: first compiled, then loaded."""
    script = """
import sys
from pdex_gpu import differential_expression
from pdex_gpu.simulate import simulate_screen
phases = set()
def show(report):
    phases.add(report.phase)
    assert report.phase != "compiling" or report.seconds_left is None
adata = simulate_screen(200, 30, 2, mean_umi=200, seed=1).to_anndata()
differential_expression(adata, "target_gene", backend="cpu", progress=show)
print(*sorted(phases))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    shown = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert shown == [["compiling", "testing"], ["testing"]]


def test_cuda_compiling_is_seen_and_what_is_kept_is_not(tmp_path, monkeypatch):
    from pdex_gpu.backends.cuda import compile_cache

    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    heard: list[bool] = []
    with listening(heard.append):
        for _ in range(2):
            compile_cache.find_or_make("probe", "sm_90", (13, 0), lambda *_: b"\x7fELF")
    assert heard == [True, False]


def test_a_bar_says_that_it_compiles():
    report = Progress("compiling", 0, 0, 5, 100, 0, 0, 1.0, 0.05, None)
    assert progress._text(report, "compiling", None) == ("5/100 genes [compiling, first run only]")


def test_time_counts_from_the_start_of_the_block(clock):
    seen: list[Progress] = []
    run = tracker(seen.append, clock, total_bytes=0)
    clock.now += 100
    with run:
        clock.now += 1
        run.tested(50)
        run.restart()
        clock.now += 1
        run.tested(50)
    assert [r.seconds for r in seen] == [0, 1, 2, 2]
    assert [r.seconds_left for r in seen] == [None, 1, 1, 0]


ADVANCES = st.lists(
    st.tuples(
        st.sampled_from(["read", "tested", "wrote", "restart"]),
        st.integers(0, 700),
        st.sampled_from([0.0, 0.01, 0.1, 1.0, 60.0]),
    ),
    max_size=60,
)


@given(
    advances=ADVANCES,
    total_bytes=st.sampled_from([0, 1, 1000, 10**13]),
    total_genes=st.integers(1, 2000),
    total_rows=st.sampled_from([0, 900]),
    done=st.floats(0, 1),
)
def test_the_fraction_never_falls(advances, total_bytes, total_genes, total_rows, done):
    clock = Clock()
    seen: list[Progress] = []
    with tracker(
        seen.append, clock, total_bytes=total_bytes, total_genes=total_genes,
        total_rows=total_rows, done_genes=int(done * total_genes),
    ) as run:  # fmt: skip
        for name, n, seconds in advances:
            clock.now += seconds
            if name == "restart":
                run.restart()
            else:
                getattr(run, name)(n)
    fractions = [r.fraction for r in seen]
    assert fractions == sorted(fractions)
    assert all(0 <= f <= 0.99 for f in fractions[:-1])
    assert fractions[-1] == 1.0
    for r in seen:
        assert 0 <= r.n_bytes <= r.total_bytes == total_bytes
        assert 0 <= r.n_genes <= r.total_genes == total_genes
        assert 0 <= r.n_rows <= r.total_rows == total_rows
        assert r.seconds_left is None or 0 <= r.seconds_left < float("inf")
    times = [r.seconds for r in seen]
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(times[:-1]))


def test_reports_come_at_most_ten_times_a_second(clock):
    seen: list[Progress] = []
    clock.now = 0.0
    with tracker(seen.append, clock, total_genes=4000) as run:
        for i in range(1, 1001):
            clock.now = i / 256  # exact in binary
            run.tested(1)
    # A report waits for 26 ticks of 1/256 s, the first that are 0.1 s.
    assert [r.n_genes for r in seen] == [*range(0, 1001, 26), 1000]


def test_a_thread_that_comes_second_does_not_report_again(clock):
    seen: list[Progress] = []
    with tracker(seen.append, clock) as run:
        clock.now += 1
        run.tested(1)
        run._report(clock.now)  # found it time to report before the other thread had done so
        assert len(seen) == 2


def test_a_slow_callable_is_left_alone_for_the_same_time(clock):
    seen: list[Progress] = []

    def slow(report: Progress) -> None:
        seen.append(report)
        clock.now += 5

    with tracker(slow, clock) as run:
        run.tested(1)  # right after the first report
        assert len(seen) == 1
        clock.now += 0.11
        run.tested(1)
        assert len(seen) == 2


# --- threads


@pytest.mark.thorough
def test_advances_of_many_threads_are_all_counted():
    n_threads, n_advances = 8, 5_000
    seen: list[Progress] = []
    inside = threading.Lock()
    overlaps = []

    def show(report: Progress) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(report)
            return
        time.sleep(0.001)
        seen.append(report)
        inside.release()

    ticks = iter(range(10**9))  # every look at the clock is a second later: always time to report
    run = tracker(
        show, lambda: float(next(ticks)), total_bytes=n_threads * n_advances * 3,
        total_genes=n_threads * n_advances,
    )  # fmt: skip
    barrier = threading.Barrier(n_threads)

    def hammer() -> None:
        barrier.wait()
        for _ in range(n_advances):
            run.read(3)
            run.tested(1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with run:
            threads = [threading.Thread(target=hammer) for _ in range(n_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    last = seen[-1]
    assert (last.n_bytes, last.n_genes) == (n_threads * n_advances * 3, n_threads * n_advances)
    assert overlaps == []
    assert len(seen) > 10
    for name in ("fraction", "n_bytes", "n_genes", "seconds"):
        values = [getattr(r, name) for r in seen]
        assert values == sorted(values), name


def test_threads_do_not_wait_for_a_slow_callable(clock):
    entered, leave = threading.Event(), threading.Event()
    seen: list[Progress] = []

    def show(report: Progress) -> None:
        seen.append(report)
        if len(seen) == 2:
            entered.set()
            assert leave.wait(600)

    with tracker(show, clock) as run:
        clock.now += 1
        thread = threading.Thread(target=run.tested, args=(1,))
        thread.start()
        assert entered.wait(600)
        clock.now += 1
        run.tested(1)  # comes back although the other thread is still in its report
        assert len(seen) == 2
        leave.set()
        thread.join()
    assert [r.n_genes for r in seen] == [0, 1, 2]


def test_the_end_waits_for_a_report_and_no_report_follows(clock):
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[tuple[Progress, bool]] = []

    def show(report: Progress) -> None:
        if report.n_genes == 1 and report.fraction < 1:
            entered.set()
            assert leave.wait(600)
        seen.append((report, ended.is_set()))

    run = tracker(show, clock)
    with run:
        clock.now += 1
        worker = threading.Thread(target=run.tested, args=(1,))
        worker.start()
        assert entered.wait(600)
        threading.Timer(0.05, leave.set).start()
    ended.set()
    worker.join()
    clock.now += 10
    run.tested(5)
    assert [(r.fraction, late) for r, late in seen] == [
        (0.0, False), (pytest.approx(0.005), False), (1.0, False),
    ]  # fmt: skip


# --- failures


class Refused(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_a_callable_raises_comes_out_and_ends_the_calls(clock, at, caplog):
    caplog.set_level(logging.INFO, "pdex_gpu")
    seen: list[Progress] = []

    def show(report: Progress) -> None:
        seen.append(report)
        if len(seen) == at:
            raise Refused

    steps = []
    with pytest.raises(Refused):  # noqa: PT012, SIM117
        with tracker(show, clock) as run:
            steps.append("entered")
            clock.now += 1
            run.tested(5)
            steps.append("tested")
    assert len(seen) == at
    assert steps == ["entered", "tested"][: at - 1]
    assert not any("done in" in m for m in caplog.messages)


def test_other_threads_go_on_after_a_callable_raised(clock):
    seen: list[Progress] = []

    def show(report: Progress) -> None:
        seen.append(report)
        if len(seen) == 2:
            raise Refused

    with pytest.raises(Refused), tracker(show, clock) as run:  # noqa: PT012
        clock.now += 1
        try:
            run.tested(5)
        except Refused:
            clock.now += 1
            thread = threading.Thread(target=run.tested, args=(7,))
            thread.start()
            thread.join()
            assert run._counters["testing"].done == 12
            raise
    assert len(seen) == 2


def test_no_report_of_an_end_that_failed(clock, caplog):
    caplog.set_level(logging.INFO, "pdex_gpu")
    seen: list[Progress] = []
    with pytest.raises(Refused), tracker(seen.append, clock) as run:  # noqa: PT012
        clock.now += 1
        run.tested(100)
        raise Refused
    clock.now += 1
    run.tested(1)
    assert [r.fraction for r in seen] == [0.0, 0.5]
    assert caplog.messages == ["phase reading: 1.0 kB", "phase testing: 100 genes"]


# --- the bar


@pytest.fixture
def at_clock(monkeypatch, clock):
    """Let the bar go by the clock of the test."""
    from tqdm import std

    monkeypatch.setattr(std, "time", clock)
    return clock


def shown(text: str) -> list[str]:
    """What stood on the line, one after the other."""
    return [line.strip() for line in text.replace("\n", "\r").split("\r") if line.strip()]


needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@pytest.fixture
def terminal(monkeypatch):
    """Makes stderr a pseudo-terminal of this many columns; gives what was written to it."""
    import fcntl
    import pty
    import struct
    import termios

    opened = []

    def make(columns: int) -> Callable[[], str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        stream = os.fdopen(theirs, "w", encoding="utf-8")
        opened.append((ours, stream))
        monkeypatch.setattr(sys, "stderr", stream)

        def written() -> str:
            stream.flush()
            os.set_blocking(ours, False)
            text = b""
            while True:
                try:
                    text += os.read(ours, 65536)
                except BlockingIOError:
                    return text.decode()

        return written

    yield make
    for ours, stream in opened:
        stream.close()
        os.close(ours)


@needs_terminal
def test_the_bar_on_a_terminal(terminal, at_clock):
    written = terminal(100)
    with tracker(
        True, at_clock, total_bytes=3_400_000_000, total_genes=8_000, total_rows=16_000_000
    ) as run:
        at_clock.now += 0.4
        run.read(100_000_000)
        assert written() == ""  # not yet
        at_clock.now += 1.6
        run.read(1_100_000_000)
        at_clock.now += 0.4
        run.tested(120)
        at_clock.now += 0.4
        run.read(100_000_000)
        at_clock.now += 1.6
        run.read(2_100_000_000)
        at_clock.now += 1
        run.tested(3880)
        at_clock.now += 60
        run.tested(4000)
        at_clock.now += 1
        run.wrote(4_000_000)
        at_clock.now += 3600
        run.wrote(12_000_000)
        at_clock.now += 1
    lines = shown(written())
    bars = [line.partition("|")[2].rpartition("|")[0] for line in lines]
    assert {len(line) for line in lines} in ({99}, {100})  # as tqdm's version has it
    texts = [f"{line.partition('|')[0]}|{line.rpartition('|')[2]}" for line in lines]
    assert texts == [
        "wilcoxon:  18%| 1.2/3.4 GB, 0/8,000 genes [0:08 left, reading 600 MB/s]",
        "wilcoxon:  18%| 1.2/3.4 GB, 120/8,000 genes [0:10 left, testing 300/s]",
        # Reading again, but too soon to turn to it.
        "wilcoxon:  20%| 1.3/3.4 GB, 120/8,000 genes [0:11 left, testing 150/s]",
        "wilcoxon:  51%| 3.4 GB, 120/8,000 genes [0:04 left, reading 773 MB/s]",
        "wilcoxon:  70%| 3.4 GB, 4,000/8,000 genes [0:02 left, testing 1,176/s]",
        "wilcoxon:  90%| 3.4 GB, 8,000/8,000 genes [0:15 left, testing 126/s]",
        "wilcoxon:  92%| 4.0/16.0 M rows [0:11 left, writing 4.0 M/s]",
        "wilcoxon:  99%| 16.0/16.0 M rows [0:00 left, writing 4.4 k/s]",
        "wilcoxon: 100%| 3.4 GB, 8,000/8,000 genes, 16.0/16.0 M rows [took 1:01:07]",
        "wilcoxon: 100%| 3.4 GB, 8,000/8,000 genes, 16.0/16.0 M rows [took 1:01:07]",  # closed
    ]
    full = [bar.count("█") / len(bar) for bar in bars]
    assert full == pytest.approx([0.18, 0.18, 0.2, 0.51, 0.7, 0.9, 0.92, 0.99, 1, 1], abs=0.05)


@needs_terminal
def test_the_bar_has_room_on_a_narrow_terminal(terminal, at_clock):
    written = terminal(80)
    with tracker(True, at_clock, total_bytes=3_400_000_000, total_genes=36_601) as run:
        at_clock.now += 10
        run.read(3_400_000_000)
        at_clock.now += 10
        run.tested(12_345)
        at_clock.now += 600
        run.tested(1)
    left, bar, right = shown(written())[1].split("|")
    assert (left, right) == (
        "wilcoxon:  67%",
        " 3.4 GB, 12,345/36,601 genes [0:20 left, testing 1,234/s]",
    )
    assert len(bar) in (6, 7)
    assert bar.count("█") == 4


@needs_terminal
def test_a_bar_is_closed_as_it_is_when_a_run_fails(terminal, at_clock):
    written = terminal(100)
    with pytest.raises(Refused), tracker(True, at_clock) as run:  # noqa: PT012
        at_clock.now += 1
        run.read(500)
        raise Refused
    text = written()
    assert text.endswith("\r\n")
    assert {line.partition("|")[0] for line in shown(text)} == {"wilcoxon:  25%"}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("seconds", "appears"), [(0.4, False), (0.6, True)])
def test_a_short_run_shows_no_bar(capfd, at_clock, seconds, appears, fails):
    try:
        with tracker(True, at_clock) as run:
            at_clock.now += seconds
            run.tested(100)
            if fails:
                raise Refused
    except Refused:
        pass
    captured = capfd.readouterr()
    assert captured.out == ""
    assert ("wilcoxon:" in captured.err) is appears


def test_braces_in_a_description_are_shown(capfd, at_clock):
    with Tracker(True, description="a {b}", total_bytes=0, total_genes=4, clock=at_clock) as run:
        at_clock.now += 1
        run.tested(2)
    assert shown(capfd.readouterr().err)[0].startswith("a {b}:  50%|")
    assert "2/4 genes [0:01 left, testing 2/s]" in progress._text(
        Progress("testing", 0, 0, 2, 4, 0, 0, 1.0, 0.5, 1.0), "testing", 2.0
    )


def test_without_stderr_there_is_no_bar(monkeypatch, at_clock):
    monkeypatch.setattr(sys, "stderr", None)
    with tracker(True, at_clock) as run:
        at_clock.now += 1
        run.tested(1)
    assert run._counters["testing"].done == 1


@pytest.mark.parametrize("show", [False, np.False_, lambda report: None])
def test_nothing_is_written_where_no_bar_is_asked_for(capfd, at_clock, show):
    with tracker(show, at_clock) as run:
        at_clock.now += 10
        run.read(1000)
        run.tested(100)
    assert capfd.readouterr() == ("", "")


def test_tqdm_is_imported_for_a_bar_alone():
    script = """
import sys
from pdex_gpu.utils.progress import Tracker
for show in (False, print, True):
    with Tracker(show, description="", total_bytes=0, total_genes=1):
        print("tqdm" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    switches = [line for line in done.stdout.splitlines() if line in ("True", "False")]
    assert switches == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("total", "unit", "n", "text"),
    [
        (0, "B", None, "0 B"),
        (999, "B", 5, "5/999 B"),
        (3_400_000_000, "B", None, "3.4 GB"),
        (3_400_000_000, "B", 1_200_000_000, "1.2/3.4 GB"),
        (3_400_000_000, "B", 0, "0.0/3.4 GB"),
        (512_300_000, "B", 1_000_000, "1/512 MB"),
        (2_000_000_000_000_000, "B", None, "2000 TB"),
        (500, " rows", 12, "12/500 rows"),
        (16_000_000, " rows", 1_200_000, "1.2/16.0 M rows"),
        (500.4, "", None, "500"),
        (4_400, "", None, "4.4 k"),
    ],
)
def test_amounts(total, unit, n, text):
    assert progress.amount(total, unit, n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (83, "1:23"), (3599, "59:59"), (3723, "1:02:03")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(1234.5, "1,234"), (12.3, "12"), (0.123, "0.12")])
def test_rates(rate, text):
    assert progress._few(rate) == text


# --- the log


@pytest.mark.parametrize("show", [False, lambda report: None])
def test_the_log_names_each_phase_once(clock, caplog, show):
    caplog.set_level(logging.INFO, "pdex_gpu")
    with tracker(
        show, clock, total_bytes=3_400_000_000, total_genes=8_000, total_rows=16_000_000
    ) as run:
        assert caplog.messages == ["phase reading: 3.4 GB"]
        for _ in range(2):
            clock.now += 2
            run.read(1_700_000_000)
            clock.now += 1
            run.tested(4_000)
        clock.now += 0.25
        run.wrote(16_000_000)
        clock.now += 0.5
    assert caplog.messages == [
        "phase reading: 3.4 GB",
        "phase testing: 8,000 genes",
        "phase writing: 16,000,000 rows",
        # From when a phase began to its last advance; reading and testing overlapped.
        "done in 6.75 s: reading 5.00 s, testing 4.00 s, writing 0.25 s",
    ]
    assert {(r.name, r.levelname) for r in caplog.records} == {("pdex_gpu", "INFO")}


def test_the_log_of_a_resumed_run_that_starts_over(clock, caplog):
    caplog.set_level(logging.INFO, "pdex_gpu")
    with tracker(False, clock, total_bytes=0, total_genes=8_000, done_genes=3_000) as run:
        clock.now += 1
        run.tested(10)
        run.restart()
        clock.now += 3
        run.tested(5_000)
    assert caplog.messages == [
        "phase testing: 8,000 genes, 3,000 of them done earlier",
        "done in 4.00 s: testing 3.00 s",
    ]
