"""Options stand once: in the groups, from which signatures, types and identities are made."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from stored_screens import GROUPBY, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends.registry import (
    BACKENDS,
    ENGINES,
    BackendName,
    EngineName,
    choose_backend,
)
from pdex_gpu.columns.measure import make_analysis
from pdex_gpu.design.comparisons.registry import ComparisonName, comparison_names
from pdex_gpu.pipeline.identity import run_identity
from pdex_gpu.request.keywords import Options
from pdex_gpu.request.options import GROUPS, Settings, all_names
from pdex_gpu.request.screen import design_of, open_screen
from pdex_gpu.stats.registry import METRICS, MetricName, make_test
from pdex_gpu.stats.two_sample.options import options_of

CALLS = [pdex_gpu.differential_expression, pdex_gpu.calibrate, pdex_gpu.estimate]
REFUSED_BY_CALIBRATE = {"comparison", "guides", "multiplicity", "on_target", "out"}


def test_no_name_is_in_two_groups():
    names = [f.name for group in GROUPS.values() for f in fields(group)]
    assert len(names) == len(set(names))


def test_every_keyword_is_typed():
    of_tests = {
        name
        for test in METRICS.values()
        for name in (*(one.name for one in options_of(test)), *test.scipy_options())
    }
    typed = set(Options.__annotations__)
    assert typed >= set(all_names()) - {"groupby", "out"} | of_tests
    # Names that only other versions of scipy have.
    assert typed - set(all_names()) - of_tests <= {
        "axis",
        "keepdims",
        "permutations",
        "random_state",
        "rng",
    }


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_signatures_show_every_keyword_with_its_default(call: Any):
    shown = inspect.signature(call).parameters
    defaults = {
        f.name: f.default
        for group in GROUPS.values()
        for f in fields(group)
        if f.name in all_names()
    }
    hidden = REFUSED_BY_CALIBRATE if call is pdex_gpu.calibrate else set()
    assert defaults.keys() - shown.keys() == hidden
    for name in defaults.keys() - hidden - {"groupby"}:
        assert shown[name].default == defaults[name], name


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    ("typo", "meant"),
    [("fdr_metod", "fdr_method"), ("min_cell", "min_cells"), ("continuty", "continuity")],
)
def test_an_unknown_keyword_is_answered_with_the_closest(call: Any, typo: str, meant: str):
    with pytest.raises(errors.OptionError, match=rf"Unknown option '{typo}'.*'{meant}'"):
        call(screen(), GROUPBY, reference="ctl", **{typo: 1})


def test_choices_in_types_are_those_of_the_library():
    assert get_args(MetricName) == tuple(METRICS)
    assert get_args(ComparisonName) == comparison_names()
    assert set(get_args(BackendName)) == {"auto", *BACKENDS}
    assert set(get_args(EngineName)) == {"auto", *ENGINES}


# --- identity --------------------------------------------------------------------------------

#: Another value for each option that results depend on.
OTHER: dict[str, Any] = {
    "comparison": "rest",
    "guides": "guides",
    "min_umis": 3,
    "multiplicity": "high",
    "on_target": "gene",
    "strata": "batch",
    "min_cells": 2,
    "layer": "counts",
    "raw": True,
    "modality": "rna",
    "join": "outer",
    "batch": "plate",
    "cells": "kept",
    "normalize": 1e4,
    "log1p": False,
    "totals": "total",
    "gene_symbols": "symbol",
    "allow": ("unwritten",),
    "metric": "t-test",
    "test_options": {"continuity": False},
    "columns": ("auroc",),
    "default_columns": False,
    "confidence": 0.9,
    "pseudocount": 1.0,
    "is_log1p": True,
    "exp_post_agg": False,
    "clip_value": None,
    "min_fraction": 0.1,
    "min_cpm": 1.0,
    "filter_sides": "either",
    "fdr_method": "bonferroni",
    "fdr_scope": "gene",
    "spreadsheet_safe": True,
}
#: The options without which an option is refused.
ALONG: dict[str, Any] = {
    "log1p": {"normalize": 1e4},
    "totals": {"normalize": 1e4},
    "multiplicity": {"min_umis": 3},
}
#: These choose cells and genes: labels and names tell them apart.
BY_LABELS = {"groupby", "reference", "groups", "pairs", "guide_calls", "guide_targets", "genes"}


def identity(**changes: Any) -> dict[str, Any]:
    adata = screen()
    settings = Settings.of({"groupby": GROUPBY, "reference": "ctl", "out": "de.csv"})
    with open_screen(adata, settings) as dataset:
        design = design_of(dataset, settings)
        if changes.keys() & {"guides", "min_umis"}:
            changes["groupby"] = None
        other = settings.changed(**changes)
        analysis = make_analysis(
            make_test(other.test.metric, other.test.test_options), other.columns.columns,
            is_log1p=None, exp_post_agg=True, stratified=False, expressed=False,
            count_means=False, level=0.95,
        )  # fmt: skip
        return run_identity(other, dataset, design, analysis, choose_backend("cpu"))


def test_identity_has_every_option_that_results_depend_on():
    deciding = set(Settings.of({"groupby": GROUPBY}).deciding())
    assert deciding == set(OTHER) | BY_LABELS
    assert deciding <= identity().keys()


@pytest.mark.parametrize("name", OTHER)
def test_another_value_is_another_run(name: str):
    along = ALONG.get(name, {})
    assert identity(**along, **{name: OTHER[name]})[name] != identity(**along)[name]


def test_comparisons_of_the_same_labels_with_other_groups_are_other_runs():
    """As a comparison with options of its own can make them."""
    settings = Settings.of({"groupby": GROUPBY, "reference": "ctl"})
    with open_screen(screen(), settings) as dataset:
        design = design_of(dataset, settings)
        first = design.contrasts[0]
        turned = replace(first, groups=first.groups[::-1])
        other = replace(design, contrasts=(turned, *design.contrasts[1:]))
        analysis = make_analysis(
            make_test("wilcoxon", {}), (), is_log1p=None, exp_post_agg=True, stratified=False,
            expressed=False, count_means=False, level=0.95,
        )  # fmt: skip
        of = [
            run_identity(settings, dataset, one, analysis, choose_backend("cpu"))
            for one in (design, other)
        ]
    name = "groups that are compared"
    assert of[0].pop(name) != of[1].pop(name)
    assert of[0] == of[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_threads", 1), ("engine", "serial"), ("memory", "1GB"), ("force", True), ("restart", True),
     ("progress", False), ("gene_chunk_size", 3), ("out", "other.csv")],
)  # fmt: skip
def test_where_and_how_it_runs_does_not_matter(name: str, value: Any):
    assert identity(**{name: value}) == identity()
