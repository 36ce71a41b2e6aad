"""The sum over the number of expressing target cells, against one that takes every term."""

from __future__ import annotations

import numpy as np
import pytest

from pdex_gpu.stats.conditional import anderson_darling_mixture as mixture
from pdex_gpu.stats.conditional.hypergeometric import log_factorials
from pdex_gpu.stats.conditional.tie_pattern import N_CONSTANTS, constants, room

STATISTICS = np.array([1.5, 2.0, 3.0, 4.5, 7.0, 12.0, 30.0, 80.0])


def pattern(expressed: int, total: int) -> np.ndarray:
    """Constants of values of which every fourth cell has the first, and others are distinct."""
    found = np.empty(N_CONSTANTS)
    cells = np.array([expressed // 4] + [1] * (expressed - expressed // 4), np.float64)
    constants(cells, cells.copy(), len(cells), 1.0 - expressed / total, room(len(cells)), found)
    return found


def both(
    n: int, total: int, expressed: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray]:
    """Return log p, and the sum of all terms."""
    its, table, size = pattern(expressed, total), log_factorials(total), len(STATISTICS)
    found = np.empty(size)
    sizes = (np.full(size, size_of_it) for size_of_it in (n, total, expressed))
    mixture.log_p_from_constants(STATISTICS, *sizes, np.tile(its, (size, 1)), table, found)
    monkeypatch.setattr(mixture, "_OF_X", 0.0)
    every_term = getattr(mixture._log_mixture, "py_func", mixture._log_mixture)
    return found, np.array([every_term(a, n, total, expressed, its, table) for a in STATISTICS])


@pytest.mark.parametrize("total", [2_000, 20_000])
@pytest.mark.parametrize("n", [20, 150, 600])
def test_steps_make_no_difference(n: int, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n *= total // 2_000
    for share in (0.05, 0.3, 0.9):
        found, expected = both(n, total, int(share * total), monkeypatch)
        summed = np.full(len(found), n * share < mixture._MANY) | (expected < np.log(1e-3) - 0.3)
        assert summed.any()
        worst = np.abs(found - expected)[summed].max()
        assert worst < 2e-5  # worst: 1.2e-5


@pytest.mark.parametrize("expressed", [200, 240, 300])
def test_the_sum_can_be_left_out(expressed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = both(120, 2_000, expressed, monkeypatch)
    body = (found != expected) & (expected > np.log(1e-2) - 0.3)
    assert body.any()
    worst = np.abs(found - expected)[body].max() / np.log(10.0)
    assert worst < 0.1  # decades; worst: 0.081
