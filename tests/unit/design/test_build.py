"""Labels become groups: codes, order, offsets, targets."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.design.build import make_design
from pdex_gpu.errors import LabelError, MissingLabelWarning, UnknownGroupWarning


def encode(labels: list) -> tuple[np.ndarray, list]:
    categories = list(dict.fromkeys(label for label in labels if label is not None))
    return np.array([-1 if x is None else categories.index(x) for x in labels]), categories


@given(
    labels=st.lists(st.sampled_from(["ctl", "a", "b", "c", None]), max_size=30),
    groups=st.none() | st.lists(st.sampled_from(["c", "b", "a", "ctl"]), min_size=1),
)
def test_a_design_puts_every_cell_in_its_group(labels: list, groups: list | None) -> None:
    labels = ["ctl", "a", *labels]
    asked = None if groups is None else [*groups, "a"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cells without a label, and of groups without a cell
        design = make_design(*encode(labels), reference="ctl", groups=asked)
    present = sorted({x for x in labels if x not in (None, "ctl")})
    targets = [x for x in dict.fromkeys(present if asked is None else asked) if x in present]
    assert design.targets.tolist() == targets
    assert design.reference == "ctl"
    assert design.n_groups == len(targets) + 1
    for g, label in enumerate(["ctl", *targets]):
        cells = [i for i, x in enumerate(labels) if x == label]
        assert design.order[design.offsets[g] : design.offsets[g + 1]].tolist() == cells
        assert design.n_cells[g] == len(cells)
        assert np.flatnonzero(design.codes == g).tolist() == cells
    left_out = [x not in ("ctl", *targets) for x in labels]
    np.testing.assert_array_equal(design.codes == -1, left_out)
    for array in (design.order, design.offsets, design.codes, design.n_cells):
        assert array.dtype == np.int64


def test_targets_are_sorted_by_default_and_in_the_order_asked_for_otherwise() -> None:
    data = encode(["b", "ctl", "c", "a", "b"])
    assert make_design(*data, reference="ctl").targets.tolist() == ["a", "b", "c"]
    chosen = make_design(*data, reference="ctl", groups=["c", "a", "c", "ctl"])
    assert chosen.targets.tolist() == ["c", "a"]
    assert make_design(*data, reference="ctl", groups="b").targets.tolist() == ["b"]
    from_iterator = make_design(*data, reference="ctl", groups=iter(["b", "a"]))
    assert from_iterator.targets.tolist() == ["b", "a"]


def test_numbers_sort_as_numbers_and_are_found_by_their_text() -> None:
    codes, categories = encode([10, 9, 0, 9])
    design = make_design(codes, categories, reference="0")
    assert design.reference == 0
    assert design.targets.tolist() == [9, 10]
    assert make_design(codes, categories, reference=0, groups=["10"]).targets.tolist() == [10]


def test_labels_of_mixed_types() -> None:
    design = make_design(*encode(["ctl", 2, "b", 1]), reference="ctl")
    assert design.targets.tolist() == [1, 2, "b"]


def test_categories_without_a_cell_are_no_groups() -> None:
    design = make_design(np.array([0, 2, 2]), ["ctl", "unused", "a"], reference="ctl")
    assert design.targets.tolist() == ["a"]


def test_missing_labels_are_counted() -> None:
    with pytest.warns(MissingLabelWarning, match=r"2 of 5 cells have no label in 'guide'"):
        design = make_design(
            np.array([0, -1, 1, -1, 1]), ["ctl", "a"], reference="ctl", column="guide"
        )
    assert design.codes.tolist() == [0, -1, 1, -1, 1]
    assert design.order.tolist() == [0, 2, 4]


def test_unknown_groups_are_left_out_with_a_warning() -> None:
    with pytest.warns(UnknownGroupWarning, match="'gone'"):
        design = make_design(*encode(["ctl", "a"]), reference="ctl", groups=["gone", "a"])
    assert design.targets.tolist() == ["a"]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["ctrl", "a"], {"reference": "ctl"}, r"'ctl'.*'ctrl'"),
        (["ctl", "a"], {"reference": None}, "None"),
        (["ctl", "STAT1"], {"reference": "ctl", "groups": ["Stat1"]}, r"'Stat1'.*'STAT1'"),
        (["ctl", "ctl"], {"reference": "ctl"}, "No target"),
        (["ctl", "a"], {"reference": "ctl", "groups": ["ctl"]}, "No target"),
        (["ctl", "a"], {"reference": "ctl", "groups": []}, "No target"),
    ],
)
def test_nothing_to_compare(labels: list, options: dict, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        make_design(*encode(labels), **options)


def test_a_reference_without_a_cell_is_unknown() -> None:
    with pytest.raises(LabelError, match="'ctl'"):
        make_design(np.array([1, 1]), ["ctl", "a"], reference="ctl")


def test_no_cell_has_a_label() -> None:
    with pytest.warns(MissingLabelWarning), pytest.raises(LabelError):
        make_design(np.array([-1, -1]), [], reference="ctl")


def test_tens_of_thousands_of_groups_by_name() -> None:
    """Looking a name up must not take longer the more of them there are."""
    names = [f"g{k}" for k in range(30_000)]
    design = make_design(np.arange(30_000), names, reference="g0", groups=names[1:])
    assert design.targets.tolist() == names[1:]


@pytest.mark.parametrize("n_groups", [2, 127, 128, 200, 40_000])
def test_a_design_travels_in_a_byte_or_two_a_cell(n_groups):
    codes = np.random.default_rng(n_groups).permutation(np.arange(5 * n_groups) % n_groups)
    labels = np.array(["ctl", *(f"g{i}" for i in range(1, n_groups))], object)
    design = make_design(codes, labels, reference="ctl", min_cells=1)
    pickled = pickle.dumps(design)
    copy = pickle.loads(pickled)
    for name in ("codes", "order", "offsets"):
        one, other = getattr(design, name), getattr(copy, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert copy.targets.tolist() == design.targets.tolist()
    bytes_a_cell = 1 if n_groups < 128 else 2 if n_groups < 1 << 15 else 4
    labels_and_contrasts = len(pickle.dumps((design.targets, design.references))) + 3000
    assert len(pickled) < bytes_a_cell * len(codes) + labels_and_contrasts + 40 * n_groups
