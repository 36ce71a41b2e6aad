"""Calibration of a screen's p-values with its control cells."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import numpy as np

from ..columns.registry import extra_columns
from ..design.build import make_design
from ..design.comparisons.registry import find_comparison
from ..design.labels import Labels, combined, object_array
from ..errors import (
    DuplicateGeneWarning,
    LabelError,
    MemoryBudgetError,
    MissingLabelWarning,
    OptionError,
    ScaleWarning,
    SkippedWarning,
    shown,
    warn,
)
from ..pipeline.execute import compare
from ..request.keywords import Options, full_signature
from ..request.options import Entry, Settings, all_names
from ..request.screen import open_matrix
from ..results.memory import DEResult
from ..sources.dataset import Dataset
from ..stats.registry import make_test, metric_of
from ..utils.checks import check_count, check_number, check_text
from ..utils.resources import memory_budget
from .distributions import Distribution, distribution, quantiles
from .mock_groups import CONTROL, LEFT_OUT, Split, split_controls
from .result import Calibration

if TYPE_CHECKING:
    from ..request.keywords import Data

logger = logging.getLogger("pdex_gpu")

_MOCK_CONTROL, _OTHERS = "mock control", "other cells"
_COLUMNS = ("target_fraction", "reference_fraction")
# Options that make no sense between mock perturbations, and what to do instead.
_REFUSED = {
    "comparison": "Mock perturbations are always compared with a mock control. Leave it out.",
    "guides": "Control cells must be identified by a column of obs. Pass it as groupby=.",
    "multiplicity": "A control cell must be in one group. Leave it out.",
    "on_target": "Mock perturbations target no gene. Leave it out to calibrate on all genes.",
    "out": "Write the table that calibrate returns: calibrate(...).table().to_csv(...).",
}
_OWN_OPTIONS = ("units", "n_repeats", "seed", "alpha")


@full_signature(without=_REFUSED)
def calibrate(
    data: Data,
    groupby: str | Sequence[str] | None = None,
    *,
    units: str | None = None,
    n_repeats: int = 1,
    seed: int = 0,
    alpha: float = 0.05,
    **options: Unpack[Options],
) -> Calibration:
    """Assess how far a screen's p-values can be trusted, using only its control cells.

    Control cells are split at random into mock perturbations, with the sizes of the real ones, and
    a mock control of at least half of the cells. The same analysis is run on these. No gene
    differs, so p-values should be uniform, and each hit is a false positive.

    Splitting cell by cell shows how a test is affected by sparse and tied counts, outliers and
    small groups. Mock groups do not differ otherwise, so the effects of dependence between cells
    and of batches remain hidden. `units` reveals them: cells that belong together (the same
    non-targeting guide, replicate or batch) stay together, as the cells of a real perturbation may.
    Tests that treat each cell as an independent sample then give p-values that are too small.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, file object, or list or dict of paths
        As in :func:`pdex_gpu.differential_expression`. Files are read once per repeat.
    groupby : str or list of str, optional
        Column of obs with the group of each cell; left out with `guide_calls` or `min_umis`, which
        then give the group of each cell. In a list, the first column has the groups, and
        each mock perturbation has as many cells in each level of the others as its real model.
    units : str, optional
        Column of obs with the unit of each control cell, such as its guide. A mock perturbation
        takes its cells from as few units as its size allows; no unit is on both sides.
    n_repeats : int
        Number of random splits. Each takes 8 bytes of memory per mock perturbation and gene.
    seed : int
        The same seed gives the same splits on every backend. A split does not depend on how many
        follow.
    alpha : float
        False discovery rate at which false positives are counted.
    **options
        Options of :func:`pdex_gpu.differential_expression`, including those of the test.
        `reference` is the group of the control cells, or a list of groups. `groups`
        names the targets whose sizes are used. With `strata`, each mock perturbation has as many
        cells of each stratum as its real model. `columns` has no effect.

    Returns
    -------
    Calibration
        If there are too few control cells for all sizes, targets are taken in random order. Those
        that the remaining cells cannot match are skipped (in strata, if more than a tenth of
        the cells is missing), which favours small targets. If all are too large, there is one mock
        perturbation, as large as possible. Targets with fewer than `min_cells` cells are left out.

    Raises
    ------
    LabelError
        If the reference does not exist, or has too few cells.
    OptionError
        If an option makes no sense here: a comparison other than with the reference, `guides`,
        `on_target`, `out`, or interpolated (hence capped) p-values of Anderson-Darling.
    pdex_gpu.errors.PdexGpuError
        Another of its subclasses, as raised by :func:`pdex_gpu.differential_expression`.

    Examples
    --------
    >>> from pdex_gpu import calibrate
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> found = calibrate(adata, "target_gene", n_repeats=4, progress=False)
    >>> len(found.groups), found.total.n_tests
    (4, 240)
    >>> found.summary()["n_false_positives"]
    0
    """
    plan = _Plan(units, n_repeats, seed, alpha)
    return _calibrate(data, _settings(groupby, options), plan)


def _settings(groupby: Any, options: Mapping[str, Any]) -> Settings:
    """Check the options of the comparison and the test, and return them as settings."""
    for name, advice in _REFUSED.items():
        given = options.get(name)
        if name == "comparison":
            refused = name in options and not _has_one_reference(given)
        else:
            refused = given is not None
        if refused:
            raise OptionError(f"{name}={shown(given)} is not supported by calibrate. {advice}")
    known = [name for name in all_names() if name not in _REFUSED]
    settings = Settings.of(
        {"groupby": groupby, **options}, Entry("calibrate", (*_OWN_OPTIONS, *known))
    )
    extra_columns(settings.columns.columns, {})
    test = make_test(settings.test.metric, settings.test.test_options, settings.call)
    test.check_calibration()
    return settings.changed(columns=_COLUMNS)


def _has_one_reference(comparison: object) -> bool:
    """Return whether all groups are compared with the same cells, as mock perturbations are."""
    try:
        return find_comparison(comparison).one_reference
    except OptionError:
        return False


@dataclass(frozen=True)
class _Plan:
    """The options of calibration on top of those of a comparison; see :func:`calibrate`."""

    units: Any
    n_repeats: Any
    seed: Any
    alpha: Any

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        check_text("units", self.units, may_be_none=True, what="a column of obs")
        check_count("n_repeats", self.n_repeats, may_be_none=False)
        check_count("seed", self.seed, least=0, may_be_none=False)
        words = "a number above 0 and below 1"
        if not 0.0 < check_number("alpha", self.alpha, words) < 1.0:
            raise OptionError(f"alpha={self.alpha!r} must be {words}.")


def _calibrate(data: Any, settings: Settings, plan: _Plan) -> Calibration:
    plan.check()
    alpha = float(plan.alpha)
    with open_matrix(data, settings, settings.comparison.group_column) as dataset:
        real = _real_groups(dataset, settings, plan.units)
        splits: list[Split] = []
        runs: list[_Run] = []
        seeds = np.random.SeedSequence(int(plan.seed))
        for _ in range(int(plan.n_repeats)):
            rng = np.random.default_rng(seeds.spawn(1)[0])
            split = split_controls(rng, real.blocks, real.wanted, real.units)
            if not splits:
                n_values = len(split.targets) * dataset.source.n_genes
                _check_room(int(plan.n_repeats), n_values, settings)
            splits.append(split)
            runs.append(_run(dataset, settings, real, split, alpha))
    doubtful = next((run.doubt for run in runs if run.doubt is not None), None)
    if doubtful is not None:
        warn(doubtful)
    found = _summarised(settings, real, splits, runs, alpha)
    logger.info("%s", found)
    return found


def _check_room(n_repeats: int, n_values: int, settings: Settings) -> None:
    """Raise MemoryBudgetError if the p-values of all splits do not fit in memory."""
    needed = 8 * n_repeats * n_values
    allowed = memory_budget(1.0 if settings.execution.memory is None else settings.execution.memory)
    if needed > allowed:
        raise MemoryBudgetError(
            f"n_repeats={n_repeats:,} needs {needed:,} bytes for p-values ({8 * n_values:,} per "
            f"repeat), but only {allowed:,} may be used. Use fewer repeats, or allow more memory "
            "with memory=."
        )


@dataclass(frozen=True)
class _Real:
    """The screen's own groups.

    Attributes
    ----------
    controls : numpy.ndarray, shape (n_control,), int64
        Rows of the control cells, ascending.
    blocks : numpy.ndarray, shape (n_control,), int64
        The combination of levels and stratum of each control cell.
    units : numpy.ndarray or None, shape (n_control,), int64
    targets : numpy.ndarray, shape (n_targets,), object
    wanted : numpy.ndarray, shape (n_targets, n_blocks), int64
        Number of cells of each target in each block that has control cells.
    n_cells : int
        Number of cells in the data.
    reference : str
        Name of the reference.
    """

    controls: np.ndarray
    blocks: np.ndarray
    units: np.ndarray | None
    targets: np.ndarray
    wanted: np.ndarray
    n_cells: int
    reference: str


def _real_groups(dataset: Dataset, settings: Settings, units: str | None) -> _Real:
    column = settings.comparison.group_column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingLabelWarning)
        design = make_design(
            dataset.labels.codes,
            dataset.labels.categories,
            reference=settings.comparison.reference,
            groups=settings.comparison.groups,
            column=column,
        )
    names = list(settings.comparison.within_columns)
    if settings.comparison.strata is not None:
        names.append(settings.comparison.strata)
    block, n_blocks = np.zeros(len(design.codes), np.int64), 1
    if names:
        block, n_blocks = _levels(dataset, names, design.codes >= 0)
    controls = np.flatnonzero(design.codes == 0)
    unit = None if units is None else _levels(dataset, [units], design.codes == 0)[0][controls]
    cells = np.flatnonzero(design.codes > 0)
    place = (design.codes[cells] - 1) * n_blocks + block[cells]
    wanted = np.bincount(place, minlength=design.n_rows * n_blocks).reshape(-1, n_blocks)
    wanted[:, np.bincount(block[controls], minlength=n_blocks) == 0] = 0
    used = wanted.sum(axis=1) >= settings.comparison.min_cells
    if not used.any():
        _no_target(settings, column, wanted)
    return _Real(
        controls,
        block[controls],
        unit,
        design.targets[used],
        wanted[used],
        len(design.codes),
        str(design.reference),
    )


def _levels(dataset: Dataset, names: list[str], used: np.ndarray) -> tuple[np.ndarray, int]:
    """Combine columns of obs; return the level of each cell and the number of levels."""
    found = combined([dataset.column(name) for name in names], names)
    missing = np.count_nonzero(used & (found.codes < 0))
    if missing:
        raise LabelError(
            f"{missing} of the cells used have no value in column {found.column!r}. Fill in the "
            "values, or remove these cells first."
        )
    return found.codes, len(found.names)


def _no_target(settings: Settings, column: str, wanted: np.ndarray) -> NoReturn:
    most = int(wanted.sum(axis=1).max())
    raise LabelError(
        f"No target in column {column!r} has min_cells={settings.comparison.min_cells} cells that "
        f"can be compared with the reference: the largest has {most}. Use a smaller min_cells, or "
        "check that reference and targets occur in the same strata and levels."
    )


@dataclass(frozen=True)
class _Run:
    """The comparison of one split.

    Attributes
    ----------
    group : numpy.ndarray, shape (n_rows,), int64
        Mock group of each row. A group has one row, or one per level.
    p_values : numpy.ndarray, shape (n_rows, n_genes), float64
        NaN where the test is not informative or was not made.
    mean : numpy.ndarray, shape (n_genes,), float64
        Mean of the mock control, over rows.
    n_uninformative, n_false_positives : numpy.ndarray, shape (n_groups,), int64
    provenance : dict
    doubt : ScaleWarning or None
        Warning about the scale of the values.
    """

    group: np.ndarray
    p_values: np.ndarray
    mean: np.ndarray
    n_uninformative: np.ndarray
    n_false_positives: np.ndarray
    provenance: dict[str, Any]
    doubt: ScaleWarning | None


def _run(dataset: Dataset, settings: Settings, real: _Real, split: Split, alpha: float) -> _Run:
    """Relabel the cells and compare; the matrix stays as it is."""
    n_groups = len(split.targets)
    names = [f"mock {k + 1}" for k in range(n_groups)]
    # Cells on neither side get an unused label: missing labels would cause a warning.
    codes = np.full(real.n_cells, n_groups + 1, np.int64)
    codes[real.controls] = np.select(
        [split.codes == CONTROL, split.codes == LEFT_OUT],
        [n_groups, n_groups + 1],
        split.codes,
    )
    labels = Labels(codes, object_array([*names, _MOCK_CONTROL, _OTHERS]))
    relabelled = replace(dataset, labels=labels, close=lambda: None)
    doubtful = None
    with warnings.catch_warnings(record=True) as caught:
        # The real analysis gives these warnings; for mock groups, the counts of tests say enough.
        for category in (SkippedWarning, DuplicateGeneWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("always", ScaleWarning)
        result = compare(relabelled, settings.changed(reference=_MOCK_CONTROL, groups=names))
    for said in caught:
        if isinstance(said.message, ScaleWarning):  # given once for all splits
            doubtful = said.message
        else:
            warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    assert isinstance(result, DEResult)
    number = {name: k for k, name in enumerate(names)}
    group = np.array([number[name] for name in result.targets], np.int64)
    informative, kept = _informative(result)
    false_positive = kept & (result["fdr"] <= alpha)
    known = kept & ~np.isnan(result["reference_mean"])  # leaving out NaN may leave no cell
    n_known = np.maximum(np.count_nonzero(known, axis=0), 1)
    mean = np.sum(result["reference_mean"], axis=0, where=known) / n_known
    p_values = result["p_value"]
    p_values[~informative] = np.nan

    def by_group(rows: np.ndarray) -> np.ndarray:
        return np.bincount(group, np.count_nonzero(rows, axis=1), n_groups).astype(np.int64)

    return _Run(
        group,
        p_values,
        mean,
        by_group(kept & ~informative),
        by_group(false_positive),
        result.provenance,
        doubtful,
    )


def _informative(result: DEResult) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs are judged and not constant, and which are in the result at all."""
    kept = np.ones(result["p_value"].shape, bool) if result.kept is None else result.kept
    # A gene with a single nonzero value is expressed in all cells and has equal means.
    target, reference = result["target_mean"], result["reference_mean"]
    expressed = result["target_fraction"] + result["reference_fraction"]
    equal = np.abs(target - reference) <= 1e-9 * np.abs(reference)
    constant = (expressed == 0.0) | ((expressed == 2.0) & equal & (result["p_value"] == 1.0))
    return kept & ~np.isnan(result["statistic"]) & ~constant, kept


def _summarised(
    settings: Settings, real: _Real, splits: list[Split], runs: list[_Run], alpha: float
) -> Calibration:
    n_groups = [len(split.targets) for split in splits]
    first = np.cumsum([0, *n_groups])
    by_group = [
        distribution(_sorted(run.p_values[run.group == k]))
        for run, n in zip(runs, n_groups, strict=True)
        for k in range(n)
    ]
    pooled = _sorted(*(run.p_values for run in runs))
    targets = np.concatenate([split.targets for split in splits])
    n_control = [np.count_nonzero(split.codes == CONTROL) for split in splits]
    return Calibration(
        groups=object_array(f"mock {k + 1}" for k in range(len(targets))),
        repeats=np.repeat(np.arange(len(splits)), n_groups),
        targets=real.targets[targets],
        n_target_cells=real.wanted[targets].sum(axis=1),
        n_cells=np.concatenate([split.n_cells for split in splits]),
        n_reference_cells=np.repeat(n_control, n_groups),
        n_uninformative=np.concatenate([run.n_uninformative for run in runs]),
        n_false_positives=np.concatenate([run.n_false_positives for run in runs]),
        by_group=tuple(by_group),
        total=distribution(pooled),
        by_expression=_by_expression(runs),
        quantiles=quantiles(pooled),
        n_targets=len(real.targets),
        control_cells=real.controls,
        assignment=np.stack([
            np.where(split.codes < 0, split.codes, split.codes + start)
            for split, start in zip(splits, first[:-1], strict=True)
        ]),
        alpha=alpha,
        metric=metric_of(settings.test.metric),
        reference=real.reference,
        provenance=runs[0].provenance,
    )  # fmt: skip


def _by_expression(runs: list[_Run]) -> tuple[Distribution, Distribution, Distribution]:
    """Describe the p-values of each third of the informative genes, by mean of mock controls."""
    mean = np.sum([run.mean for run in runs], axis=0)
    tested = np.any([~np.isnan(run.p_values).all(axis=0) for run in runs], axis=0)
    genes = np.flatnonzero(tested)
    genes = genes[np.argsort(mean[genes], kind="stable")]
    low, middle, high = (
        distribution(_sorted(*(run.p_values[:, third] for run in runs)))
        for third in np.array_split(genes, 3)
    )
    return low, middle, high


def _sorted(*p_values: np.ndarray) -> np.ndarray:
    """Return the p-values that are not NaN, in ascending order."""
    found = np.concatenate([p[~np.isnan(p)] for p in p_values])
    found.sort()
    return found
