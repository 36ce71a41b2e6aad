"""The options of ``pdex-gpu run`` and ``calibrate``: every one reaches the library."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.cli import main, parsers
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen
from pdex_gpu.utils.exit_codes import Exit


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screen with batches, cell types and the targeted genes in obs."""
    import anndata

    path = tmp_path_factory.mktemp("run") / "screen.h5ad"
    simulate_screen(400, 30, 4, mean_umi=200, seed=5).write_h5ad(path)
    adata = anndata.read_h5ad(path)
    rng = np.random.default_rng(0)
    adata.obs["batch"] = pd.Categorical(rng.choice(["b1", "b2"], adata.n_obs))
    adata.obs["cell_type"] = pd.Categorical(rng.choice(["T", "B"], adata.n_obs))
    adata.write_h5ad(path)
    return path


@pytest.fixture
def given(monkeypatch):
    """What `differential_expression` was called with; it does nothing."""
    calls = []

    def note(*args: object, **options: object) -> None:
        calls.append((args, options))
        raise errors.BackendError("enough")

    monkeypatch.setattr(pdex_gpu, "differential_expression", note, raising=False)

    def call(*argv: str) -> dict:
        assert main(["run", "screen.h5ad", *argv, "-o", "de.csv"]) == Exit.BACKEND
        args, options = calls.pop()
        assert args == ("screen.h5ad",)
        return options

    return call


def test_what_is_left_out_has_the_default_of_the_library(given):
    passed = given("--groupby", "g")
    assert passed == {"groupby": "g", "out": Path("de.csv"), "progress": False}


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--groupby", "h"], "groupby", ["g", "h"]),
        (["--reference", "NT"], "reference", "NT"),
        (["--groupby", "h,i"], "groupby", ["g", "h", "i"]),
        (["--reference", '"N,T"', "--reference", "C"], "reference", ["N,T", "C"]),
        (["--reference", '"N,T"'], "reference", "N,T"),
        (["--reference", "N,T"], "reference", ["N", "T"]),
        (["--groups", "A"], "groups", ["A"]),
        (["--groups", "A,B", "--groups", "C"], "groups", ["A", "B", "C"]),
        (["--pairs", 'A:B,"C,D:B"'], "pairs", [("A", "B"), ("C,D", "B")]),
        (["--allow", "external,unwritten"], "allow", ["external", "unwritten"]),
        (["--device", "0,2"], "device", [0, 2]),
        (["--device", "0", "--device", "2"], "device", [0, 2]),
        (["--device", "1"], "device", 1),
        (["--device", "all"], "device", "all"),
        (["--comparison", "rest"], "comparison", "rest"),
        (["--pairs", "A:B", "--pairs", "C:B"], "pairs", [("A", "B"), ("C", "B")]),
        (["--pairs", "A:B"], "comparison", "pairs"),
        (["--on-target", "x"], "on_target", "x"),
        (["--strata", "x"], "strata", "x"),
        (["--layer", "x"], "layer", "x"),
        (["--allow", "external", "--allow", "unwritten"], "allow", ["external", "unwritten"]),
        (["--columns", "auroc, log10_p", "--columns", "z"], "columns", ["auroc", "log10_p", "z"]),
        (["--confidence", "0.9"], "confidence", 0.9),
        (["--pseudocount", "1"], "pseudocount", 1.0),
        (["--fdr-method", "bonferroni"], "fdr_method", "bonferroni"),
        (["--fdr-scope", "gene"], "fdr_scope", "gene"),
        (["--min-cells", "5"], "min_cells", 5),
        (["--min-fraction", "0.1"], "min_fraction", 0.1),
        (["--min-cpm", "5"], "min_cpm", 5.0),
        (["--metric", "ks"], "metric", "ks"),
        (["--alternative", "less"], "alternative", "less"),
        (["--method", "exact"], "method", "exact"),
        (["--no-continuity"], "continuity", False),
        (["--no-tie-correction"], "tie_correction", False),
        (["--variance", "overestimated"], "variance", "overestimated"),
        (["--welch"], "variance", "welch"),
        (["--variant", "right"], "variant", "right"),
        (["--p-values", "interpolated"], "p_values", "interpolated"),
        (["--is-log1p", "no"], "is_log1p", False),
        (["--is-log1p", "yes"], "is_log1p", True),
        (["--no-exp-post-agg"], "exp_post_agg", False),
        (["--clip-value", "5"], "clip_value", 5.0),
        (["--clip-value", "none"], "clip_value", None),
        (["--backend", "cpu"], "backend", "cpu"),
        (["--engine", "serial"], "engine", "serial"),
        (["--threads", "3"], "n_threads", 3),
        (["--workers", "3"], "n_workers", 3),
        (["--gene-chunk-size", "3"], "gene_chunk_size", 3),
        (["--memory", "4GB"], "memory", 4 * 10**9),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_an_option_reaches_the_call(given, argv: list[str], name: str, value: object):
    passed = given("--groupby", "g", *argv)
    assert passed[name] == value
    assert type(passed[name]) is type(value)


def test_guides_take_the_place_of_groupby(given):
    passed = given("--guides", "x")
    assert passed["guides"] == "x"
    assert "groupby" not in passed


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "Missing option --groupby"),
        (["--groupby", "g", "--welch", "--variance", "pooled"], "contradict"),
        (["--groupby", "g", "--pairs", "A"], "TARGET:REFERENCE"),
        (["--groupby", "g", "--pairs", "A:B:C"], "one colon"),
        (["--groupby", "g", "--clip-value", "0"], "above 0"),
        (["--groupby", "g", "--confidence", "nan"], "'nan' is not a number"),
        (["--groupby", "g", "--fdr-scope", "genes"], "'gene'"),
        (["--groupby", "g", "--allow", "external,unwriten"], "Did you mean 'unwritten'?"),
        (["--groupby", "g", "--device", "0,x"], "'0,x' is not a device number"),
    ],
    ids=str,
)
def test_usage(argv: list[str], says: str, capsys):
    assert main(["run", "screen.h5ad", *argv, "-o", "de.csv"]) == Exit.USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        (["A"], ["A"]),
        (["A,B", "C"], ["A", "B", "C"]),
        ([" A , B C ,"], ["A", "B C"]),
        (['"A,B"'], ["A,B"]),
        (['"A,B" , C,"D"'], ["A,B", "C", "D"]),
        (['" A "'], [" A "]),
        (['"the ""best"", so far"'], ['the "best", so far']),
        (['""'], [""]),
        (["", " , "], []),
        (['5" probe,B'], ['5" probe', "B"]),
        (['"A" (n=2),B'], ['"A" (n=2)', "B"]),  # quotes around part of a name belong to it
        (['"A,B'], ['"A', "B"]),
        (["\"[('DMSO', 0.0, 'uM')]\""], ["[('DMSO', 0.0, 'uM')]"]),
        (['"A\nB,C",D'], ["A\nB,C", "D"]),
    ],
    ids=str,
)
def test_lists_of_names(texts: list[str], expected: list[str]):
    assert parsers.names(texts) == expected


@hypothesis.given(st.lists(st.text()))
def test_any_names_can_be_listed(names: list[str]):
    """In double quotes, every name is taken as it is, whatever it holds."""
    assert parsers.names([",".join('"' + name.replace('"', '""') + '"' for name in names)]) == names


def test_a_name_with_commas_is_explained(tmp_path: Path, capsys):
    path = tmp_path / "screen.h5ad"
    screen = simulate_screen(60, 8, 2, seed=1).to_anndata()
    screen.obs[GROUPBY] = screen.obs[GROUPBY].astype(str).replace(REFERENCE, "2,4-D")
    screen.write_h5ad(path)
    call = ["run", str(path), "--groupby", GROUPBY, "-o", str(tmp_path / "de.csv"),
            "--backend", "numpy", "--reference"]  # fmt: skip
    assert main([*call, "2,4-D"]) == Exit.INPUT
    err = capsys.readouterr().err
    assert (
        "--reference 2,4-D lists several names, as commas separate names. If it is one, put it in "
        "double quotes inside single ones: --reference '\"2,4-D\"'" in err
    )
    assert main([*call, '"2,4-D"']) == Exit.OK
    assert main([*call, "5-D", "--force"]) == Exit.INPUT
    assert "lists several" not in capsys.readouterr().err


def test_tables_of_pairs(tmp_path: Path):
    (tmp_path / "a.csv").write_text('reference,x,target\nNT,1,"A,B"\n\nC:D,2,E\n')
    (tmp_path / "b.tsv").write_text("﻿target\treference\nF\tG\n", encoding="utf-8")
    found = parsers.pairs([f"{tmp_path}/a.csv", "H:I", f"{tmp_path}/b.tsv"])
    assert found == [("A,B", "NT"), ("E", "C:D"), ("H", "I"), ("F", "G")]
    assert parsers.pairs([]) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "must have the columns target and reference; its first line has 'a', 'b'"),
        ("", "first line has none"),
        ("target,reference\nA,B\nC\n", "Line 3"),
        (b"target,reference\n\xff\xfe,B\n", "cannot be read"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str | bytes, says: str):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(errors.OptionError, match=says):
        parsers.pairs([str(path)])


def test_no_table_of_pairs(capsys):
    argv = ["run", "s.h5ad", "--groupby", "g", "--pairs", "none.csv", "-o", "de.csv"]
    assert main(argv) == Exit.INPUT
    err = capsys.readouterr().err
    assert err == "pdex-gpu: error: The table of pairs 'none.csv' does not exist.\n"


def test_strata_levels_and_columns(screen: Path, tmp_path: Path, capsys):
    """A run with most of it, against the same call in Python."""
    out = tmp_path / "de.parquet"
    argv = ["run", screen, "--groupby", GROUPBY, "--groupby", "cell_type", "--strata", "batch",
            "--columns", "auroc,n_strata", "--fdr-scope", "target", "--p-values", "asymptotic",
            "-o", out]  # fmt: skip
    assert main(list(map(str, argv))) == Exit.OK
    assert capsys.readouterr() == ("", "")
    want = pdex_gpu.differential_expression(
        str(screen),
        [GROUPBY, "cell_type"],
        reference=REFERENCE,
        strata="batch",
        columns=["auroc", "n_strata"],
        fdr_scope="target",
        p_values="asymptotic",
        progress=False,
    )
    got = pdex_gpu.open_result(out).load()
    assert got.within is not None
    assert got.columns == want.columns
    for name in got.columns:
        np.testing.assert_array_equal(got[name], want[name])


def test_pairs_are_compared(screen: Path, tmp_path: Path):
    targets = pdex_gpu.differential_expression(str(screen), GROUPBY, progress=False).targets
    a, b = map(str, targets[:2])
    out = tmp_path / "de.parquet"
    argv = ["run", str(screen), "--groupby", GROUPBY, "--pairs", f"{a}:{b}", "-o", str(out)]
    assert main(argv) == Exit.OK
    result = pdex_gpu.open_result(out)
    assert (result.targets.tolist(), result.references.tolist()) == ([a], [b])


# Calibrate


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
def test_calibrate(screen: Path, tmp_path: Path, capsys, quiet: bool):
    out, plot = tmp_path / "calibration.json", tmp_path / "calibration.png"
    argv = ["calibrate", screen, "--groupby", GROUPBY, "--strata", "batch", "--repeats", "2",
            "--seed", "3", "--alpha", "0.1", "--metric", "t-test", "--alternative", "less",
            "-o", out, "--plot", plot]  # fmt: skip
    assert main([*map(str, argv), *(["-q"] if quiet else [])]) == Exit.OK
    shown, err = capsys.readouterr()
    assert err == ""
    want = pdex_gpu.calibrate(
        str(screen), GROUPBY, strata="batch", n_repeats=2, seed=3, alpha=0.1, metric="t-test",
        alternative="less", progress=False,
    )  # fmt: skip
    summary = want.summary()
    got = pdex_gpu.Calibration.from_json(out)
    assert got.summary() == summary
    assert plot.read_bytes().startswith(b"\x89PNG")
    if quiet:
        assert shown == ""
    else:
        assert f"{summary['n_tests']:,}" in shown
        assert f"{summary['lambda']:.3f}" in shown


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--groupby", GROUPBY, "-o", "c.txt"], Exit.USAGE, "Unknown output format '.txt'"),
        (["--groupby", GROUPBY, "-o", "old.json"], Exit.USAGE, "already exists. Add --force"),
        (["--groupby", GROUPBY, "-o", "no/c.json"], Exit.USAGE, "'no' does not exist"),
        (["--groupby", GROUPBY, "--plot", "c.bmp"], Exit.USAGE, ".png or .svg or .pdf"),
        (["--groupby", GROUPBY, "--alpha", "2"], Exit.USAGE, "between 0 and 1"),
        ([], Exit.USAGE, "--groupby"),
        (["--groupby", "gene"], Exit.INPUT, "'gene'"),
        (["--groupby", GROUPBY, "--reference", "NT"], Exit.INPUT, "'NT'"),
    ],
    ids=str,
)
def test_calibrate_mistakes(
    screen: Path, tmp_path: Path, monkeypatch, capsys, argv: list[str], code: Exit, says: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("precious")
    assert main(["calibrate", str(screen), *argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert [p.name for p in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "precious"


def test_a_url_is_not_taken_for_a_path(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    url = "https://example.org/screen.h5ad"
    assert main(["run", url, "--groupby", "a", "-o", str(tmp_path / "de.parquet")]) != 0
    assert f"{url} is an h5ad file at a URL" in capsys.readouterr().err
