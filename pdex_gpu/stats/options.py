"""The options that say which test is made, and how its p-values are corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..utils.checks import check_choice
from ..utils.options import internal, option
from .registry import METRICS, check_metric
from .two_sample.base import StatisticalTest
from .two_sample.options import words

#: Benjamini-Hochberg of p-values that are judged against mock groups of controls.
EMPIRICAL = "empirical"
FDR_METHODS = ("benjamini-hochberg", "benjamini-yekutieli", "bonferroni", EMPIRICAL)
FDR_SCOPES = ("all", "target", "gene")


@dataclass(frozen=True)
class MetricOptions:
    """A test by name, and its own options; see :func:`.registry.make_test`."""

    TITLE: ClassVar = "Test"

    metric: str | StatisticalTest = option(
        "wilcoxon",
        lambda: f"{words(tuple(METRICS))} [wilcoxon]",
        "choice",
        choices=lambda: tuple(METRICS),
    )
    test_options: Mapping[str, Any] = internal(dict)

    def __post_init__(self) -> None:
        check_metric(self.metric)


@dataclass(frozen=True)
class CorrectionOptions:
    """A method to correct p-values, and the tests it applies to together.

    Attributes
    ----------
    fdr_method : {"benjamini-hochberg", "benjamini-yekutieli", "bonferroni", "empirical"}
    fdr_scope : {"all", "target", "gene"}
        The tests that are corrected together: all rows, those of a target (and reference), or
        those of a gene.
    """

    TITLE: ClassVar = "Columns, correction, filters"

    fdr_method: str = option(
        "benjamini-hochberg",
        "benjamini-yekutieli, bonferroni or empirical",
        "choice",
        choices=lambda: FDR_METHODS,
    )
    fdr_scope: str = option(
        "all",
        "rows corrected together: all, target or gene [all]",
        "choice",
        choices=lambda: FDR_SCOPES,
    )

    @property
    def empirical(self) -> bool:
        """Return whether p-values are judged against mock groups first."""
        return self.fdr_method == EMPIRICAL

    def __post_init__(self) -> None:
        check_choice("fdr_method", self.fdr_method, FDR_METHODS)
        check_choice("fdr_scope", self.fdr_scope, FDR_SCOPES)
