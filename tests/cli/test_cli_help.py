"""Help that fits a screen, examples that can be copied, and completion by the shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from rich.cells import cell_len

from pdex_gpu.cli import arguments, main
from pdex_gpu.cli.app import make_app
from pdex_gpu.cli.kinds import kind_of
from pdex_gpu.errors import OptionError
from pdex_gpu.request.options import GROUPS, all_names
from pdex_gpu.stats.options import FDR_METHODS
from pdex_gpu.stats.registry import METRICS, make_test
from pdex_gpu.utils.exit_codes import Exit
from pdex_gpu.utils.options import description, keywords

TEST_OPTIONS = [
    "alternative", "method", "continuity", "tie_correction", "variance", "variant", "p_values",
    "nan_policy",
]  # fmt: skip
COMMANDS = ["run", "estimate", "top", "plot", "report", "calibrate", "demo", "backends", "doctor"]


def shown(command: list[str], capsys, monkeypatch, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    assert main([*command, "--help"]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("columns", [80, 60, 40, 20])
@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_fits(command: list[str], columns: int, capsys, monkeypatch):
    text = shown(command, capsys, monkeypatch, columns)
    assert max(cell_len(line) for line in text.splitlines()) <= columns
    assert "…" not in text
    assert "\x1b" not in text
    whole = re.sub(r"[\s│]+", "", text)
    app = make_app()
    for param in (app.commands[command[0]] if command else app).params:
        # Every name and every help is there in full, however it is folded.
        is_option = param.param_type_name == "option"
        name = max(param.opts, key=len) if is_option else param.metavar
        if columns > 20:
            assert name in whole
        if columns == 80:
            assert re.sub(r"\s+", "", param.help) in whole
    assert "examples:" in text
    for code in Exit:
        assert re.search(rf"\b{code.value}\b", text)


def test_main_help_fits_a_small_screen(capsys, monkeypatch):
    text = shown([], capsys, monkeypatch)
    assert len(text.splitlines()) <= 24
    for name in COMMANDS:
        assert re.search(rf"^│ {name} .*\S", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_one_line_an_option(command: str, capsys, monkeypatch):
    """At 80 columns no option takes a second line."""
    text = shown([command], capsys, monkeypatch)
    inside = [line for line in text.splitlines() if line.startswith("│")]
    assert len(inside) == sum(not p.hidden for p in make_app().commands[command].params) + 1
    assert all(re.match(r"│ (-|[A-Z]+(\.\.\.)? )", line) for line in inside)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_examples_can_be_parsed(command: list[str], capsys, monkeypatch):
    """What the help shows as examples is understood by the very commands."""
    text = shown(command, capsys, monkeypatch).replace("\\\n", " ")
    lines = re.findall(r"^  (?:\w+=\w+ )?pdex-gpu (.*)$", text, re.MULTILINE)
    assert lines
    app = make_app()
    for line in lines:
        line = re.split(r" \| |\.\.\.|  +(?=for |without )| (?=without )", line)[0]
        if line.strip() == "run":  # "run ..."
            continue
        name, *arguments = shlex.split(line)
        with app.make_context("pdex-gpu", ["--version"], resilient_parsing=True) as parent:
            app.commands[name].make_context(name, arguments, parent=parent)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_h_is_short_for_help(command: list[str], capsys, monkeypatch):
    assert main([*command, "-h"]) == Exit.OK
    assert capsys.readouterr().out == shown(command, capsys, monkeypatch)


def test_usage_brackets_what_may_be_left_out(capsys, monkeypatch):
    assert shown(["top"], capsys, monkeypatch).startswith(
        "Usage: pdex-gpu top RESULTS TARGET [OPTIONS]\n"
    )
    assert shown(["doctor"], capsys, monkeypatch).startswith(
        "Usage: pdex-gpu doctor [RESULTS] [OPTIONS]\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_told_once(command: str, capsys, monkeypatch):
    assert re.findall(r"(\[[^\]]+\]) \1", shown([command], capsys, monkeypatch)) == []


def test_no_arguments_show_the_help(capsys):
    assert main([]) == Exit.USAGE
    assert "Commands" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["rum"], "No such command 'rum'. Did you mean 'run'?"),
        (["run", "--grouby", "x"], "No such option: --grouby. Did you mean --groupby or --groups?"),
        (["run", "--group-by", "x"], "Did you mean --groupby?"),
        (["run", "--ref", "x"], "Did you mean --reference?"),
        (["run", "--fdr", "x"], "Did you mean --fdr-method or --fdr-scope? 'top' and 'plot' and"),
        (["run", "--REFERENCE=x"], "Did you mean --reference?"),
        (["run", "--qqqqqq"], "No such option: --qqqqqq. See"),
        (["run", "-x"], "No such option: -x. See"),
        (["top", "r.parquet"], "Missing argument 'TARGET'"),
        (["top", "r.parquet", "A", "B"], "unexpected extra argument"),
        (["top", "r.parquet", "A", "-n", "x"], "'x' is not a whole number of at least 1"),
        (["top", "r.parquet", "A", "-n"], "requires an argument"),
        (["--verion"], "--version"),
    ],
    ids=str,
)
def test_usage_errors_are_plain_and_short(argv: list[str], says: str, capsys):
    assert main(argv) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert re.fullmatch(r"pdex-gpu: error: .*[.?] See: pdex-gpu( \w+)? --help\n", err)


# The choices that are completed are those of the library.


def test_every_keyword_of_the_library_is_an_option():
    """Options come from the groups: none is forgotten, none is repeated."""
    params = make_app().commands["run"].params
    names = [param.name for param in params]
    assert len(names) == len(set(names))
    assert set(all_names()) - {"out", "progress"} <= set(names)
    own = {"files", "output", "quiet", "verbose", "json", "debug"}
    assert set(names) - own - set(all_names()) == {"welch", *TEST_OPTIONS}
    assert not any(param.default for param in params if param.name not in own)


def described(name: str) -> Any:
    """The group of a keyword, and how the command line takes it."""
    groups = [*GROUPS.values(), arguments._tests()]
    return next(
        (g, f.default, description(f)) for g in groups for f in keywords(g) if f.name == name
    )


@pytest.mark.parametrize("name", ["comparison", "metric", "fdr_method", "fdr_scope", "backend"])
def test_choices_are_those_of_the_library(name: str, capsys):
    """Every choice is the library's, which refuses others; so does the command line."""
    group, default, option = described(name)
    kind = kind_of(option)
    choices = option.choices()
    assert default in choices
    assert kind.complete("") == list(choices)
    assert [kind.parser(value) for value in choices] == list(choices)
    argv = ["run", "x.h5ad", "--groupby", "g", f"--{name.replace('_', '-')}", "nonsense"]
    assert main([*argv, "-o", "de.csv"]) == Exit.USAGE
    assert "nonsense" in capsys.readouterr().err
    if name not in ("metric", "backend"):  # these are checked where they are looked up
        with pytest.raises(OptionError, match="nonsense"):
            group(**({"groupby": "g"} if name == "comparison" else {}) | {name: "nonsense"})


@pytest.mark.parametrize("name", TEST_OPTIONS)
def test_options_of_tests_are_accepted(name: str):
    """By some test of the library."""
    _, _, option = described(name)
    for value in [False] if option.kind == "flag" else option.choices():
        accepted = []
        for metric in METRICS:
            with suppress(OptionError):
                accepted.append(make_test(metric, {name: value}))
        assert accepted


# Completion


def complete(words: str, shell: str = "bash") -> list[str]:
    """What a shell would offer after these words."""
    environment = {**os.environ, "_PDEX_GPU_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        listed = words.split(" ")
        environment |= {"COMP_WORDS": "\n".join(listed), "COMP_CWORD": str(len(listed) - 1)}
    else:
        environment |= {
            "_TYPER_COMPLETE_ARGS": words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    done = subprocess.run(
        [sys.executable, "-m", "pdex_gpu"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:-1]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pdex-gpu ru", ["run"]),
        ("pdex-gpu run --metric w", ["wilcoxon"]),
        ("pdex-gpu run --fdr-method b", [name for name in FDR_METHODS if name[0] == "b"]),
        ("pdex-gpu run --columns auroc,log10", ["auroc,log10_p"]),
        ("pdex-gpu run --allow external,unw", ["external,unwritten"]),
        ("pdex-gpu plot v", ["volcano"]),
        ("pdex-gpu top --fd", ["--fdr"]),
    ],
)
def test_completion(words: str, expected: list[str]):
    assert complete(words) == expected


@pytest.mark.parametrize(("shell", "says"), [("zsh", "wilcoxon"), ("fish", "wilcoxon")])
def test_completion_in_other_shells(shell: str, says: str):
    assert any(says in line for line in complete("pdex-gpu run --metric w", shell))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str):
    done = subprocess.run(
        [sys.executable, "-m", "pdex_gpu", "--show-completion", shell],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # The program itself, asked through the variable that it looks at.
    assert "pdex-gpu" in done.stdout
    assert f"_PDEX_GPU_COMPLETE=complete_{shell}" in done.stdout


def test_options_of_one_name_mean_the_same_in_all_commands_that_compare():
    """What `run` and `estimate` both have, and what they both hand to the library."""
    app = make_app()
    run, plan = (
        {name: (param.name, param.help) for param in app.commands[command].params
         for name in param.opts}
        for command in ("run", "estimate")
    )  # fmt: skip
    # These say a little more, or less, where nothing is run.
    differing = {name for name in run.keys() & plan.keys() if run[name] != plan[name]}
    assert differing == {"--output", "-o", "--verbose", "-v"}
    assert "--dask-workers" not in run
    assert set(plan) - set(run) == {"--dask-workers", "--density", "--no-timing"}
