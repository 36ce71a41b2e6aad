"""Mock groups: how many, how large, and which cells they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pdex_gpu.design.against import Against
from pdex_gpu.design.build import make_design
from pdex_gpu.design.contrasts import Design
from pdex_gpu.design.labels import Levels
from pdex_gpu.design.mock_groups import (
    FEWEST_GROUPS,
    MOST_SPLITS,
    MockGroups,
    mock_size,
    plan_mock_groups,
    size_classes,
)
from pdex_gpu.errors import OptionError

N_GENES = 100


def design(sizes: dict[str, int], seed: int = 0, **options: Any) -> Design:
    """A design of groups of some sizes, with their cells in random order."""
    names = list(sizes)
    codes = np.repeat(np.arange(len(names)), list(sizes.values()))
    codes = np.random.default_rng(seed).permutation(codes)
    return make_design(codes, names, **({"reference": "ctl"} | options))


def planned(sizes: dict[str, int], **options: Any) -> MockGroups:
    return plan_mock_groups(design(sizes, **options), N_GENES, 0)


def test_classes_are_powers_of_two():
    found = size_classes(np.array([5, 1, 4, 8, 7, 3, 300]))
    spans = [(its.smallest, its.largest, its.rows.tolist()) for its in found]
    assert spans == [
        (1, 1, [1]),
        (3, 3, [5]),
        (4, 7, [0, 2, 4]),
        (8, 8, [3]),
        (300, 300, [6]),
    ]


@pytest.mark.parametrize(
    ("n_target", "n_reference", "expected"),
    [(20, 1900, 20), (200, 2000, 182), (100, 100, 50), (1, 10_000, 1), (1, 1, 1), (859, 0, 1)],
)
def test_a_mock_group_has_the_share_of_its_model(n_target: int, n_reference: int, expected: int):
    assert mock_size(n_target, n_reference) == expected


def test_every_class_has_enough_groups_of_its_sizes():
    found = planned({"ctl": 400, "A": 10, "B": 12, "C": 60, "D": 3})
    assert [its.smallest for its in found.classes] == [3, 10, 60]
    assert (found.n_groups >= FEWEST_GROUPS).all()
    assert (
        len(found.splits) == 4
    )  # of 400 cells: 20 groups of 52, 20 of about 11, 20 of 3, with gaps
    cells, mock = found.draw()
    n_target, n_reference, n_strata = mock.cells()
    models = found.model_rows
    sizes = found.design.cells()[0]
    assert n_target.tolist() == [mock_size(n, 400) for n in sizes[models].tolist()]
    assert (n_target + n_reference == 400).all()
    assert (n_strata == 1).all()
    assert len(cells) == 400 * len(found.splits)
    assert (found.class_of_row[models] >= 0).all()


def test_the_groups_of_a_split_share_no_cell_and_all_are_controls():
    found = planned({"ctl": 400, "A": 10, "B": 12, "C": 60, "D": 3}, seed=4)
    cells, mock = found.draw()
    controls = np.flatnonzero(found.design.codes == 0)
    assert len(mock.contrasts) == len(found.splits)
    for contrast in mock.contrasts:
        assert contrast.against is Against.REST
        inside = np.concatenate(
            [mock.order[mock.offsets[g] : mock.offsets[g + 1]] for g in contrast.groups]
        )
        np.testing.assert_array_equal(np.sort(cells[inside]), controls)
    assert sorted(np.concatenate([c.rows[c.rows >= 0] for c in mock.contrasts])) == list(
        range(mock.n_rows)
    )
    first = cells[: len(controls)]
    assert (first != cells[len(controls) : 2 * len(controls)]).any()
    again, _ = found.draw()
    np.testing.assert_array_equal(cells, again)
    other, _ = plan_mock_groups(found.design, N_GENES, 1).draw()
    assert len(other) != len(cells) or (other != cells).any()


@pytest.mark.parametrize(
    ("n_controls", "n_targets", "expected"),
    [
        (500, 80, [50]),  # of 1,300 cells, one split has more than a third
        (1000, 80, [80]),  # no more than there are targets
        (100, 60, [11, 11]),  # two give enough, and have less than a third of 700 cells
        (100, 80, [11] * 3),  # a third of 900 cells
        (100, 200, [11] * 7),  # a third of 2,100 cells
    ],
)
def test_there_are_more_than_needed_if_they_take_no_longer(
    n_controls: int, n_targets: int, expected: list[int]
):
    found = planned({"ctl": n_controls} | {f"g{k}": 10 for k in range(n_targets)})
    assert [len(rows) for rows in found.splits] == expected
    models = found.model_rows.tolist()
    assert len(set(models)) == len(models)  # targets take turns


def test_the_limit_on_null_p_values():
    sizes = {"ctl": 500} | {f"g{k}": 10 for k in range(80)}
    assert plan_mock_groups(design(sizes), 1 << 22, 0).n_groups.tolist() == [FEWEST_GROUPS]


def test_powers_are_the_ratio_of_odds():
    found = planned({"ctl": 1900, "A": 20})
    assert mock_size(20, 1900) == 20
    np.testing.assert_allclose(found.powers, (1900 / 20) / (1880 / 20))
    found = planned({"ctl": 600, "A": 135})  # 110.2 cells are 110: the odds are not smaller
    assert (found.powers == 1.0).all()


def test_each_reference_and_level_gives_its_own_cells():
    found = planned(
        {"ctl": 200, "other": 300, "A": 10, "B": 12},
        comparison="each_reference",
        reference=["ctl", "other"],
    )
    cells, mock = found.draw()
    codes = found.design.codes
    assert len(mock.contrasts) % 2 == 0
    for contrast in mock.contrasts:
        inside = np.isin(mock.codes, contrast.groups)
        assert len(np.unique(codes[cells[inside]])) == 1
        real = found.design.references[found.model_rows[contrast.rows[contrast.rows >= 0]]]
        names = found.design.references[
            [np.flatnonzero(found.design.references == name)[0] for name in set(real)]
        ]
        assert len(names) == 1
        size = {"ctl": 200, "other": 300}[str(names[0])]
        assert int(contrast.n_cells.sum()) == size


def test_strata_are_matched_one_by_one():
    codes = np.repeat([0, 1], [400, 40])
    rng = np.random.default_rng(2)
    stratum = np.concatenate([np.repeat([0, 1], [100, 300]), np.repeat([0, 1], [30, 10])])
    order = rng.permutation(440)
    levels = Levels(stratum[order], ["a", "b"], "batch")
    real = make_design(codes[order], ["ctl", "A"], reference="ctl", strata=levels)
    found = plan_mock_groups(real, N_GENES, 0)
    cells, mock = found.draw()
    assert mock.stratified
    n_target, n_reference, n_strata = mock.cells()
    assert (n_strata == 2).all()
    assert (n_target == mock_size(30, 100) + mock_size(10, 300)).all()
    assert (n_target + n_reference == 400).all()
    for contrast in mock.contrasts:
        where = levels.codes[cells[np.isin(mock.codes, contrast.groups)]]
        assert len(np.unique(where)) == 1


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        (
            {"ctl": 100, "A": 110, "B": 10},
            {},
            r"at least 20 for each class of sizes of the targets, but there are too few: 100 "
            r"cells\. The largest targets have 110 cells, for which it takes about 1\d\d reference",
        ),
        ({"ctl": 1, "A": 90}, {}, "there are too few: 1 cells"),
        (
            {"ctl": 50, "A": 110, "B": 10},
            {"comparison": "rest"},
            "here groups are compared with 'rest', not with a reference",
        ),
    ],
)
def test_refused(sizes: dict[str, int], options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        planned(sizes, **options)


def test_the_number_that_it_takes_is_enough():
    with pytest.raises(OptionError, match="about") as caught:
        planned({"ctl": 100, "A": 110, "B": 10})
    needed = int(str(caught.value).split("about ")[1].split()[0].replace(",", ""))
    assert len(planned({"ctl": needed, "A": 110, "B": 10}).splits) <= MOST_SPLITS
    with pytest.raises(OptionError):
        planned({"ctl": needed - 3, "A": 110, "B": 10})  # sizes are rounded: 109 is too few, too
