"""Means, percent change and fold change by pdex 0.1.28's formulas, each case by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pdex_gpu.backends.numpy import kernel_set as numpy_kernels
from pdex_gpu.columns.filters import Filters
from pdex_gpu.columns.finish import Scale, finish
from pdex_gpu.design.build import make_design
from pdex_gpu.sinks.memory import MemorySink
from pdex_gpu.stats.fold_change import expm1_in_place, fold_change, percent_change
from pdex_gpu.stats.multitest.correction import Correction

#           both 0, reference 0, target 0, neither
TARGET = np.array([[0.0, 3.0, 0.0, 3.0], [0.0, -1.0, -0.0, -6.0]])
REFERENCE = np.array([0.0, 0.0, 4.0, 4.0])


def test_percent_change() -> None:
    expected = [[np.nan, np.nan, -1.0, -0.25], [np.nan, np.nan, -1.0, -2.5]]
    np.testing.assert_array_equal(percent_change(TARGET, REFERENCE), expected)


@pytest.mark.parametrize(
    ("clip_value", "both", "no_reference", "no_target"),
    [(20.0, 1.0, 20.0, 0.05), (4, 1.0, 4.0, 0.25), (0.5, 1.0, 0.5, 2.0), (None, np.nan, np.nan, 0)],
)
def test_fold_change(
    clip_value: float | None, both: float, no_reference: float, no_target: float
) -> None:
    expected = [[both, no_reference, no_target, 0.75], [both, no_reference, no_target, -1.5]]
    np.testing.assert_array_equal(fold_change(TARGET, REFERENCE, clip_value), expected)


def test_fold_change_is_clipped_at_20_by_default() -> None:
    assert fold_change(np.array([[1.0]]), np.array([0.0])) == 20.0


def test_only_zeros_are_clipped() -> None:
    found = fold_change(np.array([[1e6, 1e-9]]), np.array([1e-6, 1e3]), 20.0)
    np.testing.assert_array_equal(found, [[1e6 / 1e-6, 1e-9 / 1e3]])


def test_results_go_where_they_are_wanted() -> None:
    for function in (percent_change, fold_change):
        out = np.full(TARGET.shape, 99.0)
        assert function(TARGET, REFERENCE, out=out) is out
        np.testing.assert_array_equal(out, function(TARGET, REFERENCE))


def test_arguments_are_left_alone() -> None:
    target, reference = TARGET.copy(), REFERENCE.copy()
    percent_change(target, reference)
    fold_change(target, reference)
    assert target.tobytes() == TARGET.tobytes()
    assert reference.tobytes() == REFERENCE.tobytes()


def test_means_in_count_space() -> None:
    x = np.log1p(np.array([0.0, 3.0, 8.0]))
    for is_log1p, exp_post_agg, expected in (
        (False, True, x.mean()),
        (False, False, x.mean()),
        (True, True, 36 ** (1 / 3) - 1),  # (1 * 4 * 9) ** (1/3) - 1
        (True, False, 11 / 3),
    ):
        means = ["target_mean", "reference_mean", "target_mean_expm1", "reference_mean_expm1"]
        sink = MemorySink(dict.fromkeys([*means, "statistic", "p_value"], 1), n_genes=1)
        for name, values in zip(means, [x, x, np.expm1(x), np.expm1(x)], strict=True):
            sink.arrays[name][:] = values.mean()
        sink.arrays["p_value"][:] = 1.0
        columns = finish(
            sink,
            make_design(np.array([0, 1]), ["ctl", "a"], reference="ctl"),
            numpy_kernels,
            map,
            scale=Scale(is_log1p, exp_post_agg, 20.0),
            columns=(),
            correction=Correction(),
            filters=Filters(),
        ).columns
        for name in ("target_mean", "reference_mean"):
            np.testing.assert_allclose(columns[name], [[expected]], rtol=1e-14)


def test_means_of_counts_taken_for_logarithms_are_infinite() -> None:
    mean = np.array([[1.0, 1000.0]])
    expm1_in_place(mean)
    np.testing.assert_array_equal(mean, [[np.expm1(1.0), np.inf]])
