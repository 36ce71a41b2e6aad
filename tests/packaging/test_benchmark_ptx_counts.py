"""benchmarks/ptx_counts.py on a small screen: figures that kernels have, and the tables."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from emulated.build import needs_compiler
from nvrtc import needs_nvrtc
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "docs" / "_ext")]

import count_tables  # noqa: E402
import ptx_counts  # noqa: E402

pytestmark = [needs_compiler, needs_nvrtc]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("counts") / "record.json"
    assert ptx_counts.main(["--quick", "--record", str(path)]) == 0
    return json.loads(path.read_text())


# Counted with NVRTC 13.5; compilers differ by less than a tenth.
COUNTED = {
    ("check", "check_rows", "warp_instructions"): 2.257,
    ("Wilcoxon", "count_rows_32", "sectors"): 1.083,
    ("Wilcoxon", "scatter_rows_32", "warp_instructions"): 10.611,
    ("Wilcoxon", "scatter_rows_32", "sectors"): 2.522,
    ("Wilcoxon", "sort_warps_32", "warp_instructions"): 3.578,
    ("Wilcoxon", "sort_tiles_32", "bank_factor"): 3.64,
    ("Wilcoxon", "rank_sums_32", "warp_instructions"): 10.267,
    ("Wilcoxon", "rank_sums_32", "active_lanes"): 0.66,
    ("Wilcoxon", "rank_sums_32", "sectors"): 0.642,
    ("Wilcoxon", "moments_32", "warp_instructions"): 3.571,
    ("t-test", "moments_32", "warp_instructions"): 6.230,
    ("Anderson-Darling", "anderson_darling_midrank_32", "warp_instructions"): 41.867,
}


def test_kernels_do_what_was_counted(record: dict[str, Any]) -> None:
    """More is a regression; less is welcome, and to be entered here."""
    found = {
        (task, kernel, count): record["tasks"][task]["kernels"][kernel][count]
        for task, kernel, count in COUNTED
    }
    assert found == pytest.approx(COUNTED, rel=0.1)


def test_counts_have_their_bounds(record: dict[str, Any]) -> None:
    for task in record["tasks"].values():
        assert task["nonzeros"] > 1000
        for kernel in task["kernels"].values():
            assert 0 < kernel["active_lanes"] <= 1
            assert 0 <= kernel["float64_instructions"] < kernel["warp_instructions"]
            assert kernel["misses"] <= kernel["sectors"]
            assert kernel["bank_factor"] is None or kernel["bank_factor"] >= 1
            assert kernel["atomic_queue"] is None or 1 <= kernel["atomic_queue"] <= 32
            assert len(kernel["hottest"]) == 3


def test_the_tables_of_the_page(record: dict[str, Any]) -> None:
    made = count_tables.kernels(record)
    sums = record["tasks"]["Wilcoxon"]["kernels"]["rank_sums_32"]
    assert f"| `rank_sums` | {sums['warp_instructions']:.1f} |" in made
    assert f"| {sums['sectors']:.2f}/{sums['least_sectors']:.2f} |" in made
    assert "| `moments` (t-test) |" in made
    assert "| `rank_sums` |" in count_tables.hottest(record)
    assert "a slice of 20 genes, 1,500 reference cells and 12 groups of 100" in count_tables.about(
        record
    )
    for table in count_tables.MADE.values():
        assert table()
