"""benchmarks/ptx_times.py: limits that follow from counts can be reckoned by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

from ptx_times import ASSUMED, CARDS, NONZEROS, Card, Predicted, predict, table  # noqa: E402

# Ten multiprocessors at 1 GHz, with 64 warps where a thread takes 32 registers.
CARD = Card("toy", "sm_00", 10, 1e9, 16, 1e12, 1e10, 64)
EXACT = replace(
    ASSUMED["likely"], expansion=2.0, float64_expansion=1.0, issued=0.5, enough_warps=32.0,
    transferred=0.5, l2_bytes=32.0, warp_cycles=10.0, launch=0.0,
)  # fmt: skip
NOTHING = dict.fromkeys(
    (
        "launches", "warp_instructions", "float64_instructions", "bytes_read", "bytes_written",
        "misses", "wavefronts", "longest_warp",
    ),
    0.0,
)  # fmt: skip


def predicted(registers: int = 32, **counts: float) -> Predicted:
    return predict(NOTHING | counts, int(NONZEROS), registers, CARD, EXACT)


@pytest.mark.parametrize(
    ("limit", "counts", "seconds"),
    [
        ("instructions", {"warp_instructions": 3.0}, 3e9 * 2 / (10 * 1e9 * 4 * 0.5)),
        ("float64", {"float64_instructions": 2.0}, 2e9 * 32 / (10 * 1e9 * 16)),
        ("device memory", {"bytes_read": 4.0, "bytes_written": 1.0}, 5e9 / 0.5e12),
        ("L2", {"misses": 1.5}, 1.5e9 * 32 / (10 * 1e9 * 32)),
        ("shared memory", {"wavefronts": 2.5}, 0.25),
        ("the longest warp", {"launches": 6.0, "longest_warp": 1e6}, 1e6 * 10 / 1e9),
    ],
)
def test_limits(limit: str, counts: dict[str, float], seconds: float) -> None:
    found = predicted(**counts)
    assert found.limit == limit
    assert found.seconds == pytest.approx(seconds, rel=1e-12)


def test_fewer_warps_issue_less() -> None:
    assert [CARD.occupancy(n) for n in (32, 64, 65, 128, 132, 255)] == [64, 32, 24, 16, 8, 8]
    seconds = [predicted(n, warp_instructions=1.0).seconds for n in (32, 64, 128)]
    assert seconds == pytest.approx([0.1, 0.1, 0.2], rel=1e-12)


def test_launches_are_those_of_all_slices() -> None:
    """A record of a tenth of the nonzeros has a tenth of the launches."""
    assumed = replace(EXACT, launch=1e-6)
    found = predict(NOTHING | {"launches": 7}, int(NONZEROS) // 10, 32, CARD, assumed)
    assert found.seconds == pytest.approx(70e-6, rel=1e-12)


def test_the_likely_lies_within_the_range() -> None:
    kernel: dict[str, Any] = NOTHING | {"launches": 1, "warp_instructions": 2.0, "misses": 0.5}
    record = {"tasks": {"Wilcoxon": {"nonzeros": 10**7, "kernels": {"sums": kernel}}}}
    for card in CARDS:
        low, likely, high = (
            predict(kernel, 10**7, 64, card, assumed).seconds for assumed in ASSUMED.values()
        )
        assert low < likely < high
        lines = list(table(record, card, {"sums": 64}))
        assert lines[0].startswith(f"\n{card.name}: predicted ms")
        assert f"{1e3 * likely:.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})" in lines[1]
        assert lines[-1].startswith("bus")
