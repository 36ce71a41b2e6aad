"""Arrays in HDF5 files: chunks are read raw and decoded here, in parallel.

HDF5 reads and decodes one chunk at a time under a lock. So the places of all chunks are asked for
once, and their bytes are read from the file itself; other storage layouts go through h5py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import h5py
import numpy as np

from ...errors import FileFormatError, MissingDependencyError
from ...utils import foreign_errors
from ...utils.raw_file import RawFile, read_at, read_into
from ...utils.watchdog import watched
from .. import sizes
from ..checks import native_dtype
from ..text import decode_texts
from .base import Where, position, unchanged
from .filters import Decoder, DecodingError, make_decoder

_BAND = 1 << 20  # bytes read at a time if the data are not stored in chunks
_TOGETHER = 1 << 18  # most bytes of encoded chunks that are read together, unless one is larger
_FEW_TEXTS = 64  # read at a time if their lengths are not known beforehand
_CHUNKS_AT_ONCE = 4096  # located together when a dataset is opened


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn h5py's errors into a FileFormatError that says what was being read; see `gate`."""
    with foreign_errors.reading(what, "HDF5", "the file is truncated or damaged"), watched(what):
        yield


def check_filters(dataset: h5py.Dataset, what: str) -> None:
    """Check that HDF5 can decode a dataset, with the filters of hdf5plugin if needed.

    Raises
    ------
    MissingDependencyError
        A filter is missing.
    """
    created = dataset.id.get_create_plist()
    filters = [created.get_filter(i) for i in range(created.get_nfilters())]
    if all(h5py.h5z.filter_avail(f[0]) for f in filters):
        return
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 (importing it registers its filters)
    for number, _, _, name in filters:
        if not h5py.h5z.filter_avail(number):
            label = name.decode(errors="replace") or "unnamed"
            raise MissingDependencyError(
                f"{what} is compressed with the HDF5 filter {number} ({label}), which is not "
                "installed. The package hdf5plugin provides most filters: pip install hdf5plugin."
            )


def read_texts(dataset: h5py.Dataset, what: str) -> np.ndarray | None:
    """Read the strings of a dataset as an object array; None if it holds something else."""
    check_filters(dataset, what)
    if h5py.check_string_dtype(dataset.dtype) is None:
        return None
    name = f"{what} of {dataset.file.filename}"
    return decode_texts(_texts(dataset, name).astype(object), name)


def _texts(dataset: h5py.Dataset, name: str) -> np.ndarray:
    """Read the strings of a vector; check their sizes before HDF5 makes objects of them."""
    n = int(dataset.shape[0])
    info = h5py.check_string_dtype(dataset.dtype)
    if info is not None and info.length is not None:  # all of one length
        item = dataset.dtype.itemsize
        sizes.claim_texts(n, n * item, name)
        for _ in _decoded_chunks(dataset, item, name) or ():  # HDF5 does not limit decoded sizes
            pass
        return dataset[:]
    sizes.claim_texts(n, 0, name)
    n_letters = _letters(dataset, name)
    if n_letters is not None:
        sizes.claim(n_letters, f"the text of {name} ({n:,} strings)")
        return dataset[:]
    found = np.empty(n, object)
    for piece in sizes.pieces(n, _FEW_TEXTS):
        found[piece] = dataset[piece]
        sizes.claim(sum(map(len, found[piece])), f"the text of {name} ({n:,} strings)")
    return found


def _letters(dataset: h5py.Dataset, name: str) -> int | None:
    """Return the total bytes of variable-length strings; None if the array's bytes are unavailable.

    For each string the array in the file holds its length, in 4 bytes, and then its place. Several
    strings may share one place in the file; each counts.
    """
    address, _ = dataset.file.id.get_create_plist().get_sizes()
    item = 4 + address + 4  # length, address of a heap, number in it
    chunks = _decoded_chunks(dataset, item, name)
    if chunks is not None:
        return sum(_lengths(chunk, item) for chunk in chunks)
    file = raw_file(dataset.file)
    contiguous = dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    offset = dataset.id.get_offset() if contiguous and not dataset.external else None
    if file is None or offset is None or dataset.file.userblock_size:
        return None
    total = 0
    with unchanged(file):
        for piece in sizes.pieces(int(dataset.shape[0]), _BAND):
            stored = read_at(
                file.fd, offset + piece.start * item, (piece.stop - piece.start) * item
            )
            # If some are missing, HDF5 reports it.
            total += _lengths(stored[: len(stored) // item * item], item)
    return total


def _lengths(stored: Any, item: int) -> int:
    """Return the sum of the lengths in the bytes that :func:`_letters` reads."""
    references = np.frombuffer(stored, np.uint8).reshape(-1, item)
    return int(np.ascontiguousarray(references[:, :4]).view("<u4").sum(dtype=np.int64))


def _decoded_chunks(dataset: h5py.Dataset, item: int, name: str) -> Iterator[np.ndarray] | None:
    """Return the decoded chunks of a vector; None if it has none or they cannot be decoded here.

    Parameters
    ----------
    dataset : h5py.Dataset
    item : int
        Bytes of a value in the file.
    name : str

    Raises
    ------
    FileFormatError
        A chunk decodes to more or fewer bytes than it should hold.
    """
    created = dataset.id.get_create_plist()
    if created.get_layout() != h5py.h5d.CHUNKED:
        return None
    shapes = dataset.shape, dataset.chunks
    sizes.check_grid(*shapes, item, dataset.file.id.get_filesize(), name)
    filters = [created.get_filter(i) for i in range(created.get_nfilters())]
    decoder = make_decoder([(f[0], f[2]) for f in filters])
    return None if decoder is None else _decode_chunks(dataset, item, name, decoder)


def _decode_chunks(
    dataset: h5py.Dataset, item: int, name: str, decoder: Decoder
) -> Iterator[np.ndarray]:
    decoded = item * prod(dataset.chunks)
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    for info in found:
        what = f"{name}, the chunk of entry {info.chunk_offset[0]}"
        sizes.check_encoded(info.size, decoded, what)
        stored = dataset.id.read_direct_chunk(info.chunk_offset)[1]
        try:
            yield decoder.decode(stored, info.filter_mask, decoded, None)
        except DecodingError as error:
            raise FileFormatError(
                f"{what}: {error}. It is damaged: copy or download the file again."
            ) from error


def raw_file(file: h5py.File) -> RawFile | None:
    """Return the file under an open HDF5 file; None unless it is one plain file of this system."""
    driver = file.id.get_access_plist().get_driver()
    if driver != h5py.h5fd.SEC2 or not os.path.isfile(file.filename):
        return None
    if file.mode != "r":
        file.flush()  # until then, written data may be only in HDF5's memory
    return RawFile(file.id.get_vfd_handle(), os.path.abspath(file.filename))


def open_hdf5_array(dataset: h5py.Dataset, what: str) -> Hdf5Array:
    """Return the array of a dataset, to be read in the fastest way that its storage allows.

    Parameters
    ----------
    dataset : h5py.Dataset
        Numbers, in one or two dimensions; must stay open.
    what : str
        Its name in messages: ``"X/data"``.
    """
    name = f"{what} of {dataset.file.filename}"
    with reading(name):
        file = raw_file(dataset.file)
        created = dataset.id.get_create_plist()
        layout = created.get_layout()
        plain = not (dataset.is_virtual or dataset.external or dataset.size == 0)
        plain = plain and _as_in_memory(dataset)
        # Offsets count from the start of the file; with a user block, HDF5's part begins later.
        direct = file is not None and not dataset.file.userblock_size
        if file is not None and direct and plain and layout == h5py.h5d.CONTIGUOUS:
            offset = dataset.id.get_offset()
            if offset is not None:
                return _Contiguous(dataset, name, file, offset)
        if layout == h5py.h5d.CHUNKED:
            shapes = dataset.shape, dataset.chunks
            sizes.check_grid(*shapes, dataset.dtype.itemsize, dataset.file.id.get_filesize(), name)
        if plain and layout == h5py.h5d.CHUNKED:
            filters = [created.get_filter(i) for i in range(created.get_nfilters())]
            decoder = make_decoder([(f[0], f[2]) for f in filters])
            if decoder is not None:
                array = _Chunked(dataset, name, file, decoder, direct)
                offsets = array.as_in_memory()
                if file is None or offsets is None:
                    return array
                return _Unfiltered(dataset, name, file, offsets)
        check_filters(dataset, name)
        return Hdf5Array(dataset, name, file)


def _as_in_memory(dataset: h5py.Dataset) -> bool:
    """Return whether stored numbers have numpy's byte layout: HDF5 allows any width in bits."""
    stored = dataset.id.get_type()
    return bool(stored.equal(h5py.h5t.py_create(dataset.dtype, logical=True)))


class Hdf5Array:
    """A dataset read through h5py, one reader at a time; see :class:`.stored.base.StoredArray`."""

    def __init__(self, dataset: h5py.Dataset, name: str, file: RawFile | None) -> None:
        self._dataset = dataset
        self.name = name
        self.file = file
        self.shape = tuple(int(n) for n in dataset.shape)
        self.dtype = native_dtype(dataset.dtype, name)
        self.n_bytes = int(dataset.id.get_storage_size())
        self.chunks = tuple(int(n) for n in dataset.chunks or self._band())

    def _band(self) -> tuple[int, ...]:
        line = max(1, prod(self.shape[1:]) * self.dtype.itemsize)
        return (max(1, _BAND // line), *(max(1, n) for n in self.shape[1:]))

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        with self._located(where):
            values = self._dataset[where]
        out[...] = values
        return int(self.n_bytes * values.size / max(1, self._dataset.size))

    @contextmanager
    def _located(self, where: Where) -> Iterator[None]:
        """Report, on an error, what was being read, or that the file was changed meanwhile."""
        try:
            with reading(f"{self.name}, {position(where)}"):
                yield
        except FileFormatError:
            if self.file is not None:
                self.file.check_unchanged()
            raise


class _Contiguous(Hdf5Array):
    """A dataset stored in one piece, with the same bytes as in memory."""

    def __init__(self, dataset: h5py.Dataset, name: str, file: RawFile, offset: int) -> None:
        super().__init__(dataset, name, file)
        self._stored = dataset.dtype
        self._fd, self._path, self._offset = file.fd, file.path, offset

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        first, last = where[0].start, where[0].stop
        whole_lines = out.shape[1:] == self.shape[1:]
        if whole_lines and out.dtype == self._stored and out.flags.c_contiguous:
            self._fill(first, out, where)
            return out.nbytes
        n_bytes = 0
        for a in range(first, last, self.chunks[0]):
            b = min(a + self.chunks[0], last)
            lines = np.empty((b - a, *self.shape[1:]), self._stored)
            self._fill(a, lines, where)
            out[a - first : b - first] = lines[(slice(None), *where[1:])]
            n_bytes += lines.nbytes
        return n_bytes

    def _fill(self, first: int, lines: np.ndarray, where: Where) -> None:
        line = prod(self.shape[1:]) * self._stored.itemsize
        at = self._offset + first * line
        with self._located(where):
            n = read_into(self._fd, at, lines)
            if n != lines.nbytes:
                raise FileFormatError(
                    f"{self.name}, {position(where)}: the file ends at byte {at + n}, "
                    f"{lines.nbytes - n} bytes too early. It is truncated: copy or download it "
                    "again."
                )


class _Unfiltered(Hdf5Array):
    """A vector in chunks with the same bytes as in memory; adjacent ones are read together."""

    def __init__(
        self, dataset: h5py.Dataset, name: str, file: RawFile, offsets: np.ndarray
    ) -> None:
        super().__init__(dataset, name, file)
        self._stored, self._fd, self._offsets = dataset.dtype, file.fd, offsets
        self._length = self.chunks[0]
        chunk_bytes = self._length * self._stored.itemsize
        behind = np.diff(offsets, append=-1) == chunk_bytes
        ends = np.flatnonzero(~behind) + 1  # nothing follows the last chunk
        # For each chunk, the number of the first one after its run of adjacent chunks.
        self._run_ends = ends[np.searchsorted(ends, np.arange(len(offsets)), side="right")]
        self.chunks = (self._length * max(1, _BAND // chunk_bytes),)

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        first, last = where[0].start, where[0].stop
        in_place = out.dtype == self._stored and out.flags.c_contiguous
        values = out if in_place else np.empty(last - first, self._stored)
        at = first
        while at < last:
            chunk = at // self._length
            stop = min(last, int(self._run_ends[chunk]) * self._length)
            offset = int(self._offsets[chunk]) + at % self._length * self._stored.itemsize
            piece = values[at - first : stop - first]
            with self._located((slice(at, stop),)):
                n = read_into(self._fd, offset, piece)
                if n != piece.nbytes:
                    raise FileFormatError(
                        f"{self.name}, {position((slice(at, stop),))}: the file ends at byte "
                        f"{offset + n}, {piece.nbytes - n} bytes too early. It is truncated: copy "
                        "or download it again."
                    )
            at = stop
        if not in_place:
            out[...] = values
        return values.nbytes


class _Chunked(Hdf5Array):
    """A dataset in chunks, each read from the file and decoded by the thread that needs it."""

    def __init__(
        self,
        dataset: h5py.Dataset,
        name: str,
        file: RawFile | None,
        decoder: Decoder,
        direct: bool,
    ) -> None:
        super().__init__(dataset, name, file)
        self._raw_file = file if direct else None
        self._stored = dataset.dtype
        self._decoder = decoder
        self._fill_value = dataset.fillvalue
        self._chunk_bytes = prod(self.chunks) * self._stored.itemsize
        grid = tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))
        self._places = np.full((*grid, 3), -1, np.int64)  # offset, bytes, skipped filters
        found: list[Any] = []

        def note(info: Any) -> None:
            found.append(info)
            if len(found) == _CHUNKS_AT_ONCE:
                self._locate(found)
                found.clear()

        dataset.id.chunk_iter(note)
        if found:
            self._locate(found)

    def _locate(self, found: Sequence[Any]) -> None:
        """Keep where chunks are in the file."""
        starts, skipped, offsets, n_bytes = zip(*found, strict=True)
        at = np.array(starts, np.int64) // np.array(self.chunks)
        # Those beyond the end of the dataset are not used.
        inside = (at < self._places.shape[:-1]).all(axis=1)
        places = np.array([offsets, n_bytes, skipped], np.int64).T
        self._places[tuple(at[inside].T)] = places[inside]
        most = sizes.most_encoded(self._chunk_bytes)
        for k in np.flatnonzero(inside & (places[:, 1] > most)).tolist():
            what = f"{self.name}, {self._chunk_name(tuple(at[k].tolist()))}"
            sizes.check_encoded(n_bytes[k], self._chunk_bytes, what)

    def as_in_memory(self) -> np.ndarray | None:
        """Return where each chunk begins, if there is one dimension and nothing to decode."""
        if self._raw_file is None or not self._decoder.copies or len(self.shape) > 1:
            return None
        offsets = np.array(self._places[:, 0])
        return offsets if (offsets >= 0).all() else None

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        if len(where) == 1:
            return self._read_line(where[0], out)
        steps = [
            range(s.start // c, -(-s.stop // c)) for s, c in zip(where, self.chunks, strict=True)
        ]
        n_bytes = 0
        for index in itertools.product(*steps):
            inside, target, whole = [], [], True
            for i, s, c in zip(index, where, self.chunks, strict=True):
                first, last = max(s.start, i * c), min(s.stop, (i + 1) * c)
                inside.append(slice(first - i * c, last - i * c))
                target.append(slice(first - s.start, last - s.start))
                whole &= last - first == c
            n_bytes += self._read_chunk(index, tuple(inside), out[tuple(target)], whole)
        return n_bytes

    def _read_line(self, where: slice, out: np.ndarray) -> int:
        """Read from a dataset of one dimension, whose chunks are many and small."""
        if where.stop <= where.start:
            return 0
        length, n_bytes = self.chunks[0], 0
        for i, data in self._encoded(where.start // length, -(-where.stop // length)):
            first, last = max(where.start, i * length), min(where.stop, (i + 1) * length)
            inside = (slice(first - i * length, last - i * length),)
            target = out[first - where.start : last - where.start]
            n_bytes += self._read_chunk((i,), inside, target, last - first == length, data)
        return n_bytes

    def _encoded(self, first: int, last: int) -> Iterator[tuple[int, memoryview | None]]:
        """Yield the chunks ``[first, last)`` and their bytes; None if these are read by themselves.

        Chunks that lie one after the other in the file are read together. Every read lets another
        thread run Python code, which this one then waits for.
        """
        places = self._places[first:last].tolist()
        file, at = self._raw_file, 0
        while at < len(places):
            begin = end = places[at][0]
            stop = at
            while stop < len(places) and places[stop][0] == end:
                if stop > at and end + places[stop][1] - begin > _TOGETHER:
                    break
                end += places[stop][1]
                stop += 1
            data = None
            if file is not None and stop > at + 1 and end <= file.size:
                data = memoryview(read_at(file.fd, begin, end - begin))
            if data is None or len(data) < end - begin:  # too short: the chunk that is gets named
                yield from ((first + k, None) for k in range(at, stop))
            else:
                for k in range(at, stop):
                    offset, n_bytes, _ = places[k]
                    yield first + k, data[offset - begin : offset - begin + n_bytes]
            at = stop

    def _read_chunk(
        self,
        index: tuple[int, ...],
        inside: Where,
        out: np.ndarray,
        whole: bool,
        data: bytes | memoryview | None = None,
    ) -> int:
        """Decode a part of a chunk, reading its bytes unless given; return their number."""
        offset, n_bytes, skipped = self._places[index].tolist()
        if offset < 0:  # never written
            out[...] = self._fill_value
            return 0
        in_place = whole and out.dtype == self._stored and out.flags.c_contiguous
        size = self._chunk_bytes
        flat = out.reshape(-1).view(np.uint8) if in_place else None
        if data is None:
            data = self._raw(index, offset, n_bytes)
        try:
            decoded = self._decoder.decode(data, skipped, size, flat)
        except DecodingError as error:
            if self.file is not None:
                self.file.check_unchanged()
            raise FileFormatError(
                f"{self.name}, {self._chunk_name(index)}: {error}. The chunk's {n_bytes} bytes, "
                f"from byte {offset} of the file, are damaged: copy or download the file again."
            ) from error
        if not in_place:
            out[...] = decoded.view(self._stored).reshape(self.chunks)[inside]
        return n_bytes

    def _raw(self, index: tuple[int, ...], offset: int, n_bytes: int) -> bytes:
        file = self._raw_file
        if file is None:
            start = tuple(i * c for i, c in zip(index, self.chunks, strict=True))
            with self._located(tuple(slice(s, s + 1) for s in start)):
                return bytes(self._dataset.id.read_direct_chunk(start)[1])
        data = read_at(file.fd, offset, min(n_bytes, max(0, file.size - offset)))
        if len(data) != n_bytes:
            file.check_unchanged()
            raise FileFormatError(
                f"{self.name}, {self._chunk_name(index)}: the file ends at byte "
                f"{offset + len(data)}, within the chunk's {n_bytes} bytes from byte {offset}. It "
                f"is truncated: copy or download it again."
            )
        return data

    def _chunk_name(self, index: tuple[int, ...]) -> str:
        where = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(index, self.chunks, self.shape, strict=True)
        )
        number = ", ".join(str(i) for i in index)
        return f"chunk {number} ({position(where)})"
