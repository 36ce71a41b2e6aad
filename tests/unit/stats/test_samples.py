"""Third and fourth moments of the sides of comparisons against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pdex_gpu.backends.outputs import Moments
from pdex_gpu.stats.samples import Sample, _others, _without


def moments_of(groups: list[np.ndarray]) -> tuple[Moments, np.ndarray]:
    """The moments of groups of cells, (group, gene), rounded once, and the group sizes."""
    found = np.array([[exact(gene) for gene in group.T] for group in groups])
    n_expressed = np.array([np.count_nonzero(group, axis=0) for group in groups], np.int32)
    n = np.array([[float(len(group))] for group in groups])
    mean, m2, m3, m4 = np.moveaxis(found, -1, 0)
    return Moments(n_expressed, mean, m2, None, None, m3, m4), n


def exact(x: np.ndarray) -> list[float]:
    values = [Fraction(float(v)) for v in x]
    mean = sum(values, Fraction()) / len(values)
    return [float(mean)] + [float(sum((v - mean) ** k for v in values)) for k in (2, 3, 4)]


def some_groups(centre: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = 4, 1, 9, 30
    return [centre + rng.gamma(1.0 + k, size=(n, 3)) for k, n in enumerate(sizes)]


def assert_close(sample: Sample, cells: list[np.ndarray], rtol: float) -> None:
    assert sample.m2 is not None
    assert sample.m3 is not None
    assert sample.m4 is not None
    for t, group in enumerate(cells):
        for j, gene in enumerate(group.T):
            _, m2, m3, m4 = exact(gene)
            assert abs(sample.m3[t, j] - m3) <= rtol * m2**1.5
            np.testing.assert_allclose(sample.m4[t, j], m4, rtol=rtol)


# Digits are lost with the mean over the standard deviation.
@pytest.mark.parametrize(("centre", "rtol"), [(0.0, 1e-12), (1000.0, 1e-9)])
def test_all_other_groups(centre: float, rtol: float) -> None:
    groups = some_groups(centre)
    others = [np.concatenate(groups[:t] + groups[t + 1 :]) for t in range(len(groups))]
    assert_close(_others(*moments_of(groups)), others, rtol)


@pytest.mark.parametrize(("centre", "rtol"), [(0.0, 1e-11), (1000.0, 1e-8)])
def test_a_pool_without_the_target(centre: float, rtol: float) -> None:
    groups = some_groups(centre)
    pool, n_pool = moments_of([np.concatenate(groups)])
    targets, n = moments_of(groups)
    of_pool = Sample(n_pool, pool.n_expressed, pool.mean, pool.m2, None, None, pool.m3, pool.m4)
    own = Sample(
        n, targets.n_expressed, targets.mean, targets.m2, None, None, targets.m3, targets.m4
    )
    rest = [np.concatenate(groups[:t] + groups[t + 1 :]) for t in range(len(groups))]
    assert_close(_without(of_pool, own), rest, rtol)


def test_constant_and_silent_rests_have_none() -> None:
    constant, own = np.full((6, 1), 0.1), np.array([[1.0], [5.0]])
    others = _others(*moments_of([own, constant, constant[:3]]))
    assert others.m3 is not None
    assert others.m4 is not None
    assert (others.m3[0], others.m4[0]) == (0.0, 0.0)
    silent = np.zeros((5, 1))
    pool, n_pool = moments_of([np.concatenate([own, silent])])
    target, n = moments_of([own])
    of_pool = Sample(n_pool, pool.n_expressed, pool.mean, pool.m2, None, None, pool.m3, pool.m4)
    own_ = Sample(n, target.n_expressed, target.mean, target.m2, None, None, target.m3, target.m4)
    rest = _without(of_pool, own_)
    assert rest.m3 is not None
    assert rest.m4 is not None
    assert (rest.m3[0, 0], rest.m4[0, 0]) == (0.0, 0.0)
