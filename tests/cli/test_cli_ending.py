"""The end of a run: what was found, and commands that work as they are printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import pdex_gpu
from pdex_gpu.backends import registry
from pdex_gpu.cli import console, ending, main
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.utils.exit_codes import Exit


@pytest.fixture(scope="module")
def adata() -> anndata.AnnData:
    found = simulate_screen(600, 40, 3, mean_umi=400, control_fraction=0.3, seed=3).to_anndata()
    names = dict(zip(found.obs["target_gene"].cat.categories, NAMES, strict=True))
    found.obs["gene"] = found.obs["target_gene"].cat.rename_categories(names)
    rng = np.random.default_rng(0)
    found.obs["type"] = pd.Categorical(rng.choice(["T cell", "-B"], found.n_obs))
    return found


NAMES = ["-dash", "two words", 'it\'s "$HOME"', "NT"]  # controls are last


def commands(lines: list[str]) -> list[list[str]]:
    """What follows "Next:", as the arguments of the program."""
    after = lines[lines.index("\nNext:") + 1 :]
    words = [shlex.split(line) for line in after]
    assert {line[0] for line in words} == {"pdex-gpu"}
    return [line[1:] for line in words]


@pytest.mark.parametrize(
    "options",
    [
        {"groupby": "gene", "reference": "NT"},
        {"groupby": ["gene", "type"], "reference": "NT"},
        {"groupby": "gene", "comparison": "each_reference", "reference": ["NT", "-dash"]},
        {"groupby": "gene", "reference": "NT", "groups": ["two words"]},
        {"groupby": "gene", "reference": "NT", "groups": ['it\'s "$HOME"']},
    ],
    ids=str,
)
def test_what_is_printed_works(adata, options, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = Path("-my results.parquet")
    result = pdex_gpu.differential_expression(adata, **options, out=out, progress=False)
    Path("-my results.html").touch()  # someone else's
    lines = list(ending.end_of_run(result, 1.0))
    hits = (result.load()["fdr"] <= 0.05).sum(axis=1)
    np.testing.assert_array_equal(result.n_hits, hits)
    assert hits.any()
    assert lines[1] == console.describe_hits(hits)
    top, report = commands(lines)
    assert main([*top, "-n", "40"]) == Exit.OK
    assert str(result.targets[hits.argmax()]) in capsys.readouterr().out
    assert main(report) == Exit.OK
    assert Path("-my results.html").stat().st_size == 0
    assert Path("-my results-2.html").stat().st_size > 1000


def test_nothing_found(tmp_path: Path):
    screen = simulate_screen(200, 20, 3, affected_fraction=0.0, knockdown=1.0, seed=1)
    result = pdex_gpu.differential_expression(
        screen.to_anndata(), "target_gene", out=tmp_path / "de.parquet", progress=False
    )
    lines = list(ending.end_of_run(result, 1.0))
    assert lines[1] == "No hits at an FDR of 5 %"
    assert [command[0] for command in commands(lines)] == ["report"]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_hits_are_counted_in_every_format(adata, tmp_path: Path, suffix: str, filtered: bool):
    options = {"min_fraction": 0.5} if filtered else {}
    out = tmp_path / f"de{suffix}"
    kwargs = {"groupby": "gene", "reference": "NT", "progress": False, **options}
    result = pdex_gpu.differential_expression(adata, **kwargs, out=out)
    want = pdex_gpu.differential_expression(adata, **kwargs)
    np.testing.assert_array_equal(result.n_hits, (want["fdr"] <= 0.05).sum(axis=1))
    lines = list(ending.end_of_run(result, 1.0))
    assert ("\nNext:" in lines) is (suffix == ".parquet")


def test_a_name_that_a_terminal_would_act_on_is_not_suggested(tmp_path: Path):
    screen = simulate_screen(400, 20, 1, mean_umi=400, seed=1)
    adata = screen.to_anndata()
    names = dict(zip(adata.obs["target_gene"].cat.categories, ["a\x1b[2Jb", "NT"], strict=True))
    adata.obs["gene"] = adata.obs["target_gene"].cat.rename_categories(names)
    out = tmp_path / "de.parquet"
    result = pdex_gpu.differential_expression(adata, "gene", reference="NT", out=out,
                                              progress=False)  # fmt: skip
    lines = list(ending.end_of_run(result, 1.0))
    assert result.n_hits is not None
    assert result.n_hits.sum() > 0
    assert [command[0] for command in commands(lines)] == ["report"]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("n_hits", "text"),
    [
        ([0, 0], "No hits at an FDR of 5 %"),
        ([0, 1], "1 hit at an FDR of 5 %, in 1 of 2 comparisons"),
        ([1200, 0, 34], "1,234 hits at an FDR of 5 %, in 2 of 3 comparisons"),
    ],
)
def test_hits_in_words(n_hits: list[int], text: str):
    assert console.describe_hits(np.array(n_hits)) == text


@pytest.mark.parametrize(
    ("asked", "used", "usable", "skipped"),
    [
        ("auto", "cpu", {"cpu", "numpy"}, "CUDA"),
        ("auto", "numpy", {"numpy"}, "CUDA and CPU"),
        ("auto", "cuda", {"cuda", "cpu", "numpy"}, None),
        ("auto", "numpy", {"cpu", "numpy"}, None),  # for an option that the CPU kernels lack
        ("auto", "of another machine", {"cpu", "numpy"}, None),
        ("cpu", "cpu", {"cpu", "numpy"}, None),
    ],
)
def test_why_not_cuda_takes_one_line(
    asked: str, used: str, usable: set[str], skipped: str | None, monkeypatch
):
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    monkeypatch.setattr(
        registry, "info", lambda name: registry.BackendInfo(name, name in usable, "", "", ())
    )
    provenance = {"backend": used, "engine": "threads", "device": "CPU"}
    lines = console.describe_backend(provenance, asked)
    assert lines[0] == f"{used} backend, threads engine, on CPU"
    monkeypatch.setenv(registry.ENVIRONMENT, used)
    assert console.describe_backend(provenance, asked) == lines[:1]
    assert console.describe_backend(provenance | {"engine": "dask"}, asked)[1:] == []
    why = (
        []
        if skipped is None
        else [f"{skipped} cannot be used here. To see why, run: pdex-gpu doctor"]
    )
    assert lines[1:] == why


@pytest.mark.parametrize("place", ["path", "elsewhere"])
def test_the_program_is_named_as_it_was_called(place: str, tmp_path: Path, monkeypatch):
    program = tmp_path / "my env" / "pdex-gpu"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "run"])
    monkeypatch.setenv("PATH", str(program.parent if place == "path" else tmp_path))
    named = "pdex-gpu" if place == "path" else shlex.quote(str(program))
    assert console.command_line("top", "a b") == f"{named} top 'a b'"


def test_the_program_as_a_module():
    script = "from pdex_gpu.cli.console import command_line as c; print(c('doctor'))"
    run = f"import sys, pdex_gpu; sys.argv[0] = pdex_gpu.__path__[0] + '/__main__.py'; {script}"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" -m pdex_gpu doctor\n")
