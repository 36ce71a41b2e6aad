"""benchmarks/scaling.py on a tiny screen, and the tables of the page made of its record."""

from __future__ import annotations

import json
import sys

import pytest
from repository import ROOT

BENCHMARKS, DOCS = ROOT / "benchmarks", ROOT / "docs"
if not BENCHMARKS.is_dir() or not DOCS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import big_screen  # noqa: E402
import scaling  # noqa: E402
from gpu_screen import Sizes  # noqa: E402

from pdex_gpu.estimation import benchmark  # noqa: E402
from pdex_gpu.estimation.model import PHASES, MachineRates  # noqa: E402

TINY = Sizes(500, 60, 5)


@pytest.fixture(scope="module")
def tables():
    """The module that makes the tables of the page."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        import scaling_tables
    finally:
        sys.path.remove(str(DOCS / "_ext"))
    return scaling_tables


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The record of two runs, one to fit and one to judge."""
    folder = tmp_path_factory.mktemp("scaling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_ENTRIES", 3_000)
        patch.setattr(benchmark, "_WARM_ENTRIES", 500)
        patch.setattr(benchmark, "_ROWS", 4_000)
        patch.setattr(benchmark, "_REPEATS", 1)
        patch.setattr(scaling, "cases", lambda **_: [
            scaling.Case(TINY, True, True, 2), scaling.Case(TINY, False, False, 1)
        ])  # fmt: skip
        patch.setattr(big_screen, "CACHE", folder)
        path = folder / "record.json"
        assert scaling.main(["--quick", "--record", str(path)]) == 0
    return json.loads(path.read_text())


def test_sizes_fitted_and_judged_are_not_the_same():
    for quick in (True, False):
        chosen = scaling.cases(quick=quick, rounds=3)
        fitted = {case.sizes for case in chosen if case.fitted}
        judged = {case.sizes for case in chosen if not case.fitted}
        assert len(fitted) == len(judged) == 3
        assert not fitted & judged
        assert not any(sizes.problem() for sizes in fitted | judged)
        assert {case.in_memory for case in chosen} == {True, False}
        assert len({case.name for case in chosen}) == len(chosen)
        assert chosen[-1].rounds == 2
    assert chosen[-1].sizes == big_screen.BIG
    judged = {f"off_{case.name}" for case in chosen if not case.fitted}
    assert set(scaling.ScalingRecord.targets) == judged


@pytest.mark.parametrize(
    ("predicted", "measured", "off"), [(2.0, 1.0, 2.0), (1.0, 2.0, 2.0), (3.0, 3.0, 1.0)]
)
def test_off_by(predicted, measured, off):
    assert scaling.off_by(predicted, measured) == off


def test_the_factor_is_of_those_fitted_alone():
    made = scaling.ScalingRecord({}, full_size=True)
    rates = dict.fromkeys(MachineRates.__dataclass_fields__, 0.0) | {"pack": 3.0}
    for name, fitted, predicted, measured in (
        ("a", True, 1.0, 2.0), ("b", True, 1.0, 3.0), ("c", True, 1.0, 1.0),
        ("80000x4000x1000-file", False, 2.0, 5.0),
    ):  # fmt: skip
        made.task(
            name, {"fitted": fitted, "predicted": predicted, "measured": measured, "rates": rates}
        )
    scaling.judge(made)
    figures = made.content["figures"]
    assert figures["factor"]["value"] == 2.0
    assert figures["off_80000x4000x1000-file"]["value"] == 2.5
    assert figures["off_80000x4000x1000-file"]["met"] is False
    assert figures["off_80000x4000x1000-file_with_factor"]["value"] == 1.25
    assert made.content["tasks"]["a"]["ratio"] == 0.5
    assert made.content["tasks"]["a"]["ratio_with_factor"] == 1.0
    assert made.content["rates"]["pack"] == 3.0
    assert made.content["rates"]["rank"] == 0.0


@pytest.mark.thorough
def test_the_record(record):
    assert set(record["tasks"]) == {"500x60x5-memory", "500x60x5-file"}
    for name, task in record["tasks"].items():
        assert set(task["phases"]) == set(PHASES)
        assert task["predicted"] == pytest.approx(sum(task["phases"].values()))
        assert task["measured"] > 0
        assert task["counted"]["n_cells"] == 500
        assert (task["output_bytes"]["measured"] > 0) == name.endswith("file")
        assert len(task["seconds"]["pdex_gpu"]["times"]) == (2 if name.endswith("memory") else 1)
    assert record["rates"]["rank"] + record["rates"]["judge"] > 0
    assert record["errors"] == []
    ratio = record["tasks"]["500x60x5-memory"]["ratio"]
    assert record["figures"]["factor"]["value"] == pytest.approx(1 / ratio, rel=1e-12)


def test_tables_of_the_page(record, tables):
    constants = tables.constants(record)
    for name in MachineRates.__dataclass_fields__:
        assert f"`{name}`" in constants
    sizes = tables.sizes(record)
    for name, task in record["tasks"].items():
        assert f"| `{name}` |" in sizes
        assert f"| {task['ratio']:.2f} |" in sizes
    assert f"{record['figures']['factor']['value']:.2f}" in sizes
    screens, reckoned = tables.screens(), tables.reckoned(record)
    for large in tables.LARGE:
        assert large.name in screens
        assert reckoned.count(f"| {large.name} |") == 4
    assert reckoned.count("(a bound)") == 2 * len(tables.LARGE)


def test_no_record_is_no_table(tables, monkeypatch):
    monkeypatch.setattr(tables, "newest", lambda: None)
    for name in ("constants", "sizes", "reckoned"):
        assert tables.table(name) == tables.NONE_YET


def test_the_reckoning_is_that_of_the_model(tables):
    """By hand, of made-up constants: reading alone costs a nanosecond a byte in the file."""
    large = tables.LARGE[0]
    found = tables.machines(large, MachineRates(read_stored=1e-9))
    file_bytes = 2.12 * 2e6 * 3_300
    assert found["16 threads"]["reading"] == pytest.approx(file_bytes / 3e9)  # the disk is slower
    slow = tables.machines(large, MachineRates(read_stored=1e-7))
    assert slow["16 threads"]["reading"] == pytest.approx(file_bytes * 1e-7 / 16)
    bus = tables.machines(large, MachineRates())
    assert bus["one H200 (a bound)"]["testing"] == pytest.approx(6 * 2e6 * 3_300 / 50e9)
    assert bus["8 H200 (a bound)"]["testing"] == pytest.approx(6 * 2e6 * 3_300 / 400e9)
    assert large.n_ranges == 33
    assert tables.LARGE[2].n_ranges == 1_307
