"""Calibration of a screen's p-values with its control cells."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..columns.registry import extra_columns
from ..design.comparisons.registry import find_comparison
from ..errors import MemoryBudgetError, OptionError, shown, warn
from ..request.keywords import Options, full_signature
from ..request.options import Entry, Settings, all_names
from ..request.screen import open_matrix
from ..stats.registry import make_test, metric_of
from ..stats.two_sample.base import StatisticalTest
from ..utils.checks import check_count, check_number, check_text
from ..utils.resources import memory_budget
from .mock_groups import Split, split_controls
from .real_groups import real_groups
from .result import Calibration
from .split_run import SplitRun, run_split
from .summarise import summarise

if TYPE_CHECKING:
    from ..request.keywords import Data

logger = logging.getLogger("pdex_gpu")

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
    differs, so that a share of 0.001 of p-values should be at or below 0.001, and each hit is a
    false positive. The result compares observed with expected numbers at 0.05, 0.01, 0.001 and
    0.0001, by expression and by group size.

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
        Number of random splits. Each takes 8 bytes of memory per mock perturbation, gene and kind
        of p-values.
    seed : int
        The same seed gives the same splits on every backend. A split does not depend on how many
        follow.
    alpha : float
        False discovery rate at which false positives are counted.
    **options
        Options of :func:`pdex_gpu.differential_expression`, including those of the test.
        `reference` is the group of the control cells, or a list of groups. `groups`
        names the targets whose sizes are used. With `strata`, each mock perturbation has as many
        cells of each stratum as its real model. `columns` has no effect. `p_values` may be a list
        of kinds, such as ``["asymptotic", "conditional"]``: they are judged on the same
        measurements, in one reading of the data.

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
        If the reference does not exist, or has too few cells, or if one of them has no unit.
    OptionError
        If an option makes no sense here: a comparison other than with the reference, `guides`,
        `on_target`, `out`, or interpolated (hence capped) p-values of Anderson-Darling. Or if
        `p_values` has a kind that the test does not have, or one twice.
    pdex_gpu.errors.PdexGpuError
        Another of its subclasses, as raised by :func:`pdex_gpu.differential_expression`.

    Examples
    --------
    >>> from pdex_gpu import calibrate
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> found = calibrate(adata, "target_gene", n_repeats=4, progress=False)
    >>> len(found.groups), found.of().total.n_tests
    (4, 240)
    >>> found.summary()["n_false_positives"]
    0
    """
    plan = _Plan(units, n_repeats, seed, alpha)
    given, kinds = _kinds(options)
    settings = _settings(groupby, given)
    return _calibrate(data, settings, _tests(settings, kinds), plan)


def _kinds(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the options with the first kind of p-values, and all kinds; none if not given."""
    kinds = options.get("p_values")
    if not isinstance(kinds, list | tuple):
        return dict(options), []
    if not kinds:
        raise OptionError("p_values=[] has no kind of p-values. Name one, or leave it out.")
    for kind in kinds:
        check_text("p_values", kind)
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        raise OptionError(f"p_values={kinds!r} has {twice[0]!r} more than once. Name each once.")
    return {**options, "p_values": kinds[0]}, list(kinds)


def _tests(settings: Settings, kinds: Sequence[str]) -> list[StatisticalTest]:
    """Return the test of each kind of p-values; without kinds, the test as it was asked for."""
    asked = dict(settings.test.test_options)
    options = [{**asked, "p_values": kind} for kind in kinds] or [asked]
    tests = [make_test(settings.test.metric, its, settings.call) for its in options]
    for test in tests:
        test.check_calibration()
    return tests


def _settings(groupby: Any, options: Mapping[str, Any]) -> Settings:
    """Check the options of the comparison, and return them as settings."""
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
    return settings.changed(columns=_COLUMNS, default_columns=False)


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


def _calibrate(
    data: Any, settings: Settings, tests: Sequence[StatisticalTest], plan: _Plan
) -> Calibration:
    plan.check()
    alpha = float(plan.alpha)
    kinds = [str(test.p_values) for test in tests]
    with open_matrix(data, settings, settings.comparison.group_column) as dataset:
        real = real_groups(dataset, settings, plan.units)
        splits: list[Split] = []
        runs: list[SplitRun] = []
        seeds = np.random.SeedSequence(int(plan.seed))
        for _ in range(int(plan.n_repeats)):
            rng = np.random.default_rng(seeds.spawn(1)[0])
            split = split_controls(rng, real.blocks, real.wanted, real.units)
            if not splits:
                n_values = len(tests) * len(split.targets) * dataset.source.n_genes
                _check_room(int(plan.n_repeats), n_values, settings)
            splits.append(split)
            runs.append(run_split(dataset, settings, real, split, tests[1:], alpha))
    doubtful = next((run.doubt for run in runs if run.doubt is not None), None)
    if doubtful is not None:
        warn(doubtful)
    found = summarise(
        real,
        splits,
        runs,
        kinds=kinds,
        alpha=alpha,
        metric=metric_of(settings.test.metric),
        units=plan.units,
    )
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
