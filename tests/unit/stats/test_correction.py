"""Correction for multiple testing: every method and scope, in memory, in files, and filtered."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, frame, run, screen
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import pdex_gpu
from pdex_gpu.backends.registry import load_kernels
from pdex_gpu.errors import OptionError
from pdex_gpu.stats.multitest.correction import correct
from pdex_gpu.stats.options import EMPIRICAL, FDR_METHODS, CorrectionOptions
from pdex_gpu.stats.options import FDR_SCOPES as SCOPES

METHODS = [name for name in FDR_METHODS if name != EMPIRICAL]  # it needs mock groups
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "fraction": {"min_fraction": 0.55},
    "cpm": {"min_cpm": 20_000.0},
    "on target": {"on_target": "gene"},
    "nothing left": {"min_cpm": 2e6},
}
LABELS = dict.fromkeys(("target", "reference", "feature"), str)
DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "ctrl"), ("b", "a")]},
}


def values() -> np.ndarray:
    """Counts of 40 genes: rare and common ones, changed ones, and one of zeros."""
    rng = np.random.default_rng(12)
    mean = rng.lognormal(-0.3, 1.0, 40) * np.where(frame().group == "a", 2.0, 1.0)[:, None]
    found = rng.poisson(mean).astype(float)
    found[:, 7] = 0
    return found


def data() -> Any:
    obs = frame().copy()
    genes = {"a": "gene3", "b": "gene0", "c": "gene7", "d": "gene12", "safe": "gene39"}
    obs["gene"] = obs.group.map(genes)
    return screen(values(), obs)


def adjusted(p: np.ndarray, method: str) -> np.ndarray:
    """Corrected p-values of one family, by definition: sorted, one by one."""
    n = len(p)
    if method == "bonferroni":
        return np.array([min(1.0, n * value) for value in p])
    by = sum(1 / k for k in range(1, n + 1)) if method == "benjamini-yekutieli" else 1.0
    found, smallest = np.ones(n), 1.0
    for rank, i in sorted(enumerate(np.argsort(p, kind="stable"), 1), reverse=True):
        smallest = min(smallest, by * n / rank * p[i])
        found[i] = smallest
    return found


def families(kept: np.ndarray, scope: str) -> list[np.ndarray]:
    """Masks of the tests that are corrected for together."""
    if scope == "all":
        return [kept]
    found = []
    for k in range(kept.shape[scope == "gene"]):
        mask = np.zeros_like(kept)
        mask[(slice(None), k) if scope == "gene" else k] = True
        found.append(mask & kept)
    return found


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("filtered", FILTERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.SkippedWarning")
def test_every_method_and_scope(scope, method, filtered, backend):
    for design, options in DESIGNS.items():
        if design != "reference" and backend == "numpy":
            continue
        options = options | FILTERS[filtered]
        result, _ = run(data(), backend=backend, fdr_method=method, fdr_scope=scope, **options)
        p, fdr = result["p_value"], result["fdr"]
        kept = np.ones(p.shape, bool) if result.kept is None else result.kept
        assert kept.any() == (filtered != "nothing left")
        expected = np.full(p.shape, np.nan)
        for family in families(kept, scope):
            expected[family] = adjusted(p[family], method)
            if method != "bonferroni" and family.any():
                short = "bh" if method == "benjamini-hochberg" else "by"
                scipy = stats.false_discovery_control(p[family], method=short)
                # Worst seen: 0.0.
                np.testing.assert_allclose(fdr[family], scipy, rtol=1e-14)
        # Worst seen: 5.2e-16.
        np.testing.assert_allclose(fdr, expected, rtol=1e-14, err_msg=design)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("filtered", FILTERS)
@pytest.mark.parametrize(("method", "scope"), list(itertools.product(METHODS, SCOPES)))
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.SkippedWarning")
def test_the_same_bits_in_a_file(method, scope, filtered, tmp_path):
    for design, options in DESIGNS.items():
        options = options | FILTERS[filtered] | {"fdr_method": method, "fdr_scope": scope}
        expected, _ = run(data(), **options)
        path = tmp_path / f"{design}.parquet"
        file, _ = run(data(), **options, out=path, gene_chunk_size=7)
        assert file.n_rows == expected.n_rows
        loaded = file.load()
        for name in expected.columns:
            both = loaded[name], expected[name]
            if expected.kept is not None and both[0].dtype.kind == "i":
                both = loaded.flat(name), expected.flat(name)  # without meaning elsewhere
            bits = [np.ascontiguousarray(values).view(np.int64) for values in both]
            np.testing.assert_array_equal(*bits, err_msg=name)
        pd.testing.assert_frame_equal(
            pd.read_parquet(path).astype(LABELS),
            expected.to_pandas().astype(LABELS),
            check_exact=True,
        )


@given(
    p=st.lists(
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 5e-324, 0.01, 0.5, 1.0])),
        min_size=6,
        max_size=6,
    ),
    kept=st.one_of(st.none(), st.lists(st.booleans(), min_size=6, max_size=6)),
    method=st.sampled_from(METHODS),
    scope=st.sampled_from(SCOPES),
    backend=st.sampled_from(BACKENDS),
)
def test_any_p_values(p, kept, method, scope, backend):
    p = np.array(p).reshape(2, 3)
    mask = None if kept is None else np.array(kept).reshape(2, 3)
    found = correct(p, mask, CorrectionOptions(method, scope), load_kernels(backend), map)
    everything = np.ones(p.shape, bool) if mask is None else mask
    np.testing.assert_array_equal(np.isnan(found), ~everything)
    assert (found[everything] >= p[everything]).all()
    assert (found[everything] <= 1).all()
    for family in families(everything, scope):
        # Worst seen: 1.3e-16, beside the smallest of all floats.
        np.testing.assert_allclose(
            found[family], adjusted(p[family], method), rtol=1e-14, atol=1e-323
        )
        order = np.argsort(p[family])
        assert (np.diff(found[family][order]) >= 0).all()


def test_fewer_tests_are_corrected_for_after_filters():
    """The rows that are kept have smaller corrected p-values than among all."""
    every, _ = run(data(), fdr_method="bonferroni")
    fewer, _ = run(data(), fdr_method="bonferroni", min_fraction=0.55)
    kept = fewer.kept
    assert 0 < fewer.n_rows < every.n_rows
    small = kept & (every["p_value"] > 0) & (every["p_value"] < 1 / every.n_rows)
    assert small.any()
    ratio = fewer["fdr"][small] / every["fdr"][small]
    np.testing.assert_allclose(ratio, fewer.n_rows / every.n_rows, rtol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fdr_method": "benjamini-hochburg"},
            "Unknown fdr_method 'benjamini-hochburg'. Did you mean 'benjamini-hochberg'?",
        ),
        (
            {"fdr_method": "bh"},
            "Unknown fdr_method 'bh'. Available (4): 'benjamini-hochberg', 'benjamini-yekutieli', "
            "'bonferroni', 'empirical'.",
        ),
        ({"fdr_method": None}, "Unknown fdr_method 'None'"),
        ({"fdr_scope": "targets"}, "Unknown fdr_scope 'targets'. Did you mean 'target'?"),
        ({"fdr_scope": None}, "Unknown fdr_scope 'None'. Available (3): 'all', 'target', 'gene'."),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(OptionError) as caught:
        pdex_gpu.differential_expression(data(), "group", **options)
    assert message in str(caught.value)
