"""The analysis of every (row, gene): a test and the further columns that were requested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends.contract import KernelSet, Moments
from ..design.contrasts import Contrast, Design
from ..results.schema import EXTRA, extra_columns
from ..stats import effects
from ..stats.samples import Sample, Sides, pooled_over_strata
from ..stats.scales import Scaled, pooled_means, scaled_sides
from ..stats.two_sample.base import Judged, Measured, StatisticalTest, Stratum
from ..stats.two_sample.t_test import TTest, difference_over_strata, fixed_effect
from ..stats.two_sample.wilcoxon import Wilcoxon

_RANKED = {"auroc", "rank_biserial", "auroc_low", "auroc_high"}
_CELLS = ("target_n_cells", "reference_n_cells", "n_strata")
_IN_UNITS = {"mean_difference", "mean_difference_low", "mean_difference_high"}
_EXPRESSED = ("target_n_expressed", "reference_n_expressed")
_SPREAD = {"mean_difference_low", "mean_difference_high", "cohens_d", "hedges_g"}
_COUNT_SPACE = {"target_count_mean", "reference_count_mean", "log2_fold_change_seurat"}
_LOG_SPACE = {
    "target_log_mean",
    "reference_log_mean",
    "target_geometric_mean",
    "reference_geometric_mean",
    "log2_fold_change_scanpy",
    "log2_fold_change_geometric",
}
_MEANS = ("mean", "mean_expm1", "mean_log1p")
_VALUES_PER_GROUP = 3  # a mean, a statistic and a p-value


@dataclass(frozen=True)
class Analysis:
    """A test and the columns that are computed in addition to its p-value.

    Attributes
    ----------
    test : StatisticalTest
    columns : tuple of str
        Further columns of the schema.
    expm1, log1p : bool
        Whether means of ``expm1(x)`` and of ``log1p(x)`` are stored.
    expressed : bool
        Whether numbers of expressing cells are stored, even if they were not requested.
    level : float
        Level of confidence intervals.
    """

    test: StatisticalTest
    columns: tuple[str, ...] = ()
    expm1: bool = False
    log1p: bool = False
    expressed: bool = False
    level: float = 0.95

    @property
    def centred(self) -> bool:
        """Return whether second moments are needed."""
        return self.test.needs_m2 or bool(_SPREAD & set(self.columns))

    @property
    def _ranks(self) -> bool:
        """Return whether U is needed in addition to what the test measures."""
        return bool(_RANKED & set(self.columns)) and not isinstance(self.test, Wilcoxon)

    @property
    def _places(self) -> bool:
        return bool({"auroc_low", "auroc_high"} & set(self.columns))

    @property
    def _variance(self) -> str:
        return self.test.variance if isinstance(self.test, TTest) else "welch"

    def fields(self, design: Design) -> dict[str, int]:
        """Return the names of the fields stored per gene and how many values each has."""
        n = design.n_rows
        shared = 1 if design.one_reference else n
        means = [name for name in _MEANS if name == "mean" or getattr(self, name[5:])]
        found = {f"target_{mean}": n for mean in means}
        found |= {f"reference_{mean}": shared for mean in means}
        found |= {"statistic": n, "p_value": n}
        for name in self._stored:
            found[name] = shared if name.startswith("reference_") else n
        return found

    def width(self, design: Design) -> int:
        """Return the number of groups whose results take as much memory per gene as these."""
        n_values = sum(self.fields(design).values())
        return max(design.n_groups, n_values // _VALUES_PER_GROUP)

    @property
    def _stored(self) -> list[str]:
        """List the columns that are stored gene by gene as they are computed."""
        names = [n for n in EXTRA if n in self.columns and n in _BY_GENE]
        if self.test.nan_policy == "omit":
            names += _CELLS
        if self.expressed:
            names += [n for n in _EXPRESSED if n not in names]
        return names

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, design: Design
    ) -> list[Measured]:
        """Run the kernels for what `judge` needs apart from moments; a flat tuple per contrast."""
        return [self._measure(kernels, block, genes, c) for c in design.contrasts]

    def _measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> Measured:
        if not self._places:
            found = self.test.measure(kernels, block, genes, contrast)
            return found + ((kernels.rank_sums(block, genes, contrast).u2,) if self._ranks else ())
        placements = kernels.placements(block, genes, contrast)
        sums = placements.sums
        if isinstance(self.test, Wilcoxon):
            found = (sums.u2, sums.ties)
        else:
            found = (*self.test.measure(kernels, block, genes, contrast), sums.u2)
        return (*found, placements.target, placements.reference)

    def judge(
        self, measured: Sequence[Measured], moments: Moments, design: Design
    ) -> dict[str, np.ndarray]:
        """Return the fields of some genes as float64 arrays of shape (values, n_genes)."""
        alone = np.zeros(moments.mean.shape[1], bool)
        if moments.n_measured is not None:
            lacking = moments.n_measured < design.n_cells[:, None]
            if self.test.nan_policy == "propagate":
                moments = replace(moments.without(lacking), n_measured=None)
            else:
                alone |= lacking.any(axis=0)
        alone |= moments.with_exact_sums
        if not alone.any():
            plain = replace(moments, n_measured=None, exact=None)
            return self._judge_genes(measured, plain, design)
        # Genes with missing values have their own group sizes, those with exact sums their own
        # scale: each of them is judged separately.
        parts: list[slice | np.ndarray] = [slice(j, j + 1) for j in np.flatnonzero(alone)]
        if not alone.all():
            parts.append(~alone)
        found = {name: np.full((n, len(alone)), np.nan) for name, n in self.fields(design).items()}
        for genes in parts:
            some = moments.of(genes)
            if not isinstance(genes, slice):
                some = replace(some, n_measured=None, exact=None)
            elif not some.with_exact_sums[0]:
                some = replace(some, exact=None)
            its = [tuple(array[:, genes] for array in arrays) for arrays in measured]
            for name, values in self._judge_genes(its, some, design).items():
                found[name][:, genes] = values
        return found

    def _judge_genes(
        self, measured: Sequence[Measured], moments: Moments, design: Design
    ) -> dict[str, np.ndarray]:
        """Judge genes whose groups have the same sizes, or one gene that has its own scale."""
        scaled = scaled_sides(moments, design)
        if design.stratified:
            return self._judge_strata(measured, scaled, design, moments.mean.shape[1])
        if design.whole:
            return self._judge(measured[0], scaled[0])
        found: dict[str, np.ndarray] = {}
        for name, n in self.fields(design).items():
            found[name] = np.full((n, moments.mean.shape[1]), np.nan)
        for its, both, contrast in zip(measured, scaled, design.contrasts, strict=True):
            used, rows = contrast.rows >= 0, contrast.rows[contrast.rows >= 0]
            part = self._judge(its, both)
            for name, values in part.items():
                if len(found[name]) == 1 < design.n_rows or len(values) == 1 == len(found[name]):
                    found[name][:] = values[:1]
                    continue
                values = np.broadcast_to(values, (len(contrast.rows), values.shape[1]))
                found[name][rows] = values[used]
        return found

    def _judge(self, measured: Measured, scaled: Scaled) -> dict[str, np.ndarray]:
        own, u2, placements = self._split(measured)
        wanted = set(self.columns)
        shown, both = scaled.shown, _with_cells(scaled.sides)
        judged = self.test.judge(own, both, z="z" in wanted, log10_p="log10_p" in wanted)
        found = self._of_test(judged)
        n, m = both.target.n, both.reference.n
        if _RANKED & wanted:
            assert u2 is not None
            found |= self._ranked(effects.auroc(u2, n, m))
            if placements is not None:
                low, high = effects.auroc_interval(u2, *placements, n, m, self.level)
                found |= {"auroc_low": low, "auroc_high": high}
        if {"mean_difference_low", "mean_difference_high"} & wanted:
            low, high = effects.mean_interval(both, self._variance, self.level)
            found |= {"mean_difference_low": low, "mean_difference_high": high}
        if {"cohens_d", "hedges_g"} & wanted:
            d = effects.cohens_d(both)
            found |= {"cohens_d": d, "hedges_g": d * effects.hedges_correction(n + m - 2.0)}
        if "mean_difference" in wanted:
            found["mean_difference"] = both.target.mean - both.reference.mean
        _unscale(found, scaled.exponent)
        if "mean_difference" in wanted and scaled.difference is not None:
            found["mean_difference"] = scaled.difference
        self._spoil(found, shown)
        there = (shown.target.n > 0.0) & (shown.reference.n > 0.0)
        return self._only_fields(found | self._of_sides(shown, there))

    def _judge_strata(
        self, measured: Sequence[Measured], scaled: list[Scaled], design: Design, n_genes: int
    ) -> dict[str, np.ndarray]:
        shape = design.n_rows, n_genes
        wanted = set(self.columns)
        exponent = None
        if scaled[0].exponent is not None:
            exponent = np.zeros((design.n_rows, 1), np.int64)
            for both, contrast in zip(scaled, design.contrasts, strict=True):
                assert both.exponent is not None
                exponent[contrast.rows[contrast.rows >= 0]] = both.exponent[contrast.rows >= 0]
        strata = [
            _of_both_sides(Stratum(its, both.sides, contrast.rows))
            for its, both, contrast in zip(measured, scaled, design.contrasts, strict=True)
        ]
        parts = [(self._split(s.measured), s) for s in strata]
        judged = self.test.judge_strata(
            [Stratum(own, s.sides, s.rows) for (own, _, _), s in parts],
            *shape,
            z="z" in wanted,
            log10_p="log10_p" in wanted,
        )
        pooled = _pooled(scaled, [s.rows for s in strata], shape)
        found = self._of_test(judged)
        if _RANKED & wanted:
            found |= self._ranked(_weighted_auroc([(u2, s) for (_, u2, _), s in parts], shape))
        if "mean_difference" in wanted:
            found["mean_difference"] = difference_over_strata(strata, *shape)[0]
        if _SPREAD & wanted:
            effect, error, df = fixed_effect(strata, *shape)
            low, high = effects.around(effect, error, df, self.level)
            weights = sum(_weights(s, shape) for s in strata)
            d = effects.standardised(effect, error * np.sqrt(weights))
            found |= {
                "mean_difference_low": low,
                "mean_difference_high": high,
                "cohens_d": d,
                "hedges_g": d * effects.hedges_correction(df),
            }
        _unscale(found, exponent)
        self._spoil(found, pooled)
        n_strata = np.sum([_there(s, shape) for s in strata], axis=0)
        found |= self._of_sides(pooled, n_strata)
        return self._only_fields(found)

    def _spoil(self, found: dict[str, np.ndarray], both: Sides) -> None:
        """Withdraw results where a side has no mean: no value is left, or NaN is propagated."""
        if self.test.nan_policy == "raise":
            return
        unknown = np.isnan(both.target.mean) | np.isnan(both.reference.mean)
        for name in found:
            no_answer = {"p_value": 1.0, "log10_p": 0.0}.get(name, np.nan)
            found[name] = np.where(unknown, no_answer, found[name])

    def _of_sides(self, both: Sides, n_strata: np.ndarray) -> dict[str, np.ndarray]:
        """Return the fields that describe the samples themselves."""
        found = self._means(both) | self._expressed(both)
        if self.test.nan_policy == "omit":
            shapes = [sample.mean.shape for sample in (both.target, both.reference)]
            values = both.target.n, both.reference.n, n_strata
            for name, cells, shape in zip(_CELLS, values, [*shapes, shapes[0]], strict=True):
                found[name] = np.broadcast_to(cells, shape).astype(np.float64)
        return found

    def _split(
        self, measured: Measured
    ) -> tuple[Measured, np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]:
        """Split arrays into the test's own, twice U (if known) and sums of squared placements."""
        placements = None
        if self._places:
            *rest, target, reference = measured
            placements, measured = (target, reference), tuple(rest)
        if self._ranks:
            return measured[:-1], measured[-1], placements
        return measured, measured[0] if isinstance(self.test, Wilcoxon) else None, placements

    def _means(self, both: Sides) -> dict[str, np.ndarray]:
        found = {}
        for mean in _MEANS:
            for side in ("target", "reference"):
                values = getattr(getattr(both, side), mean)
                if values is not None:
                    found[f"{side}_{mean}"] = values
        return found

    def _of_test(self, judged: Judged) -> dict[str, np.ndarray]:
        found = {"statistic": judged.statistic, "p_value": judged.p_value}
        for name, values in (("z", judged.z), ("log10_p", judged.log10_p)):
            if values is not None:
                found[name] = values
        return found

    def _expressed(self, both: Sides) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for side, sample in (("target", both.target), ("reference", both.reference)):
            _add_expressed(found, side, sample, self._stored)
        return found

    def _ranked(self, auroc: np.ndarray) -> dict[str, np.ndarray]:
        return {"auroc": auroc, "rank_biserial": 2.0 * auroc - 1.0}

    def _only_fields(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept = {"statistic", "p_value", *self._stored}
        kept |= {f"{side}_{m}" for side in ("target", "reference") for m in _MEANS
                 if m == "mean" or getattr(self, m[5:])}  # fmt: skip
        return {name: values for name, values in found.items() if name in kept}


def _unscale(found: dict[str, np.ndarray], exponent: np.ndarray | None) -> None:
    """Rescale the fields that have the unit of the values to the original scale."""
    if exponent is None:
        return
    with np.errstate(over="ignore", under="ignore"):
        for name in _IN_UNITS & found.keys():
            found[name] = np.ldexp(found[name], exponent)


def _add_expressed(
    found: dict[str, np.ndarray], side: str, sample: Sample, names: list[str]
) -> None:
    if f"{side}_n_expressed" in names:
        found[f"{side}_n_expressed"] = sample.n_expressed.astype(np.float64)
    if f"{side}_fraction" in names:
        with np.errstate(invalid="ignore"):  # there may be no cell
            found[f"{side}_fraction"] = sample.n_expressed / sample.n


def _with_cells(both: Sides) -> Sides:
    """Replace sizes of 0 by 1, to be safe to divide by; rows without cells are not judged."""
    samples = both.target, both.reference
    if all(sample.n.all() for sample in samples):
        return both
    return Sides(*(replace(sample, n=np.maximum(sample.n, 1.0)) for sample in samples))


def _of_both_sides(stratum: Stratum) -> Stratum:
    """Return the stratum without the rows in which a side has no cell left."""
    there = (stratum.sides.target.n > 0.0) & (stratum.sides.reference.n > 0.0)
    if there.all():
        return stratum
    rows = np.where(there[:, 0], stratum.rows, -1)
    return Stratum(stratum.measured, _with_cells(stratum.sides), rows)


def _pooled(scaled: Sequence[Scaled], rows: Sequence[np.ndarray], shape: tuple[int, int]) -> Sides:
    """Pool each row's sides over the strata that have both, without squared deviations."""
    pooled = []
    for side in ("target", "reference"):
        samples = [replace(getattr(both.shown, side), m2=None) for both in scaled]
        with np.errstate(over="ignore"):
            parts = list(zip(samples, rows, strict=True))
            pooled.append(pooled_over_strata(parts, *shape))
    if scaled[0].exponent is not None:
        means = pooled_means(scaled, rows, shape[0])
        pooled = [replace(sample, mean=mean) for sample, mean in zip(pooled, means, strict=True)]
    return Sides(*pooled)


def _there(stratum: Stratum, shape: tuple[int, int]) -> np.ndarray:
    """Return 1 for the rows that a stratum contributes to, 0 for the others."""
    found = np.zeros((shape[0], 1))
    found[stratum.rows[stratum.rows >= 0]] = 1.0
    return found


def _weights(stratum: Stratum, shape: tuple[int, int]) -> np.ndarray:
    found = np.zeros((shape[0], 1))
    n, m = stratum.sides.target.n, stratum.sides.reference.n
    used = stratum.rows >= 0
    found[stratum.rows[used]] = np.broadcast_to(n * m / (n + m), (len(used), 1))[used]
    return found


def _weighted_auroc(
    parts: list[tuple[np.ndarray | None, Stratum]], shape: tuple[int, int]
) -> np.ndarray:
    """Return the mean AUROC over strata, with the weights of van Elteren's test."""
    total, most = np.zeros(shape), np.zeros((shape[0], 1))
    for u2, stratum in parts:
        assert u2 is not None
        n, m = stratum.sides.target.n, stratum.sides.reference.n
        used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
        total[rows] += (u2 * 0.5 / (n + m + 1.0))[used]
        most[rows] += np.broadcast_to(n * m / (n + m + 1.0), (len(used), 1))[used]
    with np.errstate(invalid="ignore"):  # there may be no stratum with both sides
        found: np.ndarray = total / most
        return found


# Computed and stored gene by gene. Others derive from these or are the same for all genes.
_BY_GENE = frozenset(
    {*_EXPRESSED, "target_fraction", "reference_fraction"}
    | _RANKED
    | _SPREAD
    | {"mean_difference", "z", "log10_p"}
)


def make_analysis(
    test: StatisticalTest,
    asked: str | Iterable[str],
    *,
    is_log1p: bool | None,
    exp_post_agg: bool,
    stratified: bool,
    expressed: bool,
    count_means: bool,
    level: float,
) -> Analysis:
    """Determine what must be computed for the requested columns.

    `is_log1p` is None if it depends on the data. ``asked="all"`` stands for all columns that
    exist for the test.

    Raises
    ------
    OptionError
        If a column does not exist, or if the test does not support a column or strata.
    """
    if stratified:
        test.judge_strata((), 0, 0)  # raises, with the reason, if there is no stratified form
    columns = extra_columns(asked, _lacking(test, stratified))
    wanted = set(columns)
    in_counts = bool(_COUNT_SPACE & wanted) or count_means or not exp_post_agg
    in_logs = bool(_LOG_SPACE & wanted)
    return Analysis(
        test,
        columns,
        expm1=in_counts and is_log1p is not False,
        log1p=in_logs and is_log1p is not True,
        expressed=expressed,
        level=level,
    )


def _lacking(test: StatisticalTest, stratified: bool) -> dict[str, str]:
    """Return the columns that do not exist for a test, and why."""
    found = {}
    if not test.has_z:
        found["z"] = (
            f"does not exist for metric={test.metric!r}, whose statistic is not a normal deviate. "
            "Leave it out, or use metric='wilcoxon'."
        )
    if not test.has_log10_p:
        found["log10_p"] = (
            f"is not available with these options ({test.why_numpy}): they run in scipy, "
            "which returns only p-values. Leave out the column or the options."
        )
    if stratified:
        found |= dict.fromkeys(
            ("auroc_low", "auroc_high"),
            "is not defined over strata: DeLong's interval is for a single pair of samples. Leave "
            "out the column or strata=.",
        )
    return found
