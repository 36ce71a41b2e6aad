"""The analysis of every (row, gene): a test and the columns that are made gene by gene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends.contract import KernelSet
from ..backends.outputs import Moments
from ..design.contrasts import Contrast, Design
from ..stats.samples import SamplePair, pooled_over_strata
from ..stats.scales import Scaled, pooled_means, scaled_sides
from ..stats.two_sample.base import StatisticalTest, Stratum, SufficientStatistics
from . import registry, significance
from .base import Column, GeneByGene, Needs
from .inputs import KernelOutput, PairValues, StrataValues

_EXPRESSED = ("target_n_expressed", "reference_n_expressed")
_VALUES_PER_GROUP = 3  # a mean, a statistic and a p-value


@dataclass(frozen=True)
class Analysis:
    """A test and the columns that are computed in addition to its p-value.

    Attributes
    ----------
    test : StatisticalTest
    columns : tuple of str
        Further columns of the schema.
    stored : tuple of Column
        The columns that are made and stored gene by gene, those of every result included.
    needs : Needs
        What `columns` are made from.
    expm1, log1p : bool
        Whether means of ``expm1(x)`` and of ``log1p(x)`` are stored.
    level : float
        Level of confidence intervals.
    p_value_kind : str
        How p-values are computed; see `StatisticalTest.p_values`.
    others : dict of str to StatisticalTest
        Tests that judge the same measurements, by the fields that store their p-values.
    """

    # Columns themselves are kept, not their names: worker processes need not know the registry of
    # the process that started them.
    test: StatisticalTest
    columns: tuple[str, ...]
    stored: tuple[Column, ...]
    needs: Needs
    expm1: bool = False
    log1p: bool = False
    level: float = 0.95
    p_value_kind: str = "asymptotic"
    others: dict[str, StatisticalTest] = field(default_factory=dict)

    def judged_also(self, tests: Sequence[StatisticalTest]) -> Analysis:
        """Return the analysis with the p-values of other tests that measure what its own does."""
        others = {f"p_value {k}": test for k, test in enumerate(tests, 1)}
        kinds = [test.p_values for test in tests]
        columns = (significance.p_value_of(test, name) for name, test in others.items())
        return replace(
            self,
            stored=(*self.stored, *columns),
            needs=self.needs | (Needs.SIGNS if "conditional" in kinds else Needs.NOTHING),
            others=others,
        )

    def of_other(self, name: str) -> Analysis:
        """Return the analysis as if one of `others` were its test."""
        test = self.others[name]
        return replace(self, test=test, p_value_kind=test.p_values)

    @property
    def centred(self) -> bool:
        """Return whether second moments are needed."""
        return self.test.needs_m2 or Needs.SECOND_MOMENTS in self.needs

    @property
    def higher(self) -> bool:
        """Return whether third and fourth moments are needed."""
        return any(test.needs_higher for test in (self.test, *self.others.values()))

    @property
    def _measuring(self) -> StatisticalTest:
        """Return the test that measures the most: what others need is among that."""
        for test in (self.test, *self.others.values()):
            if test.p_values == "conditional":
                return test
        return self.test

    @property
    def bytes_per_entry(self) -> int:
        """Return the most bytes that a test measures for each nonzero value of a cell."""
        return self._measuring.bytes_per_entry

    @property
    def marks_negative(self) -> bool:
        """Return whether it must be known which genes have negative values."""
        return self.p_value_kind == "conditional" or Needs.SIGNS in self.needs

    @property
    def _means(self) -> list[str]:
        """List the means of samples that are stored."""
        means = ("mean", True), ("mean_expm1", self.expm1), ("mean_log1p", self.log1p)
        return [name for name, stored in means if stored]

    def fields(self, design: Design) -> dict[str, int]:
        """Return the names of the fields stored per gene and how many values each has."""
        n = design.n_rows
        shared = 1 if design.one_reference else n
        found = {f"target_{mean}": n for mean in self._means}
        found |= {f"reference_{mean}": shared for mean in self._means}
        for column in self.stored:
            found[column.name] = shared if _gene_by_gene(column).of_reference else n
        return found

    def width(self, design: Design) -> int:
        """Return the number of groups whose results take as much memory per gene as these."""
        n_values = sum(self.fields(design).values())
        return max(design.n_groups, n_values // _VALUES_PER_GROUP)

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, design: Design
    ) -> list[KernelOutput]:
        """Run the kernels for what `evaluate` needs apart from moments, for each contrast."""
        return [self._measure(kernels, block, genes, c) for c in design.contrasts]

    def _measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> KernelOutput:
        test = self._measuring
        if Needs.PLACEMENTS in self.needs:
            found = kernels.placements(block, genes, contrast)
            sums = found.sums
            if test.gives_u2 and not test.needs_lowest:
                own: SufficientStatistics = (sums.u2, sums.ties)
            else:
                own = test.measure(kernels, block, genes, contrast)
            return KernelOutput(own, sums.u2, (found.target, found.reference, sums.ties))
        own = test.measure(kernels, block, genes, contrast)
        if Needs.U not in self.needs:
            return KernelOutput(own)
        if test.gives_u2:
            return KernelOutput(own, own[0])
        return KernelOutput(own, kernels.rank_sums(block, genes, contrast).u2)

    def evaluate(
        self, measured: Sequence[KernelOutput], moments: Moments, design: Design
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
            return self._evaluate_genes(measured, plain, design)
        # Genes with missing values have their own group sizes, those with exact sums their own
        # scale: each of them is evaluated separately.
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
            its = [output.of(genes) for output in measured]
            for name, values in self._evaluate_genes(its, some, design).items():
                found[name][:, genes] = values
        return found

    def _evaluate_genes(
        self, measured: Sequence[KernelOutput], moments: Moments, design: Design
    ) -> dict[str, np.ndarray]:
        """Evaluate genes whose groups have the same sizes, or one gene that has its own scale."""
        scaled = scaled_sides(moments, design)
        if design.stratified:
            return self._evaluate_strata(measured, scaled, design, moments.mean.shape[1])
        if design.whole:
            return self._evaluate(measured[0], scaled[0])
        found: dict[str, np.ndarray] = {}
        for name, n in self.fields(design).items():
            found[name] = np.full((n, moments.mean.shape[1]), np.nan)
        for its, both, contrast in zip(measured, scaled, design.contrasts, strict=True):
            used, rows = contrast.rows >= 0, contrast.rows[contrast.rows >= 0]
            part = self._evaluate(its, both)
            for name, values in part.items():
                if len(found[name]) == 1 < design.n_rows or len(values) == 1 == len(found[name]):
                    found[name][:] = values[:1]
                    continue
                values = np.broadcast_to(values, (len(contrast.rows), values.shape[1]))
                found[name][rows] = values[used]
        return found

    def _evaluate(self, measured: KernelOutput, scaled: Scaled) -> dict[str, np.ndarray]:
        both = _with_cells(scaled.sides)
        values = PairValues(
            self.test.evaluate(measured.own, both, **self._of_test),
            scaled.shown,
            both,
            measured,
            means=scaled.means,
            exponent=scaled.exponent,
            difference=scaled.difference,
            level=self.level,
        )
        made = {column.name: _gene_by_gene(column).pair(values) for column in self.stored}
        return self._finished(made, scaled.shown)

    def _evaluate_strata(
        self, measured: Sequence[KernelOutput], scaled: list[Scaled], design: Design, n_genes: int
    ) -> dict[str, np.ndarray]:
        shape = design.n_rows, n_genes
        exponent = None
        if scaled[0].exponent is not None:
            exponent = np.zeros((design.n_rows, 1), np.int64)
            for both, contrast in zip(scaled, design.contrasts, strict=True):
                assert both.exponent is not None
                exponent[contrast.rows[contrast.rows >= 0]] = both.exponent[contrast.rows >= 0]
        strata = [
            _of_both_sides(Stratum(its.own, both.sides, contrast.rows))
            for its, both, contrast in zip(measured, scaled, design.contrasts, strict=True)
        ]
        rows = [s.rows for s in strata]
        pooled = _pooled(scaled, rows, shape)
        means = pooled.target.mean, pooled.reference.mean
        if exponent is not None:
            in_unit = pooled_means(scaled, rows, exponent[:, 0].tolist())
            means = in_unit[0], in_unit[1]
        values = StrataValues(
            self.test.evaluate_strata(strata, *shape, **self._of_test),
            pooled,
            strata,
            measured,
            shape,
            means=means,
            exponent=exponent,
            level=self.level,
        )
        made = {}
        for column in self.stored:
            make = _gene_by_gene(column).strata
            assert make is not None  # other columns are refused
            made[column.name] = make(values)
        return self._finished(made, pooled)

    @property
    def _of_test(self) -> dict[str, bool]:
        """Return which optional values of the test are needed."""
        return {"z": Needs.Z in self.needs, "log10_p": Needs.LOG10_P in self.needs}

    def _finished(self, made: dict[str, np.ndarray], both: SamplePair) -> dict[str, np.ndarray]:
        """Add means, and withdraw values where a side has no mean: none is left, or NaN counts."""
        found = {name: np.asarray(values, np.float64) for name, values in made.items()}
        if self.test.nan_policy != "raise":
            unknown = np.isnan(both.target.mean) | np.isnan(both.reference.mean)
            for column in self.stored:
                undefined = _gene_by_gene(column).undefined
                if undefined is not None:
                    found[column.name] = np.where(unknown, undefined, found[column.name])
        for mean in self._means:
            found[f"target_{mean}"] = getattr(both.target, mean)
            found[f"reference_{mean}"] = getattr(both.reference, mean)
        return found


def _gene_by_gene(column: Column) -> GeneByGene:
    assert isinstance(column.make, GeneByGene)
    return column.make


def _with_cells(both: SamplePair) -> SamplePair:
    """Replace sizes of 0 by 1, to be safe to divide by; rows without cells are not tested."""
    target, reference = both.target, both.reference
    if target.n.all() and reference.n.all():
        return both
    return replace(
        both,
        target=replace(target, n=np.maximum(target.n, 1.0)),
        reference=replace(reference, n=np.maximum(reference.n, 1.0)),
    )


def _of_both_sides(stratum: Stratum) -> Stratum:
    """Return the stratum without the rows in which a side has no cell left."""
    there = (stratum.sides.target.n > 0.0) & (stratum.sides.reference.n > 0.0)
    if there.all():
        return stratum
    rows = np.where(there[:, 0], stratum.rows, -1)
    return Stratum(stratum.measured, _with_cells(stratum.sides), rows)


def _pooled(
    scaled: Sequence[Scaled], rows: Sequence[np.ndarray], shape: tuple[int, int]
) -> SamplePair:
    """Pool each row's sides over the strata that have both, without squared deviations."""
    pooled = []
    for side in ("target", "reference"):
        samples = [replace(getattr(both.shown, side), m2=None) for both in scaled]
        with np.errstate(over="ignore"):
            parts = list(zip(samples, rows, strict=True))
            pooled.append(pooled_over_strata(parts, *shape))
    if scaled[0].exponent is not None:
        means = pooled_means(scaled, rows, [0] * shape[0])
        pooled = [replace(sample, mean=mean) for sample, mean in zip(pooled, means, strict=True)]
    return SamplePair(pooled[0], pooled[1])


def make_analysis(
    test: StatisticalTest,
    asked: str | Iterable[str],
    *,
    default: bool = False,
    is_log1p: bool | None,
    exp_post_agg: bool,
    stratified: bool,
    expressed: bool,
    count_means: bool,
    level: float,
) -> Analysis:
    """Determine what must be computed for the requested columns.

    `is_log1p` is None if it depends on the data. ``asked="all"`` stands for all columns that
    exist for the test; `default` says whether those of :data:`.registry.DEFAULT` are in any case.
    `expressed` stores numbers of expressing cells in any case.

    Raises
    ------
    OptionError
        If a column does not exist, or if the test does not support a column or strata.
    """
    if stratified:
        test.evaluate_strata((), 0, 0)  # raises, with the reason, if there is no stratified form
    columns = registry.extra_columns(asked, _lacking(test, stratified), default=default)
    needs = registry.needs_of(columns)
    in_counts = Needs.COUNT_MEANS in needs or count_means or not exp_post_agg
    return Analysis(
        test,
        columns,
        _stored(test, columns, expressed=expressed),
        needs,
        expm1=in_counts and is_log1p is not False,
        log1p=Needs.LOG_MEANS in needs and is_log1p is not True,
        level=level,
        p_value_kind=test.p_values,
    )


def _stored(
    test: StatisticalTest, columns: tuple[str, ...], *, expressed: bool
) -> tuple[Column, ...]:
    """Return the columns that are stored gene by gene as they are computed."""
    found = [registry.find(name) for name in ("statistic", "p_value")]
    needed = registry.with_reads(columns)
    gene_by_gene = [c for c in registry.EXTRA_COLUMNS if isinstance(c.make, GeneByGene)]
    found += [c for c in gene_by_gene if c.name in needed and not _gene_by_gene(c).of_design]
    if test.nan_policy == "omit":
        found += [c for c in gene_by_gene if _gene_by_gene(c).of_design]
    if expressed:
        found += [registry.find(name) for name in _EXPRESSED if name not in needed]
    return tuple(found)


def _lacking(test: StatisticalTest, stratified: bool) -> dict[str, str]:
    """Return the columns that do not exist for a test, and why."""
    found = {}
    for column in registry.EXTRA_COLUMNS:
        needs, parts = registry.needs_of([column.name]), registry.with_reads([column.name])
        if Needs.Z in needs and not test.has_z:
            found[column.name] = (
                f"does not exist for metric={test.metric!r}, whose statistic is not a normal "
                "deviate. Leave it out, or use metric='wilcoxon'."
            )
        if Needs.LOG10_P in needs and not test.has_log10_p:
            found[column.name] = (
                f"is not available with these options ({test.why_numpy}): they run in scipy, "
                "which returns only p-values. Leave out the column or the options."
            )
        makes = [registry.find(name).make for name in sorted(parts)] if stratified else []
        for make in makes:
            if isinstance(make, GeneByGene) and make.strata is None:
                found[column.name] = (
                    f"is not defined over strata: {make.why_no_strata}. Leave out the column or "
                    "strata=."
                )
    return found
