"""The analysis that a call asks for: its test and columns."""

from __future__ import annotations

from ..columns.measure import Analysis, make_analysis
from ..stats.two_sample.base import StatisticalTest
from .options import Settings


def analysis_of(settings: Settings, test: StatisticalTest) -> Analysis:
    """Return what must be computed for a call; see :func:`.columns.measure.make_analysis`."""
    return make_analysis(
        test,
        settings.columns.columns,
        default=settings.columns.default_columns,
        is_log1p=settings.columns.is_log1p,
        exp_post_agg=settings.columns.exp_post_agg,
        stratified=settings.comparison.strata is not None,
        expressed=settings.filters.min_fraction is not None,
        count_means=settings.filters.min_cpm is not None,
        level=float(settings.columns.confidence),
    )
