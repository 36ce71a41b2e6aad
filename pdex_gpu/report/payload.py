"""The part of a result that a report shows: the strongest rows, and the rest as counts in bins.

The result is read twice in blocks: first to count hits and find ranges, then to choose rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..design.own_genes import own_genes_of
from ..results.base import Result
from ..results.effect import Effect, direction, effect_of
from ..results.plot_values import LARGEST, minus_log10_p, p_columns, strongest
from .bins import Background, Ranges, in_bins

#: The most hits that a report lists.
MOST_ROWS = 1_000_000

#: The fewest rows listed per comparison, hits or not.
FEWEST_ROWS = 20

#: The most genes of the heat map: those that are hits in the most comparisons.
MAP_GENES = 40

#: Bins of effects and of p-values behind the volcano plot of a comparison, and of a gene.
BINS = (48, 32)
GENE_BINS = (24, 16)

#: Bins of the histogram of p-values.
N_BINS = 20

_MEANS = ("target_mean", "reference_mean")

#: The columns of a listed row, in single precision. The effect is the ratio of means, or their
#: difference.
VALUES = ("effect", "log10_p", "log10_fdr", *_MEANS, "statistic")


@dataclass(frozen=True)
class Rows:
    """Rows of the result by comparison; in each, first hits, then other rows, in order of genes.

    Attributes
    ----------
    ends : numpy.ndarray, shape (n_comparisons,), int64
        Where the rows of each comparison end.
    n_hits : numpy.ndarray, shape (n_comparisons,), int64
        Number of hits among them.
    gene : numpy.ndarray, shape (n,), int64
        Position among the features.
    values : dict of str to numpy.ndarray, shape (n,), float32
        Columns by the names in `VALUES`.
    n_cells : dict of str to numpy.ndarray, shape (n,), int64
        Numbers of cells of ``"target"`` and of ``"reference"``, if the result has them.
    """

    ends: np.ndarray
    n_hits: np.ndarray
    gene: np.ndarray
    values: dict[str, np.ndarray]
    n_cells: dict[str, np.ndarray]


@dataclass(frozen=True)
class Counts:
    """Numbers of rows per comparison or per gene, each of shape (n,), int64.

    Attributes
    ----------
    rows : numpy.ndarray
        Rows that the result has.
    up, down, level : numpy.ndarray
        Hits whose mean in the target is larger, smaller, and neither.
    undrawn : numpy.ndarray
        Rows without a place in a volcano plot: no effect, or no p-value.
    """

    rows: np.ndarray
    up: np.ndarray
    down: np.ndarray
    level: np.ndarray
    undrawn: np.ndarray

    @classmethod
    def zeros(cls, n: int) -> Counts:
        return cls(*(np.zeros(n, np.int64) for _ in range(5)))

    @property
    def hits(self) -> np.ndarray:
        return self.up + self.down + self.level


@dataclass
class Totals:
    """Counts over the whole result.

    Attributes
    ----------
    zeros : int
        P-values that are 0 and have no logarithm.
    missing : int
        Rows whose p-value is NaN.
    uninformative : int
        Rows with a p-value whose statistic is NaN, or whose means are both 0; the latter only if
        the effect is a ratio, because negative values can add up to a mean of 0. They are not in
        the histogram.
    histogram : numpy.ndarray, shape (20,), int64
        P-values of all other tests.
    above_half : int
        P-values in the histogram that are above 0.5.
    """

    zeros: int = 0
    missing: int = 0
    uninformative: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    above_half: int = 0


@dataclass(frozen=True)
class OwnGenes:
    """The own gene of each comparison's target; see :func:`.own_genes.own_genes_of`.

    Attributes
    ----------
    gene : numpy.ndarray, shape (n_comparisons,), int64
        Position among the features; -1 if there is none.
    size : numpy.ndarray, shape (n_comparisons,), float64
        The effect on it around 0, as in :meth:`.Effect.sizes`; NaN if there is none.
    hit : numpy.ndarray, shape (n_comparisons,), bool
    log10_fdr : numpy.ndarray, shape (n_comparisons,), float64
        Its log10; NaN if there is none.
    """

    gene: np.ndarray
    size: np.ndarray
    hit: np.ndarray
    log10_fdr: np.ndarray


@dataclass(frozen=True)
class EffectMap:
    """The effects of all comparisons on the genes that are hits in the most of them.

    Attributes
    ----------
    genes : numpy.ndarray, shape (k,), int64
        Positions among the features, the gene with the most hits first; at most `MAP_GENES`.
    sizes : numpy.ndarray, shape (n_comparisons, k), float32
        Effects around 0, as in :meth:`.Effect.sizes`; NaN where the result has no row.
    """

    genes: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class ReportData:
    """Everything of a result that a report shows.

    Attributes
    ----------
    fdr : float
        Rows with an adjusted p-value at or below this are hits.
    effect : Effect
        The effect shown for each row: the ratio of means, or their difference.
    rows : Rows
    comparisons, genes : Counts
    totals : Totals
    background, gene_background : Background
        Rows that are not among `rows`, by comparison and by gene.
    own : OwnGenes
    effect_map : EffectMap
    n_cells : dict of str to numpy.ndarray, shape (n_comparisons,), int64
        The largest numbers of cells of ``"target"`` and of ``"reference"`` in any row, if the
        result has them.
    """

    fdr: float
    effect: Effect
    rows: Rows
    comparisons: Counts
    genes: Counts
    totals: Totals
    background: Background
    gene_background: Background
    own: OwnGenes
    effect_map: EffectMap
    n_cells: dict[str, np.ndarray]

    @property
    def n_left_out(self) -> int:
        """Return the number of hits that are not listed."""
        return int(self.comparisons.hits.sum() - self.rows.n_hits.sum())


def collect(result: Result, fdr: float, most: int = MOST_ROWS) -> ReportData:
    """Collect what a report shows.

    Parameters
    ----------
    result : Result
    fdr : float
        Rows with an adjusted p-value at or below this are hits.
    most : int
        The most hits to list; if there are more, the strongest of each comparison.

    Returns
    -------
    ReportData
        Every row that can be drawn is either among its rows or counted in a background.
    """
    effect = effect_of(result)
    n_hits, gene_hits, ranges = _survey(result, effect, fdr, most)
    ranked = np.argsort(-gene_hits, kind="stable")[:MAP_GENES]
    mapped = ranked[gene_hits[ranked] > 0]
    return _Collector(result, effect, fdr, share(n_hits, most), ranges, mapped).collect()


def share(wanted: np.ndarray, most: int) -> int:
    """Return the largest limit per item for which all items together have at most `most`.

    Parameters
    ----------
    wanted : numpy.ndarray, shape (n,), int64
        What each item has; an item below the limit leaves the rest of its share to the others.
    most : int
    """
    low, high = 0, max(int(wanted.max(initial=0)), 1)
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(wanted, middle).sum()) <= most:
            low = middle
        else:
            high = middle - 1
    return low


def _survey(
    result: Result, effect: Effect, fdr: float, most: int
) -> tuple[np.ndarray, np.ndarray, Ranges]:
    """Count the hits of comparisons and of genes; find the ranges of the volcano plots of genes."""
    n_hits, gene_hits = (np.zeros(len(of), np.int64) for of in (result.targets, result.features))
    others, everything = Ranges(len(result.features)), Ranges(len(result.features))
    for part, values in result.blocks(["fdr", *effect.reads, *p_columns(result)]):
        hit = values["fdr"] <= fdr
        n_hits[part] = np.count_nonzero(hit, axis=1)
        gene_hits += np.count_nonzero(hit, axis=0)
        x, y, drawn = _places(values, effect)
        others.widen(x, y, drawn & ~hit)
        everything.widen(x, y, drawn)
    # If hits are left out, the backgrounds count them, so the ranges must include them.
    return n_hits, gene_hits, others if int(n_hits.sum()) <= most else everything


def _places(
    values: dict[str, np.ndarray], effect: Effect
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places in a volcano plot: effect size, -log10 of the p-value, and which have both.

    A p-value of 0 without a logarithm counts as the smallest number above 0.
    """
    x, y = effect.sizes(values), minus_log10_p(values)
    drawn = np.isfinite(x) & ~np.isnan(y)
    y[y == np.inf] = LARGEST
    return x, y, drawn


class _Collector:
    """The second pass over the result, which chooses rows and counts the rest."""

    def __init__(
        self,
        result: Result,
        effect: Effect,
        fdr: float,
        quota: int,
        ranges: Ranges,
        mapped: np.ndarray,
    ) -> None:
        n, n_genes = len(result.targets), len(result.features)
        self._result, self._effect, self._fdr, self._quota = result, effect, fdr, quota
        self._gene_ranges = ranges
        self._totals = Totals()
        self._comparisons, self._genes = Counts.zeros(n), Counts.zeros(n_genes)
        self._ends, self._n_hits = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._row_genes: list[np.ndarray] = []
        self._row_values: dict[str, list[np.ndarray]] = {name: [] for name in VALUES}
        self._behind: list[Background] = []
        self._behind_genes = np.zeros((n_genes, GENE_BINS[0] * GENE_BINS[1]), np.uint32)
        self._own = OwnGenes(
            own_genes_of(result), np.full(n, np.nan), np.zeros(n, bool), np.full(n, np.nan)
        )
        self._map = EffectMap(mapped, np.full((n, len(mapped)), np.nan, np.float32))
        self._n_cells = {
            side: np.zeros(n, np.int64)
            for side in ("target", "reference")
            if f"{side}_n_cells" in result.columns
        }
        self._row_cells: dict[str, list[np.ndarray]] = {side: [] for side in self._n_cells}

    def collect(self) -> ReportData:
        result = self._result
        names = ["fold_change", "fdr", *p_columns(result), *_MEANS, "statistic"]
        names += [f"{side}_n_cells" for side in self._n_cells]
        for part, values in result.blocks(names):
            shape = (part.stop - part.start, len(result.features))
            present = np.full(shape, True) if result.kept is None else result.kept[part]
            self._take(part, values, present)
        np.cumsum(self._ends, out=self._ends)
        rows = Rows(
            self._ends,
            self._n_hits,
            _joined(self._row_genes, np.int64),
            {name: _joined(parts, np.float32) for name, parts in self._row_values.items()},
            {side: _joined(parts, np.int64) for side, parts in self._row_cells.items()},
        )
        return ReportData(
            self._fdr,
            self._effect,
            rows,
            self._comparisons,
            self._genes,
            self._totals,
            Background.joined(self._behind, BINS),
            Background.of(self._behind_genes, self._gene_ranges.limits(), GENE_BINS),
            self._own,
            self._map,
            self._n_cells,
        )

    def _take(self, part: slice, values: dict[str, np.ndarray], present: np.ndarray) -> None:
        y = minus_log10_p(values)  # infinite where the p-value is 0 without a logarithm
        hit = present & (values["fdr"] <= self._fdr)
        self._count(part, values, present, hit, y)
        x, height, drawn = _places(values, self._effect)
        self._undrawn(part, present & ~drawn)
        of = self._map.genes
        with np.errstate(over="ignore"):
            self._map.sizes[part] = np.where(present[:, of], x[:, of], np.nan)
        listed = self._choose(part, values, hit, present & ~np.isnan(y), x, y)
        rest = present & drawn & ~listed
        ranges = Ranges(len(rest))
        ranges.widen(x.T, height.T, rest.T)
        limits = ranges.limits()
        t, g = np.nonzero(rest)
        x, height = x[t, g], height[t, g]
        self._behind.append(_background(t, x, height, limits, BINS))
        cells = GENE_BINS[0] * GENE_BINS[1]
        bins = g * cells + in_bins(x, height, self._gene_ranges.limits()[g], GENE_BINS)
        self._behind_genes += np.bincount(bins, minlength=self._behind_genes.size).reshape(
            self._behind_genes.shape
        ).astype(np.uint32)  # fmt: skip

    def _count(
        self,
        part: slice,
        values: dict[str, np.ndarray],
        present: np.ndarray,
        hit: np.ndarray,
        y: np.ndarray,
    ) -> None:
        change = direction(values)
        kinds = {
            "rows": present,
            "up": hit & (change > 0),
            "down": hit & (change < 0),
            "level": hit & (change == 0),
        }
        for name, mask in kinds.items():
            getattr(self._comparisons, name)[part] = np.count_nonzero(mask, axis=1)
            getattr(self._genes, name)[:] += np.count_nonzero(mask, axis=0)
        for side, cells in self._n_cells.items():
            cells[part] = np.max(values[f"{side}_n_cells"], axis=1, where=present, initial=0)
        own = self._own
        t = np.flatnonzero(own.gene[part] >= 0)
        g = own.gene[part][t]
        own.size[part.start + t] = self._effect.sizes(
            {name: values[name][t, g] for name in self._effect.reads}
        )
        own.hit[part.start + t] = hit[t, g]
        with np.errstate(divide="ignore"):
            own.log10_fdr[part.start + t] = np.log10(values["fdr"][t, g])

        totals, p = self._totals, values["p_value"]
        judged = present & ~np.isnan(p)
        totals.zeros += int(np.count_nonzero(y[present] == np.inf))
        totals.missing += int(np.count_nonzero(present & np.isnan(y)))
        unexpressed = self._effect.unexpressed(values)
        uninformative = judged & (unexpressed | np.isnan(values["statistic"]))
        totals.uninformative += int(np.count_nonzero(uninformative))
        p = p[judged & ~uninformative]
        totals.histogram += np.histogram(p, N_BINS, (0.0, 1.0))[0]
        totals.above_half += int(np.count_nonzero(p > 0.5))

    def _undrawn(self, part: slice, undrawn: np.ndarray) -> None:
        self._comparisons.undrawn[part] = np.count_nonzero(undrawn, axis=1)
        self._genes.undrawn[:] += np.count_nonzero(undrawn, axis=0)

    def _choose(
        self,
        part: slice,
        values: dict[str, np.ndarray],
        hit: np.ndarray,
        judged: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
    ) -> np.ndarray:
        """Store the rows of a block to list, and return their mask, shape (n, n_genes)."""
        listed = np.full(hit.shape, False)
        rows, genes = [], []
        for t in range(len(hit)):
            n_hits = int(np.count_nonzero(hit[t]))
            if n_hits <= self._quota:
                hits = np.flatnonzero(hit[t])
            else:
                hits = np.sort(strongest(y[t], x[t], hit[t], self._quota))
            others = hits[:0]
            if len(hits) < FEWEST_ROWS:
                among = judged[t] & ~hit[t]
                others = np.sort(_first(y[t], x[t], among, FEWEST_ROWS - len(hits)))
            chosen = np.concatenate([hits, others])
            listed[t, chosen] = True
            self._n_hits[part.start + t] = len(hits)
            self._ends[part.start + t] = len(chosen)
            rows.append(np.full(len(chosen), t))
            genes.append(chosen)
        place = _joined(rows, np.int64), _joined(genes, np.int64)
        self._row_genes.append(place[1])
        for side, cells in self._row_cells.items():
            cells.append(values[f"{side}_n_cells"][place])
        with np.errstate(divide="ignore", over="ignore"):  # 1e300 is infinite in single precision
            taken = {name: values[name][place] for name in (*_MEANS, "statistic")}
            taken["effect"] = self._effect.values(values)[place]
            taken["log10_p"] = -y[place] + 0.0
            taken["log10_fdr"] = np.log10(values["fdr"][place])
            for name, column in taken.items():
                self._row_values[name].append(column.astype(np.float32))
        return listed


def _first(score: np.ndarray, change: np.ndarray, among: np.ndarray, n: int) -> np.ndarray:
    """Return what :func:`.plot_values.strongest` does, without sorting all rows to get a few."""
    known = score[among]
    if len(known) > n:
        least = np.partition(known, len(known) - n)[len(known) - n]
        among = among & (score >= least)
    return strongest(score, change, among, n)


def _background(
    t: np.ndarray, x: np.ndarray, y: np.ndarray, limits: np.ndarray, shape: tuple[int, int]
) -> Background:
    cells = shape[0] * shape[1]
    bins = t * cells + in_bins(x, y, limits[t], shape)
    counts = np.bincount(bins, minlength=len(limits) * cells).reshape(-1, cells)
    return Background.of(counts, limits, shape)


def _joined(parts: list[np.ndarray], kind: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)
