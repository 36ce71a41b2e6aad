"""What every kernel set must do, whatever it is made of: the contract, as tests.

Truth is the reference kernel set on a plain dense matrix, which is itself held to rational
arithmetic, to counting pairs of cells, and to scipy (`test_reference_*`).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from screens import (
    DTYPES,
    KERNEL_SETS,
    LAYOUTS,
    Case,
    as_chunk,
    cases,
    design_of,
    exact_moments,
    exact_rank_sums,
    gene_kinds,
    kernel_set,
    make_case,
    with_explicit_zeros,
)

from pdex_gpu.backends import reference
from pdex_gpu.backends.contract import NonFiniteError
from pdex_gpu.sources.base import Chunk, NotCanonicalError
from pdex_gpu.stats.anderson import AndersonDarling
from pdex_gpu.stats.t_test import TTest
from pdex_gpu.stats.wilcoxon import Wilcoxon

# A few groups, one of a single cell, and more than one value in each.
SIZES = [9, 5, 1, 12]

# Compiled code has a version for each dtype: a few stand for all where values matter, not types.
SOME_DTYPES = ["float32", "float64", "int64"]


@pytest.fixture(scope="module", params=KERNEL_SETS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return kernel_set(request.param)


def outputs(
    kernels: ModuleType, chunk: Chunk, case: Case, genes: slice | None = None
) -> dict[str, np.ndarray]:
    """All that a kernel set says about a chunk."""
    genes = genes or case.genes
    with np.errstate(over="ignore"):  # expm1 of large values is infinite
        block = kernels.pack(chunk, case.design, map)
        moments = kernels.moments(block, genes, case.design, centred=True, expm1=True)
        sums = kernels.rank_sums(block, genes, case.design)
        a2 = kernels.anderson_darling(block, genes, case.design)
    assert (block.gene_start, block.n_genes) == (chunk.gene_start, chunk.n_genes)
    found = {
        "n_expressed": moments.n_expressed,
        "mean": moments.mean,
        "m2": moments.m2,
        "mean_expm1": moments.mean_expm1,
        "u2": sums.u2,
        "ties": sums.ties,
        "a2": a2,
    }
    n_groups, n_genes = case.design.n_groups, genes.stop - genes.start
    dtypes = {"n_expressed": np.int32, "u2": np.int64}
    for name, array in found.items():
        of_pairs = name in ("u2", "ties", "a2")
        assert array.shape == (n_groups - of_pairs, n_genes), name
        assert array.dtype == dtypes.get(name, np.float64), name
    return found | {"fractional": np.array(block.fractional)}


def truth(case: Case) -> dict[str, np.ndarray]:
    return outputs(reference, as_chunk(case.values, "C"), case)


def assert_conforms(found: dict[str, np.ndarray], case: Case, genes: slice | None = None) -> None:
    genes = genes or case.genes
    expected = truth(case)
    for name in ("n_expressed", "u2", "ties"):
        np.testing.assert_array_equal(found[name], expected[name][:, genes], name)
    x = np.abs(case.values[:, genes].astype(np.float64))
    with np.errstate(over="ignore"):
        sizes = {"mean": x, "mean_expm1": np.expm1(np.minimum(x, 700.0))}
    for name, size in sizes.items():
        # Terms of either sign may cancel, so means are held to the size of what was added up.
        # Worst seen: 5.6e-16 of it for the mean, 3.1e-15 for that of expm1.
        atol = np.broadcast_to(1e-14 * size.mean(axis=0), found[name].shape)
        close = np.isclose(found[name], expected[name][:, genes], rtol=1e-12, atol=atol)
        assert close.all(), name
    # Worst seen: m2 3e-15, a2 1.2e-15.
    np.testing.assert_allclose(found["m2"], expected["m2"][:, genes], rtol=1e-12, err_msg="m2")
    np.testing.assert_allclose(found["a2"], expected["a2"][:, genes], rtol=1e-10, err_msg="a2")


# --- the reference against truths of its own -------------------------------------------------


@given(case=cases(SOME_DTYPES))
def test_reference_moments_are_exact(case: Case) -> None:
    found = truth(case)
    for j in range(case.values.shape[1]):
        for g, sample in enumerate(case.samples(j)):
            x = sample.astype(np.float64)
            assert found["n_expressed"][g, j] == sum(v != 0 for v in sample.tolist())
            mean, m2 = exact_moments(x)
            # Worst seen: means 4 % of this tolerance, m2 3.3e-16.
            size = np.abs(x).mean()
            np.testing.assert_allclose(found["mean"][g, j], mean, rtol=1e-14, atol=1e-15 * size)
            np.testing.assert_allclose(found["m2"][g, j], m2, rtol=1e-13)
            if np.abs(x).max() < 700:
                expm1 = float(sum(np.expm1(v) for v in x.tolist())) / len(x)
                size = np.abs(np.expm1(x)).mean()
                np.testing.assert_allclose(
                    found["mean_expm1"][g, j], expm1, rtol=1e-14, atol=1e-15 * size
                )


@given(case=cases(SOME_DTYPES))
def test_reference_rank_sums_count_pairs_of_cells(case: Case) -> None:
    found = truth(case)
    for j in range(case.values.shape[1]):
        control, *targets = case.samples(j)
        for t, target in enumerate(targets):
            u2, ties = exact_rank_sums(target, control)
            assert found["u2"][t, j] == u2
            assert found["ties"][t, j] == ties


@given(case=cases(["float64"]))
def test_reference_agrees_with_scipy(case: Case) -> None:
    found, n_cells = truth(case), case.design.n_cells
    u, p_u = Wilcoxon().finish(found["u2"], found["ties"], n_cells)
    a, p_a = AndersonDarling().finish(found["a2"], n_cells)
    t, p_t = TTest().finish(found["mean"], found["m2"], n_cells)
    for j in range(case.values.shape[1]):
        control, *targets = case.samples(j)
        for k, target in enumerate(targets):
            pooled = np.concatenate([control, target])
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                mwu = stats.mannwhitneyu(target, control)
                assert u[k, j] == mwu.statistic
                p = 1.0 if np.isnan(mwu.pvalue) else mwu.pvalue
                np.testing.assert_allclose(p_u[k, j], p, rtol=1e-12, atol=0)
                if len(set(pooled.tolist())) < 2:
                    assert np.isnan(a[k, j])
                    assert p_a[k, j] == 1.0
                    assert np.isnan(t[k, j])
                    assert p_t[k, j] == 1.0
                    continue
                if len(pooled) >= 4:
                    ad = stats.anderson_ksamp([target, control])
                    # (A2 - 1) / sigma may be near zero. Worst seen: 9e-16, its p 9e-16.
                    np.testing.assert_allclose(a[k, j], ad.statistic, rtol=1e-10, atol=1e-13)
                    np.testing.assert_allclose(p_a[k, j], ad.pvalue, rtol=1e-9)
                if min(np.ptp(target), np.ptp(control)) > 0:
                    tt = stats.ttest_ind(target, control)
                    # Worst seen: 2.2e-16.
                    np.testing.assert_allclose(t[k, j], tt.statistic, rtol=1e-12)


# --- every kernel set against the reference --------------------------------------------------


@given(case=cases(SOME_DTYPES), layout=st.sampled_from(["C", "csr-int32"]), data=st.data())
def test_kernels_agree_with_the_reference(
    kernels: ModuleType, case: Case, layout: str, data: st.DataObject
) -> None:
    n_genes = case.values.shape[1]
    start = data.draw(st.integers(0, n_genes - 1))
    genes = slice(start, data.draw(st.integers(start + 1, n_genes)))
    found = outputs(kernels, as_chunk(case.values, layout), case, genes)
    assert_conforms(found, case, genes)
    assert found["fractional"] == truth(case)["fractional"]


@pytest.mark.parametrize("layout", ["C", "csr-int32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(kernels: ModuleType, dtype: str, layout: str) -> None:
    case = make_case(SIZES, gene_kinds(dtype), dtype, seed=1)
    assert_conforms(outputs(kernels, as_chunk(case.values, layout), case), case)


@pytest.mark.parametrize("kind", ["last bit", "extremes"])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_integers_lose_no_bit(kernels: ModuleType, dtype: str, kind: str) -> None:
    case = make_case([30, 30], [kind], dtype, seed=2)
    control, target = case.samples(0)
    assert exact_rank_sums(*(s.astype(np.float64) for s in (target, control))) != exact_rank_sums(
        target, control
    ), "the case must tell 64 bits from 53"
    found = outputs(kernels, as_chunk(case.values, "csr-int32"), case)
    assert (found["u2"][0, 0], found["ties"][0, 0]) == exact_rank_sums(target, control)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gene_start", [0, 3])
def test_every_layout_gives_the_same_bits(
    kernels: ModuleType, layout: str, gene_start: int
) -> None:
    case = make_case(SIZES, gene_kinds("float32"), "float32", seed=3)
    plain = outputs(kernels, as_chunk(case.values, "C"), case)
    chunk = as_chunk(case.values, layout, gene_start, extra=2 if gene_start else 0)
    assert chunk.gene_start == gene_start
    found = outputs(kernels, chunk, case)
    for name, array in plain.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("layout", ["C", "csr-int32", "csc-int32"])
def test_more_cells_than_one_task_packs(kernels: ModuleType, layout: str) -> None:
    case = make_case([1500, 1, 900, 2200], ["counts", "normal", "zeros"], "float32", seed=4)
    assert_conforms(outputs(kernels, as_chunk(case.values, layout), case), case)


def test_pack_may_run_its_tasks_in_any_order(kernels: ModuleType) -> None:
    def backwards(function, items):
        return iter([function(item) for item in list(items)[::-1]])

    case = make_case([1500, 1, 900, 2200], ["counts", "normal", "zeros"], "float32", seed=4)
    for layout in ("C", "F", "csr-int32", "csc-int32"):
        chunk = as_chunk(case.values, layout)
        blocks = [kernels.pack(chunk, case.design, run) for run in (map, backwards)]
        means = [
            kernels.moments(b, case.genes, case.design, centred=False, expm1=False).mean
            for b in blocks
        ]
        assert means[0].tobytes() == means[1].tobytes()


def test_moments_are_computed_only_when_asked_for(kernels: ModuleType) -> None:
    case = make_case(SIZES, ["normal"], "float32", seed=5)
    block = kernels.pack(as_chunk(case.values, "C"), case.design, map)
    found = kernels.moments(block, case.genes, case.design, centred=False, expm1=False)
    assert found.m2 is None
    assert found.mean_expm1 is None


def test_squared_deviations_far_from_zero(kernels: ModuleType) -> None:
    """Values one unit apart where float64 has no half: the mean itself must be rounded."""
    rng = np.random.default_rng(6)
    values = (2.0**52 + rng.integers(0, 3, (64, 1))).astype(np.float64)
    case = Case(values, design_of(np.repeat([0, 1], [31, 33]), 2))
    found = outputs(kernels, as_chunk(values, "C"), case)
    for g, sample in enumerate(case.samples(0)):
        # Worst seen: no error.
        np.testing.assert_allclose(found["m2"][g, 0], exact_moments(sample)[1], rtol=1e-13)


@pytest.mark.parametrize("value", [0.1, -0.3, 1e-300, 7.7e17, 1e200])
def test_a_constant_has_its_own_mean_and_no_deviation(kernels: ModuleType, value: float) -> None:
    values = np.full((23, 1), value)
    case = Case(values, design_of(np.repeat([0, 1], [10, 13]), 2))
    found = outputs(kernels, as_chunk(values, "C"), case)
    assert (found["mean"] == value).all()
    assert (found["m2"] == 0).all()
    assert np.isnan(found["a2"]).all()


# --- zeros -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("kind", ["counts", "tied halves", "zeros", "few values"])
def test_explicit_zeros_are_zeros(kernels: ModuleType, layout: str, kind: str) -> None:
    case = make_case(SIZES, [kind, "counts"], "float32", seed=7)
    values = case.values.copy()
    zeros = np.flatnonzero(values == 0)
    values.flat[zeros[::2]] = -0.0
    assert np.signbit(values).any()
    plain = outputs(kernels, as_chunk(case.values, "C"), case)
    assert plain["n_expressed"].sum() == np.count_nonzero(values[case.design.order])
    for chunk in (with_explicit_zeros(values, layout), as_chunk(values, "C")):
        found = outputs(kernels, chunk, case)
        for name, array in plain.items():
            assert found[name].tobytes() == array.tobytes(), name
    assert_conforms(plain, case)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_entry_at_all(kernels: ModuleType, layout: str) -> None:
    case = make_case(SIZES, ["zeros"] * 3, "float32", seed=8)
    found = outputs(kernels, as_chunk(case.values, layout), case)
    assert_conforms(found, case)
    assert np.isnan(found["a2"]).all()
    n = case.design.n_cells
    np.testing.assert_array_equal(found["u2"][:, 0], n[1:] * n[0])


@pytest.mark.parametrize(
    ("value", "fractional"),
    # 0.001 itself is not above the limit, in either precision.
    [(2.0, False), (2.0005, False), (0.001, False), (2.5, True), (0.002, True), (-0.5, False)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fractional_is_what_pdex_calls_log_transformed(
    kernels: ModuleType, dtype: str, value: float, fractional: bool
) -> None:
    values = np.zeros((6, 1), dtype)
    values[3], values[4] = value, 40_000
    design = design_of(np.array([0, 0, 0, 1, 1, 1]), 2)
    assert kernels.pack(as_chunk(values, "csr-int32"), design, map).fractional is fractional


# --- input that must be refused --------------------------------------------------------------


@pytest.mark.parametrize("layout", ["C", "F", "csr-int32", "csc-int32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["counts", "normal"])
def test_non_finite_values_name_the_first_cell_and_gene(
    kernels: ModuleType, layout: str, bad: float, kind: str
) -> None:
    case = make_case([30, 30], [kind] * 6, "float32", seed=9)
    values = case.values.copy()
    values[50, 0] = values[20, 5] = values[20, 2] = bad  # by cell, then by gene
    values[4, 1] = np.nan  # in a cell of no group
    codes = np.where(case.design.codes < 0, 2, case.design.codes)
    codes[[4, 20, 50]] = 2, 1, 0
    design = design_of(codes, 2)
    with pytest.raises(NonFiniteError) as caught:
        kernels.pack(as_chunk(values, layout, gene_start=3, extra=1), design, map)
    assert (caught.value.cell, caught.value.gene) == (20, 2 + 3)
    np.testing.assert_equal(float(caught.value.value), bad)


@pytest.mark.parametrize("layout", ["C", "F", "csr-int32", "csc-int32"])
def test_cells_of_no_group_may_hold_anything(kernels: ModuleType, layout: str) -> None:
    case = make_case(SIZES, ["counts", "normal"], "float32", seed=10, left_out=4)
    values = case.values.copy()
    values[case.design.codes < 0] = [np.nan, -np.inf]
    plain = outputs(kernels, as_chunk(case.values, layout), case)
    found = outputs(kernels, as_chunk(values, layout), case)
    for name, array in plain.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        (layout, fault)
        for layout in ("csr-int32", "csr-int64", "csr-uint16", "csc-int32")
        for fault in ("unsorted", "repeated", "too large", "negative")
        if (layout, fault) != ("csr-uint16", "negative")  # there is no such thing
    ],
)
def test_indices_that_are_not_canonical_are_refused(
    kernels: ModuleType, layout: str, fault: str
) -> None:
    case = make_case([30, 30], ["ones"] * 5, "float32", seed=11, left_out=0)
    chunk = as_chunk(case.values, layout)
    indices = chunk.indices.copy()
    if fault == "unsorted":
        indices[[1, 2]] = indices[[2, 1]]
    elif fault == "repeated":
        indices[2] = indices[1]
    elif fault == "too large":
        per_line = 5 if layout.startswith("csr") else len(case.values)
        indices[per_line - 1] = per_line  # the first index that does not exist
    else:
        indices[0] = -1
    with pytest.raises(NotCanonicalError):
        kernels.pack(replace(chunk, indices=indices), case.design, map)


# --- places where an implementation may change its way ---------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64"])
def test_an_outlier_beside_a_tight_cluster(kernels: ModuleType, dtype: str) -> None:
    """Leading bits tell the outlier from the rest and nothing else: sorting has to look deeper."""
    rng = np.random.default_rng(12)
    n = 3000
    if dtype.startswith("float"):
        values = (1.0 + rng.integers(0, 500, n) * np.finfo(dtype).eps).astype(dtype)
        values[[5, 700]] = -np.finfo(dtype).max / 4, np.finfo(dtype).max / 4
    else:
        values = (10**15 + rng.integers(0, 500, n)).astype(dtype)
        values[[5, 700]] = 1, np.iinfo(dtype).max
    design = design_of(rng.integers(0, 4, n), 4)
    case = Case(values[:, None], design)
    block = kernels.pack(as_chunk(case.values, "C"), design, map)
    found = kernels.rank_sums(block, case.genes, design)
    expected = reference.rank_sums(
        reference.pack(as_chunk(case.values, "C"), design, map), case.genes, design
    )
    np.testing.assert_array_equal(found.u2, expected.u2)
    np.testing.assert_array_equal(found.ties, expected.ties)
    a2 = kernels.anderson_darling(block, case.genes, design)
    for t, target in enumerate(case.samples(0)[1:]):
        np.testing.assert_allclose(a2[t, 0], reference._a2(target, case.samples(0)[0]), rtol=1e-10)


def test_counts_too_large_for_a_table_among_small_ones(kernels: ModuleType) -> None:
    rng = np.random.default_rng(13)
    small = rng.poisson(1.0, (80, 5))
    small[:, [1, 3]] += rng.integers(0, 2, (80, 2)) * rng.integers(20_000, 65_536, (80, 2))
    small[:, 4] = np.where(np.arange(80) == 7, 65_535, 0)  # the largest uint16, on its own
    case = Case(small.astype(np.uint16), design_of(rng.integers(0, 4, 80), 4))
    assert_conforms(outputs(kernels, as_chunk(case.values, "csr-int32"), case), case)


@given(case=cases(["float32"]))
def test_tie_terms_in_floating_point(kernels: ModuleType, case: Case) -> None:
    """Of pooled samples too large for int64, by lowering the limit where there is one."""
    with pytest.MonkeyPatch.context() as patch:
        if kernels.name == "cpu":
            patch.setattr("pdex_gpu.backends.cpu.rank_sums.EXACT_TIES", 1)
        assert_conforms(outputs(kernels, as_chunk(case.values, "csr-int32"), case), case)


def test_tie_terms_beyond_int64(kernels: ModuleType) -> None:
    n_cells, n_ref = 2_200_000, 1_000_000
    values = np.zeros((n_cells, 1), np.float32)
    values[[3, 1_500_000, 1_500_001], 0] = 2.0, 2.0, -1.0
    codes = np.zeros(n_cells, np.int64)
    codes[n_ref:] = 1
    design = design_of(codes, 2)
    block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
    found = kernels.rank_sums(block, slice(0, 1), design)
    zeros = n_cells - 3
    assert zeros**3 > 2**63
    ties = (zeros**3 - zeros) + (2**3 - 2)
    np.testing.assert_allclose(found.ties, [[float(ties)]], rtol=1e-15)
    ref_zeros, target_zeros = n_ref - 1, n_cells - n_ref - 2
    above = 2 * ref_zeros + 1  # the 2.0 of the target
    assert found.u2[0, 0] == target_zeros * ref_zeros + above


def test_more_groups_than_16_bits_count(kernels: ModuleType) -> None:
    rng = np.random.default_rng(14)
    n_groups, n_ref = 66_000, 50
    x = rng.integers(-2, 4, n_groups - 1 + n_ref).astype(np.float32)
    codes = np.concatenate([np.zeros(n_ref, np.int64), np.arange(1, n_groups)])
    shuffled = rng.permutation(len(x))
    x, codes = x[shuffled], codes[shuffled]
    design = design_of(codes, n_groups)
    block = kernels.pack(as_chunk(x[:, None], "csr-int32"), design, map)
    found = kernels.rank_sums(block, slice(0, 1), design)
    control = np.sort(x[codes == 0])
    target = x[design.order[n_ref:]]
    left, right = (np.searchsorted(control, target, side) for side in ("left", "right"))
    np.testing.assert_array_equal(found.u2[:, 0], left + right)
    equal = np.unique(control, return_counts=True)[1]
    common = int((equal**3 - equal).sum())
    np.testing.assert_array_equal(
        found.ties[:, 0], common + 3 * (right - left) * (right - left + 1)
    )
