"""Whole runs on a device, emulated or real, needing nothing but numpy and scipy besides.

Other tests look at more, on the emulated device; these are the ones to run where a GPU is.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from device_arrays import DeviceArray, DeviceSparse
from device_runs import (
    METRICS,
    N_CELLS,
    STORAGE,
    TARGETS,
    dataset,
    make_values,
    run,
    same_bits,
    stored,
)
from emulated.backend import EmulatedCuda
from emulated.build import needs_compiler
from scipy import sparse

from pdex_gpu import differential_expression
from pdex_gpu.backends.cuda.probe import probe
from pdex_gpu.errors import DataError
from pdex_gpu.results.schema import EXTRA, VALUES


@pytest.fixture(params=[pytest.param("emulated", marks=needs_compiler),
                        pytest.param("cuda", marks=pytest.mark.gpu)])  # fmt: skip
def on_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ``backend="cuda"`` run; a function that puts a matrix on the device."""
    if request.param == "emulated":
        EmulatedCuda().install(monkeypatch)
        return lambda m: DeviceSparse(m) if sparse.issparse(m) else DeviceArray(m)
    if not probe().usable:
        pytest.skip("no CUDA device; `pdex-gpu backends` says why")

    def send(matrix: Any) -> Any:
        import cupy
        from cupyx.scipy import sparse as on_gpu

        if not sparse.issparse(matrix):
            return cupy.asarray(matrix, order="F" if matrix.flags.f_contiguous else "C")
        return {"csr": on_gpu.csr_matrix, "csc": on_gpu.csc_matrix}[matrix.format](matrix)

    return send


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["counts", "float32", "float64", "int64"])
def test_agrees_with_the_reference(on_device: Any, dtype: str, metric: str) -> None:
    values = make_values(dtype)
    found = run(stored(values, "csr"), metric)
    expected = run(values, metric, backend="numpy", engine="serial")
    exact = {"wilcoxon": ("statistic", "p_value"), "ks": ("statistic", "p_value")}.get(metric, ())
    for name in VALUES:
        if name in exact:
            np.testing.assert_array_equal(found[name], expected[name], name)
        else:
            # Worst seen, emulated: 9e-13, of a t statistic near zero.
            np.testing.assert_allclose(
                found[name], expected[name], rtol=1e-11, atol=1e-15, err_msg=name
            )
    assert found.provenance["backend"] == "cuda"


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", METRICS)
def test_the_same_bits_however_it_is_stored_and_cut(on_device: Any, metric: str) -> None:
    values = make_values("float32")
    expected = run(stored(values, "csr"), metric)
    for storage in STORAGE:
        matrix = stored(values, storage)
        for options in ({}, {"gene_chunk_size": 5}, {"device_memory": 10**6, "n_threads": 3}):
            same_bits(run(matrix, metric, **options), expected)
        same_bits(run(on_device(matrix), metric), expected)


DESIGNS: dict[str, dict[str, Any]] = {
    "references pooled": {"reference": ["g0", "g4"]},
    "each reference": {"reference": ["g0", "g2"], "comparison": "each_reference"},
    "rest": {"comparison": "rest"},
    "perturbed": {"comparison": "perturbed"},
    "pairs": {"comparison": "pairs", "pairs": [("g3", "g1"), ("g1", "g5"), ("g2", "g1")],
              "groups": None},
    "strata": {"strata": "batch"},
    "strata, rest": {"strata": "batch", "comparison": "rest"},
    "within": {"groupby": ["group", "batch"]},
    "guides": {"guides": "g", "groupby": None, "comparison": "rest", "groups": None},
}  # fmt: skip


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_agrees_with_the_reference_and_the_cpu(
    on_device: Any, design: str, metric: str
) -> None:
    values, options = make_values("float32"), {"groupby": "group"} | DESIGNS[design]
    stratified = "strata" in options
    if stratified and metric == "ks":
        pytest.skip("there is no stratified form")
    missing = {"auroc_low", "auroc_high"} if stratified else set()
    missing |= set() if metric == "wilcoxon" else {"z"}
    options |= {"columns": [name for name in EXTRA if name not in missing]}
    given = {"reference": "g0", "groups": TARGETS, "progress": False, "metric": metric} | options
    labelled = dataset(stored(values, "csr"))
    found = differential_expression(labelled, backend="cuda", **given)
    labelled = dataset(values)
    expected = differential_expression(labelled, backend="numpy", engine="serial", **given)
    exact = ("statistic", "p_value", "auroc") if metric in ("wilcoxon", "ks") else ()
    for name in found.columns:
        if name in exact:
            np.testing.assert_array_equal(found[name], expected[name], name)
            continue
        # Worst seen, emulated: 2.2e-11 of a conditional p-value, otherwise 2.9e-15.
        judged = name in ("p_value", "fdr", "log10_p")
        rtol, atol = (1e-10, 1e-12 if name == "log10_p" else 1e-15) if judged else (1e-12, 1e-15)
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
    if importlib.util.find_spec("numba") is None:
        return  # a machine with a GPU may have CuPy alone
    expected = differential_expression(labelled, backend="cpu", **given)
    for name in found.columns:
        np.testing.assert_array_equal(found[name], expected[name], name)


@pytest.mark.parametrize("storage", STORAGE)
def test_nan_is_named(on_device: Any, storage: str) -> None:
    values = make_values("float32")
    values[20, 3] = np.nan
    for matrix in (stored(values, storage), on_device(stored(values, storage))):
        with pytest.raises(DataError, match=r"X is nan in cell 'cell20' \(row 20\), gene 'gene3'"):
            run(matrix, "wilcoxon")


def test_unsorted_indices_on_the_device(on_device: Any) -> None:
    matrix = sparse.csr_matrix(make_values("float32"))
    expected = run(matrix, "wilcoxon")
    for row in range(N_CELLS):
        part = slice(*matrix.indptr[row : row + 2])
        matrix.indices[part], matrix.data[part] = (
            matrix.indices[part][::-1],
            matrix.data[part][::-1],
        )
    same_bits(run(on_device(matrix), "wilcoxon"), expected)


def test_indices_of_other_types_on_the_device_are_refused(emulated_cuda: EmulatedCuda) -> None:
    matrix = sparse.csr_matrix(make_values("float32"))
    given: Any = DeviceSparse(matrix)
    given.indices = DeviceArray(matrix.indices.astype(np.uint32))
    with pytest.raises(DataError, match=r"indices of dtype uint32\. .* astype\('int32'\)"):
        run(given, "wilcoxon")
