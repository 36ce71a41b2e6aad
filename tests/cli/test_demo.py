"""The demonstration, small."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pdex_gpu import differential_expression
from pdex_gpu.cli import main
from pdex_gpu.cli.demo import on_target, run_demo, strongest_hits
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.utils.exit_codes import Exit

SIZE = {"n_cells": 1_500, "n_genes": 120, "n_perturbations": 5}

FILES = ["report.html", "results.parquet", "screen.h5ad"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("demo") / "new"
    said: list[str] = []
    result = run_demo(folder, **SIZE, seed=0, say=said.append)
    return folder, "\n".join(said), result


def test_files(demo):
    folder, _, result = demo
    assert sorted(p.name for p in folder.iterdir()) == FILES
    table = pd.read_parquet(folder / "results.parquet")
    assert len(table) == 5 * 120
    np.testing.assert_array_equal(table["p_value"], np.ravel(result["p_value"]))


def test_what_it_says(demo):
    folder, said, result = demo
    assert "1,500 cells x 120 genes, 5 perturbations" in said
    assert f"{result.provenance['backend']} backend" in said
    assert str(result.provenance["backend_reason"]) not in said  # `pdex-gpu doctor` says it
    n_hits = int((result["fdr"] <= 0.05).sum())
    assert f"{n_hits:,} hits at an FDR of 5 %, in " in said
    assert re.search(r"600 tests in \d+\.\d\d s", said)
    assert "Strongest hits:" in said
    assert re.search(r"\d of 5 perturbations significantly reduce their own gene", said)
    assert str(folder / "results.parquet") in said
    assert str(folder / "report.html") in said


def test_strongest_hits_are_the_smallest_p_values(demo):
    *_, result = demo
    lines = strongest_hits(result, n=7).splitlines()[2:]
    shown = [float(line.split()[-2]) for line in lines]
    smallest = np.sort(np.ravel(result["p_value"]))[:7]
    np.testing.assert_allclose(shown, smallest, rtol=0.01)
    assert any("(own)" in line for line in lines)


def test_on_target_counts_agree_with_the_table(demo):
    *_, result = demo
    table = result.to_pandas()
    own = table[table["target"].astype(str) == table["feature"].astype(str)]
    down = ((own["fdr"] <= 0.05) & (own["fold_change"] < 1)).sum()
    found, possible = on_target(result)
    assert (found, possible) == (down, 5)
    assert found >= 3


def test_names_are_those_of_genes_and_the_numbers_are_those_of_the_plain_screen(demo):
    import anndata

    folder, _, result = demo
    assert "STAT1" in result.targets.tolist()
    assert set(result.targets) <= set(result.features)
    adata = anndata.read_h5ad(folder / "screen.h5ad")
    assert list(adata.obs) == ["target_gene", "guide", "batch", "donor", "cell_type"]
    plain = differential_expression(
        simulate_screen(**SIZE, seed=0).to_anndata(), "target_gene", normalize=1e4,
        progress=False,
    )  # fmt: skip
    for name in result.columns:
        np.testing.assert_array_equal(result[name], plain[name])


def test_the_screen_goes_through_what_the_pages_show(demo):
    folder, _, result = demo
    path = str(folder / "screen.h5ad")
    for options in (
        {"groupby": "target_gene", "strata": "batch"},
        {"groupby": ["target_gene", "cell_type"]},
        {"guides": "guides"},
        {"guides": "guides", "comparison": "rest"},
        {"groupby": "target_gene", "on_target": "target_gene"},
    ):
        found = differential_expression(path, **options, normalize=1e4, progress=False)
        assert set(map(str, found.targets)) >= set(map(str, result.targets))


def test_command_overwrites_its_own_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    args = ["demo", "-o", str(tmp_path), "--cells", "200", "--genes", "30", "--perturbations", "2"]
    assert main(args) == Exit.OK
    assert main([*args, "--seed", "1", "--backend", "numpy"]) == Exit.OK
    out, err = capfd.readouterr()
    assert "numpy backend" in out
    assert err == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--perturbations", "50", "--genes", "10"], "at least as many genes, but --genes is 10"),
        (["--cells", "10"], "too few"),
    ],
)
def test_impossible_sizes(args: list[str], says: str, tmp_path: Path, capsys):
    assert main(["demo", "-o", str(tmp_path / "demo"), *args]) == Exit.USAGE
    assert says in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
