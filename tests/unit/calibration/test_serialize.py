"""Calibrations in files: every field to the bit, and clear words for other files."""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pdex_gpu
from pdex_gpu import Calibration, calibrate
from pdex_gpu.calibration.distributions import Distribution, Quantiles
from pdex_gpu.calibration.judged import Judged
from pdex_gpu.errors import FileFormatError, MemoryBudgetError, OptionError, OutputError
from pdex_gpu.simulate import GROUPBY, simulate_screen

FLOATS = st.floats(width=64)
FIRST = ("kinds", 0)


def assert_same(a: Any, b: Any) -> None:
    """Equal in type, shape and every bit."""
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.dtype == np.float64:
            nan = np.isnan(a)
            np.testing.assert_array_equal(nan, np.isnan(b))
            assert a[~nan].tobytes() == b[~nan].tobytes()  # -0.0 is not 0.0
        else:
            assert a.tolist() == b.tolist()
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, float):
        assert_same(np.array(a), np.array(b))
    else:
        assert a == b


@st.composite
def calibrations(draw: Any) -> Calibration:
    n, n_control, n_repeats = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.just(2))
    n_ranks = draw(st.integers(0, 6))

    def floats(size: int) -> np.ndarray:
        return draw(hnp.arrays(np.float64, size, elements=FLOATS))

    def integers(*shape: int) -> np.ndarray:
        return draw(hnp.arrays(np.int64, shape))

    def labels() -> np.ndarray:
        kinds = st.text() | st.integers() | st.booleans()
        return np.fromiter((draw(kinds) for _ in range(n)), object)

    def part() -> Distribution:
        n_tests = draw(st.integers(0, 2**60))
        return Distribution(n_tests, integers(4), draw(FLOATS), draw(FLOATS), integers(20))

    def judged() -> Judged:
        return Judged(
            kind=draw(st.text()),
            n_tests=integers(n, 3),
            n_below=integers(n, 3, 4),
            n_false_positives=integers(n, 3),
            by_group=tuple(part() for _ in range(n)),
            total=part(),
            by_expression=(part(), part(), part()),
            quantiles=Quantiles(integers(n_ranks), floats(n_ranks), floats(n_ranks), 7),
            provenance=draw(
                st.dictionaries(st.text(), st.none() | st.text() | st.lists(st.integers()))
            ),
        )

    return Calibration(
        groups=labels(),
        repeats=integers(n),
        targets=labels(),
        n_target_cells=integers(n),
        n_cells=integers(n),
        n_reference_cells=integers(n),
        n_uninformative=integers(n),
        kinds=tuple(judged() for _ in range(draw(st.integers(1, 3)))),
        n_targets=draw(st.integers(0, 2**60)),
        control_cells=integers(n_control),
        assignment=integers(n_repeats, n_control),
        alpha=draw(FLOATS),
        metric=draw(st.text()),
        reference=draw(st.text()),
        units=draw(st.none() | st.text()),
        n_units=draw(st.integers(0, 2**60)),
    )


@given(calibrations())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, found: Calibration):
    path = tmp_path_factory.mktemp("json") / "c.json"
    found.to_json(path)
    assert_same(Calibration.from_json(path), found)


@pytest.fixture(scope="module")
def found() -> Calibration:
    screen = simulate_screen(600, 80, 4, control_fraction=0.5, mean_umi=300)
    return calibrate(screen.to_anndata(), GROUPBY, backend="cpu", n_repeats=2)


@pytest.fixture
def path(found: Calibration, tmp_path: Path) -> Path:
    found.to_json(tmp_path / "c.json")
    return tmp_path / "c.json"


def test_round_trip_of_a_screen(found: Calibration, path: Path):
    again = Calibration.from_json(str(path))
    assert_same(again, found)
    assert again.summary() == found.summary()
    assert repr(again) == repr(found)
    assert again.table().equals(found.table())


def test_is_plain_json(found: Calibration, path: Path):
    """Other programs can read it: no NaN or Infinity, names of fields as documented."""

    def refuse(word: str) -> None:
        pytest.fail(word)

    document = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert document["format"] == "pdex_gpu calibration"
    assert document["version"] == 2
    assert document["pdex_gpu"] == pdex_gpu.__version__
    assert set(document) == {"format", "version", "pdex_gpu"} | {f.name for f in fields(found)}
    assert document["kinds"][0]["total"]["inflation"] == found.of().total.inflation
    assert document["kinds"][0]["n_below"] == found.of().n_below.tolist()


def test_numbers_that_json_lacks(found: Calibration, tmp_path: Path):
    odd = Quantiles(np.arange(3), np.zeros(3), np.array([np.nan, -np.inf, -0.0]), 3)
    total = Distribution(3, np.arange(4), np.inf, np.nan, np.zeros(20, np.int64))
    judged = replace(found.of(), total=total, quantiles=odd)
    changed = replace(found, kinds=(judged,))
    changed.to_json(tmp_path / "c.json")
    written = json.loads((tmp_path / "c.json").read_text())["kinds"][0]
    assert written["total"]["inflation"] == "Infinity"
    assert written["total"]["ks_distance"] is None
    assert written["quantiles"]["observed"] == [None, "-Infinity", -0.0]
    assert_same(Calibration.from_json(tmp_path / "c.json").of(), judged)


def test_text_that_utf_8_lacks(found: Calibration, tmp_path: Path):
    changed = replace(found, reference="a \ud800 \U0001f9a0 \\ud801")
    changed.to_json(tmp_path / "c.json")
    assert Calibration.from_json(tmp_path / "c.json").reference == changed.reference


def test_whole_or_not_at_all(found: Calibration, path: Path, monkeypatch: pytest.MonkeyPatch):
    before = path.read_bytes()

    def fail(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError, match="full"):
        found.to_json(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_folder_that_does_not_exist(found: Calibration, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="Create it first"):
        found.to_json(tmp_path / "none" / "c.json")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.json' does not exist"):
        Calibration.from_json(tmp_path / "none.json")
    with pytest.raises(OptionError, match="is a folder"):
        Calibration.from_json(tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not JSON, or it was cut short"),
        (b"PAR1\x00\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "is JSON, but not a pdex_gpu calibration"),
        (b"null", "is JSON, but not a pdex_gpu calibration"),
        (b'{"format": "another"}', "is JSON, but not a pdex_gpu calibration"),
        (b'{"format": "pdex_gpu calibration"}', "'version' is missing"),
        (b'{"format": "pdex_gpu calibration", "version": "1"}', "its 'version' is '1'"),
        (b'{"format": "pdex_gpu calibration", "version": 2}', "'groups' is missing"),
        (
            b'{"format": "pdex_gpu calibration", "version": 1, "pdex_gpu": "0.1"}',
            r"format 1 \(written by pdex_gpu 0\.1\), .* Run the calibration again",
        ),
        (
            b'{"format": "pdex_gpu calibration", "version": 3, "pdex_gpu": "9.1"}',
            r"format 3 .*pdex_gpu 9\.1\); this version reads formats up to 2.*git pull",
        ),
    ],
)
def test_other_files(data: bytes, says: str, tmp_path: Path):
    path = tmp_path / "c.json"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=says) as raised:
        Calibration.from_json(path)
    assert repr(str(path)) in str(raised.value)


def test_every_cut_is_seen(path: Path):
    whole = path.read_bytes()
    for end in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:end])
        with pytest.raises(FileFormatError, match="cut short"):
            Calibration.from_json(path)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("groups",), "a", "'groups' is not a list of labels"),
        (("groups", 0), ["a"], "'groups' is not a list of labels"),
        (("repeats", 0), 0.5, "'repeats' is not a list of whole numbers"),
        (("repeats", 0), True, "'repeats' is not a list of whole numbers"),
        (("repeats", 0), 2**63, "'repeats' is not a list of whole numbers"),
        (("repeats",), [0], r"'repeats' has 1 values, not \d"),
        (("kinds",), [], "'kinds' is empty"),
        (("kinds", 0), 3, r"'kinds\[0\]' is not an object"),
        ((*FIRST, "kind"), 3, r"'kinds\[0\]\.kind' is not text"),
        ((*FIRST, "by_group"), [], "'by_group' or 'by_expression' has too many or too few parts"),
        ((*FIRST, "by_expression"), [], "'by_expression' has too many or too few parts"),
        ((*FIRST, "by_group"), {}, r"'kinds\[0\]\.by_group' is not a list"),
        ((*FIRST, "by_group", 0), 3, r"by_group\[0\]' is not an object"),
        (
            (*FIRST, "by_group", 1, "n_tests"),
            -1,
            r"'kinds\[0\]\.by_group\[1\]\.n_tests' is not a non-negative integer",
        ),
        ((*FIRST, "n_tests", 0), [1, 2], r"n_tests' does not consist of \d+ x 3 whole numbers"),
        ((*FIRST, "n_below", 0, 2, 3), 0.5, r"n_below' does not consist of \d+ x 3 x 4 whole"),
        ((*FIRST, "n_below", 1, 1), 7, r"n_below' does not consist of \d+ x 3 x 4 whole numbers"),
        ((*FIRST, "total", "inflation"), "NaN", r"total\.inflation' is not a number"),
        ((*FIRST, "total", "inflation"), 10**400, r"total\.inflation' is not a number"),
        ((*FIRST, "total", "n_below"), [1, 2], r"total\.n_below' has 2 values, not 4"),
        ((*FIRST, "total", "n_below", 0), "x", r"total\.n_below' is not a list of whole numbers"),
        ((*FIRST, "total", "histogram"), [1], r"total\.histogram' has 1 values, not 20"),
        ((*FIRST, "quantiles", "observed"), [], r"quantiles\.observed' has 0 values"),
        ((*FIRST, "provenance"), [], "provenance' is not an object"),
        (("units",), 3, "'units' is not text or null"),
        (("assignment", 0), [1], r"'assignment' does not consist of rows of \d+ integers"),
        (("assignment", 1, 0), None, r"'assignment' does not consist of rows of \d+ integers"),
        (("assignment",), 3, "'assignment' is not a list of lists"),
        (("metric",), 3, "'metric' is not text"),
    ],
)
def test_changed_fields(where: tuple[Any, ...], value: Any, says: str, path: Path):
    document = json.loads(path.read_text("utf-8"))
    part = document
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] = value
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(FileFormatError, match=says):
        Calibration.from_json(path)


def test_every_field_is_asked_for(found: Calibration, path: Path):
    whole = json.loads(path.read_text("utf-8"))
    for field in fields(found):
        document = {name: value for name, value in whole.items() if name != field.name}
        path.write_text(json.dumps(document), "utf-8")
        with pytest.raises(FileFormatError, match=f"'{field.name}' is missing"):
            Calibration.from_json(path)


def test_picture_of_what_was_read(path: Path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from pdex_gpu import pl

    again = Calibration.from_json(path)
    ax, judged = pl.calibration_qq(again), again.of()
    assert ax.get_title().endswith(f"$\\lambda$ = {judged.total.inflation:.3g}")
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), judged.quantiles.expected)
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), judged.quantiles.observed)
    low, high = judged.quantiles.band()
    edge = ax.collections[0].get_paths()[0].vertices
    assert edge[:, 1].min() == low.min()
    assert edge[:, 1].max() == high.max()
    _, mine = plt.subplots()
    assert pl.calibration_qq(again, mine) is mine
    plt.close("all")


def test_what_could_hang_or_fill_memory(path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(path.with_name("pipe.json"))
    for place in (path.with_name("pipe.json"), Path("/dev/zero")):
        with pytest.raises(FileFormatError, match=r"is a (pipe|device), but a file"):
            Calibration.from_json(place)
    monkeypatch.setattr("pdex_gpu.calibration.serialize.available_memory", lambda: 100)
    with pytest.raises(MemoryBudgetError, match="too many to read"):
        Calibration.from_json(path)
