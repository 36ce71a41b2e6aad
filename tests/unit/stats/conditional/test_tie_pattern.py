"""The constants of a tie pattern against matrices."""

from __future__ import annotations

import numpy as np
import pytest

from pdex_gpu.stats.conditional import tie_pattern
from pdex_gpu.stats.conditional.tie_pattern import N_CONSTANTS, coarsen, constants, room

PATTERNS = {
    "counts": [40.0, 22.0, 9.0, 4.0, 1.0],
    "two values": [5.0, 3.0],
    "one value": [7.0],
    "distinct": [1.0] * 30,
    "uneven": [1.0, 50.0, 1.0, 1.0, 200.0, 3.0],
}


def computed(cells: np.ndarray, z: float, ties: np.ndarray | None = None) -> np.ndarray:
    found = np.full(N_CONSTANTS, np.nan)
    constants(cells, cells if ties is None else ties, len(cells), z, room(len(cells)), found)
    return found


def by_matrices(cells: np.ndarray, z: float) -> list[float]:
    e, phi = 1.0 - z, cells / cells.sum()
    s = np.cumsum(phi) - phi / 2
    u, b = 1.0 - s, z + e * s
    spread = b * (1.0 - b) - e * phi / 4
    omega = np.diag(phi / spread)
    bridge = np.minimum.outer(s, s) * np.minimum.outer(u, u)
    np.fill_diagonal(bridge, s * u - phi / 4)
    product = omega @ bridge
    first = [u @ omega @ u, *(np.trace(np.linalg.matrix_power(product, i)) for i in (1, 2, 3))]
    first += [u @ product @ omega @ u, u @ product @ product @ omega @ u]
    first.append(np.linalg.eigvals(product).real.max())
    g, b, spread = e * phi, b, spread
    if z > 0.0:
        g, b = np.append(z, g), np.append(z / 2, b)
        spread = np.append(z * e / 4, spread)
    whole = np.minimum.outer(b, b) * np.minimum.outer(1.0 - b, 1.0 - b)
    np.fill_diagonal(whole, spread)
    whole *= np.sqrt(np.outer(g / spread, g / spread))
    assert np.trace(whole) == pytest.approx(1.0)
    values = np.linalg.eigvalsh(whole)
    return [*first, (values**2).sum(), (values**3).sum(), values.max()]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("z", [0.0, 0.01, 0.5, 0.99])
def test_constants_are_traces(name: str, z: float) -> None:
    cells = np.array(PATTERNS[name])
    if z == 0.0 and len(cells) == 1:
        pytest.skip("all values are equal")
    found, expected = computed(cells, z), by_matrices(cells, z)
    exact = [i for i in range(N_CONSTANTS) if i not in (tie_pattern.C_TOP, tie_pattern.T_TOP)]
    np.testing.assert_allclose(found[exact], np.array(expected)[exact], rtol=1e-9, atol=1e-12)
    for i in (tie_pattern.C_TOP, tie_pattern.T_TOP):  # by power iteration
        assert found[i] == pytest.approx(expected[i], rel=5e-3, abs=1e-9)  # 1e-3 seen


def test_coarse_patterns_have_nearly_the_same_constants() -> None:
    rng = np.random.default_rng(1)
    for cells in (np.ones(3000), rng.integers(1, 4, 900).astype(float)):
        merged, ties = cells.copy(), np.empty(len(cells))
        n_values = coarsen(merged, ties, len(merged))
        assert n_values < 250
        assert merged[:n_values].sum() == cells.sum()
        for z in (0.0, 0.3, 0.95):
            fine, coarse = computed(cells, z), computed(merged[:n_values], z, ties)
            np.testing.assert_allclose(coarse, fine, rtol=1e-3)  # 5e-4 seen


def test_small_patterns_stay_as_they_are() -> None:
    cells = np.ones(64)
    ties = np.empty(64)
    assert coarsen(cells, ties, 64) == 64
    assert (ties == 1.0).all()
