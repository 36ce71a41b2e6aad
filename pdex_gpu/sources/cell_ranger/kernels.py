"""Compiled functions that parse the entries of a Matrix Market file.

scipy's parser ends the process on some malformed files. This is a separate module because it
imports numba: it is imported when a matrix folder is first read.
"""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit

#: What an entry holds besides a row and a column.
NOTHING, WHOLE_NUMBER, ANY_NUMBER = 0, 1, 2
#: What is wrong with an entry.
FINE, NO_NUMBERS, OUT_OF_RANGE, TOO_LARGE, FRACTION, MORE = 0, 1, 2, 3, 4, 5

_LARGEST = np.iinfo(np.int64).max


@jit
def _skip(text, at):
    """Return the position of the next byte that is neither a space nor a tab."""
    while at < text.size and (text[at] == 32 or text[at] == 9):
        at += 1
    return at


@jit
def _digits(text, at):
    """Return the whole number at a position, and where it ends; -1 for one beyond 64 bits."""
    value = np.int64(0)
    while at < text.size and 48 <= text[at] <= 57:
        digit = np.int64(text[at]) - 48
        if value < 0 or value > (_LARGEST - digit) // 10:
            value = np.int64(-1)
        else:
            value = 10 * value + digit
        at += 1
    return value, at


@jit
def parse(text, form, n_rows, n_columns, rows, columns, values, ends):
    """Parse lines of ``row column value``, counted from 1; blank lines are skipped.

    Parameters
    ----------
    text : numpy.ndarray, uint8
        Whole lines, the last one with its end.
    form : int
        :data:`NOTHING`, :data:`WHOLE_NUMBER` or :data:`ANY_NUMBER`.
    n_rows, n_columns : int
    rows, columns : numpy.ndarray, shape (n,), int32
        Filled here, counted from 0.
    values : numpy.ndarray, shape (n,), int64
        Filled here: whole numbers; for any number, the place in the text where it begins.
    ends : numpy.ndarray, shape (n,), int64
        Filled here: where a number ends, if it may be any.

    Returns
    -------
    n : int
        Number of entries.
    fault : int
        What is wrong with the next entry; :data:`FINE` if nothing is.
    """
    n = 0
    at = _skip(text, 0)
    while at < text.size:
        if text[at] == 10 or text[at] == 13:  # the end of a line
            at = _skip(text, at + 1)
            continue
        if n == rows.size:
            return n, MORE
        row, end = _digits(text, at)
        if end == at:
            return n, NO_NUMBERS
        at = _skip(text, end)
        column, stop = _digits(text, at)
        if at == end or stop == at:
            return n, NO_NUMBERS
        if not (1 <= row <= n_rows and 1 <= column <= n_columns):
            return n, OUT_OF_RANGE
        value = np.int64(1)
        at = stop
        if form != NOTHING:
            at = _skip(text, stop)
            if at == stop:
                return n, NO_NUMBERS
            if form == WHOLE_NUMBER:
                sign = 1
                if at < text.size and (text[at] == 45 or text[at] == 43):
                    sign = -1 if text[at] == 45 else 1
                    at += 1
                value, end = _digits(text, at)
                if end == at:
                    return n, NO_NUMBERS
                if value < 0:
                    return n, TOO_LARGE
                value *= sign
                if end < text.size and text[end] in (46, 69, 101):  # . E e
                    return n, FRACTION
            else:
                end = at
                while end < text.size and text[end] > 32:
                    end += 1
                if end == at:
                    return n, NO_NUMBERS
                value = np.int64(at)
                ends[n] = end
            at = end
        at = _skip(text, at)
        if at < text.size and text[at] != 10 and text[at] != 13:
            return n, NO_NUMBERS
        rows[n], columns[n], values[n] = row - 1, column - 1, value
        n += 1
    return n, FINE
