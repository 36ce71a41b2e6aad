"""Values whose squares are no float64: the numbers are those of the same values scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, frame, run, screen
from scipy import stats

COLUMNS = ["mean_difference", "mean_difference_low", "mean_difference_high", "cohens_d", "hedges_g",
           "auroc", "auroc_low", "target_fraction", "log10_p"]  # fmt: skip
IN_UNITS = {"target_mean", "reference_mean", "mean_difference", "mean_difference_low",
            "mean_difference_high"}  # fmt: skip
#: Up to the largest float64, down to the smallest, and within what float32 holds.
EXPONENTS = [
    -1074,
    -1050,
    -1022,
    -800,
    -600,
    -500,
    -330,
    -165,
    -100,
    100,
    165,
    330,
    600,
    1000,
    1019,
]
DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {},
    "each": {"comparison": "each_reference", "reference": ["ctrl", "safe"]},
    "rest": {"comparison": "rest"},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("b", "ctrl")]},
    "levels": {"groupby": ["group", "type"]},
    "strata": {"strata": "batch"},
}
TESTS: list[dict[str, Any]] = [
    {"metric": "t-test"},
    {"metric": "t-test", "variance": "welch"},
    {"metric": "t-test", "variance": "overestimated"},
    {"metric": "wilcoxon"},
]


def small() -> np.ndarray:
    """Whole numbers from -3 to 9, so that any power of two of them is exact."""
    rng = np.random.default_rng(6)
    shift = (frame()["group"] == "a").to_numpy()[:, None] * 2
    return (rng.integers(-3, 8, (len(frame()), len(EXPONENTS))) + shift).astype(np.float64)


def scaled(values: np.ndarray) -> np.ndarray:
    return np.ldexp(values, EXPONENTS)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", TESTS, ids=lambda options: "-".join(options.values()))
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.SkippedWarning")
def test_scaled_values_give_the_same_numbers(design, options, backend):
    if design == "strata" and "variance" in options:
        pytest.skip("has no form over strata")
    columns = [c for c in COLUMNS if design != "strata" or c != "auroc_low"]
    asked = {"is_log1p": False, "backend": backend, "columns": columns}
    asked |= DESIGNS[design] | options
    result, _ = run(screen(scaled(small())), **asked)
    expected, _ = run(screen(small()), **asked)
    for name in set(result.columns) - {"fdr", "fold_change"}:
        for j, exponent in enumerate(EXPONENTS):
            truth = expected[name][:, j]
            rtol, atol = 1e-12, 1e-13
            if name in IN_UNITS:
                with np.errstate(over="ignore"):
                    truth = np.ldexp(truth, exponent)
                atol = np.ldexp(1e-13, exponent) + 5e-324
            elif exponent < -1000 and name == "percent_change":
                continue  # of means that are rounded to the smallest float64
            np.testing.assert_allclose(
                result[name][:, j], truth, rtol=rtol, atol=atol, err_msg=f"{name} {exponent}"
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variance", ["pooled", "welch"])
def test_groups_of_different_scales(backend, variance):
    """Two groups of tiny values are compared at their scale, whatever a third group holds."""
    rng = np.random.default_rng(1)
    labels = np.repeat(["ctrl", "tiny", "zero", "one", "huge"], 12)
    x = rng.integers(1, 9, 60).astype(float)
    x *= np.repeat([1e-200, 1e-200, 0.0, 1.0, 1e200], 12)
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(60)])
    data = screen(x[:, None], obs)
    result, _ = run(data, metric="t-test", variance=variance, backend=backend, is_log1p=False,
                    columns=["mean_difference"], p_values="asymptotic")  # fmt: skip
    for t, label in enumerate(result.targets):
        its, other = x[labels == label], x[labels == "ctrl"]
        unit = max(its.max(), other.max())
        truth = stats.ttest_ind(its / unit, other / unit, equal_var=variance == "pooled")
        np.testing.assert_allclose(result["statistic"][t, 0], truth.statistic, rtol=1e-12)
        np.testing.assert_allclose(result["p_value"][t, 0], truth.pvalue, rtol=1e-11)
        np.testing.assert_allclose(result["target_mean"][t, 0], its.mean(), rtol=1e-14)
        np.testing.assert_allclose(result["reference_mean"][t, 0], other.mean(), rtol=1e-14)
        np.testing.assert_allclose(
            result["mean_difference"][t, 0], its.mean() - other.mean(), rtol=1e-14
        )
    rest, _ = run(data, metric="t-test", comparison="rest", backend=backend, is_log1p=False)
    for t, label in enumerate(rest.targets):
        truth = stats.ttest_ind(x[labels == label] / 1e200, x[labels != label] / 1e200)
        np.testing.assert_allclose(rest["statistic"][t, 0], truth.statistic, rtol=1e-11)
        np.testing.assert_allclose(
            rest["reference_mean"][t, 0], x[labels != label].mean(), rtol=1e-13
        )


def test_variances_of_different_scales():
    """Degrees of freedom of Welch's test where one variance is 0 and the other tiny."""
    rng = np.random.default_rng(3)
    labels = np.repeat(["ctrl", "a"], 10)
    noise = rng.integers(1, 9, 20) * np.repeat([0.0, 1e-100], 10)
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(20)])
    result, _ = run(screen(noise[:, None], obs), metric="t-test", variance="welch", is_log1p=False)
    truth = stats.ttest_1samp(noise[10:] * 1e100, 0.0)
    np.testing.assert_allclose(result["statistic"][0, 0], truth.statistic, rtol=1e-13)
    np.testing.assert_allclose(result["p_value"][0, 0], truth.pvalue, rtol=1e-12)


def test_the_same_values_in_a_file_give_the_same_bits(tmp_path):
    data = screen(scaled(small()))
    expected, _ = run(data, metric="t-test", is_log1p=False, columns=COLUMNS)
    data.write_h5ad(tmp_path / "x.h5ad")
    result, _ = run(tmp_path / "x.h5ad", metric="t-test", is_log1p=False, columns=COLUMNS,
                    out=tmp_path / "de.parquet", gene_chunk_size=4)  # fmt: skip
    pd.testing.assert_frame_equal(
        result.load().to_pandas(), expected.to_pandas(), check_categorical=False, check_exact=True
    )


def test_guides_that_overlap():
    rng = np.random.default_rng(2)
    data, plain = screen(scaled(small())), screen(small())
    carried = rng.random((data.n_obs, 3)) < 0.4
    for adata in (data, plain):
        adata.obsm["guides"] = pd.DataFrame(carried, columns=[*"xyz"], index=data.obs_names)
    asked = {"groupby": None, "guides": "guides", "comparison": "rest", "metric": "t-test",
             "is_log1p": False, "p_values": "asymptotic"}  # fmt: skip
    result, expected = run(data, **asked)[0], run(plain, **asked)[0]
    np.testing.assert_allclose(result["statistic"], expected["statistic"], rtol=1e-10)
    np.testing.assert_allclose(result["p_value"], expected["p_value"], rtol=1e-10)
