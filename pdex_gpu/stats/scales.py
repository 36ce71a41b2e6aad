"""Sides of comparisons of values whose squares overflow or underflow: each over a power of two."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..backends.contract import Moments
from ..design import Contrast, Design
from .samples import Sample, Sides, sides

#: Below the exponent of any value: groups of zeros are of any scale.
_ZEROS = -5000


@dataclass(frozen=True)
class Scaled:
    """The sides of a contrast.

    Attributes
    ----------
    sides : Sides
        Mean and squared deviations are those of values over ``2**exponent``.
    shown : Sides
        The same, of the values as they are, without squared deviations.
    exponent : numpy.ndarray or None, shape (n_targets, 1), int64
        The same for all contrasts of a row; None for 0.
    """

    sides: Sides
    shown: Sides
    exponent: np.ndarray | None = None


def scaled_sides(moments: Moments, design: Design) -> list[Scaled]:
    """The sides of each contrast of a design; of one gene, if its moments are scaled."""
    if moments.exponent is None:
        plain = [sides(moments, contrast) for contrast in design.contrasts]
        return [Scaled(both, both) for both in plain]
    exponent = np.where(moments.n_expressed[:, 0] > 0, moments.exponent[:, 0], _ZEROS)
    of_pairs = [_of_pairs(exponent[contrast.groups], contrast) for contrast in design.contrasts]
    of_rows = np.full(design.n_rows, _ZEROS)
    for contrast, pairs in zip(design.contrasts, of_pairs, strict=True):
        used = contrast.rows >= 0
        np.maximum.at(of_rows, contrast.rows[used], pairs[used])
    of_rows[of_rows == _ZEROS] = 0
    return [
        _scaled(moments, c, np.where(c.rows >= 0, of_rows[c.rows], 0)) for c in design.contrasts
    ]


def _of_pairs(exponent: np.ndarray, contrast: Contrast) -> np.ndarray:
    """The largest exponent of the groups that each target's comparison is made of."""
    if contrast.against == "reference":
        return np.maximum(exponent[1:], exponent[0])
    return np.full(contrast.n_targets, exponent.max())


def _scaled(moments: Moments, contrast: Contrast, exponent: np.ndarray) -> Scaled:
    assert moments.exponent is not None
    plain = replace(moments, m2=None, exponent=None, scaled_mean=None, scaled_m2=None)
    own = moments.exponent
    with np.errstate(all="ignore"):
        shown = sides(plain, contrast)
        if contrast.against == "reference":
            its = exponent[:, None]
            target, reference = contrast.groups[1:], np.repeat(contrast.groups[0], len(its))
            both = Sides(*(
                _moved(sample, moments, groups, own[groups] - its)
                for sample, groups in ((shown.target, target), (shown.reference, reference))
            ))  # fmt: skip
            return Scaled(both, shown, its)
        # Groups are put together at the scale of the largest, then moved to that of the row.
        common = own[contrast.groups][moments.n_expressed[contrast.groups] > 0].max(initial=_ZEROS)
        common = 0 if common == _ZEROS else common
        together = _at(plain, moments, own - common)
        its = np.broadcast_to(exponent[:, None], (contrast.n_targets, 1))
        both = sides(together, contrast)
        both = Sides(_times(both.target, common - its), _times(both.reference, common - its))
        mean = np.ldexp(both.reference.mean, its)
    return Scaled(both, replace(shown, reference=replace(shown.reference, mean=mean)), its)


def _at(plain: Moments, moments: Moments, shift: np.ndarray) -> Moments:
    """Moments of values times ``2**shift`` beyond their own scale."""
    assert moments.scaled_mean is not None
    m2 = moments.scaled_m2
    return replace(
        plain,
        mean=np.ldexp(moments.scaled_mean, shift),
        m2=None if m2 is None else np.ldexp(m2, 2 * shift),
    )


def _moved(sample: Sample, moments: Moments, groups: np.ndarray, shift: np.ndarray) -> Sample:
    """A sample with mean and squared deviations of these groups, moved."""
    assert moments.scaled_mean is not None
    m2 = None if moments.scaled_m2 is None else moments.scaled_m2[groups]
    return _times(replace(sample, mean=moments.scaled_mean[groups], m2=m2), shift)


def _times(sample: Sample, shift: np.ndarray) -> Sample:
    """The sample of values times ``2**shift``."""
    m2 = None if sample.m2 is None else np.ldexp(sample.m2, 2 * shift)
    return replace(sample, mean=np.ldexp(sample.mean, shift), m2=m2)
