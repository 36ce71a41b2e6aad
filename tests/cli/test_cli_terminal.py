"""What is shown: on a terminal, in a pipe, and with names that mean mischief."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.cells import cell_len

from pdex_gpu.cli import progress_bar, tables
from pdex_gpu.cli.console import format_table, messages
from pdex_gpu.cli.tables import Cell, printable, show_line, show_table
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.utils.progress import Progress

pty = pytest.importorskip("pty")

NASTY = '[red]a[/red] <script>,"quo\'te" :smile: \U0001f9ec 基因'
COLOUR = re.compile(r"\x1b\[[\d;]*3\d")


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, argv: list[str], *, columns: int = 80, **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        usual = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**usual, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(theirs)
        self.text = ""

    def read(self, until: str | None = None) -> str:
        """What was written, up to some text or to the end."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and (until is None or until not in self.text):
            try:
                piece = os.read(self.ours, 65536)
            except OSError:  # what Linux gives once the other side is closed
                piece = b""
            if not piece:
                break
            self.text += piece.decode(errors="replace")
        return self.text

    def end(self) -> int:
        self.read()
        os.close(self.ours)
        return self.process.wait(600)


def run_on_terminal(*argv: str, columns: int = 80, **environment: str) -> str:
    terminal = Terminal([sys.executable, "-m", "pdex_gpu", *argv], columns=columns, **environment)
    assert terminal.end() == 0
    return terminal.text


def test_help_is_coloured():
    assert "\x1b[1;36m--reference" in run_on_terminal("top", "--help")


def test_no_color():
    assert not COLOUR.search(run_on_terminal("top", "--help", NO_COLOR="1"))


def test_backends_are_a_coloured_table():
    text = run_on_terminal("backends")
    assert COLOUR.search(text)
    assert "───" in text
    assert "…" not in text


# Names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("STAT1", "STAT1"),
        (NASTY, NASTY),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        (3, "3"),
    ],
)
def test_printable(name: object, shown: str):
    assert printable(name) == shown


def test_a_pipe_gets_plain_aligned_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = "x" * 200
    show_table(["name", "n"], [[Cell(NASTY, "red"), "1"], [long, "12,345"]], right="lr")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("name ")
    assert set(lines[1]) == {"-", " "}
    assert NASTY in lines[2]
    assert long in lines[3]
    assert {cell_len(line) for line in lines} == {200 + 2 + 6}
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_all_of_a_long_name(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    long = "abcdefghij" * 20
    show_table(["name", "number"], [[Cell(NASTY, "red"), "0.125"], [long, "1"]], right="lr")
    out = capsys.readouterr().out
    assert "\x1b[31m" in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert max(cell_len(line) for line in plain.splitlines()) <= 60
    assert "…" not in plain
    assert re.sub(r"[^a-j]", "", plain[plain.index("abcdefghij") :]) == long
    assert "[red]a[/red]" in plain
    assert ":smile:" in plain
    assert "0.125" in plain


@pytest.mark.parametrize("force", [False, True], ids=["pipe", "terminal"])
def test_a_line_is_never_broken(capsys, monkeypatch, force: bool):
    monkeypatch.setenv("COLUMNS", "40")
    if force:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
    show_line("[b]x[/b] " * 20, Cell("end", "cyan"))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("[b]x[/b] " * 20)
    assert ("\x1b[36mend" in out) is force


def test_signs_that_the_terminal_does_not_have():
    """A name that cannot be encoded is escaped, not an error."""
    script = (
        "import sys\nfrom pdex_gpu.cli import main\nfrom pdex_gpu.cli import tables\n"
        "import pdex_gpu.cli.commands.doctor as d\nimport pdex_gpu.doctor as doctor\n"
        "c = doctor.Check('T', 'n', 'ok', '\\U0001f9ec')\n"
        "doctor.diagnose = lambda: [c]\nsys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\U0001f9ec" in done.stdout


def test_columns_of_wide_signs_are_aligned():
    lines = format_table(["a", "b"], [["基因", "1"], ["x", "2"]], right="lr").splitlines()
    assert lines == ["a     b", "----  -", "基因  1", "x     2"]


# Messages


def test_quiet_takes_warnings_and_notices_away(capsys):
    import logging
    import warnings

    for quiet in (False, True):
        with messages(verbose=True, notices=True, quiet=quiet):
            warnings.warn("careful", UserWarning, stacklevel=1)
            logging.getLogger("pdex_gpu").warning("look")
            logging.getLogger("pdex_gpu").info("step")
        err = capsys.readouterr().err
        assert err == (
            "" if quiet else "pdex-gpu: warning: careful\npdex-gpu: look\npdex-gpu: step\n"
        )


# The bar


def progress(**changes: object) -> Progress:
    values = {
        "phase": "testing", "n_bytes": 0, "total_bytes": 0, "n_genes": 1_500,
        "total_genes": 3_000, "n_rows": 0, "total_rows": 0, "seconds": 1.0, "fraction": 0.5,
        "seconds_left": 83.0,
    }  # fmt: skip
    return Progress(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "1:23 left, testing, 1,500/3,000 genes"),
        ({"seconds_left": None}, "testing, 1,500/3,000 genes"),
        ({"seconds_left": 3723.0}, "1:02:03 left, testing, 1,500/3,000 genes"),
        (
            {"phase": "reading", "n_bytes": 10**9, "total_bytes": 25 * 10**8},
            "1:23 left, reading, 1.0/2.5 GB",
        ),
        (
            {"phase": "reading", "n_bytes": 6_400_000, "total_bytes": 20_600_000},
            "1:23 left, reading, 6.4/20.6 MB",
        ),
        (
            {"phase": "writing", "n_rows": 1000, "total_rows": 9000},
            "1:23 left, writing, 1,000/9,000 rows",
        ),
        (
            {"phase": "compiling", "seconds_left": None},
            "compiling, first run only, 1,500/3,000 genes",
        ),
    ],
)
def test_beside_the_bar(changes: dict, text: str):
    assert progress_bar.describe(progress(**changes)) == text


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_the_bar_leaves_nothing_behind(monkeypatch, error: type[BaseException] | None):
    for name, value in (("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    ends = nullcontext() if error is None else pytest.raises(error)
    with ends, progress_bar.progress_bar("[b]w[/b]", shown=True) as draw:
        assert callable(draw)
        draw(progress(seconds=0.1))
        assert screen.getvalue() == ""  # too early
        draw(progress(n_genes=1_500_000, total_genes=3_000_000))
        time.sleep(0.3)
        shown = screen.getvalue()
        assert "[b]w[/b]" in shown
        assert "50%" in shown
        assert "1:23 left, testing, 1,500" in shown
        assert "\x1b[?25l" in shown  # the cursor is hidden
        lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))
        assert 60 < max(map(len, lines)) <= 80 - 4  # room for the ^C that a terminal echoes
        if error is not None:
            raise error
    after = screen.getvalue()[len(shown) :]
    assert after.endswith("\x1b[2K")  # the line is wiped
    assert "\x1b[?25h" in after  # the cursor is back


def test_what_follows_a_run_does_not_land_on_its_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar.progress_bar("w", shown=True) as draw:
        draw(progress())
        assert "\x1b[?25l" in screen.getvalue()
        draw(progress(fraction=1.0))
        assert screen.getvalue().endswith("\x1b[2K")
        assert "\x1b[?25h" in screen.getvalue()
        shown = screen.getvalue()
        draw(progress(fraction=1.0, seconds=9.0))  # a second run that ends at once
        assert screen.getvalue() == shown
        draw(progress(fraction=0.1))  # and one that does not
        assert len(screen.getvalue()) > len(shown)


def test_titles_give_way_before_names_do(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    header, row = ["feature", "mean of target", "mean of reference"], ["STAT1 (own)", "1.5", "2.5"]
    show_table(header, [row], right="lrr")
    assert re.search(r"STAT1 \(own\) +1\.5 +2\.5 *\n", capsys.readouterr().out)
    monkeypatch.setenv("COLUMNS", "80")
    show_table(header, [row], right="lrr")
    assert "mean of reference" in capsys.readouterr().out


def test_a_text_goes_on_below_its_beginning(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    text = "/usr/lib/libcuda.so.1: no such file or directory was found here"
    tables.show_entry(["note  "], text)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines] == ["note  ", " " * 6]
    assert " ".join(line[6:] for line in lines) == text
    assert max(map(len, lines)) <= 40


def test_no_bar_where_nobody_looks():
    with progress_bar.progress_bar("w", shown=False) as draw:
        assert draw is False


@pytest.fixture(scope="module")
def screen_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminal") / "screen.h5ad"
    simulate_screen(300, 40, 4, mean_umi=200, seed=3).write_h5ad(path)
    return path


# Runs slowly enough to be interrupted: each report takes its time.
SLOW = """
import sys, time
from pdex_gpu.pipeline import output
from pdex_gpu.cli import main, progress_bar
progress_bar._DELAY = 0.0
write = output.WRITERS[".csv"]
def slow(*args):
    time.sleep({seconds})
    write(*args)
output.WRITERS[".csv"] = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("interrupted", [False, True], ids=["done", "interrupted"])
def test_a_run_on_a_terminal(screen_file: Path, tmp_path: Path, interrupted: bool):
    argv = ["run", str(screen_file), "--groupby", GROUPBY, "-o", str(tmp_path / "de.csv")]
    script = SLOW.format(seconds=3600 if interrupted else 0.5)
    terminal = Terminal([sys.executable, "-c", script, *argv])
    terminal.read(until="genes")
    if interrupted:
        os.kill(terminal.process.pid, signal.SIGINT)
    code = terminal.end()
    assert code == (130 if interrupted else 0)
    bar_seen, _, after = terminal.text.rpartition("\x1b[2K")
    assert "wilcoxon" in bar_seen
    assert "━" in bar_seen
    assert "━" not in after
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    if interrupted:
        assert "pdex-gpu: interrupted\r\nFinished results are kept in" in after
    else:
        assert "4 groups x 40 genes in" in after
    assert "Traceback" not in terminal.text


@pytest.mark.thorough
def test_json_on_a_terminal_is_alone(screen_file: Path, tmp_path: Path):
    argv = ["run", str(screen_file), "--groupby", GROUPBY, "-o", str(tmp_path / "de.csv")]
    text = run_on_terminal(*argv, "--json")
    assert "groups x" not in text
    # A run that takes long has shown a bar before, and wiped it away.
    assert json.loads(text.rpartition("\x1b[2K")[2])["n_rows"] == 160


def test_console_is_literal(capsys):
    tables.open_console().print("[bold]x[/bold] :smile:")
    assert capsys.readouterr().out == "[bold]x[/bold] :smile:\n"
