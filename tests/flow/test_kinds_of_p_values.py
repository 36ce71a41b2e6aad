"""Which kind of p-values a call has when it names none, and where it says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.doctor.results import examine
from pdex_gpu.errors import DataError, OptionError
from pdex_gpu.stats import METRICS
from pdex_gpu.stats.two_sample.options import options_of

#: Calls whose p-values are asymptotic because of an option, and how a log line names it.
OF_THE_LIMIT: list[tuple[str, dict[str, Any], str]] = [
    ("wilcoxon", {"continuity": False}, "continuity=False belongs to these"),
    ("wilcoxon", {"use_continuity": False}, "continuity=False belongs to these"),
    ("wilcoxon", {"tie_correction": False}, "tie_correction=False belongs to these"),
    ("wilcoxon", {"method": "asymptotic"}, "method='asymptotic' belongs to these"),
    ("wilcoxon", {"method": "exact"}, "method='exact' belongs to these"),
    ("t-test", {"variance": "welch"}, "variance='welch' belongs to these"),
    ("t-test", {"equal_var": False}, "variance='welch' belongs to these"),
    ("t-test", {"variance": "overestimated"}, "variance='overestimated' belongs to these"),
    ("anderson", {"variant": "right"}, "variant='right' belongs to these"),
    ("anderson", {"midrank": False}, "variant='right' belongs to these"),
    ("anderson", {"variant": "continuous"}, "variant='continuous' belongs to these"),
]
#: Defaults that are named are no reason.
DEFAULTS: list[tuple[str, dict[str, Any]]] = [
    ("wilcoxon", {"continuity": True, "tie_correction": True, "method": "auto"}),
    ("t-test", {"variance": "pooled"}),
    ("t-test", {"equal_var": True}),
    ("anderson", {"variant": "midrank"}),
    ("ks", {"alternative": "less"}),
]
ASYMPTOTIC = {"p_values": "asymptotic"}


def screen(shift: float = 0.0) -> anndata.AnnData:
    """Counts of 6 genes in 60 cells, one of them larger in "a"; `shift` is added to gene 2."""
    rng = np.random.default_rng(0)
    values = rng.poisson(0.7, (60, 6)).astype(np.float64)
    values[:12, 4] += 1
    values[:, 2] += shift
    group = ["a"] * 12 + ["b"] * 9 + ["control"] * 39
    names = [str(i) for i in range(60)]
    return anndata.AnnData(values, pd.DataFrame({"g": group, "batch": ["x", "y"] * 30}, names))


def run(data: anndata.AnnData | None = None, **options: Any) -> pdex_gpu.DEResult:
    asked = {"reference": "control", "is_log1p": False, "progress": False, "backend": "numpy"}
    return pdex_gpu.differential_expression(data or screen(), "g", **(asked | options))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that were logged about kinds of p-values."""
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("p-values of ")]
    caplog.clear()
    return said


def test_options_are_those_that_tests_declare() -> None:
    declared = {
        (metric, option.name)
        for metric, test in METRICS.items()
        for option in options_of(test)
        if option.asymptotic_only
    }
    names = {"use_continuity": "continuity", "equal_var": "variance", "midrank": "variant"}
    assert declared == {(m, names.get(o, o)) for m, options, _ in OF_THE_LIMIT for o in options}


@pytest.mark.parametrize("metric", METRICS)
def test_the_native_call_is_conditional(metric: str, caplog: pytest.LogCaptureFixture) -> None:
    found = run(metric=metric)
    assert found.provenance["p_values"] == "conditional"
    assert found.provenance["test_options"] == {}
    named = run(metric=metric, p_values="conditional")
    np.testing.assert_array_equal(found["p_value"], named["p_value"])
    assert (found["p_value"] != run(metric=metric, **ASYMPTOTIC)["p_value"]).any()
    assert lines(caplog) == []


@pytest.mark.parametrize(("metric", "options"), DEFAULTS)
def test_a_default_that_is_named_changes_nothing(
    metric: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(metric=metric, **options).provenance["p_values"] == "conditional"
    assert lines(caplog) == []


@pytest.mark.parametrize(("metric", "options", "why"), OF_THE_LIMIT)
def test_an_option_of_the_limit_chooses_it(
    metric: str, options: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = run(metric=metric, **options)
    assert lines(caplog) == [
        f"p-values of metric='{metric}' are asymptotic: {why}. To choose them, pass "
        "p_values='asymptotic' (--p-values asymptotic)"
    ]
    assert found.provenance["p_values"] == "asymptotic"
    assert found.provenance["test_options"] == {k: repr(v) for k, v in options.items()}
    named = run(metric=metric, **options, **ASYMPTOTIC)
    assert lines(caplog) == []
    np.testing.assert_array_equal(found["p_value"], named["p_value"])
    with pytest.raises(OptionError, match="belongs to asymptotic p-values, but p_values='cond"):
        run(metric=metric, p_values="conditional", **options)


def test_so_it_does_in_a_test_that_is_an_object(caplog: pytest.LogCaptureFixture) -> None:
    assert run(metric=pdex_gpu.Wilcoxon()).provenance["p_values"] == "conditional"
    assert lines(caplog) == []
    found = run(metric=pdex_gpu.Wilcoxon(continuity=False))
    assert found.provenance["p_values"] == "asymptotic"
    assert len(lines(caplog)) == 1
    run(metric=pdex_gpu.Wilcoxon(continuity=False, p_values="asymptotic"))
    assert lines(caplog) == []
    with pytest.raises(OptionError, match="belongs to asymptotic p-values"):
        pdex_gpu.Wilcoxon(False, p_values="conditional")
    with pytest.raises(DataError, match="values that are not negative"):
        run(screen(-1.0), metric=pdex_gpu.Wilcoxon(p_values="conditional"))


@pytest.mark.parametrize("metric", [m for m, test in METRICS.items() if test.stratified_form])
def test_strata(metric: str, caplog: pytest.LogCaptureFixture) -> None:
    found = run(metric=metric, strata="batch")
    assert found.provenance["p_values"] == "conditional"
    named = run(metric=metric, strata="batch", p_values="conditional")
    np.testing.assert_array_equal(found["p_value"], named["p_value"])
    limit = run(metric=metric, strata="batch", **ASYMPTOTIC)
    assert (found["p_value"] != limit["p_value"]).any()
    assert lines(caplog) == []


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")
@pytest.mark.parametrize("metric", METRICS)
def test_genes_with_negative_values(metric: str, caplog: pytest.LogCaptureFixture) -> None:
    found = run(screen(-1.0), metric=metric)
    assert lines(caplog) == [
        "p-values of genes with negative values are asymptotic, those of other genes conditional"
    ]
    kind = found.provenance["p_values"]
    assert kind == "conditional; asymptotic for genes with negative values"
    limit, others = run(screen(-1.0), metric=metric, **ASYMPTOTIC), run(metric=metric)
    np.testing.assert_array_equal(found["p_value"][:, 2], limit["p_value"][:, 2])
    rest = np.arange(6) != 2
    np.testing.assert_array_equal(found["p_value"][:, rest], others["p_value"][:, rest])


def test_what_scipy_runs_is_said_to_be_scipys() -> None:
    assert run(metric="t-test", trim=0.1).provenance["p_values"] == "scipy"


@pytest.mark.parametrize(
    "call",
    [
        lambda data: pdex_gpu.rank_genes_groups(data, "g", method="wilcoxon"),
        lambda data: pdex_gpu.rank_genes_groups(data, "g", method="t-test"),
        lambda data: pdex_gpu.rank_genes_groups(data, "g", method="t-test_overestim_var"),
        lambda data: pdex_gpu.pdex(data, "g", reference="control", is_log1p=False),
        *(
            lambda data, metric=metric: pdex_gpu.parallel_differential_expression(
                data, reference="control", groupby_key="g", metric=metric, is_log1p=False,
                show_progress=False,
            )
            for metric in METRICS
        ),
    ],
)  # fmt: skip
def test_drop_ins_have_the_kind_of_their_peers(
    call: Callable[[anndata.AnnData], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from pdex_gpu.pipeline import call as pipeline_call

    kinds = []
    make = pipeline_call.make_provenance

    def noted(*args: Any, **more: Any) -> Any:
        found = make(*args, **more)
        kinds.append((found["metric"], found["p_values"]))
        return found

    monkeypatch.setattr(pipeline_call, "make_provenance", noted)
    call(screen())
    ((metric, kind),) = kinds
    assert kind == ("interpolated" if metric == "anderson" else "asymptotic")
    assert lines(caplog) == []


def test_calibration(caplog: pytest.LogCaptureFixture) -> None:
    asked = {"reference": "control", "progress": False, "backend": "numpy"}
    found = pdex_gpu.calibrate(screen(), "g", **asked)
    assert [judged.kind for judged in found.kinds] == ["conditional"]
    found = pdex_gpu.calibrate(screen(), "g", method="asymptotic", **asked)
    assert [judged.kind for judged in found.kinds] == ["asymptotic"]
    assert len(lines(caplog)) == 1


def test_the_command_line_and_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen().write_h5ad(tmp_path / "screen.h5ad")
    asked = ["--groupby", "g", "--reference", "control", "--backend", "numpy"]
    for more, kind in (
        ([], "conditional"),
        (["--method", "asymptotic"], "asymptotic"),
        (["--p-values", "asymptotic"], "asymptotic"),
    ):
        out = tmp_path / f"de{'-'.join(more)}.parquet"
        assert not main(["run", str(tmp_path / "screen.h5ad"), *asked, *more, "-o", str(out)])
        said = capsys.readouterr().err
        assert ("p-values of metric='wilcoxon' are asymptotic" in said) == ("--method" in more)
        first = examine(out)[0]
        assert first.found.endswith(f", p-values: {kind}")
        assert not main(["doctor", str(out)])
        assert f"p-values: {kind}" in " ".join(capsys.readouterr().out.split())


def test_a_log_line_is_shown_without_asking(caplog: pytest.LogCaptureFixture) -> None:
    run(method="exact")
    (record,) = [r for r in caplog.records if r.getMessage().startswith("p-values of ")]
    assert record.levelno == logging.WARNING
