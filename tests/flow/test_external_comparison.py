"""A comparison defined outside the package, registered by one call, works everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from dask_clusters import cluster

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.cli.app import make_app
from pdex_gpu.design.comparisons import (
    Comparison,
    LabelContrasts,
    Pairs,
    Selection,
    comparison_names,
    register,
)
from pdex_gpu.design.comparisons.registry import _REGISTERED
from pdex_gpu.engines.dask import worker_state
from pdex_gpu.errors import LabelError, OptionError
from pdex_gpu.pipeline import into_file
from pdex_gpu.utils.exit_codes import Exit

BACKEND = "cpu"
GROUPS = ["a", "b", "c", "d"]


class Next(Comparison):
    """Compare each group with the next one in sorted order, or a few steps further."""

    name = "next"
    title = "the next group in sorted order"

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def contrasts(self, selection: Selection) -> LabelContrasts:
        found = selection.targets()
        return LabelContrasts.of_pairs([*zip(found, found[self.step :], strict=False)])


class Neighbours(Comparison):
    """Compare each group with all others, except the reference; as `perturbed`, but shorter."""

    name = "neighbours"
    title = "the neighbours"

    def check(self, *, groups: object, pairs: object) -> None:
        super().check(groups=groups, pairs=pairs)
        if groups is not None:
            raise OptionError("groups= does not go with comparison='neighbours'. Leave it out.")

    def contrasts(self, selection: Selection) -> LabelContrasts:
        targets = selection.targets(set(selection.references()))
        return LabelContrasts.of_rest(targets, (), "neighbours")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(_REGISTERED)
    register(Next)
    register(Neighbours)
    yield
    _REGISTERED.clear()
    _REGISTERED.update(before)


def screen() -> anndata.AnnData:
    rng = np.random.default_rng(11)
    n = 120
    obs = pd.DataFrame({"group": rng.choice(GROUPS, n), "kind": rng.choice(["T", "B"], n)})
    obs.index = obs.index.astype(str)
    guides = pd.DataFrame({g: (obs.group == g) | (rng.random(n) < 0.2) for g in GROUPS})
    values = np.log1p(rng.poisson(1.5, (n, 7))).astype(np.float32)
    return anndata.AnnData(values, obs=obs, obsm={"guides": guides})


def run(groupby: Any = "group", **options: Any) -> pdex_gpu.DEResult:
    return pdex_gpu.differential_expression(
        screen(), groupby, progress=False, backend=BACKEND, **options
    )


def assert_same_bits(one: pdex_gpu.DEResult, other: pdex_gpu.DEResult) -> None:
    assert one.columns == other.columns
    assert one.targets.tolist() == other.targets.tolist()
    for name in one.columns:
        a, b = (np.ascontiguousarray(result[name]).view(np.int64) for result in (one, other))
        np.testing.assert_array_equal(a, b, err_msg=name)


LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "levels": {"groupby": ["group", "kind"]},
    "strata": {"strata": "kind"},
    "guides": {"groupby": None, "guides": "guides"},
}
METRICS = ["wilcoxon", "t-test", "anderson", "ks"]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("layout", "metric"), [(x, m) for x in LAYOUTS for m in METRICS if (x, m) != ("strata", "ks")]
)
def test_the_bits_are_those_of_the_same_pairs(layout: str, metric: str):
    options = LAYOUTS[layout] | {"metric": metric}
    if layout != "strata":
        options["columns"] = "all"
    found = run(comparison="next", **options)
    expected = run(comparison="pairs", pairs=list(pairwise(GROUPS)), **options)
    assert_same_bits(found, expected)
    assert found.references.tolist() == expected.references.tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_a_comparison_with_a_pool(metric: str):
    found = run(comparison="neighbours", reference="a", metric=metric, columns="all")
    expected = run(comparison="perturbed", reference="a", metric=metric, columns="all")
    assert_same_bits(found, expected)
    assert found.reference == "neighbours"


def test_an_instance_with_options_of_its_own():
    found = run(comparison=Next(step=2))
    assert_same_bits(found, run(comparison="pairs", pairs=[("a", "c"), ("b", "d")]))
    assert found.provenance["comparison"] == "next"
    pairs = [("d", "a"), ("b", "a")]
    assert_same_bits(run(comparison=Pairs(pairs)), run(comparison="pairs", pairs=pairs))
    with pytest.raises(OptionError, match="pairs= is only valid with comparison='pairs'"):
        run(comparison=Pairs(pairs), pairs=pairs)


def test_no_row_is_an_error_in_words_of_the_comparison():
    with pytest.raises(LabelError, match=r"No target .* with the next group in sorted order"):
        run(comparison="next", groups=["a"])


def test_its_own_check_is_asked():
    with pytest.raises(OptionError, match="groups= does not go with comparison='neighbours'"):
        run(comparison="neighbours", groups=["a"])
    with pytest.raises(OptionError, match="pairs= is only valid with comparison='pairs'"):
        run(comparison="next", pairs=[("a", "b")])


def test_an_unknown_comparison_lists_it():
    with pytest.raises(OptionError, match=r"Unknown comparison 'nxt'\..*'next', 'neighbours'"):
        run(comparison="nxt")


def test_it_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    identities = []

    def spy(*arguments: Any) -> dict[str, Any]:
        identities.append(real(*arguments))
        return identities[-1]

    real = into_file.run_identity
    monkeypatch.setattr(into_file, "run_identity", spy)
    run(comparison="next", out=tmp_path / "r.parquet")
    assert pdex_gpu.open_result(tmp_path / "r.parquet").provenance["comparison"] == "next"
    assert [identity["comparison"] for identity in identities] == ["next"]


def test_workers_of_a_cluster_need_not_know_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    screen().write_h5ad(tmp_path / "s.h5ad")

    sent = []

    def design_of(dataset: Any, settings: Any) -> Any:
        sent.append(settings.comparison.comparison)
        return real(dataset, settings)

    real = worker_state.design_of
    monkeypatch.setattr(worker_state, "design_of", design_of)
    with cluster(1) as client:
        found = pdex_gpu.differential_expression(
            tmp_path / "s.h5ad", "group", comparison="next", engine="dask", client=client,
            backend=BACKEND, progress=False,
        )  # fmt: skip
    assert {type(comparison) for comparison in sent} == {Next}  # not a name to look up
    assert_same_bits(found, run(comparison="next"))


def test_calibration_refuses_it():
    with pytest.raises(OptionError, match="comparison='next' is not supported by calibrate"):
        pdex_gpu.calibrate(screen(), "group", reference="a", comparison="next")


def test_estimates_take_it():
    found = pdex_gpu.estimate(screen(), "group", comparison="next", backend=BACKEND)
    assert found.n_rows == 3 * 7


def test_a_report_of_it_is_written(tmp_path: Path):
    found = run(comparison="next").report(tmp_path / "report.html")
    assert Path(found).read_text("utf-8").count("next")


def test_the_command_line_offers_it(tmp_path: Path, capsys):
    option = next(p for p in make_app().commands["run"].params if p.name == "comparison")
    with make_app().make_context("pdex-gpu", ["--version"], resilient_parsing=True) as parent:
        found = option.shell_complete(parent, "ne")
    assert [item.value for item in found] == ["next", "neighbours"]
    screen().write_h5ad(tmp_path / "s.h5ad")
    words = ["run", str(tmp_path / "s.h5ad"), "--groupby", "group", "--backend", BACKEND]
    out = tmp_path / "r.parquet"
    assert main([*words, "--comparison", "next", "-o", str(out)]) == Exit.OK
    assert pdex_gpu.open_result(out).targets.tolist() == ["a", "b", "c"]
    assert main([*words, "--comparison", "nxt", "-o", str(tmp_path / "no.parquet")]) == Exit.USAGE
    assert "'next'" in capsys.readouterr().err


def test_a_name_belongs_to_one_class():
    class Other(Next):
        pass

    with pytest.raises(OptionError, match=r"comparison='next' is already registered, by .*Next"):
        register(Other)
    assert register(Next) is Next  # again, as when a notebook cell runs twice
    assert comparison_names().count("next") == 1


def test_a_class_without_a_name_is_refused():
    class Nameless(Comparison):
        title = "nothing"

    with pytest.raises(OptionError, match=r"Nameless\.name=None must be text"):
        register(Nameless)


def test_the_docstring_lists_the_comparisons_of_the_package():
    own = tuple(name for name in comparison_names() if name not in ("next", "neighbours"))
    listed = ", ".join(f'"{name}"' for name in own)
    assert f"comparison : {{{listed}}}" in (pdex_gpu.differential_expression.__doc__ or "")
