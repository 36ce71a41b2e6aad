"""Mock comparisons of a design: random groups of reference cells, as large as its targets.

A mock group is compared with all other cells of its reference. No gene differs but by chance, so
that these comparisons give the distribution of p-values where there is no effect: the permutation
null of Westfall and Young (1993), for groups of the sizes that the targets have.

Targets are divided into classes of size, by powers of two. P-values depend on size most where
groups are small, so classes as wide as those that a calibration shows would mix what differs.

Every mock group is modelled on a row of the design: it is drawn from the same reference (in each
stratum) and has the same share of the cells compared. A target of ``n`` cells that is compared with
``N`` is modelled by ``n N / (N + n)`` of these ``N``, because the share decides how small p-values
of sparse genes get. Sizes are whole, so the odds of reference to target cells are not quite those
of the row. Where they are smaller, the most extreme p-values of mock groups would just miss those
of real rows, and not count. Null p-values are therefore raised to the power of the ratio of odds
(:meth:`MockGroups.powers`): where only target cells express a gene, the logarithm of an asymptotic
p-value is proportional to the odds, and that of an exact one changes less.

The groups of a split share no cell. Where one split has too few, there are several. All cells of a
reference can be in mock groups: each is compared with all the others, which is closer to the real
comparison, whose reference is whole, than a part of the cells kept aside would be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from ..errors import OptionError, listing
from .against import Against
from .contrasts import Contrast, Design, labels_array

#: Key in the provenance of a result whose p-values were judged against mock groups: facts on them.
EMPIRICAL_NULL = "empirical_null"
#: Seed of the random groups of a call: the same call gives the same result.
SEED = 0
#: Fewest mock groups of a class. With as many, the smallest p-value that a row can get, times the
#: number of genes, is below 0.05: one row alone can be found among those of its target.
FEWEST_GROUPS = 20
#: Most splits, unless more take no longer than the comparisons of the design. Each then has one
#: group of every class, so the largest target can have about half as many cells as its reference.
MOST_SPLITS = FEWEST_GROUPS
#: Most p-values of all mock groups, unless `FEWEST_GROUPS` need more: 67 MB.
MOST_TESTS = 1 << 23

# Time of comparisons of mock groups with the rest, over that of targets with the reference, as many
# cells and groups: 2.7 (Wilcoxon) and 3.6 (t-test) on 40,000 cells x 2,000 genes x 300 groups.
_SLOWER = 3

_REFUSED = "fdr_method='empirical' judges p-values against random groups of the reference's cells"

# The cells of a row in each reference that it is compared with: (position of reference, cells).
_Parts = list[tuple[int, int]]


@dataclass(frozen=True)
class SizeClass:
    """The rows of a design whose targets have similar numbers of cells.

    Attributes
    ----------
    smallest, largest : int
        Numbers of cells of targets in the class.
    rows : numpy.ndarray, shape (n,), int64
        Rows of the design.
    """

    smallest: int
    largest: int
    rows: np.ndarray


def size_classes(n_cells: np.ndarray) -> list[SizeClass]:
    """Divide rows by the number of cells of their targets: 1, 2 to 3, 4 to 7, and so on.

    Parameters
    ----------
    n_cells : numpy.ndarray, shape (n_rows,), int64
        At least 1.

    Returns
    -------
    list of SizeClass
        Those that have rows, from the smallest to the largest.
    """
    power = np.array([int(n).bit_length() for n in n_cells])
    found = [np.flatnonzero(power == k) for k in np.unique(power)]
    return [SizeClass(int(n_cells[r].min()), int(n_cells[r].max()), r) for r in found]


@dataclass(frozen=True)
class MockGroups:
    """The mock groups of a design; see :func:`plan_mock_groups`.

    Attributes
    ----------
    design : Design
    classes : tuple of SizeClass
    splits : tuple of list of int
        For each random split of the references, the row of the design that each of its mock groups
        is modelled on.
    seed : int
    """

    design: Design
    classes: tuple[SizeClass, ...]
    splits: tuple[list[int], ...]
    seed: int

    @property
    def class_of_row(self) -> np.ndarray:
        """Return the position in `classes` of each row of the design, shape (n_rows,), int64."""
        found = np.full(self.design.n_rows, -1, np.int64)
        for k, its in enumerate(self.classes):
            found[its.rows] = k
        return found

    @property
    def model_rows(self) -> np.ndarray:
        """Return the row that each mock group is modelled on, shape (n_mock,), int64."""
        return np.array([row for models in self.splits for row in models], np.int64)

    @property
    def n_cells(self) -> int:
        """Return the number of cells that are compared: the references, once for each split."""
        return len(self.splits) * sum(_models(self.design).n_cells)

    @property
    def powers(self) -> np.ndarray:
        """Return the power for the p-values of each mock group, at least 1, (n_mock,), float64."""
        models = _models(self.design)
        return np.array([models.power(row) for row in self.model_rows.tolist()])

    @property
    def n_groups(self) -> np.ndarray:
        """Return the number of mock groups of each class, int64."""
        return np.bincount(self.class_of_row[self.model_rows], minlength=len(self.classes))

    def draw(self) -> tuple[np.ndarray, Design]:
        """Draw the mock groups.

        Returns
        -------
        cells : numpy.ndarray, shape (n,), int64
            Cells of the references, once for every split that has groups of them.
        design : Design
            The comparisons of the mock groups, among these cells; a row for each, in their order.
        """
        models, real = _models(self.design), self.design
        cells: list[np.ndarray] = []
        sizes: list[int] = []
        contrasts: list[Contrast] = []
        mock = 0
        for k, rows_of_split in enumerate(self.splits):
            rng = np.random.default_rng([self.seed, k])
            members: dict[int, list[tuple[int, int]]] = {}
            for row in rows_of_split:
                for place, n in models.sizes(row):
                    members.setdefault(place, []).append((mock, n))
                mock += 1
            for place in sorted(members):
                group = models.references[place]
                own = real.order[real.offsets[group] : real.offsets[group + 1]]
                cells.append(rng.permutation(own))
                rows, n_cells = (list(values) for values in zip(*members[place], strict=True))
                left = len(own) - sum(n_cells)
                if left:  # in every group's rest, but not a group
                    rows, n_cells = [*rows, -1], [*n_cells, left]
                groups = np.arange(len(sizes), len(sizes) + len(n_cells))
                contrasts.append(Contrast(groups, np.array(n_cells), Against.REST, np.array(rows)))
                sizes += n_cells
        chosen = np.concatenate(cells)
        design = Design(
            np.arange(len(chosen)),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.repeat(np.arange(len(sizes)), sizes),
            tuple(contrasts),
            labels_array([f"mock {k + 1}" for k in range(mock)]),
            labels_array(["other cells of the reference"] * mock),
            stratified=real.stratified,
        )
        return chosen, design


def plan_mock_groups(design: Design, n_genes: int, seed: int) -> MockGroups:
    """Decide how many mock groups of each class of sizes there are, and in how many splits.

    Each class gets `FEWEST_GROUPS`. There are more as long as they take about as long as the
    comparisons of the design: with a third of its cells, and with as many rows.

    Parameters
    ----------
    design : Design
    n_genes : int
    seed : int
        Of the random choices.

    Raises
    ------
    OptionError
        If rows are compared with other cells than those of a reference, or a reference has too few.
    """
    if any(contrast.against is not Against.REFERENCE for contrast in design.contrasts):
        named = listing(list(dict.fromkeys(map(str, design.references))))
        raise OptionError(
            f"{_REFUSED}, but here groups are compared with {named}, not with a reference. Use "
            "comparison='reference' or 'each_reference', or another fdr_method."
        )
    models = _models(design)
    classes = size_classes(design.cells()[0])
    rng = np.random.default_rng(seed)
    candidates = [rng.permutation(its.rows).tolist() for its in classes]
    fewest = FEWEST_GROUPS * len(classes)
    most = max(fewest, min(design.n_rows, MOST_TESTS // max(1, n_genes)))
    n_cheap = len(design.order) // (_SLOWER * sum(models.n_cells))
    splits = _splits(models, candidates, most, n_cheap)
    if splits is None:
        _refuse(models, classes, candidates)
    return MockGroups(design, tuple(classes), tuple(splits), seed)


@dataclass(frozen=True)
class _Models:
    """The rows of a design as models of mock groups.

    Attributes
    ----------
    references : list of int
        Groups of the design that mock groups are drawn from.
    n_cells : list of int
        Number of cells of each.
    of_row : list of list of (int, int)
        For each row, positions in `references` and the number of cells of the target: one, or one
        for each stratum.
    """

    references: list[int]
    n_cells: list[int]
    of_row: list[_Parts]

    def sizes(self, row: int) -> _Parts:
        """Return the number of cells to draw for a row from each reference."""
        return [(place, mock_size(n, self.n_cells[place])) for place, n in self.of_row[row]]

    def power(self, row: int) -> float:
        """Return the odds of reference to target over those of its mock groups, at least 1."""
        found = 1.0
        for place, n in self.of_row[row]:
            n_reference = self.n_cells[place]
            mock = mock_size(n, n_reference)
            found = max(found, (n_reference * mock) / (n * (n_reference - mock)))
        return found


def mock_size(n_target: int, n_reference: int) -> int:
    """Return the size of the mock group with a target's share of the cells compared, at least 1."""
    return max(1, round(n_target * n_reference / (n_target + n_reference)))


def _models(design: Design) -> _Models:
    places: dict[int, int] = {}
    of_row: list[_Parts] = [[] for _ in range(design.n_rows)]
    for contrast in design.contrasts:
        place = places.setdefault(int(contrast.groups[0]), len(places))
        for row, n in zip(contrast.rows.tolist(), contrast.n_target.tolist(), strict=True):
            if row >= 0:
                of_row[row].append((place, n))
    references = list(places)
    return _Models(references, design.n_cells[references].tolist(), of_row)


def _splits(
    models: _Models, candidates: Sequence[Sequence[int]], most: int, n_cheap: int = 0
) -> list[list[int]] | None:
    """Return the model rows of the mock groups of each split; None if a class gets too few.

    There are at most `most` groups, or the fewest that are needed, and no further splits after the
    first `n_cheap` and those that are needed.

    The class with the fewest groups gets the next one, of equals that with the largest targets. Its
    rows take turns; one that the remaining cells cannot match is skipped.
    """

    n_cells = models.n_cells
    sizes = {row: models.sizes(row) for rows in candidates for row in rows}

    def fits(row: int, left: Sequence[int]) -> bool:
        return all(n <= left[place] for place, n in sizes[row])

    usable = [
        [row for row in rows if all(2 * n <= n_cells[place] for place, n in sizes[row])]
        for rows in candidates
    ]
    counts, turns = [0] * len(usable), [0] * len(usable)
    splits: list[list[int]] = []
    while len(splits) < n_cheap or (len(splits) < MOST_SPLITS and min(counts) < FEWEST_GROUPS):
        left, chosen = list(n_cells), []
        unfilled = {c for c, rows in enumerate(usable) if rows}
        while unfilled:
            c = min(unfilled, key=lambda c: (counts[c], -c))
            missing = sum(max(0, FEWEST_GROUPS - n) for n in counts)
            if counts[c] >= FEWEST_GROUPS and sum(counts) + missing >= most:
                break
            for step in range(len(usable[c])):
                row = usable[c][(turns[c] + step) % len(usable[c])]
                if fits(row, left):
                    break
            else:
                unfilled.discard(c)
                continue
            turns[c] += step + 1
            counts[c] += 1
            chosen.append(row)
            for place, n in sizes[row]:
                left[place] -= n
        if not chosen:
            break
        splits.append(chosen)
    return splits if min(counts) >= FEWEST_GROUPS else None


def _refuse(
    models: _Models, classes: Sequence[SizeClass], candidates: Sequence[Sequence[int]]
) -> NoReturn:
    """Raise OptionError with the number of reference cells that would be enough."""
    have = sum(models.n_cells)

    def enough(n: int) -> bool:
        """Return whether `n` reference cells, divided over references as now, are enough."""
        scaled = [math.ceil(n * its / have) for its in models.n_cells]
        fewest = FEWEST_GROUPS * len(classes)
        return _splits(replace(models, n_cells=scaled), candidates, fewest) is not None

    low, high = have, 2 * have
    while not enough(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    parts = len(models.n_cells)
    where = f" in {parts} references, levels or strata" if parts > 1 else ""
    raise OptionError(
        f"{_REFUSED}, at least {FEWEST_GROUPS} for each class of sizes of the targets, but there "
        f"are too few: {have:,} cells{where}. The largest targets have {classes[-1].largest:,} "
        f"cells, for which it takes about {high:,} reference cells. Pool several references "
        "(reference=[...]), leave out the largest targets (groups=), or use another fdr_method."
    )
