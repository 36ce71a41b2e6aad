"""What every kernel set must do, whatever it is made of: the contract, as tests.

Truth is the numpy kernel set on a plain dense matrix, which is itself held to rational
arithmetic, to counting pairs of cells, and to scipy (`test_reference_*`).
"""

from __future__ import annotations

import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from screens import (
    COMPARISONS,
    DTYPES,
    KERNEL_SETS,
    LAYOUTS,
    PTX,
    Case,
    as_chunk,
    cases,
    compared,
    design_of,
    exact_distances,
    exact_higher_moments,
    exact_lowest,
    exact_moments,
    exact_placements,
    exact_rank_sums,
    gene_kinds,
    kernel_set,
    make_case,
    with_explicit_zeros,
)

from pdex_gpu.backends.contract import NonFiniteError, scale_exponent
from pdex_gpu.backends.numpy import kernel_set as reference
from pdex_gpu.backends.outputs import N_LOWEST, GeneValues
from pdex_gpu.design.contrasts import Contrast
from pdex_gpu.sources.base import Chunk, NotCanonicalError
from pdex_gpu.stats.two_sample.anderson_darling import _sigma

# A few groups, one of a single cell, and more than one value in each.
SIZES = [9, 5, 1, 12]

# Compiled code has a version for each dtype: a few stand for all where values matter, not types.
SOME_DTYPES = ["float32", "float64", "int64"]


@pytest.fixture(scope="module", params=[*KERNEL_SETS, PTX])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return kernel_set(request.param)


#: Of tests with so many cells that the device that runs PTX would take minutes.
LARGE = pytest.mark.parametrize("kernels", KERNEL_SETS, indirect=True)

#: What kernels give for every (target, gene) of a contrast.
OF_PAIRS = {
    "u2": np.int64, "ties": np.float64, "above": np.int64, "below": np.int64,
    "placed": np.float64, "placed_reference": np.float64,
    "a2": np.float64, "a2_right": np.float64, "a2_continuous": np.float64,
    **{f"lowest_{k}": np.int32 for k in range(N_LOWEST)},
}  # fmt: skip

#: And for every (group, gene).
OF_GROUPS = {
    "n_expressed": np.int32, "mean": np.float64, "m2": np.float64, "mean_expm1": np.float64,
    "mean_log1p": np.float64, "m3": np.float64, "m4": np.float64,
}  # fmt: skip


#: And for the block.
SUMMARY = [("fractional", bool), ("minimum", np.float64), ("maximum", np.float64)]


def said_of(
    kernels: ModuleType, block: Any, genes: slice, contrast: Contrast
) -> dict[str, np.ndarray]:
    """All that a kernel set says about a contrast."""
    sums = kernels.rank_sums(block, genes, contrast, lowest=True)
    assert kernels.rank_sums(block, genes, contrast).lowest is None
    distances = kernels.kolmogorov_smirnov(block, genes, contrast)
    placements = kernels.placements(block, genes, contrast)
    np.testing.assert_array_equal(placements.sums.u2, sums.u2)
    np.testing.assert_array_equal(placements.sums.ties, sums.ties)
    a2 = {
        variant: kernels.anderson_darling(block, genes, contrast, variant=variant)
        for variant in ("midrank", "right", "continuous")
    }
    found = {
        "u2": sums.u2,
        "ties": sums.ties,
        "above": distances.above,
        "below": distances.below,
        "placed": placements.target,
        "placed_reference": placements.reference,
        "a2": a2["midrank"],
        "a2_right": a2["right"],
        "a2_continuous": a2["continuous"],
        **{f"lowest_{k}": sums.lowest[:, :, k] for k in range(N_LOWEST)},
    }
    for name, array in found.items():
        assert array.shape == (contrast.n_targets, genes.stop - genes.start), name
        assert array.dtype == OF_PAIRS[name], name
    return found


def outputs(
    kernels: ModuleType, chunk: Chunk, case: Case, genes: slice | None = None
) -> dict[str, np.ndarray]:
    """All that a kernel set says about a chunk; what it says of several contrasts is stacked."""
    genes = genes or case.genes
    with np.errstate(over="ignore"):  # expm1 of large values is infinite
        block = kernels.pack(chunk, case.design, map)
        moments = kernels.moments(
            block, genes, case.design, centred=True, expm1=True, log1p=True, higher=True
        )
    assert (block.gene_start, block.n_genes) == (chunk.gene_start, chunk.n_genes)
    found = {name: getattr(moments, name) for name in OF_GROUPS}
    for name, array in found.items():
        assert array.shape == (case.design.n_groups, genes.stop - genes.start), name
        assert array.dtype == OF_GROUPS[name], name
    of_contrasts = [said_of(kernels, block, genes, c) for c in case.design.contrasts]
    for name in OF_PAIRS:
        found[name] = np.concatenate([of_contrast[name] for of_contrast in of_contrasts])
    return found | {"summary": np.array(astuple(block.summary), SUMMARY)}


def truth(case: Case) -> dict[str, np.ndarray]:
    return outputs(reference, as_chunk(case.values, "C"), case)


def assert_conforms(found: dict[str, np.ndarray], case: Case, genes: slice | None = None) -> None:
    genes = genes or case.genes
    expected = {name: array[..., genes] for name, array in truth(case).items() if array.ndim}
    exact = [name for name in OF_PAIRS if not name.startswith("a2")]
    for name in ("n_expressed", *exact):
        np.testing.assert_array_equal(found[name], expected[name], name)
    x = case.values[:, genes].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.abs(np.log1p(x))
    sizes = {
        "mean": np.abs(x),
        "mean_expm1": np.expm1(np.minimum(np.abs(x), 700.0)),
        "mean_log1p": np.where(np.isfinite(logs), logs, 0.0),
    }
    for name, size in sizes.items():
        # Terms of either sign may cancel, so means are held to the size of what was added up.
        # Worst seen: 5.6e-16 of it for the mean, 3.1e-15 for that of expm1, 8e-16 for that of
        # log1p.
        atol = np.broadcast_to(1e-14 * size.mean(axis=0), found[name].shape)
        close = np.isclose(found[name], expected[name], rtol=1e-12, atol=atol, equal_nan=True)
        assert close.all(), name
    # Worst seen: m2 3e-15.
    np.testing.assert_allclose(found["m2"], expected["m2"], rtol=1e-12, err_msg="m2")
    # Cubes of either sign may cancel, so m3 is held to m2^3/2. It contains the rounding of the
    # mean, which matters where values are nearly constant; analyses use exact sums there.
    m2, rounding = expected["m2"], 2.0**-51 * np.abs(x).max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        equal = found["m3"] == expected["m3"]  # infinity, too
        near = np.abs(found["m3"] - expected["m3"]) <= 1e-12 * m2**1.5 + 3.0 * m2 * rounding
    assert (equal | near).all(), "m3"
    # The same rounding in fourth powers: all there is of m4 where values are nearly constant.
    m4 = expected["m4"]
    with np.errstate(over="ignore", invalid="ignore"):
        contained = 4.0 * m2**1.5 * rounding + 6.0 * m2 * rounding**2
        equal = found["m4"] == m4
        near = np.abs(found["m4"] - m4) <= 1e-12 * m4 + contained
    assert (equal | near).all(), "m4"
    # Worst seen: a2 1.2e-15.
    for name in ("a2", "a2_right", "a2_continuous"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, err_msg=name)


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
            m3, m4 = exact_higher_moments(x)
            # Worst seen in 300 random samples: m3 4e-15 of m2^3/2, m4 6.2e-15.
            np.testing.assert_allclose(found["m3"][g, j], m3, rtol=0, atol=1e-13 * m2**1.5)
            np.testing.assert_allclose(found["m4"][g, j], m4, rtol=1e-13)
            if np.abs(x).max() < 700:
                expm1 = float(sum(np.expm1(v) for v in x.tolist())) / len(x)
                size = np.abs(np.expm1(x)).mean()
                np.testing.assert_allclose(
                    found["mean_expm1"][g, j], expm1, rtol=1e-14, atol=1e-15 * size
                )


@given(case=cases(SOME_DTYPES, COMPARISONS))
def test_reference_counts_pairs_of_cells(case: Case) -> None:
    found = truth(case)
    for j in range(case.values.shape[1]):
        for row, (target, control) in enumerate(case.pairs(j)):
            assert (found["u2"][row, j], found["ties"][row, j]) == exact_rank_sums(target, control)
            distances = exact_distances(target, control)
            assert (found["above"][row, j], found["below"][row, j]) == distances
            placed = found["placed"][row, j], found["placed_reference"][row, j]
            assert placed == exact_placements(target, control)
            lowest = [found[f"lowest_{k}"][row, j] for k in range(N_LOWEST)]
            assert lowest == exact_lowest(target, control)


def test_comparisons_are_of_all_kinds() -> None:
    """What the cases are made of: contrasts of groups that follow each other, and that do not."""
    kinds, made = set(), {}
    for comparison in COMPARISONS:
        case = make_case(SIZES, ["counts"], "float32", seed=0, comparison=comparison)
        made[comparison] = case.design
        kinds |= {(c.against.value, c.span is not None) for c in case.design.contrasts}
        rows = sum(c.n_targets for c in case.design.contrasts)
        assert rows == len(list(case.pairs(0)))
        for contrast in case.design.contrasts:
            assert (contrast.n_reference > 0).all()
    assert kinds == {
        (against, follow) for against in ("reference", "rest", "complement")
        for follow in (True, False)
    }  # fmt: skip
    assert (made["background"].contrasts[0].rows < 0).any()
    assert all(c.span.start > 0 for c in made["levels"].contrasts[1:])
    assert len(made["strata"].contrasts) == 2


@given(case=cases(["float64"], COMPARISONS))
def test_reference_agrees_with_scipy(case: Case) -> None:
    found = truth(case)
    variants = {"midrank": "a2", "right": "a2_right"}
    if "variant" in inspect.signature(stats.anderson_ksamp).parameters:  # scipy 1.17
        variants["continuous"] = "a2_continuous"
    for j in range(case.values.shape[1]):
        for row, (target, control) in enumerate(case.pairs(j)):
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                assert found["u2"][row, j] == 2 * stats.mannwhitneyu(target, control).statistic
                size = len(target) * len(control)
                for name, alternative in (("above", "greater"), ("below", "less")):
                    distance = stats.ks_2samp(target, control, alternative).statistic
                    # Worst seen: 2.3e-16.
                    np.testing.assert_allclose(
                        found[name][row, j] / size, distance, rtol=1e-14, atol=1e-15
                    )
                pooled = np.concatenate([target, control])
                for variant, name in variants.items():
                    a2 = found[name][row, j]
                    if len(set(pooled.tolist())) < 2:
                        assert np.isnan(a2)
                    elif len(pooled) >= 4:
                        chosen = (
                            {"variant": variant}
                            if len(variants) == 3
                            else {"midrank": variant == "midrank"}
                        )
                        normalised = stats.anderson_ksamp([target, control], **chosen).statistic
                        expected = 1.0 + normalised * _sigma(len(target), len(control))
                        # Worst seen: 1.2e-15.
                        np.testing.assert_allclose(a2, expected, rtol=1e-12)


# --- every kernel set against the reference --------------------------------------------------


def pooled_counts(values: GeneValues, t: int) -> list[int]:
    """The numbers of equal cells of a target and what it is compared with, in ascending order."""
    if values.pooled:
        return values.cells.tolist()
    counts = {2 * r + 1: [n] for r, n in enumerate(values.cells.tolist())}
    its = values.target == t
    for place, n in zip(values.place[its].tolist(), values.count[its].tolist(), strict=True):
        if place % 2:
            counts[place][0] += n
        else:
            counts.setdefault(place, []).append(n)
    return [n for place in sorted(counts) for n in counts[place]]


@given(case=cases([*SOME_DTYPES, "uint16"], COMPARISONS), layout=st.sampled_from(LAYOUTS[:2]))
def test_distinct_values_are_counted(kernels: ModuleType, case: Case, layout: str) -> None:
    block = kernels.pack(as_chunk(case.values, layout), case.design, map)
    found = [
        kernels.kolmogorov_smirnov(block, case.genes, contrast, values=True)
        for contrast in case.design.contrasts
    ]
    for j in range(case.values.shape[1]):
        counts = [
            pooled_counts(distances.values[0, j], t)
            for distances in found
            for t in range(len(distances.above))
        ]
        pairs = [np.concatenate(pair) + 0 for pair in case.pairs(j)]  # -0.0 becomes 0.0
        assert counts == [np.unique(pair, return_counts=True)[1].tolist() for pair in pairs]
    for distances, contrast in zip(found, case.design.contrasts, strict=True):
        assert distances.values.shape == (1, case.values.shape[1])
        plain = kernels.kolmogorov_smirnov(block, case.genes, contrast)
        assert plain.values is None
        np.testing.assert_array_equal(plain.above, distances.above)
        np.testing.assert_array_equal(plain.below, distances.below)
        expected = reference.kolmogorov_smirnov(
            reference.pack(as_chunk(case.values, "C"), case.design, map), case.genes, contrast,
            values=True,
        )  # fmt: skip
        for its, other in zip(distances.values[0], expected.values[0], strict=True):
            assert its.pooled == other.pooled == contrast.pooled
            for name in ("cells", "target", "place", "count"):
                np.testing.assert_array_equal(
                    getattr(its, name), getattr(other, name), name, strict=True
                )


@given(
    case=cases([*SOME_DTYPES, "uint16"], COMPARISONS),
    layout=st.sampled_from(["C", "csr-int32"]),
    data=st.data(),
)
def test_kernels_agree_with_the_reference(
    kernels: ModuleType, case: Case, layout: str, data: st.DataObject
) -> None:
    n_genes = case.values.shape[1]
    start = data.draw(st.integers(0, n_genes - 1))
    genes = slice(start, data.draw(st.integers(start + 1, n_genes)))
    found = outputs(kernels, as_chunk(case.values, layout), case, genes)
    assert_conforms(found, case, genes)
    assert found["summary"] == truth(case)["summary"]


def assert_bits_of_the_cpu(kernels: ModuleType, case: Case) -> None:
    if kernels.name != "cuda":
        pytest.skip("of devices")
    pytest.importorskip("numba")  # machines with a GPU may have CuPy alone
    found = outputs(kernels, as_chunk(case.values, "csr-int32"), case)
    expected = outputs(kernel_set("cpu"), as_chunk(case.values, "C"), case)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], name, strict=True)


@given(case=cases([*SOME_DTYPES, "uint16"], COMPARISONS))
def test_a_device_gives_the_bits_of_the_cpu(kernels: ModuleType, case: Case) -> None:
    assert_bits_of_the_cpu(kernels, case)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_device_gives_the_bits_of_the_cpu_with_many_cells(
    kernels: ModuleType, dtype: str, comparison: str
) -> None:
    kinds = ["counts", "normal", "zeros"]
    assert_bits_of_the_cpu(
        kernels, make_case([600, 1, 300, 900], kinds, dtype, seed=5, comparison=comparison)
    )


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("layout", ["C", "csr-int32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(kernels: ModuleType, dtype: str, layout: str) -> None:
    case = make_case(SIZES, gene_kinds(dtype), dtype, seed=1, comparison="everything")
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


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gene_start", [0, 3])
def test_every_layout_gives_the_same_bits(
    kernels: ModuleType, layout: str, gene_start: int
) -> None:
    case = make_case(SIZES, gene_kinds("float32"), "float32", seed=3, comparison="everything")
    plain = outputs(kernels, as_chunk(case.values, "C"), case)
    chunk = as_chunk(case.values, layout, gene_start, extra=2 if gene_start else 0)
    assert chunk.gene_start == gene_start
    found = outputs(kernels, chunk, case)
    for name, array in plain.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", ["float32", "uint16", "int64"])
def test_genes_alone_and_side_by_side_give_the_same_bits(kernels: ModuleType, dtype: str) -> None:
    case = make_case(SIZES, gene_kinds(dtype), dtype, seed=15, comparison="everything")
    block = kernels.pack(as_chunk(case.values, "C"), case.design, map)
    for contrast in case.design.contrasts:
        together = said_of(kernels, block, case.genes, contrast)
        alone = [slice(j, j + 1) for j in range(case.values.shape[1])]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(partial(said_of, kernels, block, contrast=contrast), alone))
        for name, array in together.items():
            joined = np.concatenate([of_gene[name] for of_gene in found], axis=1)
            assert joined.tobytes() == np.ascontiguousarray(array).tobytes(), name


@pytest.mark.sampled(every=5)
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
    assert found.mean_log1p is None


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


@pytest.mark.parametrize("exponent", [-1074, -1030, -700, -481, -163, -159, 155, 161, 480, 1020])
@pytest.mark.parametrize("centred", [True, False])
def test_values_whose_squares_are_no_float64_are_scaled(
    kernels: ModuleType, exponent: int, centred: bool
) -> None:
    """By a power of two, so that nothing but the exponent changes; float32 holds none of them."""
    rng = np.random.default_rng(12)
    plain = rng.integers(-3, 8, (41, 3)).astype(np.float64)
    plain[:20, 1], plain[:20, 2] = 0.0, 5.0  # a group of zeros, a group of one value
    values = np.ldexp(plain, exponent)
    design = design_of(np.repeat([0, 1], [20, 21]), 2)
    expected, found = (
        kernels.moments(
            kernels.pack(as_chunk(x, "C"), design, map), slice(0, 3), design, centred=centred,
            expm1=False,
        )
        for x in (plain, values)
    )  # fmt: skip
    assert expected.exponent is None
    np.testing.assert_array_equal(found.n_expressed, expected.n_expressed)
    np.testing.assert_array_equal(found.mean, np.ldexp(expected.mean, exponent))
    largest = np.array([[np.abs(x).max() for x in part.T] for part in (values[:20], values[20:])])
    scale = [
        [scale_exponent(max(int(np.frexp(x)[1]) - 1, -1023)) if x else 0 for x in row]
        for row in largest
    ]
    if not np.any(scale):
        assert found.exponent is None
        return
    np.testing.assert_array_equal(found.exponent, scale)


# --- zeros -----------------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("kind", ["counts", "tied halves", "zeros", "few values"])
def test_explicit_zeros_are_zeros(kernels: ModuleType, layout: str, kind: str) -> None:
    case = make_case(SIZES, [kind, "counts"], "float32", seed=7, comparison="everything")
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


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_entry_at_all(kernels: ModuleType, layout: str) -> None:
    case = make_case(SIZES, ["zeros"] * 3, "float32", seed=8, comparison="everything")
    found = outputs(kernels, as_chunk(case.values, layout), case)
    assert_conforms(found, case)
    for name in ("a2", "a2_right", "a2_continuous"):
        assert np.isnan(found[name]).all()
    pairs = [(len(target), len(control)) for target, control in case.pairs(0)]
    np.testing.assert_array_equal(found["u2"][:, 0], [m * n for m, n in pairs])
    np.testing.assert_array_equal(found["placed"][:, 0], [m * n * n for m, n in pairs])
    assert not found["above"].any()
    assert not found["below"].any()


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
    block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
    assert block.summary.fractional is fractional


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("layout", ["C", "F", "csr-int32", "csc-int32"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_smallest_and_largest_value_of_the_cells_that_take_part(
    kernels: ModuleType, dtype: str, layout: str
) -> None:
    own = np.dtype(dtype)
    if own.kind == "b":
        least, most = False, True
    else:
        limits = np.finfo(own) if own.kind == "f" else np.iinfo(own)
        least, most = limits.min, limits.max
    values = np.zeros((7, 3), own)
    values[2, 1], values[4, 2] = least, most
    design = design_of(np.array([0, 0, 0, 1, 1, 1, 2]), 2)
    summary = kernels.pack(as_chunk(values, layout), design, map).summary
    assert (summary.minimum, summary.maximum) == (float(least), float(most))
    values[2, 1] = values[4, 2] = 0  # what no group has does not count, nor does -0.0
    values[6] = most
    if own.kind == "f":
        values[3, 0] = -0.0
    summary = kernels.pack(as_chunk(values, layout), design, map).summary
    assert (summary.minimum, summary.maximum) == (0.0, 0.0)
    values[:, 1] = 1  # all above 0; the other genes have zeros
    summary = kernels.pack(as_chunk(values, layout), design, map).summary
    assert (summary.minimum, summary.maximum) == (0.0, 1.0)


@pytest.mark.parametrize("layout", ["C", "F", "csr-int32", "csc-int32"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extremes_of_negative_fractions(kernels: ModuleType, dtype: str, layout: str) -> None:
    values = np.array([[-0.1, 0.25], [-3.7, 1e-30], [-2.2, 7.3], [0.0, 0.0]], dtype)
    design = design_of(np.array([0, 1, 0, 1]), 2)
    summary = kernels.pack(as_chunk(values, layout), design, map).summary
    assert (summary.minimum, summary.maximum) == (float(values.min()), float(values.max()))
    summary = kernels.pack(as_chunk(-np.abs(values), layout), design, map).summary
    assert (summary.minimum, summary.maximum) == (-float(values.max()), 0.0)


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
    found = kernels.rank_sums(block, case.genes, design.contrasts[0])
    plain = reference.pack(as_chunk(case.values, "C"), design, map)
    expected = reference.rank_sums(plain, case.genes, design.contrasts[0])
    np.testing.assert_array_equal(found.u2, expected.u2)
    np.testing.assert_array_equal(found.ties, expected.ties)
    a2 = kernels.anderson_darling(block, case.genes, design.contrasts[0])
    np.testing.assert_allclose(
        a2, reference.anderson_darling(plain, case.genes, design.contrasts[0]), rtol=1e-10
    )


def test_counts_too_large_for_a_table_among_small_ones(kernels: ModuleType) -> None:
    rng = np.random.default_rng(13)
    small = rng.poisson(1.0, (80, 5))
    small[:, [1, 3]] += rng.integers(0, 2, (80, 2)) * rng.integers(20_000, 65_536, (80, 2))
    small[:, 4] = np.where(np.arange(80) == 7, 65_535, 0)  # the largest uint16, on its own
    codes = rng.integers(0, 4, 80)
    for comparison in ("reference", "rest", "pairs"):
        case = Case(small.astype(np.uint16), compared(codes, 4, comparison, rng))
        assert_conforms(outputs(kernels, as_chunk(case.values, "csr-int32"), case), case)


@given(case=cases(["float32", "uint16"], COMPARISONS))
def test_tie_terms_in_128_bits(kernels: ModuleType, case: Case) -> None:
    """Of pooled samples too large for int64, by lowering the limits where there are some."""
    with pytest.MonkeyPatch.context() as patch:
        if kernels.name == "cpu":
            patch.setattr("pdex_gpu.backends.cpu.rank_sums.NARROW", 1)
            patch.setattr("pdex_gpu.backends.cpu.rank_sums.MOST_GAINED", 3000)
        assert_conforms(outputs(kernels, as_chunk(case.values, "csr-int32"), case), case)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("comparison", ["reference", "rest"])
def test_many_distinct_values(kernels: ModuleType, comparison: str) -> None:
    """A2 of targets within a large pool is a small difference of large sums."""
    n = 100_000 if kernels.name == "cpu" else 4_000
    rng = np.random.default_rng(16)
    values = np.stack([rng.permutation(n) - 0.3 * n, rng.permutation(n) + 1.0], axis=1)
    # The last group holds the largest values of the second gene, the one before it a few cells.
    codes = np.where(values[:, 1] > 0.9 * n, 3, rng.integers(0, 2, n))
    codes[rng.permutation(n)[:40]] = 2
    case = Case(values, compared(codes, 4, comparison, rng))
    block = kernels.pack(as_chunk(values, "C"), case.design, map)
    plain = reference.pack(as_chunk(values, "C"), case.design, map)
    for variant in ("midrank", "right", "continuous"):
        a2, expected = (
            k.anderson_darling(b, case.genes, case.design.contrasts[0], variant=variant)
            for k, b in ((kernels, block), (reference, plain))
        )
        # Worst seen on the CPU: 4.4e-16.
        np.testing.assert_allclose(a2, expected, rtol=1e-10, err_msg=variant)


@pytest.mark.thorough
@LARGE
def test_placements_beyond_int64(kernels: ModuleType) -> None:
    # The reference counts with Python's integers, and slowly.
    half = 2_500 if kernels.name == "numpy" else 2_500_000
    values = np.zeros((2 * half, 1), np.float32)
    values[[3, half + 7, half + 8], 0] = 2.0, 2.0, -1.0
    codes = np.repeat([0, 1], half)
    zeros, own_zeros = half - 1, half - 2
    # Of the cells with zero, with 2, and with -1.
    of_target = own_zeros * zeros**2 + (2 * zeros + 1) ** 2
    of_reference = zeros * (2 + own_zeros) ** 2 + 1
    assert kernels.name == "numpy" or min(of_target, of_reference) > 2**63
    for comparison in ("reference", "rest"):
        design = compared(codes, 2, comparison, np.random.default_rng(0))
        block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
        found = kernels.placements(block, slice(0, 1), design.contrasts[0])
        assert found.target[-1] == float(of_target)
        assert found.reference[-1] == float(of_reference)


@pytest.mark.thorough
@LARGE
def test_tie_terms_beyond_int64(kernels: ModuleType) -> None:
    n_cells, n_ref = 2_200_000, 1_000_000
    values = np.zeros((n_cells, 1), np.float32)
    values[[3, 1_500_000, 1_500_001], 0] = 2.0, 2.0, -1.0
    codes = np.zeros(n_cells, np.int64)
    codes[n_ref:] = 1
    design = design_of(codes, 2)
    block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
    found = kernels.rank_sums(block, slice(0, 1), design.contrasts[0])
    zeros = n_cells - 3
    assert zeros**3 > 2**63
    ties = (zeros**3 - zeros) + (2**3 - 2)
    assert found.ties == float(ties)
    ref_zeros, target_zeros = n_ref - 1, n_cells - n_ref - 2
    above = 2 * ref_zeros + 1  # the 2.0 of the target
    assert found.u2[0, 0] == target_zeros * ref_zeros + above


def exact_sums(own_counts: np.ndarray, other_counts: np.ndarray) -> tuple[int, int, int, int]:
    """Twice U, the tie term and both sums of squared placements, with Python's integers.

    From the cells of a target, and of what it is compared with, at each value.
    """
    u2 = ties = of_target = of_other = below = 0
    above = int(own_counts.sum())
    for own, equal in zip(own_counts.tolist(), other_counts.tolist(), strict=True):
        above -= own
        u2 += own * (2 * below + equal)
        ties += (own + equal) ** 3 - (own + equal)
        of_target += own * (2 * below + equal) ** 2
        of_other += equal * (2 * above + own) ** 2
        below += equal
    return u2, ties, of_target, of_other


@pytest.mark.thorough
@pytest.mark.parametrize("comparison", ["reference", "rest", "background"])
@LARGE
def test_more_than_two_million_cells(kernels: ModuleType, comparison: str) -> None:
    """Sums of whole numbers beyond int64 and 2**53: rounded once, the same bits everywhere."""
    rng = np.random.default_rng(21)
    n, is_quick = 2_400_000, kernels.name == "cpu"
    n_entries, n_genes = (60_000, 3) if is_quick else (3_000, 1)
    codes = rng.choice(4, n, p=[0.917, 0.06, 0.02, 0.003])
    design = compared(codes, 4, comparison, rng)
    (contrast,) = design.contrasts
    assert contrast.n_pooled > 2_097_152
    for dtype in ("uint16", "float32") if is_quick else ("float32",):
        values = np.zeros((n, n_genes), dtype)
        for j in range(n_genes):
            x = rng.geometric(0.4, n_entries)
            scaled = x if dtype == "uint16" else x.astype(dtype) * np.dtype(dtype).type(0.3) - 1
            values[rng.choice(n, n_entries, replace=False), j] = scaled
        block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
        genes = slice(0, n_genes)
        found = kernels.rank_sums(block, genes, contrast)
        # The reference takes a minute for those.
        placed = kernels.name != "numpy" and kernels.placements(block, genes, contrast)
        for j in range(n_genes):
            distinct, at = np.unique(values[design.order, j], return_inverse=True)
            counts = np.stack(
                [
                    np.bincount(x, minlength=len(distinct))
                    for x in np.split(at, design.offsets[1:-1])
                ]
            )[contrast.groups]
            others = counts.sum(axis=0) if contrast.one_vs_rest else counts[0]
            targets = counts if contrast.one_vs_rest else counts[1:]
            for t, own in enumerate(targets):
                other = others - own if contrast.pooled else others
                u2, ties, of_target, of_other = exact_sums(own, other)
                assert ties > 2**63
                assert (found.u2[t, j], found.ties[t, j]) == (u2, float(ties))
                if placed:
                    assert (placed.sums.u2[t, j], placed.sums.ties[t, j]) == (u2, float(ties))
                    assert placed.target[t, j] == float(of_target)
                    assert placed.reference[t, j] == float(of_other)


@pytest.mark.thorough
@LARGE
def test_more_groups_than_16_bits_count(kernels: ModuleType) -> None:
    rng = np.random.default_rng(14)
    n_groups, n_ref = 66_000, 50
    x = rng.integers(-2, 4, n_groups - 1 + n_ref).astype(np.float32)
    codes = np.concatenate([np.zeros(n_ref, np.int64), np.arange(1, n_groups)])
    shuffled = rng.permutation(len(x))
    x, codes = x[shuffled], codes[shuffled]
    design = design_of(codes, n_groups)
    block = kernels.pack(as_chunk(x[:, None], "csr-int32"), design, map)
    found = kernels.rank_sums(block, slice(0, 1), design.contrasts[0])
    control = np.sort(x[codes == 0])
    target = x[design.order[n_ref:]]
    left, right = (np.searchsorted(control, target, side) for side in ("left", "right"))
    np.testing.assert_array_equal(found.u2[:, 0], left + right)
    equal = np.unique(control, return_counts=True)[1]
    common = int((equal**3 - equal).sum())
    np.testing.assert_array_equal(
        found.ties[:, 0], common + 3 * (right - left) * (right - left + 1)
    )
