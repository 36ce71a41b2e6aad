"""Benjamini-Hochberg: the bits of scipy's own function, from every kernel set."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from screens import KERNEL_SETS, kernel_set


@pytest.fixture(scope="module", params=KERNEL_SETS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return kernel_set(request.param)


def check(kernels: ModuleType, p_value: np.ndarray) -> None:
    before = p_value.copy()
    found = kernels.benjamini_hochberg(p_value, map)
    assert found.tobytes() == false_discovery_control(p_value, axis=None).tobytes()
    assert found.shape == p_value.shape
    assert p_value.tobytes() == before.tobytes(), "the p-values were changed"


P_VALUE = st.one_of(
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 1.0, 0.5, 5e-324, 1e-310, 1e-300, 1e-20, 0.05, np.nextafter(1, 0)]),
)


@given(p_value=st.lists(P_VALUE, min_size=1, max_size=60))
def test_any_p_values(kernels: ModuleType, p_value: list[float]) -> None:
    check(kernels, np.abs(np.array(p_value)))  # not -0.0


def test_by_hand(kernels: ModuleType) -> None:
    p_value = np.array([[0.5, 0.01], [0.02, 1.0]])
    # Ranks 3, 1, 2, 4 of 4.
    expected = [[0.5 * 4 / 3, 0.04], [0.04, 1.0]]
    np.testing.assert_allclose(kernels.benjamini_hochberg(p_value, map), expected, rtol=1e-15)


@pytest.mark.parametrize(
    "p_value",
    [[0.3], [1.0], [0.0], [1.0] * 9, [0.0] * 9, [0.02] * 7, [0.9, 0.95, 1.0], [1.0, 0.9, 1e-320]],
)
def test_small_and_tied(kernels: ModuleType, p_value: list[float]) -> None:
    check(kernels, np.array(p_value))


@pytest.mark.parametrize("kind", ["uniform", "tiny", "tied", "clustered", "mixed"])
def test_many(kernels: ModuleType, kind: str) -> None:
    rng = np.random.default_rng(1)
    n = 300_000  # several parts and buckets, wherever there are any
    uniform = rng.random(n)
    p_value = {
        "uniform": uniform,
        "tiny": 10.0 ** (-330 * uniform),
        "tied": rng.integers(1, 500, n) / 500,
        "clustered": 0.25 * (1 + 1e-13 * uniform),
        "mixed": np.where(uniform < 0.3, 1.0, np.where(uniform < 0.6, uniform, uniform**40)),
    }[kind]
    check(kernels, p_value.reshape(300, -1))


def test_not_contiguous(kernels: ModuleType) -> None:
    p_value = np.random.default_rng(2).random((40, 30))
    check(kernels, p_value[::-2, ::3])


def test_parts_in_any_order(kernels: ModuleType) -> None:
    def backwards(function, items):
        return iter([function(item) for item in list(items)[::-1]])

    p_value = np.random.default_rng(3).random(300_000)
    found = kernels.benjamini_hochberg(p_value, backwards)
    assert found.tobytes() == false_discovery_control(p_value).tobytes()
