"""Facts seen while packing, which distinguish counts, logarithms and other values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ValueSummary:
    """Facts about the values of the cells that take part; ``a | b`` covers both.

    Zeros count whether or not they are stored, so that the facts do not depend on storage. NaN and
    infinity, where a test accepts them, do not count.

    Attributes
    ----------
    fractional : bool
        Whether some value has a fractional part above `contract.LOG1P_EPSILON`.
    minimum : float
        The smallest value, or 0 if none is negative.
    maximum : float
        The largest value, or 0 if none is positive.
    """

    fractional: bool = False
    minimum: float = 0.0
    maximum: float = 0.0

    def __or__(self, other: ValueSummary) -> ValueSummary:
        return ValueSummary(
            self.fractional or other.fractional,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )
