"""Benjamini-Hochberg: the bits of scipy's own function, from every kernel set."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from screens import KERNEL_SETS, kernel_set

from pdex_gpu.errors import CoverageError, DataError, FileFormatError
from pdex_gpu.stats.multitest import external_sort
from pdex_gpu.utils.parallel import pool_map


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


@pytest.mark.sampled(every=3)
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


# --- some of the p-values at a time ----------------------------------------------------------


@given(
    p_value=st.lists(P_VALUE, min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    seed=st.integers(0, 99),
)
def test_parts_of_sorted_p_values(
    kernels: ModuleType, p_value: list[float], cuts: list[int], seed: int
) -> None:
    p = np.sort(np.abs(p_value))
    n = len(p)
    found = np.full(n, np.nan)
    bounds = sorted({0, *(min(cut, n) for cut in cuts), n})
    ceiling = 1.0
    for first, last in reversed(list(itertools.pairwise(bounds))):
        order = np.random.default_rng(seed).permutation(np.arange(first, last))
        found[order] = kernels.benjamini_hochberg(
            p[order], map, n_tests=n, n_smaller=first, ceiling=ceiling
        )
        ceiling = found[first:].min()
    assert found.tobytes() == false_discovery_control(p).tobytes()


@pytest.mark.parametrize("part", [slice(0, 90_000), slice(120_000, 290_000), slice(299_999, None)])
def test_a_large_part(kernels: ModuleType, part: slice) -> None:
    p = np.sort(np.random.default_rng(4).random(300_000) ** 3)
    expected = false_discovery_control(p)
    above = expected[part.stop :] if part.stop else []
    found = kernels.benjamini_hochberg(
        p[part][::-1], map, n_tests=len(p), n_smaller=part.start, ceiling=np.min(above, initial=1)
    )
    assert found[::-1].tobytes() == expected[part].tobytes()


def test_a_part_by_hand(kernels: ModuleType) -> None:
    # Ranks 4 and 3 of 10; a larger one of those not given has 0.3.
    found = kernels.benjamini_hochberg(
        np.array([0.2, 0.06]), map, n_tests=10, n_smaller=2, ceiling=0.3
    )
    np.testing.assert_allclose(found, [0.3, 0.06 * 10 / 3], rtol=1e-15)


def test_no_part(kernels: ModuleType) -> None:
    found = kernels.benjamini_hochberg(np.empty(0), map, n_tests=3, n_smaller=3, ceiling=0.5)
    assert found.shape == (0,)


# --- p-values that do not fit in memory ------------------------------------------------------


class Watched:
    """A kernel set that notes how many p-values it was given at a time."""

    def __init__(self, kernels: Any) -> None:
        self.kernels, self.sizes = kernels, []

    def benjamini_hochberg(self, p_value: np.ndarray, run: Any, **part: Any) -> np.ndarray:
        self.sizes.append(p_value.size)
        return self.kernels.benjamini_hochberg(p_value, run, **part)


class Once:
    """A column that lets every position have one value, and be read only where it has one."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.values = np.full(n, np.nan)
        self.n_reads = 0

    def read(self, first: int, last: int) -> np.ndarray:
        self.n_reads += 1
        assert not np.isnan(self.values[first:last]).all(), "nothing was written here"
        view = self.values[first:last]
        view.flags.writeable = False
        return view

    def write(self, first: int, values: np.ndarray) -> None:
        old = self.values[first : first + len(values)]
        assert len(old) == len(values)
        kept = ~np.isnan(old)
        assert old[kept].tobytes() == values[kept].tobytes(), "a position has two values"
        assert np.isnan(values).sum() < np.isnan(old).sum(), "nothing new was written"
        old[:] = values


@contextmanager
def cut_finely(piece: int, bucket_bits: int) -> Iterator[None]:
    """Pieces and histograms that are small enough for small tables to have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "_PIECE", piece)
        patch.setattr(external_sort, "_BUCKET_BITS", bucket_bits)
        yield


class ArrayColumn:
    """A column in memory; what is read cannot be changed."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.n = array, len(array)

    def read(self, first: int, last: int) -> np.ndarray:
        view = self._array[first:last]
        view.flags.writeable = False
        return view

    def write(self, first: int, values: np.ndarray) -> None:
        self._array[first : first + len(values)] = values


def budget_of(n: int) -> int:
    """A budget that `n` p-values fit in, and no more."""
    return n * external_sort._BYTES


def adjust_within(kernels: Any, p: np.ndarray, capacity: int, run: Any = map) -> list[int]:
    """Check `adjust` with room for `capacity` p-values; returns how many were sorted at a time."""
    column, watched, before = Once(len(p)), Watched(kernels), p.copy()
    external_sort.adjust(ArrayColumn(p), column, watched, run, budget=budget_of(capacity))
    assert column.values.tobytes() == false_discovery_control(p + 0.0).tobytes()
    assert p.tobytes() == before.tobytes(), "the p-values were changed"
    assert max(watched.sizes, default=0) <= capacity
    return watched.sizes


@settings(max_examples=30)
@given(
    p_value=st.lists(P_VALUE, max_size=30),
    capacity=st.integers(0, 31),
    piece=st.integers(1, 12),
    bucket_bits=st.integers(1, 6),
)
def test_adjust_any_p_values(
    kernels: ModuleType, p_value: list[float], capacity: int, piece: int, bucket_bits: int
) -> None:
    with cut_finely(piece, bucket_bits):
        adjust_within(kernels, np.array(p_value, np.float64), capacity)  # -0.0 among them


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_adjust_next_to_nothing(kernels: ModuleType, n: int, budget: int) -> None:
    found = np.full(n, np.nan)
    external_sort.adjust(
        ArrayColumn(np.full(n, 0.3)),
        ArrayColumn(found),
        kernels,
        map,
        budget=budget,
    )
    assert found.tolist() == [0.3] * n


def awkward(n: int) -> np.ndarray:
    """P-values of every kind, shuffled: thick ties at 0, 0.25 and 1, and thin ones next to 0.25."""
    rng = np.random.default_rng(5)
    u = rng.random(n)
    neighbours = (np.float64(0.25).view(np.int64) + rng.integers(-40, 40, n)).view(np.float64)
    kinds = [np.ones(n), u, 0.25 + 0 * u, neighbours, 0 * u, u**40, 5e-324 * np.round(9 * u)]
    p = np.choose(rng.choice(len(kinds), n, p=[0.4, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05]), kinds)
    return np.where(rng.random(n) < 0.01, -0.0, p)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("capacity", [300_000, 299_999, 60_000, 20_000, 2_500])
@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_adjust_many(name: str, capacity: int) -> None:
    p = awkward(300_000)
    with ThreadPoolExecutor(3) as pool, cut_finely(10_007, 18):
        sizes = adjust_within(kernel_set(name), p, capacity, pool_map(pool))
    if capacity >= len(p) - 1:
        assert len(sizes) == 1 + len(p) - capacity
        assert sum(sizes) == len(p)
    else:  # of thick ties, those that are no small part of a batch
        assert sum(sizes) <= np.sum(p < 1)
    if capacity == 20_000:
        assert sum(sizes) <= np.sum((p > 0) & (p != 0.25) & (p < 1))


@pytest.mark.parametrize("bucket_bits", [1, 2, 18])
def test_adjust_neighbours(bucket_bits: int) -> None:
    """Values that differ in their last bits are told apart, whatever the histogram."""
    bits = np.float64(0.7).view(np.int64) + np.random.default_rng(6).integers(0, 64, 3000)
    p = bits.view(np.float64)
    with cut_finely(1 << 18, bucket_bits):
        sizes = adjust_within(kernel_set("cpu"), p, 200)
    assert len(sizes) >= 15
    assert sum(sizes) > 0.9 * len(p)  # a single value may have a batch of its own


def test_ties_that_do_not_fit_are_not_sorted() -> None:
    p = np.repeat([0.0, 0.3, 1.0], 1000)
    assert adjust_within(kernel_set("cpu"), p, 999) == []


def test_batches_fill_the_budget() -> None:
    p = np.random.default_rng(7).random(200_000)
    assert len(adjust_within(kernel_set("cpu"), p, 50_000)) == 5
    p[p < 0.5] = 1.0  # these are one batch, and none to sort
    assert len(adjust_within(kernel_set("cpu"), p, 60_000)) == 2
    assert len(adjust_within(kernel_set("cpu"), p, 120_000)) == 1
    assert adjust_within(kernel_set("cpu"), np.array([0.1, 0.2, 0.3, 0.4]), 2) == [2, 2]


def test_if_all_fits_everything_is_read_once_and_written_once() -> None:
    p = np.random.default_rng(8).random(1000)
    p_values, column = Once(len(p)), Once(len(p))
    p_values.write(0, p)
    with cut_finely(300, 18):
        external_sort.adjust(p_values, column, kernel_set("cpu"), map, budget=budget_of(len(p)))
    assert column.values.tobytes() == false_discovery_control(p).tobytes()
    assert (p_values.n_reads, column.n_reads) == (4, 0)


@pytest.mark.parametrize("positions", [True, False])  # Windows has none
@pytest.mark.parametrize("capacity", [1 << 30, 9000])
def test_adjust_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capacity: int, positions: bool
) -> None:
    monkeypatch.setattr("pdex_gpu.utils.raw_file._HAS_POSITIONS", positions)
    p = awkward(40_000)
    with (
        (tmp_path / "p").open("w+b", buffering=0) as p_file,
        (tmp_path / "fdr").open("w+b", buffering=0) as fdr_file,
        ThreadPoolExecutor(4) as pool,
        cut_finely(1009, 18),
    ):
        p_values, column = (
            external_sort.FileColumn(p_file, len(p)),
            external_sort.FileColumn(fdr_file, len(p)),
        )
        p_values.write(0, p)
        external_sort.adjust(
            p_values, column, kernel_set("cpu"), pool_map(pool), budget=budget_of(capacity)
        )
        found = column.read(0, len(p))
    assert found.tobytes() == false_discovery_control(p + 0.0).tobytes()
    assert (tmp_path / "p").read_bytes() == p.tobytes()
    assert (tmp_path / "fdr").read_bytes() == found.tobytes()


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("in_file", [False, True])
def test_adjust_stays_within_its_budget(in_file: bool, tmp_path: Path) -> None:
    n, budget = 3_000_000, 8 << 20
    rng = np.random.default_rng(9)
    p = rng.random(n)
    p[rng.random(n) < 0.3] = 1.0
    found, watched = np.full(n, np.nan), Watched(kernel_set("numpy"))
    with (tmp_path / "fdr").open("w+b", buffering=0) as file:
        column = external_sort.FileColumn(file, n) if in_file else ArrayColumn(found)
        tracemalloc.start()
        try:
            external_sort.adjust(ArrayColumn(p), column, watched, map, budget=budget)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if in_file:
            found = column.read(0, n)
    assert found.tobytes() == false_discovery_control(p).tobytes()
    assert peak < budget + (8 << 20), f"{peak:,}"  # it was 13.6 MB; all at once it is 96 MB
    assert len(watched.sizes) > 10


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("n", [100_000, 1 << 20, 3 << 20])
@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_what_a_p_value_takes(name: str, n: int) -> None:
    p, kernels = np.random.default_rng(10).random(n), kernel_set(name)
    kernels.benjamini_hochberg(p[:9], map)  # compile
    tracemalloc.start()
    try:
        kernels.benjamini_hochberg(p, map)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    itself = 8
    second = 12 if name == "cpu" else 0  # key and place, in compiled code that is not traced
    assert peak / n + itself + second < external_sort._BYTES


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, -1e-9, 1.0000001, np.inf])
def test_adjust_refuses_what_is_no_p_value(wrong: float) -> None:
    p = np.linspace(0, 1, 100)
    p[41] = wrong
    with pytest.raises(DataError, match=r"100 p-values in \[0.0, 1.0\].* 99 "):
        external_sort.adjust(
            ArrayColumn(p), Once(100), kernel_set("cpu"), map, budget=budget_of(50)
        )


@pytest.mark.parametrize("ties", [0.0, 1.0])
@pytest.mark.parametrize("n_reads", range(1, 6))
def test_adjust_notices_p_values_that_change(n_reads: int, ties: float) -> None:
    class Changing(ArrayColumn):
        left = n_reads

        def read(self, first: int, last: int) -> np.ndarray:
            self.left -= 1
            return super().read(first, last) ** (2 if self.left < 0 else 1)

    p = np.random.default_rng(11).random(1000)
    p[:500] = ties
    p[500] = 1e-30  # the last to be taken, before zeros
    p_values, found = Changing(p), ArrayColumn(np.zeros(1000))
    with pytest.raises(CoverageError, match="P-values changed while they were adjusted"):
        external_sort.adjust(p_values, found, kernel_set("cpu"), map, budget=budget_of(150))


def test_adjust_notices_ties_that_change() -> None:
    class Changing(ArrayColumn):
        n_reads = 0

        def read(self, first: int, last: int) -> np.ndarray:
            self.n_reads += 1
            return super().read(first, last) / self.n_reads

    p_values, found = Changing(np.ones(100)), ArrayColumn(np.zeros(100))
    with pytest.raises(CoverageError, match="P-values changed while they were adjusted"):
        external_sort.adjust(p_values, found, kernel_set("cpu"), map, budget=budget_of(99))


# --- columns ---------------------------------------------------------------------------------


@pytest.fixture(params=["positioned", "in turns", "a few bytes at a time"])
def file_column(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[external_sort.FileColumn]:
    if request.param == "in turns":
        monkeypatch.setattr("pdex_gpu.utils.raw_file._HAS_POSITIONS", False)
    elif request.param == "a few bytes at a time":
        read, write = os.preadv, os.pwrite
        monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: read(fd, [buffers[0][:13]], at))
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:13], at))
    with (tmp_path / "column").open("w+b", buffering=0) as file:
        yield external_sort.FileColumn(file, 1000)


def test_a_file_in_any_order(file_column: external_sort.FileColumn) -> None:
    values = np.random.default_rng(12).random(1000)
    for first in (600, 0, 300):
        last = min(first + 300, 1000) if first < 600 else 1000
        file_column.write(first, values[first:last])
    assert file_column.read(0, 1000).tobytes() == values.tobytes()
    assert file_column.read(299, 601).tobytes() == values[299:601].tobytes()
    file_column.write(10, np.arange(20.0)[::2])
    assert file_column.read(9, 21).tolist() == [values[9], *range(0, 20, 2), values[20]]
    assert file_column.read(7, 7).shape == (0,)


def test_a_file_from_many_threads(file_column: external_sort.FileColumn) -> None:
    def write_and_read(k: int) -> bool:
        mine = np.full(10, float(k))
        file_column.write(10 * k, mine)
        return bool((file_column.read(10 * k, 10 * k + 10) == mine).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(100)))
    assert (file_column.read(0, 1000) == np.arange(1000) // 10).all()


def test_a_file_that_ends_early(file_column: external_sort.FileColumn) -> None:
    file_column.write(0, np.zeros(500))
    with pytest.raises(FileFormatError, match=r"Values 400 to 700 of a column of 1,000") as caught:
        file_column.read(400, 700)
    assert "is 1,600 bytes too short" in str(caught.value)
    assert "Run again" in str(caught.value)
