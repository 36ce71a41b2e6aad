"""Ordering of the lines of a sparse matrix: indices ascending, repeated ones summed.

Matrices from all kinds of input are ordered here, so that the sums are the same to the bit.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..errors import DataError

#: Entries sorted at a time, approximately, or one line if longer: the keys stay in the cache.
SORTED_AT_ONCE = 1 << 16
#: Bytes that an entry takes while it is sorted: its line, its key and its copy.
SORTING_BYTES = 32


def put_in_order(data: np.ndarray, indices: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sort the entries of each line in place, and sum those that share an index.

    Entries that share an index are added in the order in which they are stored. Lines already in
    order are unchanged.

    Parameters
    ----------
    data, indices : numpy.ndarray, shape (nnz,)
        Modified in place. Indices are integers from 0.
    bounds : numpy.ndarray, shape (n_lines + 1,), int64
        Line i has the entries ``[bounds[i], bounds[i + 1])``.

    Returns
    -------
    numpy.ndarray, shape (n_lines,), int64
        Where each line ends now; entries between there and the next line are leftovers.

    Raises
    ------
    DataError
        A sum of integers does not fit in their dtype.
    """
    ends = bounds[1:].copy()
    for a, b in cut_lines(bounds, SORTED_AT_ONCE):
        first, last = int(bounds[a]), int(bounds[b])
        starts = bounds[a : b + 1] - first
        found = _sorted(data[first:last], indices[first:last], starts)
        if found is None:
            continue
        values, places, counts = found
        ends[a:b] = bounds[a:b] + counts
        if len(values) == last - first:
            data[first:last], indices[first:last] = values, places
            continue
        kept = np.cumsum(counts) - counts
        where = np.arange(len(values)) + np.repeat(bounds[a:b] - kept, counts)
        data[where], indices[where] = values, places
    return ends


def in_order(
    data: np.ndarray, indices: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do :func:`put_in_order` and close the gaps; return the new data, indices and bounds."""
    return close_gaps(data, indices, bounds, put_in_order(data, indices, bounds))


def close_gaps(
    data: np.ndarray, indices: np.ndarray, bounds: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move lines ``[bounds[i], ends[i])`` together, in place; return data, indices and bounds."""
    if np.array_equal(ends, bounds[1:]):
        return data, indices, bounds
    lengths = ends - bounds[:-1]
    closed = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    for a, b in cut_lines(bounds, SORTED_AT_ONCE):
        target = slice(int(closed[a]), int(closed[b]))
        where = np.arange(target.start, target.stop)
        where += np.repeat(bounds[a:b] - closed[a:b], lengths[a:b])
        data[target], indices[target] = data[where], indices[where]
    return data[: closed[-1]], indices[: closed[-1]], closed


def cut_lines(bounds: np.ndarray, length: int) -> list[tuple[int, int]]:
    """Cut the lines into runs of about `length` entries, each of whole lines."""
    steps = (bounds[1:] - bounds[0]) // length
    cuts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(bounds) - 1]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]


def _sorted(
    data: np.ndarray, indices: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return data and indices in order, and entries per line; None if already in order."""
    falls = indices[1:] <= indices[:-1]
    inner = starts[1:-1]
    falls[inner[(inner > 0) & (inner < len(indices))] - 1] = False  # between lines
    if not falls.any():
        return None
    lengths = np.diff(starts)
    lines = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    order = _order(lines, indices)
    values, places = data[order], indices[order]
    new = np.concatenate([[True], (places[1:] != places[:-1]) | (lines[1:] != lines[:-1])])
    if new.all():
        return values, places, lengths
    firsts = np.flatnonzero(new)
    counts = np.bincount(lines[firsts], minlength=len(lengths))
    return _sums(values, firsts), places[firsts], counts


def _order(lines: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the stable order of entries by line, and then by index."""
    n = len(indices)
    for_place, for_index = (n - 1).bit_length(), int(indices.max()).bit_length()
    if int(lines[-1]).bit_length() + for_index + for_place > 64:
        return np.lexsort((indices, lines))
    # Line, index and place in one number: sorting these is faster than any argsort, and stable.
    keys = lines.astype(np.uint64) << np.uint64(for_index)
    keys |= indices.astype(np.uint64)
    keys <<= np.uint64(for_place)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << for_place) - 1)
    return keys.astype(np.int64)


def _sums(values: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Return the sums of runs of values that begin at `firsts`, in the dtype of the values."""
    dtype = values.dtype
    if dtype.kind == "b":
        return np.logical_or.reduceat(values, firsts)
    if dtype.kind == "f":
        with np.errstate(all="ignore"):  # values that are not finite are reported later
            return np.add.reduceat(values, firsts, dtype=dtype)
    info = np.iinfo(dtype)
    sums = np.add.reduceat(values, firsts, dtype=np.int64 if info.min else np.uint64)
    # These are modulo 2**64; if a sum does not fit, the one in floating point is far from it.
    about = np.add.reduceat(values.astype(np.float64), firsts)
    wrapped = np.abs(sums.astype(np.float64) - about) > 2.0**62
    if (wrapped | (sums > info.max) | (sums < info.min)).any():
        larger = "int64" if dtype.itemsize < 8 else "float64"
        raise DataError(
            "The matrix has several entries for the same cell and gene that add up to more than "
            f"{dtype} can hold. Convert it first, for instance with astype({larger!r})."
        )
    return sums.astype(dtype)
