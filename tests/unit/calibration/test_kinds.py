"""Several kinds of p-values in one calibration: one reading, and what each would give alone."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pdex_gpu import Calibration, calibrate, pl
from pdex_gpu.cli import main
from pdex_gpu.errors import OptionError
from pdex_gpu.report.calibration import calibration_part
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.stats import METRICS, register
from pdex_gpu.stats.two_sample.base import TestResult
from pdex_gpu.stats.two_sample.options import option
from pdex_gpu.stats.two_sample.t_test import TTest
from pdex_gpu.utils.exit_codes import Exit
from pdex_gpu.utils.formats import number_text

BOTH = ["asymptotic", "conditional"]


@dataclass(frozen=True)
class Kinds(TTest):
    """A t-test; the root of a p-value counts as another kind."""

    p_values: str = option("conditional", "kind", choices=("conditional", "asymptotic"))

    metric = "kinds"

    def evaluate(self, *args: Any, **options: Any) -> TestResult:
        return self._of_kind(super().evaluate(*args, **options))

    def evaluate_strata(self, *args: Any, **options: Any) -> TestResult:
        return self._of_kind(super().evaluate_strata(*args, **options))

    def _of_kind(self, found: TestResult) -> TestResult:
        if self.p_values == "asymptotic":
            return found
        return replace(found, p_value=np.sqrt(found.p_value))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    commands = {name: sys.modules.pop(name) for name in command_modules()}
    register(Kinds)
    yield
    METRICS.pop("kinds")
    for name in command_modules():
        del sys.modules[name]
    sys.modules.update(commands)


def command_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("pdex_gpu.cli.commands.")]


@pytest.fixture(scope="module")
def screen() -> Any:
    screen = simulate_screen(500, 40, 4, control_fraction=0.5, mean_umi=300).to_anndata()
    screen.obs["batch"] = np.where(np.arange(screen.n_obs) % 3, "u", "v")
    return screen


def run(screen: Any, **options: Any) -> Calibration:
    return calibrate(screen, GROUPBY, metric="kinds", progress=False, backend="cpu", **options)


@pytest.mark.parametrize("kinds", [BOTH, BOTH[::-1]], ids="-".join)
@pytest.mark.parametrize("metric", ["wilcoxon", "anderson", "ks", "t-test"])
def test_of_every_test(screen: Any, metric: str, kinds: list[str]):
    """Whatever comes first, all is measured that the others need."""
    options = {"metric": metric, "progress": False, "backend": "cpu"}
    found = calibrate(screen, GROUPBY, p_values=kinds, **options)
    for kind in kinds:
        alone = calibrate(screen, GROUPBY, p_values=kind, **options)
        pd.testing.assert_frame_equal(found.table(kind), alone.table(), check_exact=True)
    asymptotic, conditional = (found.of(kind).quantiles for kind in BOTH)
    assert not np.array_equal(asymptotic.observed, conditional.observed)


@pytest.mark.parametrize(
    "options",
    [{}, {"strata": "batch", "n_repeats": 2}, {"min_fraction": 0.3, "alpha": 0.5},
     {"fdr_scope": "target", "alpha": 0.9, "engine": "serial"}],
    ids=str,
)  # fmt: skip
def test_each_is_what_it_is_alone(screen: Any, options: dict[str, Any]):
    found = run(screen, p_values=BOTH, **options)
    assert [judged.kind for judged in found.kinds] == BOTH
    excess = found.excess_table()
    for kind in BOTH:
        alone = run(screen, p_values=kind, **options)
        pd.testing.assert_frame_equal(found.table(kind), alone.table(), check_exact=True)
        pd.testing.assert_frame_equal(
            excess[excess["p_values"] == kind].reset_index(drop=True),
            alone.excess_table(),
            check_exact=True,
        )
        assert found.summary(kind) == alone.summary()
        its, only = found.of(kind), alone.of(kind)
        assert its.quantiles.observed.tolist() == only.quantiles.observed.tolist()
        assert its.provenance["p_values"] == only.provenance["p_values"] == kind
    counts = [found.of(kind).n_below.sum() for kind in BOTH]
    assert counts[0] > counts[1] > 0
    assert found.of() is found.of("asymptotic")


def test_the_data_are_read_once(screen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pdex_gpu.backends.cpu import kernel_set

    packed = []
    pack = kernel_set.pack

    def counted(*args: Any, **options: Any) -> Any:
        packed.append(1)
        return pack(*args, **options)

    monkeypatch.setattr(kernel_set, "pack", counted)
    run(screen)
    once = len(packed)
    run(screen, p_values=BOTH)
    assert len(packed) == 2 * once > 0


def test_by_default_the_kind_of_the_test(screen: Any):
    assert [judged.kind for judged in run(screen).kinds] == ["conditional"]
    assert [judged.kind for judged in run(screen, p_values=("asymptotic",)).kinds] == BOTH[:1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"p_values": []}, r"p_values=\[\] has no kind of p-values"),
        ({"p_values": ["conditional", "conditional"]}, "has 'conditional' more than once"),
        ({"p_values": ["conditional", 3]}, "p_values=3 must be text"),
        ({"p_values": ["conditional", "exact"]}, "Unknown value for p_values: 'exact'"),
        ({"p_values": "exact"}, "Unknown value for p_values: 'exact'"),
        ({"p_values": BOTH, "metric": Kinds()}, "is a test with its options"),
    ],
    ids=str,
)
def test_kinds_that_there_are_not(screen: Any, options: dict[str, Any], says: str):
    with pytest.raises(OptionError, match=says):
        calibrate(screen, GROUPBY, progress=False, **({"metric": "kinds"} | options))


def test_unknown_kind_of_a_calibration(screen: Any):
    found = run(screen)
    for call in (found.of, found.table, found.summary):
        with pytest.raises(OptionError, match="Unknown kind of p-values 'asymptotic'"):
            call("asymptotic")
        with pytest.raises(OptionError, match="kind=3 must be text"):
            call(3)  # type: ignore[arg-type]


def test_shown(screen: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = run(screen, p_values=BOTH)
    lines = repr(found).split("\n")
    assert [line.split(":")[0] for line in lines[1:3]] == BOTH
    found.to_json(tmp_path / "c.json")
    again = Calibration.from_json(tmp_path / "c.json")
    assert repr(again) == repr(found)
    part = calibration_part(again)
    assert part["head"][1] == "p-values"
    assert [row[1][0] for row in part["rows"]] == BOTH * (len(part["rows"]) // 2)
    screen.write_h5ad(tmp_path / "s.h5ad")
    argv = ["calibrate", str(tmp_path / "s.h5ad"), "--groupby", GROUPBY, "--metric", "kinds"]
    argv += ["--backend", "cpu", "--p-values", "asymptotic", "--p-values", "conditional"]
    assert main(argv) == Exit.OK
    shown = capsys.readouterr().out
    for part in found.parts():
        ratio = number_text(part.excess[0], ".2f")
        assert any(
            line.startswith(part.title) and part.kind in line and ratio in line
            for line in shown.splitlines()
        )
    assert "without --units, independence between cells" in shown


def test_drawn(screen: Any):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = run(screen, p_values=BOTH)
    for plot, n_lines in ((pl.calibration_qq, 3), (pl.calibration_histogram, 1)):
        ax = plot(found)
        assert len(ax.lines) == n_lines
        assert set(BOTH) <= {text.get_text().split(",")[0] for text in ax.get_legend().get_texts()}
    ax = pl.calibration(found)
    ax.figure.canvas.draw()
    colors = {line.get_color() for line in ax.lines[1:]}
    assert len(colors) == 2
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text for text in texts if text in BOTH] == BOTH
    plt.close("all")


def test_workers_can_be_sent_the_kinds():
    from pdex_gpu.columns.measure import make_analysis

    options = {"is_log1p": False, "exp_post_agg": True, "stratified": False, "expressed": False}
    alone = make_analysis(Kinds("pooled"), (), count_means=False, level=0.95, **options)
    analysis = alone.judged_also([Kinds(p_values="asymptotic")])
    again = pickle.loads(pickle.dumps(analysis))
    assert [c.name for c in again.stored] == [*(c.name for c in alone.stored), "p_value 1"]
    assert again.of_other("p_value 1").p_value_kind == "asymptotic"
