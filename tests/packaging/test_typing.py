"""The types that a user's own checker sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

GOOD = """
import pdex_gpu
from pdex_gpu import Cuda, DEResult, ResultFile

result: DEResult = pdex_gpu.differential_expression(
    "screen.h5ad", "gene", reference="NT", metric="t-test", fdr_method="bonferroni", min_cells=5,
    variance="welch", columns=["auroc"], backend=Cuda(device=[0, 1], memory="40GB"),
)
table: ResultFile = pdex_gpu.differential_expression("screen.h5ad", "gene", out="de.parquet")
found: pdex_gpu.Calibration = pdex_gpu.calibrate("screen.h5ad", "gene", n_repeats=5, memory=0.5)
needs: pdex_gpu.Estimate = pdex_gpu.estimate("screen.h5ad", "gene", workers=4, device="all")
"""
#: Lines that must be refused.
WRONG = (
    'pdex_gpu.differential_expression("a", "g", fdr_metod="bonferroni")',
    'pdex_gpu.differential_expression("a", "g", metric=3)',
    'pdex_gpu.differential_expression("a", "g", backend="reference")',
    'pdex_gpu.calibrate("a", "g", n_repeat=3)',
    'pdex_gpu.calibrate("a", "g", min_cells="3")',
    'pdex_gpu.estimate("a", "g", fdr_scope="row")',
)


@pytest.mark.thorough
def test_a_strict_checker_accepts_calls_and_refuses_typos(tmp_path: Path):
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(GOOD)
    wrong.write_text("import pdex_gpu\n" + "".join(f"{line}\n" for line in WRONG))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", good, wrong],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert not [line for line in lines if "good.py" in line], done.stdout
    for number in range(2, 2 + len(WRONG)):
        assert any(f"wrong.py:{number}:" in line for line in lines), (number, done.stdout)
