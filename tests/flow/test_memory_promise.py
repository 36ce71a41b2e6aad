"""``memory=`` is kept: how far a process grows during a run, measured from outside Python.

Worst seen on Linux x86-64, two threads, with files of 20 million entries: 6.2 MB above the budget
(60 MB, dense by rows), 3.9 MB (100 MB, Anderson-Darling) and 1.4 MB (60 MB, rows); below it for
150 MB and more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from screens import as_anndata

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells and resets the peak"
)

#: Bytes above the budget that are no matter: the interpreter's own, and what malloc keeps.
SLACK = 25_000_000
N_CELLS, N_GENES, A_ROW = 40_000, 5_000, 490

CHILD = """
import json, re, sys
from pdex_gpu import differential_expression

def status(field):
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(field + r":\\s+(\\d+)", file.read()).group(1))

def run(path, memory, **options):
    return differential_expression(
        path, "group", reference="ref", progress=False, memory=memory, n_threads=2, **options
    )

tiny, path, budgets, options = json.loads(sys.argv[1])
for memory in (1, 10**8):
    run(tiny, memory, **options)
for memory in budgets:
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    run(path, memory, **options)
    print(status("VmHWM") - before, flush=True)
"""


def write(path: Path, layout: str, n_cells: int, n_genes: int, a_line: int, **options: Any) -> int:
    """A screen of 20 targets; entries of a line are `n / a_line` apart on average."""
    rng = np.random.default_rng(0)
    empty = sparse.csr_matrix((n_cells, n_genes), dtype="f4")
    as_anndata(empty, rng.integers(0, 21, n_cells)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        if layout == "dense":
            values = rng.integers(0, 5, (n_cells, n_genes), np.uint8).astype("f4")
            file.create_dataset("X", data=values, **options)
            return values.size
        lines, other = (n_cells, n_genes) if layout == "csr" else (n_genes, n_cells)
        steps = rng.integers(1, 2 * other // a_line, (lines, a_line), np.int32)
        indices = np.cumsum(steps, axis=1, dtype=np.int32) - 1
        within = indices < other
        group = file.create_group("X")
        group.attrs.update({"encoding-type": f"{layout}_matrix", "shape": (n_cells, n_genes)})
        group["indptr"] = np.concatenate([[0], np.cumsum(within.sum(axis=1))])
        indices = indices[within]
        group.create_dataset("indices", data=indices, **options)
        values = rng.integers(1, 6, len(indices), np.uint8).astype("f4")
        group.create_dataset("data", data=values, **options)
        return len(indices)


FILES: dict[str, tuple[Any, ...]] = {
    "rows": ("csr", N_CELLS, N_GENES, A_ROW, {"chunks": (1 << 16,)}),
    "columns": ("csc", N_CELLS, N_GENES, 3_900, {"chunks": (1 << 16,)}),
    "dense by rows": ("dense", 8_000, 2_500, 0, {"chunks": (100, 2_500), "compression": "lzf"}),
    "dense by columns": ("dense", 8_000, 2_500, 0, {"chunks": (1_000, 100)}),
}


@pytest.mark.sampled(every=6)
@pytest.mark.parametrize(
    ("name", "budgets", "options"),
    [
        ("rows", ["60MB", "150MB", "300MB"], {}),
        ("rows", ["100MB"], {"metric": "anderson", "n_workers": 4}),
        ("rows", ["100MB"], {"metric": "ks", "p_values": "conditional"}),
        ("columns", ["60MB"], {}),
        ("dense by rows", ["60MB"], {}),
        ("dense by columns", ["60MB"], {}),
    ],
)
def test_a_run_stays_within_its_budget(tmp_path, name, budgets, options):
    layout, *shape, more = FILES[name]
    path, tiny = tmp_path / "screen.h5ad", tmp_path / "tiny.h5ad"
    n_entries = write(path, layout, *shape, **more)
    write(tiny, layout, 300, 40, 10)
    size = n_entries * (4 if layout == "dense" else 6)
    assert size > 60_000_000  # the smaller budgets hold no more than a part
    given = json.dumps([str(tiny), str(path), budgets, options])
    found = subprocess.run(
        [sys.executable, "-c", CHILD, given], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    for budget, line in zip(budgets, found.stdout.split(), strict=True):
        peak, allowed = int(line), 1_000_000 * int(budget.removesuffix("MB"))
        assert peak <= allowed + SLACK, f"{budget}: {peak:,} bytes"
        assert peak > 5_000_000  # or else nothing was measured
