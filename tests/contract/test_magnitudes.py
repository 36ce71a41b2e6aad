"""Values of any magnitude, mixed in a gene, on all kernel sets, held to exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from brute_force import run
from scipy import special
from screens import backend_of

from pdex_gpu.backends.cuda.dtypes import value_type, values_of
from pdex_gpu.stats.exact_moments import UNIT, Sums

LARGEST = np.finfo(np.float64).max
N_CELLS = 24
LABELS = np.tile(["ctrl", "a", "b", "c"], N_CELLS // 4)
BATCH = np.repeat(["p", "q"], N_CELLS // 2)
COLUMNS = ["mean_difference", "mean_difference_low", "mean_difference_high", "cohens_d",
           "log2_fold_change", "target_count_mean", "auroc", "log10_p"]  # fmt: skip
DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {},
    "each": {"comparison": "each_reference", "reference": ["ctrl", "a"]},
    "pairs": {"comparison": "pairs", "pairs": [("a", "b"), ("c", "ctrl")]},
    "rest": {"comparison": "rest"},
    "perturbed": {"comparison": "perturbed"},
    "strata": {"strata": "batch"},
    "strata of the rest": {"strata": "batch", "comparison": "rest"},
    "guides": {"comparison": "rest", "guides": "guides", "groupby": None},
}


def _genes(signed: bool) -> np.ndarray:
    """Genes of float64: overflowing, underflowing, far apart, and nearly constant."""
    rng = np.random.default_rng(7)

    def signs() -> np.ndarray:
        return rng.choice([-1.0, 1.0] if signed else [1.0], N_CELLS)

    def small(n: int = N_CELLS) -> np.ndarray:
        return rng.integers(1, 9, n).astype(np.float64)

    of_group = {"ctrl": 1e-250, "a": 1e200, "b": 1.0, "c": 1e-100}
    genes = [
        small() * signs() * 5e-324,
        small() * signs() * 1e-310,
        small() * signs() * 1e-160,
        small() * signs() * 1e154,
        small() * signs() * 1.9e307,
        rng.choice([LARGEST, 0.9 * LARGEST, 0.0], N_CELLS) * signs(),
        10.0 ** rng.uniform(-323, 308, N_CELLS) * signs(),
        10.0 ** rng.uniform(-40, 40, N_CELLS) * signs(),
        small() * np.array([of_group[label] for label in LABELS]) * signs(),
        np.where(np.arange(N_CELLS) == 5, 1e300, small() * signs()),
        np.where(np.arange(N_CELLS) == 6, 1e20, small() * signs()),
        small() + 1e12,
        small() / 64 + 2.0**45,
        small() * 2.0**-50 + 1.0,
        np.where(LABELS == "a", 5e5, 0.0) + small() * signs(),
    ]
    return np.stack(genes, axis=1)


def _integers(dtype: str) -> np.ndarray:
    """Genes of integers that float64 does not hold."""
    rng = np.random.default_rng(8)
    largest = np.iinfo(dtype).max
    genes = [
        [2**60 + int(x) for x in rng.integers(0, 1000, N_CELLS)],
        [largest - int(x) for x in rng.integers(0, 9, N_CELLS)],
        [2**53 + int(x) for x in rng.integers(0, 5, N_CELLS)],
        [int(x) for x in rng.integers(0, 5, N_CELLS)],
    ]
    if dtype == "int64":
        genes.append([int(x) for x in rng.integers(-largest, largest, N_CELLS)])
    return np.array(genes, dtype).T


MATRICES = {
    "float64": lambda: _genes(signed=False),
    "float64, signed": lambda: _genes(signed=True),
    "int64": lambda: _integers("int64"),
    "uint64": lambda: _integers("uint64"),
    "float32": lambda: np.random.default_rng(9).choice(
        [np.finfo(np.float32).max, 3e38, 1e-45, -3e38, 1.0], (N_CELLS, 2)
    ).astype(np.float32),
    "float16": lambda: np.random.default_rng(9).choice(
        [65504.0, 6e-8, -65504.0, 1.0], (N_CELLS, 2)
    ).astype(np.float16),
}  # fmt: skip


def guides() -> pd.DataFrame:
    carried = np.random.default_rng(10).random((N_CELLS, 3)) < 0.5
    return pd.DataFrame(carried, columns=[*"xyz"])


def screen(values: np.ndarray) -> anndata.AnnData:
    obs = pd.DataFrame({"group": LABELS, "batch": BATCH}, index=[f"c{i}" for i in range(N_CELLS)])
    return anndata.AnnData(values, obs, obsm={"guides": guides().set_index(obs.index)})


# --- exact arithmetic ---------------------------------------------------------------------------


def _mean(values: list[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def _squares(values: list[Fraction]) -> Fraction:
    return sum(((v - _mean(values)) ** 2 for v in values), Fraction(0))


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def root(square: Fraction, sign: Fraction | int = 1) -> float:
    """Square root of any magnitude, with a sign."""
    if not square:
        return 0.0
    shift = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    reduced = math.sqrt(square / Fraction(4) ** shift)
    return math.copysign(rounded(Fraction(reduced) * Fraction(2) ** shift), sign)


def truth(
    parts: list[tuple[list[Fraction], list[Fraction]]],
    variance: str,
    negative: bool,
    negative_gene: bool,
) -> dict[str, float]:
    """Of one comparison and gene, whose strata are `parts`; some matrix or gene may be negative."""
    x, y = ([v for part in parts for v in part[side]] for side in (0, 1))
    n, m = len(x), len(y)
    if variance == "strata":
        weights = [Fraction(len(a) * len(b), len(a) + len(b)) for a, b in parts]
        apart = [_mean(a) - _mean(b) for a, b in parts]
        total = sum(weights)
        d = sum(w * e for w, e in zip(weights, apart, strict=True)) / total
        inside = sum(_squares(a) + _squares(b) for a, b in parts)
        inside += sum(w * (e - d) ** 2 for w, e in zip(weights, apart, strict=True))
        df = Fraction(sum(len(a) + len(b) - 1 for a, b in parts) - 1)
        error, spread = inside / df / total, inside / df
    else:
        d, spread = _mean(x) - _mean(y), (_squares(x) + _squares(y)) / (n + m - 2)
        error, df = spread * Fraction(n + m, n * m), Fraction(n + m - 2)
        if variance != "pooled":
            k = n if variance == "overestimated" else m
            u, v = _squares(x) / (n - 1) / n, _squares(y) / (m - 1) / k
            error = u + v
            df = error**2 / (u**2 / (n - 1) + v**2 / (k - 1))
    t, freedom = root(d**2 / error, d), float(df)
    low, high = interval(parts, negative_gene)
    p = float(2.0 * special.stdtr(freedom, -abs(t)))
    found = {
        "target_mean": rounded(_mean(x)),
        "reference_mean": rounded(_mean(y)),
        "mean_difference": rounded(d),
        "mean_difference_low": rounded(low),
        "mean_difference_high": rounded(high),
        "cohens_d": root(d**2 / spread, d),
        "statistic": t,
        "p_value": p,
    }
    if not negative:
        found["target_count_mean"] = found["target_mean"]
        if _mean(x) and _mean(y):
            found["log2_fold_change"] = _log2(_mean(x)) - _log2(_mean(y))
    return found


def interval(
    parts: list[tuple[list[Fraction], list[Fraction]]], negative: bool, level: float = 0.95
) -> tuple[Fraction, Fraction]:
    """The interval of the difference of means, with roots and quantiles of float64."""
    sides = [[v for part in parts for v in part[k]] for k in (0, 1)]
    n, m = map(len, sides)
    weights = [Fraction(len(a) * len(b), len(a) + len(b)) for a, b in parts]
    apart = [_mean(a) - _mean(b) for a, b in parts]
    d = sum(w * e for w, e in zip(weights, apart, strict=True)) / sum(weights)
    inside = sum(_squares(a) + _squares(b) for a, b in parts)
    inside += sum(w * (e - d) ** 2 for w, e in zip(weights, apart, strict=True))
    df = n + m - len(parts) - 1
    own, per_cell, freedom = [], [], []
    for k in (0, 1):
        cells = [len(part[k]) for part in parts]
        per_cell.append(sum(w**2 / c for w, c in zip(weights, cells, strict=True))
                        / sum(weights) ** 2)  # fmt: skip
        freedom.append(sum(cells) - len(parts))
        own.append(per_cell[k] * sum(_squares(part[k]) for part in parts) / freedom[k])
    welch = sum(own) ** 2 / sum(v**2 / f for v, f in zip(own, freedom, strict=True))
    t = float(special.stdtrit(float(welch), 0.5 + level / 2))
    score = Fraction(float(special.stdtrit(df, 0.5 + level / 2)) ** 2) * inside / df
    overall = _mean(sides[0] + sides[1])
    reaches = []
    for side, variance, share in zip(sides, own, per_cell, strict=True):
        classic, of_mean = _times_root(t, variance), score * share
        shift = 0 if negative else of_mean / overall / 2
        by_mean = of_mean if negative else of_mean * _mean(side) / overall
        back = _times_root(1.0, shift**2 + by_mean)
        reaches.append((max(classic, back - shift), max(classic, back + shift)))
    (below, above), (its_below, its_above) = reaches
    return (
        d - _times_root(1.0, below**2 + its_above**2),
        d + _times_root(1.0, above**2 + its_below**2),
    )


def _times_root(factor: float, square: Fraction) -> Fraction:
    shift = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return Fraction(factor * math.sqrt(square / Fraction(4) ** shift)) * Fraction(2) ** shift


def _log2(value: Fraction) -> float:
    shift = value.numerator.bit_length() - value.denominator.bit_length()
    return math.log2(value / Fraction(2) ** shift) + shift


def comparisons(result: Any, design: str) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Of each row, cells of target and reference in each stratum."""
    found = []
    for target, reference in zip(result.targets, result.references, strict=True):
        if design == "guides":
            its = guides()[target].to_numpy()
            others = ~its
        else:
            its, others = target == LABELS, reference == LABELS
            if "rest" in design:
                others = ~its
            elif design == "perturbed":
                others = ~its & (LABELS != "ctrl")
        strata = [b == BATCH for b in "pq"] if "strata" in design else [np.ones(N_CELLS, bool)]
        found.append([(its & s, others & s) for s in strata])
    return found


CASES = [
    *[(design, "float64, signed") for design in DESIGNS],
    *[(design, matrix) for design in ("reference", "rest", "guides") for matrix in MATRICES
      if matrix != "float64, signed"],
]  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(("design", "matrix"), CASES)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_are_those_of_exact_arithmetic(design, matrix):
    values = MATRICES[matrix]()
    stratified = "strata" in design
    for variance in ["pooled", "welch", "overestimated"] if design == "reference" else ["pooled"]:
        asked = {"metric": "t-test", "variance": variance, "is_log1p": False, "columns": COLUMNS}
        asked |= DESIGNS[design] | {"p_values": "asymptotic"}
        results = [run(screen(values), **asked, backend=name)[0] for name in ("numpy", "cpu")]
        for t, parts in enumerate(comparisons(results[0], design)):
            for j, gene in enumerate(values.T.tolist()):
                sides = [
                    tuple([Fraction(gene[i]) for i in np.flatnonzero(cells)] for cells in both)
                    for both in parts
                ]
                kind = "strata" if stratified else variance
                expected = truth(sides, kind, bool(values.min() < 0), min(gene) < 0)
                for result in results:
                    found = {name: result[name][t, j] for name in expected}
                    check(found, expected, stratified, f"row {t}, gene {j}")


def check(found: dict[str, float], expected: dict[str, float], stratified: bool, at: str) -> None:
    reach = abs(expected["mean_difference_high"]) + abs(expected["mean_difference_low"])
    for name, value in expected.items():
        if math.isinf(value):
            assert found[name] == value, (name, at)
            continue
        low = min(expected["target_mean"], expected["reference_mean"])
        if name == "log2_fold_change" and low < 1e-300:
            continue  # a ratio of means, which have few bits there
        atol = 5e-324
        # Of a difference over strata, and of ends of intervals, digits cancel.
        if math.isfinite(reach) and (stratified or name.startswith("mean_difference_")):
            atol += 1e-14 * reach
        if name in ("statistic", "cohens_d", "log2_fold_change"):
            atol = 1e-13
        np.testing.assert_allclose(
            found[name], value, rtol=2e-10, atol=atol, err_msg=f"{name}, {at}"
        )


@pytest.mark.parametrize("design", ["reference", "rest", "strata", "guides"])
def test_kernel_sets_give_the_same_bits(design, monkeypatch):
    for matrix in ("float64, signed", "int64"):
        found = []
        for kernels in ("cpu", "emulated-small"):
            asked = {"metric": "t-test", "columns": COLUMNS, "is_log1p": False} | DESIGNS[design]
            asked["backend"] = backend_of(kernels, monkeypatch)
            found.append(run(screen(MATRICES[matrix]()), **asked)[0])
        for name in found[0].columns:
            np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.parametrize(
    "options",
    [{"metric": "t-test", "trim": 0.2}, {"metric": "ks", "method": "exact"}],
    ids=lambda options: options["metric"],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_scipy_runs(options):
    """Values that float64 cannot square, and integers that it does not tell apart."""
    small = np.random.default_rng(11).integers(0, 99, (N_CELLS, 1))
    expected, _ = run(screen(small.astype(np.float64)), is_log1p=False, **options)
    for values in (small * 1e306, small * 5e-324, small + 2**60, small.astype(np.uint64) + 2**63):
        result, _ = run(screen(values), is_log1p=False, **options)
        for name in ("statistic", "p_value"):
            np.testing.assert_allclose(result[name], expected[name], rtol=1e-11)


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint64", "uint16"])
def test_sums_are_exact(dtype):
    rng = np.random.default_rng(3)
    if dtype.startswith("f"):
        info = np.finfo(dtype)
        values = rng.normal(size=500) * 2.0 ** rng.uniform(info.minexp, info.maxexp - 3, 500)
        values = np.concatenate([values, [info.max, -info.max, info.smallest_subnormal, 0.0]])
        values = values.astype(dtype)
    else:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, 500, dtype=dtype, endpoint=True)
        values = np.concatenate([values, np.array([info.min, info.max, info.max], dtype)])
    sums = Sums.of(values, 600)
    exact = [Fraction(x) for x in values.tolist()]
    assert sums.n == 600
    assert Fraction(sums.total, 2**UNIT) == sum(exact)
    assert Fraction(sums.squares, 4**UNIT) == sum(x * x for x in exact)
    assert sums.mean == rounded(sum(exact) / 600)
    assert Sums.of(values[:0], 0).n == 0
    assert np.isnan(Sums.of(values[:0], 0).mean)


@pytest.mark.parametrize("dtype", ["i1", "u1", "u2", "i4", "u4", "f4", "i8", "u8", "f8"])
def test_keys_on_a_device_are_read_back(dtype):
    info: Any = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    values = np.array([info.min, info.max, 1, 0], dtype)
    kind = value_type(np.dtype(dtype))
    # As `key_of` in common.cuh makes them.
    top = 1 << (kind.bits - 1)
    keys = []
    for value in values.tolist():
        if dtype[0] == "f":
            bits = int(np.array(value, dtype).view(f"u{kind.bits // 8}"))
            keys.append(~bits & (2**kind.bits - 1) if bits & top else bits | top)
        else:
            keys.append(value if kind.zero_key == 0 else value + top)
    found = values_of(np.array(keys, kind.key), kind.kind)
    assert found.tolist() == values.tolist()
    assert [kind.value_of(key) for key in keys] == [float(v) for v in values.tolist()]


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_what_only_a_guide_s_cells_express(backend):
    """Nothing is left for the others but zeros, not what rounding leaves of sums."""
    rng = np.random.default_rng(5)
    values = rng.random((N_CELLS, 40)) * guides()["x"].to_numpy()[:, None]
    result, _ = run(screen(values), None, guides="guides", comparison="rest", metric="t-test",
                    backend=backend, is_log1p=False, columns=["reference_n_expressed"])  # fmt: skip
    assert not result["reference_n_expressed"][0].any()
    assert not result["reference_mean"][0].any()
    np.testing.assert_array_equal(result["fold_change"][0], 20.0)
