"""Groups of HDF5 files that return only data that are stored there, and refuse the rest.

HDF5 returns fill values for data that were never written, and follows links to any file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from ...errors import FileFormatError, shown
from ...utils.atomic_files import is_there, mode_of
from ..allowed import Allowed, external, unwritten

_MOST_LINKS = 40  # that lead from one to the next; HDF5 and Linux also have a limit


class StoredGroup:
    """A group of an open HDF5 file; its members are checked when they are requested.

    Parameters
    ----------
    group : h5py.Group
    allow : frozenset of str
        See :mod:`.allowed`.
    n_links : int
        Links and virtual datasets that led here.
    """

    def __init__(self, group: h5py.Group, allow: Allowed = frozenset(), n_links: int = 0) -> None:
        self._group, self._allow, self._n_links = group, allow, n_links
        self.attrs, self.name = group.attrs, group.name
        self._file_name = group.file.filename

    def __iter__(self) -> Iterator[str | bytes]:
        return iter(self._group)

    def __contains__(self, name: str | bytes) -> bool:
        *parents, last = _parts(name) or [b"."]
        group = self._walk(self._group, parents, self._n_links, self._called(name))
        return isinstance(group, h5py.Group) and _has_link(group, last)

    def __getitem__(self, name: Any) -> StoredGroup | h5py.Dataset:
        found = self.get(name)
        if found is None:
            raise FileFormatError(
                f"{self._called(name)} is missing, or is a link to something that does not exist. "
                "The file is damaged, or not laid out as anndata writes it."
            )
        return found

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the member `name`, checked: a StoredGroup or an h5py.Dataset.

        Raises
        ------
        FileFormatError
            It is neither, was not fully written, or is in another file that is not allowed.
        """
        what = self._called(name)
        if isinstance(name, h5py.Reference):
            node = self._group[name]
        elif isinstance(name, str | bytes):
            node = self._walk(self._group, _parts(name), self._n_links, what)
        else:
            raise FileFormatError(f"{what} is a name that is not text. The file is damaged.")
        if node is None:
            return default
        return stored_node(node, what, self._allow, self._n_links)

    def _called(self, name: object) -> str:
        return _called(self.name, name, self._file_name)

    def _walk(self, group: h5py.Group, parts: list[bytes], n_links: int, what: str) -> Any:
        """Follow a path without opening files that are not allowed; None if it leads to nothing."""
        if n_links > _MOST_LINKS:
            raise FileFormatError(
                f"{what} forms a loop: links or virtual datasets refer to each other. The file is "
                "damaged, or was written that way."
            )
        node = group
        for part in parts:
            if not isinstance(node, h5py.Group) or not _has_link(node, part):
                return None
            kind = node.id.links.get_info(part).type
            if kind == h5py.h5l.TYPE_SOFT:
                target = node.id.links.get_val(part)
                start = node.file if target.startswith(b"/") else node
                node = self._walk(start, _parts(target), n_links + 1, what)
            elif kind == h5py.h5l.TYPE_EXTERNAL:
                node = self._linked(node, part, n_links)
            else:
                node = node[part]
        return node

    def _linked(self, group: h5py.Group, part: bytes, n_links: int) -> Any:
        """Return the target of an external link; None if it leads to nothing."""
        file_name, target = group.id.links.get_val(part)
        what = f"{_called(group.name, part, group.file.filename)}: a link"
        path = _other_file(group.file, os.fsdecode(file_name))
        if path is None:
            raise FileFormatError(
                f"{what} leads to the file {shown(os.fsdecode(file_name))}, which does not exist. "
                "Copy that file too, or write everything to one file."
            )
        _check_place(group.file, path, what, self._allow)
        with h5py.File(path, "r") as file:  # links within it may lead on
            if self._walk(file, _parts(target), n_links + 1, what) is None:
                return None
        return group[part]


def stored_node(node: Any, what: str, allow: Allowed, n_links: int = 0) -> Any:
    """Return an h5py group as a StoredGroup, or an h5py dataset after checking that it is written.

    Raises
    ------
    FileFormatError
        It is neither, was not fully written, or is in another file that is not allowed.
    """
    if isinstance(node, h5py.Group):
        return StoredGroup(node, allow, n_links)
    if not isinstance(node, h5py.Dataset):
        raise FileFormatError(
            f"{what} is neither a dataset nor a group. The file is damaged, or not laid out as "
            "anndata writes it."
        )
    if node.size:  # also skips an empty dataspace
        if node.is_virtual:
            _check_virtual(node, what, allow, n_links)
        elif node.external:
            _check_external(node, what, allow)
        elif "unwritten" not in allow:
            _check_written(node, what)
    return node


def _check_written(dataset: h5py.Dataset, what: str) -> None:
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CHUNKED:
        n_chunks = 1
        for n, chunk in zip(dataset.shape, dataset.chunks, strict=True):
            n_chunks *= -(-n // chunk)
        missing = n_chunks - dataset.id.get_num_chunks()
        if missing > 0:
            raise unwritten(f"{what}: {missing:,} of {n_chunks:,} chunks were never written")
    elif layout == h5py.h5d.CONTIGUOUS and dataset.id.get_offset() is None:
        raise unwritten(f"{what} was never written")


def _check_external(dataset: h5py.Dataset, what: str, allow: Allowed) -> None:
    """Check raw bytes in other files, given by absolute paths or relative to the working folder."""
    held = 0
    for name, offset, size in dataset.external:
        path = os.path.abspath(name)
        if "external" not in allow:
            raise external(f"{what} is not in the file: its bytes would come from {shown(path)}")
        if mode_of(Path(path)) is not None:
            is_there(Path(path), f"{what}: part of it comes from a file that cannot be read:")
            held += min(size, max(0, os.path.getsize(path) - offset))
    needed = dataset.size * dataset.dtype.itemsize
    if held < needed and "unwritten" not in allow:
        raise unwritten(f"{what} needs {needed:,} bytes from other files, which hold only {held:,}")


def _check_virtual(dataset: h5py.Dataset, what: str, allow: Allowed, n_links: int) -> None:
    """Check a dataset made of pieces of others; HDF5 returns fill values for missing pieces."""
    pieces: dict[tuple[str, str], list[Any]] = {}
    covered = 0
    for piece in dataset.virtual_sources():
        pieces.setdefault((piece.file_name, piece.dset_name), []).append(piece)
        covered += _n_selected(piece.vspace)
    if covered < dataset.size and "unwritten" not in allow:
        raise unwritten(f"{what}: only {covered:,} of {dataset.size:,} values have a source")
    for (file_name, name), some in pieces.items():
        if file_name == ".":
            _check_pieces(dataset.file, name, some, what, allow, n_links)
            continue
        path = _other_file(dataset.file, file_name)
        if path is None:
            if "unwritten" in allow:
                continue
            raise unwritten(
                f"{what}: part of it should be read from {shown(file_name)}, which does not exist"
            )
        _check_place(dataset.file, path, f"{what}: part of it", allow)
        with h5py.File(path, "r") as file:
            _check_pieces(file, name, some, what, allow, n_links)


def _check_pieces(
    file: h5py.File, name: str, pieces: list[Any], what: str, allow: Allowed, n_links: int
) -> None:
    node = StoredGroup(file, allow, n_links + 1).get(name)
    if "unwritten" in allow and node is None:
        return
    if not isinstance(node, h5py.Dataset) or node.shape is None:
        raise unwritten(
            f"{what}: part of it should come from {shown(name)} of {file.filename}, which has no "
            "such dataset"
        )
    for piece in pieces:
        if "unwritten" not in allow and not _holds(node, piece):
            raise unwritten(
                f"{what}: part of it should come from {shown(name)} of {file.filename}, but that "
                f"dataset is too small: its shape is {node.shape}"
            )


def _n_selected(space: h5py.h5s.SpaceID) -> int:
    """Return the number of selected values; 0 if it is unknown, as for unlimited selections."""
    try:
        return int(space.get_select_npoints())
    except RuntimeError:
        return 0


def _holds(source: h5py.Dataset, piece: Any) -> bool:
    """Return whether a dataset holds all values that a piece of a virtual dataset needs."""
    space = piece.src_space
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return bool(source.size == _n_selected(piece.vspace))
    if not _n_selected(space):
        return True
    ends = space.get_select_bounds()[1]
    return len(ends) == len(source.shape) and all(
        end < n for end, n in zip(ends, source.shape, strict=True)
    )


def _other_file(file: h5py.File, name: str) -> str | None:
    """Find a file that another refers to, where HDF5 looks for it; None if it is missing."""
    last = os.path.basename(name) if os.path.isabs(name) else name
    tried = [name] if os.path.isabs(name) else []
    tried += [os.path.join(folder, last) for folder in _folders(file)] + [os.path.abspath(last)]
    return next((path for path in tried if mode_of(Path(path)) is not None), None)


def _check_place(file: h5py.File, path: str, what: str, allow: Allowed) -> None:
    """Raise FileFormatError if a file that another refers to must not be opened."""
    real = os.path.realpath(path)
    inside = any(real.startswith(os.path.join(folder, "")) for folder in _folders(file))
    if not inside and "external" not in allow:
        raise external(f"{what} points outside the folder of {file.filename}, to {shown(real)}")
    is_there(Path(real), f"{what} leads to a file that cannot be read:")


def _folders(file: h5py.File) -> list[str]:
    """Return the folder of an open file and, if its path is a link, the folder of the target."""
    path = os.path.abspath(file.filename)
    if not os.path.isfile(path):
        return []  # a file object
    folders = os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))
    return list(dict.fromkeys(folders))


def _parts(path: str | bytes) -> list[bytes]:
    name = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    return [part for part in name.split(b"/") if part not in (b"", b".")]


def _has_link(group: h5py.Group, part: bytes) -> bool:
    return b"\0" not in part and bool(group.id.links.exists(part))


def _called(group: str | None, name: object, file: str) -> str:
    """Return the name of a member of a group in messages."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    path = f"{group or ''}/{name if isinstance(name, str) else ''}".strip("/")
    return f"{path} of {file}" if path else file
