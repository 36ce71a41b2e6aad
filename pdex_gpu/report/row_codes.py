"""ReportData rows in few bytes: columns as differences from values predicted by other columns.

The single-precision values are kept exactly: `decode_rows`, and `rows.js` in the page, return the
same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..results.effect import Effect
from .encode import Packed, pack, unpack, whole
from .payload import Rows


def encode_rows(rows: Rows, n_genes: int, effect: Effect) -> dict[str, Packed]:
    """Encode columns of rows as text.

    Parameters
    ----------
    rows : Rows
    n_genes : int
        Number of features of the result.
    effect : Effect
        The meaning of the column `effect`.

    Returns
    -------
    dict of str to Packed
        ``row_gene``
            The step from the gene of the previous row, modulo `n_genes`; the first from gene 0.
        ``row_reference_mean``
            The step from the previous row of the same gene, or from 0.0 in its first row. It is 0
            where comparisons share a reference.
        ``row_effect``
            The step from the ratio or difference of the row's means, or from 0.0 if that is NaN.
        ``row_target_mean``, ``row_log10_p``, ``row_log10_fdr``, ``row_statistic``
            The values themselves.

        Steps between values are differences of the bits of single-precision numbers, modulo 2**32;
        :func:`_zigzag` makes small numbers of those in either direction.
    """
    steps = np.diff(rows.gene, prepend=0) % max(n_genes, 1)
    values = rows.values
    reference = _bits(values["reference_mean"])
    found = {
        "row_gene": whole(steps),
        "row_reference_mean": pack(_zigzag(reference - _before(reference, rows.gene)), "u4"),
        "row_effect": pack(_zigzag(_bits(values["effect"]) - _expected(values, effect)), "u4"),
    }
    for name in ("target_mean", "log10_p", "log10_fdr", "statistic"):
        found[f"row_{name}"] = pack(values[name], "f4")
    return found


def decode_rows(
    packed: Mapping[str, Packed], n_genes: int, effect: Effect
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Decode the output of :func:`encode_rows`, as the page does.

    Returns
    -------
    gene : numpy.ndarray, shape (n,), int64
        Position among the features.
    values : dict of str to numpy.ndarray, shape (n,), float32
        As in :class:`.payload.Rows`.
    """
    gene = np.cumsum(unpack(packed["row_gene"]), dtype=np.int64) % max(n_genes, 1)
    values = {
        name: unpack(packed[f"row_{name}"])
        for name in ("target_mean", "log10_p", "log10_fdr", "statistic")
    }
    bits = _unzigzag(unpack(packed["row_reference_mean"]))
    order = np.argsort(gene, kind="stable")
    total = np.cumsum(bits[order], dtype=np.uint32)
    first = np.diff(gene[order], prepend=-1) != 0
    base = np.where(first, total - bits[order], 0)[np.maximum.accumulate(_positions(first))]
    bits[order] = total - base
    values["reference_mean"] = bits.view(np.float32)
    steps = _unzigzag(unpack(packed["row_effect"]))
    values["effect"] = (steps + _expected(values, effect)).view(np.float32)
    return gene, values


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def _positions(first: np.ndarray) -> np.ndarray:
    return np.where(first, np.arange(len(first)), 0)


def _before(bits: np.ndarray, gene: np.ndarray) -> np.ndarray:
    """Return the bits of the previous row of the same gene; 0 for the first."""
    order = np.argsort(gene, kind="stable")
    found = np.zeros_like(bits)
    same = np.flatnonzero(np.diff(gene[order]) == 0)
    found[order[same + 1]] = bits[order[same]]
    return found


def _expected(values: Mapping[str, np.ndarray], effect: Effect) -> np.ndarray:
    """Return the bits of the ratio or difference of means, rounded once; 0 where it is NaN."""
    target, reference = (
        values[f"{side}_mean"].astype(np.float64) for side in ("target", "reference")
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exact = target / reference if effect.is_ratio else target - reference
        found = exact.astype(np.float32)
    return np.where(np.isnan(found), np.uint32(0), _bits(found))


def _zigzag(steps: np.ndarray) -> np.ndarray:
    """Encode negative steps as odd numbers, so that small steps give small numbers; uint32."""
    signed = steps.view(np.int32)
    return ((signed << 1) ^ (signed >> 31)).view(np.uint32)


def _unzigzag(codes: np.ndarray) -> np.ndarray:
    codes = codes.astype(np.uint32)
    return (codes >> 1) ^ (np.uint32(0) - (codes & 1))
