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

The groups of a round share no cell, and a round is one reading of the data. All cells of a
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
from .contrasts import Contrast, Design, group_cells, labels_array

#: Seed of the random groups of a call: the same call gives the same result.
SEED = 0
#: Fewest mock groups of a class. With as many, the smallest p-value that a row can get, times the
#: number of genes, is below 0.05: one row alone can be found among those of its target.
FEWEST_GROUPS = 20
#: Most readings of the data: each then has one group of every class, so the largest target can have
#: about half as many cells as its reference. With a tenth as many, it takes about 4 readings.
MOST_ROUNDS = FEWEST_GROUPS
#: Most p-values of all mock groups, unless `FEWEST_GROUPS` need more: 134 MB.
MOST_TESTS = 1 << 24

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
    rounds : tuple of numpy.ndarray, int64
        For each round, the row of the design that each of its mock groups is modelled on.
    seed : int
    """

    design: Design
    classes: tuple[SizeClass, ...]
    rounds: tuple[np.ndarray, ...]
    seed: int

    @property
    def class_of_row(self) -> np.ndarray:
        """Return the position in `classes` of each row of the design, shape (n_rows,), int64."""
        found = np.full(self.design.n_rows, -1, np.int64)
        for k, its in enumerate(self.classes):
            found[its.rows] = k
        return found

    def n_values(self, n_fields: int) -> int:
        """Return the values per gene that are held at most, given those that a round stores a row.

        All null p-values are held, twice while they are sorted.
        """
        return n_fields * max(map(len, self.rounds)) + 2 * int(self.n_groups.sum())

    def powers(self, k: int) -> np.ndarray:
        """Return the power for the p-values of each mock group of a round, at least 1, float64."""
        models = _models(self.design)
        return np.array([models.power(row) for row in self.rounds[k].tolist()])

    @property
    def n_groups(self) -> np.ndarray:
        """Return the number of mock groups of each class in all rounds, int64."""
        models = np.concatenate(self.rounds)
        return np.bincount(self.class_of_row[models], minlength=len(self.classes))

    def of_round(self, k: int) -> Design:
        """Draw the mock groups of a round; return the design of their comparisons.

        It has a row for each mock group, in the order of ``rounds[k]``.
        """
        rng = np.random.default_rng([self.seed, k])
        design, models = self.design, _models(self.design)
        members: dict[int, list[tuple[int, int]]] = {}
        for mock, row in enumerate(self.rounds[k].tolist()):
            for place, n in models.sizes(row):
                members.setdefault(place, []).append((mock, n))
        codes = np.full(len(design.codes), -1, np.int64)
        contrasts: list[Contrast] = []
        first = 0
        for place in sorted(members):
            group = models.references[place]
            cells = rng.permutation(design.order[design.offsets[group] : design.offsets[group + 1]])
            rows, sizes = (list(values) for values in zip(*members[place], strict=True))
            left = len(cells) - sum(sizes)
            if left:  # in every group's rest, but not a group
                rows, sizes = [*rows, -1], [*sizes, left]
            groups = np.arange(first, first + len(sizes))
            codes[cells] = np.repeat(groups, sizes)
            contrasts.append(Contrast(groups, np.array(sizes), Against.REST, np.array(rows)))
            first += len(sizes)
        n = len(self.rounds[k])
        return Design(
            *group_cells(codes, first),
            codes,
            tuple(contrasts),
            labels_array([f"mock {mock + 1}" for mock in range(n)]),
            labels_array(["other cells of the reference"] * n),
            stratified=design.stratified,
        )


def plan_mock_groups(design: Design, n_genes: int, seed: int) -> MockGroups:
    """Decide how many mock groups of each class of sizes there are, and in how many rounds.

    There are as few rounds as give each class `FEWEST_GROUPS`, with as many groups as fit: at most
    as many as the design has rows, so that they take no longer than the comparisons themselves.

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
    rounds = _rounds(models, candidates, most)
    if rounds is None:
        _refuse(models, classes, candidates)
    return MockGroups(design, tuple(classes), tuple(np.array(its) for its in rounds), seed)


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


def _rounds(
    models: _Models, candidates: Sequence[Sequence[int]], most: int
) -> list[list[int]] | None:
    """Return the model rows of each round's mock groups; None if a class gets too few.

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
    rounds: list[list[int]] = []
    while len(rounds) < MOST_ROUNDS and min(counts) < FEWEST_GROUPS:
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
            return None
        rounds.append(chosen)
    return rounds if min(counts) >= FEWEST_GROUPS else None


def _refuse(
    models: _Models, classes: Sequence[SizeClass], candidates: Sequence[Sequence[int]]
) -> NoReturn:
    """Raise OptionError with the number of reference cells that would be enough."""
    have = sum(models.n_cells)

    def enough(n: int) -> bool:
        """Return whether `n` reference cells, divided over references as now, are enough."""
        scaled = [math.ceil(n * its / have) for its in models.n_cells]
        fewest = FEWEST_GROUPS * len(classes)
        return _rounds(replace(models, n_cells=scaled), candidates, fewest) is not None

    low, high = have, 2 * have
    while not enough(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    parts = len(models.n_cells)
    raise OptionError(
        f"{_REFUSED}, at least {FEWEST_GROUPS} for each class of sizes of the targets, but there "
        f"are too few: {have:,} cells{f' in {parts} references, levels or strata' if parts > 1 else ''}. "
        f"The largest targets have {classes[-1].largest:,} cells, for which it takes about "
        f"{high:,} reference cells. Pool several references (reference=[...]), leave out the "
        "largest targets (groups=), or use another fdr_method."
    )
