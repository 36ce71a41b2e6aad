"""A statistical test that is defined here and registered in one line works like the package's."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.errors import OptionError
from pdex_gpu.report.definitions import definitions
from pdex_gpu.report.definitions import test_name as name_in_words
from pdex_gpu.report.notes import notes
from pdex_gpu.report.payload import collect
from pdex_gpu.results.schema import COLUMNS
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.stats import METRICS, StatisticalTest, make_test, register
from pdex_gpu.stats.two_sample.base import Caveat, TestResult, make_result
from pdex_gpu.stats.two_sample.options import alternative_option, option, options_of


@dataclass(frozen=True)
class WelchZ(StatisticalTest):
    """Welch's statistic, with the normal distribution in place of Student's."""

    alternative: str = alternative_option()
    floor: float = option(0.0, "welch-z: least standard error", least=0.0)
    halved: bool = option(False, "welch-z: half of the statistic")

    metric = "welch-z"
    title = "Welch z-test"
    statistic_name = "Welch's z"
    statistic_meaning = "Welch's z, the difference of means over its standard error"
    caveats = (
        Caveat("Welch z is for large groups."),
        Caveat("Welch z was halved.", "warning", {"halved": True}),
    )
    needs_m2 = True
    has_log10_p = False

    def measure(self, kernels: Any, block: Any, genes: slice, contrast: Any) -> tuple[()]:
        return ()

    def evaluate(
        self, measured: Any, sides: Any, *, z: bool = False, log10_p: bool = False
    ) -> TestResult:
        x, y = sides.target, sides.reference
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(x.m2 / (x.n - 1.0) / x.n + y.m2 / (y.n - 1.0) / y.n)
            statistic = (x.mean - y.mean) / np.maximum(error, self.floor)
        if self.halved:
            statistic = statistic / 2.0
        if self.alternative == "two-sided":
            return make_result(statistic, 2.0 * special.ndtr(-np.abs(statistic)))
        return make_result(statistic, special.ndtr(-statistic if self.alternative == "greater"
                                              else statistic))  # fmt: skip


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The test is registered, and forgotten afterwards, also by commands: they are made anew."""
    commands = {name: sys.modules.pop(name) for name in command_modules()}
    register(WelchZ)
    yield
    METRICS.pop("welch-z")
    for name in command_modules():
        del sys.modules[name]
    sys.modules.update(commands)


def command_modules() -> list[str]:
    """The modules that have been imported of commands with options of tests."""
    return [name for name in sys.modules if name.startswith("pdex_gpu.cli.commands.")]


@pytest.fixture(scope="module")
def screen() -> Any:
    return simulate_screen(400, 30, 4, mean_umi=200, seed=5).to_anndata()


def run(screen: Any, **options: Any) -> Any:
    return pdex_gpu.differential_expression(
        screen, GROUPBY, progress=False, **({"metric": "welch-z"} | options)
    )


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_numbers(screen: Any, backend: str) -> None:
    result = run(screen, backend=backend, columns="all")
    welch = run(screen, metric="t-test", variance="welch")["statistic"]
    np.testing.assert_allclose(result["statistic"], welch, rtol=1e-12)
    known = ~np.isnan(welch)
    expected = 2.0 * special.ndtr(-np.abs(welch[known]))
    np.testing.assert_allclose(result["p_value"][known], expected, rtol=1e-9)
    assert "z" not in result.columns  # which it lacks, as log10_p


def test_options_reach_it_and_are_recorded(screen: Any) -> None:
    result = run(screen, floor=0.5, halved=True, alternative="less")
    assert result.provenance["metric"] == "welch-z"
    assert result.provenance["test_options"] == {
        "floor": "0.5", "halved": "True", "alternative": "'less'",
    }  # fmt: skip
    whole = run(screen, floor=0.5)
    np.testing.assert_array_equal(2.0 * result["statistic"], whole["statistic"])
    plain = run(screen)
    with np.errstate(invalid="ignore"):
        closer = np.abs(whole["statistic"]) < np.abs(plain["statistic"])
    assert closer.any()


def test_an_object_in_place_of_the_name(screen: Any) -> None:
    named, made = run(screen, floor=0.5), run(screen, metric=WelchZ(floor=0.5))
    np.testing.assert_array_equal(named["p_value"], made["p_value"])
    for name in ("metric", "test_options"):
        assert named.provenance[name] == made.provenance[name]


def test_calibration(screen: Any) -> None:
    found = pdex_gpu.calibrate(screen, GROUPBY, metric="welch-z", floor=0.1, progress=False)
    assert found.metric == "welch-z"
    assert found.of().provenance["test_options"] == {"floor": "0.1"}
    assert found.of().total.n_tests > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": -1.0}, "floor=-1.0 must be a number of at least 0."),
        ({"floor": "x"}, "floor='x' must be a number of at least 0."),
        ({"halved": "yes"}, "Unknown value for halved: 'yes'."),
        ({"alternative": "lesser"}, "Unknown value for alternative: 'lesser'. Did you mean 'less'"),
        ({"flor": 1.0}, "Did you mean 'floor' or"),
        ({"flor": 1.0}, "Its options are: 'alternative', 'floor', 'halved'."),
        ({"metric": "ks", "floor": 1.0}, "Option 'floor' belongs to metric='welch-z'."),
        ({"metric": "welch_z"}, "Did you mean 'welch-z'?"),
        ({"metric": "nothing"}, "Available (5): 'wilcoxon', 'anderson', 't-test', 'ks', 'welch-z'"),
        ({"strata": "guide"}, "metric='welch-z' has no stratified form"),
        ({"metric": WelchZ}, "metric=WelchZ is a class. Pass a test, such as metric=WelchZ()."),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(screen: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        run(screen, **options)
    assert message in str(caught.value)


def test_an_object_checks_its_options() -> None:
    with pytest.raises(OptionError, match="floor=-1 must be a number of at least 0"):
        WelchZ(floor=-1)


def test_command_line(
    screen: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    file, out = tmp_path / "screen.h5ad", tmp_path / "de.parquet"
    screen.write_h5ad(file)
    argv = [str(file), "--groupby", GROUPBY, "--metric", "welch-z", "--floor", "0.5", "--halved"]
    assert main(["run", *argv, "-o", str(out)]) == 0
    result = pdex_gpu.open_result(out)
    assert result.provenance["metric"] == "welch-z"
    assert result.provenance["test_options"] == {"floor": "0.5", "halved": "True"}
    assert main(["calibrate", *argv, "-o", str(tmp_path / "calibration.json"), "-q"]) == 0
    assert json.loads((tmp_path / "calibration.json").read_text())["metric"] == "welch-z"
    assert main(["estimate", *argv[:5], "--no-timing", "-q"]) == 0
    capsys.readouterr()
    assert main(["run", *argv[:5], "--floor", "-1", "-o", str(tmp_path / "b.parquet")]) != 0
    assert "floor=-1.0 must be a number of at least 0." in capsys.readouterr().err
    monkeypatch.setenv("COLUMNS", "100")
    for command in ("run", "calibrate"):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "wilcoxon, anderson, t-test, ks or welch-z" in text
        assert "welch-z: least standard error" in text
        assert "--floor X" in text
        assert "--halved " in text


def test_report_and_schema(screen: Any) -> None:
    result = run(screen, halved=True, columns=["target_n_cells", "reference_n_cells"])
    assert name_in_words(result.provenance) == "Welch z-test"
    data = collect(result, 0.05)
    terms = dict(definitions(result.provenance, 0.05, data.effect))
    assert terms["Statistic"] == f"{WelchZ.statistic_meaning}."
    said = {note.text: note.level for note in notes(result, data, None)}
    assert said["Welch z is for large groups."] == "note"
    assert said["Welch z was halved."] == "warning"
    said = {note.text for note in notes(run(screen), data, None)}
    assert "Welch z was halved." not in said
    (column,) = (column for column in COLUMNS if column.name == "statistic")
    assert "Welch's z" in column.meaning


def test_registering_refuses_what_would_be_ambiguous() -> None:
    @dataclass(frozen=True)
    class Other(WelchZ):
        floor: str = option("no", "other: floor", choices=("no", "yes"))  # type: ignore[assignment]

    with pytest.raises(OptionError, match="metric='welch-z' already names WelchZ"):
        register(Other)
    Other.metric = "other"
    with pytest.raises(OptionError, match="'floor' of metric 'other' is a choice, but another"):
        register(Other)
    register(WelchZ)  # again is no harm


# --- the package's own tests, held to the same descriptions ----------------------------------

OWN = {metric: test for metric, test in METRICS.items() if metric != "welch-z"}


@pytest.mark.parametrize("metric", OWN)
def test_descriptions_fit_a_terminal_and_are_in_the_docstring(metric: str) -> None:
    test, text = OWN[metric], pdex_gpu.differential_expression.__doc__ or ""
    assert f'"{metric}"' in text
    for declared in options_of(test):
        assert len(declared.help) <= 50
        assert declared.doc
        assert f"``{declared.name}" in text
        for value in declared.choices if declared.name != "alternative" else ():
            assert f'"{value}"' in text


@pytest.mark.parametrize("metric", OWN)
def test_an_object_without_options_is_the_name(metric: str) -> None:
    assert make_test(OWN[metric](), {}) == make_test(metric, {})
    assert make_test(OWN[metric](nan_policy="omit"), {}).options == {"nan_policy": "omit"}


def test_a_test_has_its_options(screen: Any) -> None:
    named = run(screen, metric="wilcoxon", continuity=False)
    made = run(screen, metric=pdex_gpu.Wilcoxon(continuity=False))
    np.testing.assert_array_equal(named["p_value"], made["p_value"])
    assert made.provenance["test_options"] == {"continuity": "False"}
    with pytest.raises(OptionError, match=r"'method' cannot be given in addition\. Pass options"):
        run(screen, metric=pdex_gpu.Wilcoxon(), method="exact")
    with pytest.raises(OptionError, match="Did you mean 'groups'"):
        run(screen, metric=pdex_gpu.Wilcoxon(), grops=["A"])
    with pytest.raises(OptionError, match="Unknown value for method: 'x'"):
        pdex_gpu.Wilcoxon(method="x")
    calibrated = pdex_gpu.calibrate(screen, GROUPBY, metric=pdex_gpu.TTest(), progress=False)
    assert calibrated.metric == "t-test"


def test_a_checkpoint_does_not_tell_an_object_from_its_name(screen: Any) -> None:
    tests = make_test("t-test", {"variance": "welch"}), pdex_gpu.TTest(variance="welch")
    assert [(t.metric, t.options) for t in tests] == [("t-test", {"variance": "welch"})] * 2
    for one in tests:  # as it is sent to workers
        again = pickle.loads(pickle.dumps(one))
        assert (again, again.options) == (one, one.options)
