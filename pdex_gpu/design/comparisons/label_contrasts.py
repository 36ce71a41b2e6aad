"""Contrasts by label: the rows that a comparison asks for, before any cell is sorted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..against import Against


class Row(NamedTuple):
    """A row of the result, in each level of ``within`` columns.

    Attributes
    ----------
    target : object
        Label of the target group.
    reference_number : int or None
        Number of the group that it is compared with; None for all the other groups.
    reference : object
        Label of the reference in the result.
    """

    target: Any
    reference_number: int | None
    reference: Any


@dataclass(frozen=True)
class LabelContrasts:
    """The rows of the result, and the groups of cells that they compare.

    The class methods make these for the usual cases.

    Attributes
    ----------
    numbers : dict
        Group number of each label that takes part, from 0 on; labels with the same number are
        pooled. Cells with any other label are left out.
    rows : list of Row
        In the order of the result.
    against : Against
        ``REST`` requires rows without a `reference_number`, the others rows with one.
    """

    numbers: dict[Any, int]
    rows: list[Row]
    against: Against = Against.REFERENCE

    @classmethod
    def of_pairs(
        cls, pairs: Sequence[tuple[Any, Any]], references: Iterable[Any] = ()
    ) -> LabelContrasts:
        """Compare groups pair by pair.

        Parameters
        ----------
        pairs : sequence of (target, reference)
            One per row.
        references : iterable, optional
            Labels of the references, in the order of their groups.
        """
        found = dict.fromkeys([*references, *(reference for _, reference in pairs)])
        numbers = {label: k for k, label in enumerate(found)}
        for target, _ in pairs:
            numbers.setdefault(target, len(numbers))
        return cls(numbers, [Row(target, numbers[r], r) for target, r in pairs])

    @classmethod
    def of_pooled_reference(
        cls, targets: Sequence[Any], pooled: Iterable[Any], name: object
    ) -> LabelContrasts:
        """Compare each target with the cells of one or several labels together."""
        numbers = dict.fromkeys(pooled, 0) | {t: k + 1 for k, t in enumerate(targets)}
        return cls(numbers, [Row(target, 0, name) for target in targets])

    @classmethod
    def of_rest(cls, targets: Sequence[Any], others: Iterable[Any], name: object) -> LabelContrasts:
        """Compare each target with all other targets and the cells of `others`."""
        numbers = {target: k for k, target in enumerate(targets)}
        for label in others:
            numbers.setdefault(label, len(targets))  # in every target's rest, but not a target
        return cls(numbers, [Row(target, None, name) for target in targets], Against.REST)

    @classmethod
    def of_complements(
        cls, targets: Sequence[Any], pools: Mapping[Any, str], name: object
    ) -> LabelContrasts:
        """Compare each target with the cells of its pool that are not its own.

        Parameters
        ----------
        targets : sequence
        pools : mapping
            Label of each target's pool.
        name : object
            Label of the reference in the result.
        """
        numbers: dict[Any, int] = {}
        for target in targets:
            numbers.setdefault(pools[target], len(numbers))
        rows = [Row(target, numbers[pools[target]], name) for target in targets]
        first = len(numbers)
        numbers |= {target: first + k for k, target in enumerate(targets)}
        return cls(numbers, rows, Against.COMPLEMENT)
