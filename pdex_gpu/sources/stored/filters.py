"""Decoders for chunks encoded by HDF5 filters, without HDF5, which decodes one chunk at a time.

Chunks with filters that are not known here are left to h5py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import imagecodecs
import numpy as np

#: Decodes bytes to at most `size` bytes, into `out` if given.
_Decode = Callable[[Any, int, np.ndarray | None], Any]

_FLETCHER, _CHECKSUM_BYTES = 3, 4


class DecodingError(Exception):
    """Bytes cannot be decoded; the message says why."""


def _codec(decode: Callable[..., Any]) -> _Decode:
    def run(data: Any, size: int, out: np.ndarray | None) -> Any:
        return decode(data, out=np.empty(size, np.uint8) if out is None else out)

    return run


def _unshuffle(item: int) -> _Decode:
    """Return a decoder for shuffled bytes of items of `item` bytes.

    Shuffled bytes are sorted by their place within an item: all first bytes, then all second ones.
    """

    def run(data: Any, size: int, out: np.ndarray | None) -> Any:
        source = np.frombuffer(data, np.uint8)
        if item == 1:
            return _copy(source, out)
        n = len(source) // item
        target = np.empty(len(source), np.uint8) if out is None else out[: len(source)]
        target[: n * item].reshape(n, item)[...] = source[: n * item].reshape(item, n).T
        target[n * item :] = source[n * item :]  # bytes beyond the last item are not shuffled
        return target

    return run


def _check_sum(data: Any, size: int, out: np.ndarray | None) -> Any:
    source = np.frombuffer(data, np.uint8)
    content, stored = source[:-_CHECKSUM_BYTES], source[-_CHECKSUM_BYTES:]
    found = imagecodecs.h5checksum_fletcher32(content.tobytes())
    if found != int.from_bytes(stored.tobytes(), "little"):
        raise DecodingError("its Fletcher-32 checksum is wrong")
    return content if out is None else _copy(content, out)


def _copy(source: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return source
    out[: len(source)] = source
    return out[: len(source)]


def _deflate(data: Any, *, out: Any) -> Any:
    return imagecodecs.deflate_decode(data, out=out, raw=False)


def _lzf(data: Any, *, out: Any) -> Any:
    return imagecodecs.lzf_decode(data, out=out)


# Keyed by the numbers of the filters, as registered with the HDF Group.
_CODECS: dict[int, _Decode] = {
    1: _codec(_deflate),
    _FLETCHER: _check_sum,
    32000: _codec(_lzf),
    32001: _codec(lambda data, out: imagecodecs.blosc_decode(data, out=out)),
    32015: _codec(lambda data, out: imagecodecs.zstd_decode(data, out=out)),
}
_SHUFFLE = 2


class Decoder:
    """A decoder that undoes a pipeline of filters.

    Parameters
    ----------
    steps : sequence of callable
        The function that undoes each filter, in the order in which the filters were applied.
    """

    def __init__(self, steps: Sequence[_Decode]) -> None:
        self._steps = steps

    @property
    def copies(self) -> bool:
        """Return whether there is nothing to undo."""
        return not self._steps

    def decode(
        self, data: bytes | memoryview, skipped: int, size: int, out: np.ndarray | None
    ) -> np.ndarray:
        """Decode `data` to `size` bytes, into `out` if given.

        Parameters
        ----------
        data : bytes or memoryview
        skipped : int
            Bit i is set if filter i was not applied to this chunk.
        size : int
        out : numpy.ndarray, shape (size,), uint8, contiguous, optional

        Raises
        ------
        DecodingError
            The bytes are not valid output of the filters.
        """
        used = [step for i, step in enumerate(self._steps) if not skipped >> i & 1]
        found: Any = data
        try:
            for i, step in enumerate(reversed(used)):
                # Between steps the bytes may be longer than the content, by a checksum.
                last = i == len(used) - 1
                found = step(found, size if last else size + _CHECKSUM_BYTES, out if last else None)
        except RuntimeError as error:  # raised by imagecodecs
            raise DecodingError(f"it does not decompress ({error})") from error
        if len(found) != size:
            raise DecodingError(f"it holds {len(found)} bytes instead of {size}")
        if out is not None and not used:
            out[:] = np.frombuffer(found, np.uint8)
        return np.frombuffer(found, np.uint8) if out is None else out


def make_decoder(filters: Sequence[tuple[int, Sequence[int]]]) -> Decoder | None:
    """Return the decoder for filters, given as numbers with their parameters.

    None if a filter is unknown or lacks a parameter, or if several filters compress: the number of
    bytes between them is not known.
    """
    steps: list[_Decode] = []
    if sum(number in _CODECS and number != _FLETCHER for number, _ in filters) > 1:
        return None
    for number, parameters in filters:
        if number == _SHUFFLE and not parameters:  # text, whose width HDF5 does not record
            return None
        if number == _SHUFFLE:
            steps.append(_unshuffle(int(parameters[0])))
        elif number in _CODECS:
            steps.append(_CODECS[number])
        else:
            return None
    return Decoder(steps)
