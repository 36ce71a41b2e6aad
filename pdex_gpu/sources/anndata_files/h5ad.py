"""Datasets in h5ad files, given as paths or as open binary files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py

from ...errors import FileFormatError, MissingFileError, UnreadableFileError, shown
from ...utils.atomic_files import is_folder, is_there, mode_of
from ...utils.watchdog import watched
from ..allowed import Allowed
from ..choice import MatrixChoice, X
from ..dataset import Dataset
from ..formats import FORMATS, FormatCode, is_url
from ..stored.hdf5 import reading
from ..stored.hdf5_group import StoredGroup
from .multimodal import chosen_modality, modality, split_path
from .store import Store, read_dataset

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class H5ad(FormatCode):
    """h5ad files: open ones, and all paths that no other format claims."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        is_file = hasattr(data, "read") and hasattr(data, "seek")
        return is_file or isinstance(data, str | os.PathLike)

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        # A path is not made a Path: it may be a URL.
        is_path = isinstance(data, str | os.PathLike)
        return open_h5ad(os.fspath(data) if is_path else data, groupby, choice)

    def open_root(self, path: str, choice: MatrixChoice) -> AbstractContextManager[StoredGroup]:
        """See :meth:`.formats.FormatCode.open_root`."""
        return open_h5ad_root(path, choice)


def open_h5ad(
    file: str | os.PathLike[str] | Any,
    groupby: str | None,
    choice: MatrixChoice = X,
) -> Dataset:
    """Open an h5ad file as a dataset, which is a context manager and has a ``close()``.

    Parameters
    ----------
    file : str, os.PathLike or binary file
        A path, or an open file with ``read`` and ``seek``, which stays open. For an h5mu file,
        name the modality in `choice` or append it: ``"screen.h5mu/mod/rna"``.
    groupby : str
        Column of obs that holds the label of each cell.
    choice : MatrixChoice
        The matrix to read; by default X.

    Raises
    ------
    MissingFileError, UnreadableFileError
        There is no such file, or permission to read it is missing.
    FileFormatError
        The file is not HDF5, is truncated, or is not laid out as anndata writes it.
    ColumnError, LayerError
        There is no such column or layer.
    DataError, UnsupportedDataError
        There is no matrix, or it is of a kind that is not supported.
    """
    name = name_of(file)
    with watched(name), ExitStack() as stack:
        root = open_hdf5(stack, file, choice.allow)
        dataset = read_dataset(Store(root, name, reading, choice), groupby)
        dataset.close = stack.pop_all().close
        return dataset


def name_of(file: Any) -> str:
    """Return the path of a file, given by its path or open; a stand-in if it has none."""
    if isinstance(file, str | os.PathLike):
        return os.fspath(file)
    return str(getattr(file, "name", None) or type(file).__name__)


def open_hdf5(stack: ExitStack, file: Any, allow: Allowed) -> StoredGroup:
    """Return the root group of HDF5 at a path or in an open file; `stack` closes what it opens.

    Raises
    ------
    MissingFileError, UnreadableFileError, FileFormatError
        See :func:`open_h5ad`.
    """
    if isinstance(file, str | os.PathLike):
        return _root(stack, os.fspath(file), allow)
    return StoredGroup(stack.enter_context(_open_object(file, name_of(file))), allow)


@contextmanager
def open_h5ad_root(name: str, choice: MatrixChoice) -> Iterator[StoredGroup]:
    """Yield the group of the AnnData at a path, given as for :func:`open_h5ad`."""
    with ExitStack() as stack:
        yield chosen_modality(_root(stack, name, choice.allow), choice.modality, name)


def _root(stack: ExitStack, name: str, allow: Allowed) -> StoredGroup:
    """Return the group of the AnnData at a path; closing `stack` closes its file.

    The file itself is on the stack: if a dataset is dropped without being closed, its arrays keep
    the file open.
    """
    path, inner = split_path(name)
    file = stack.enter_context(_open_path(path))
    with reading(name):
        root = StoredGroup(file, allow)
        return modality(root, inner, path) if inner else root


def _open_path(path: str) -> h5py.File:
    if is_url(path):
        readable = " and ".join(form.files for form in FORMATS if form.by_url)
        raise FileFormatError(
            f"{path} is an h5ad file at a URL, but only {readable} can be read from URLs. Copy it "
            "to a file system, convert it to zarr (adata.write_zarr), or open it with fsspec and "
            "pass the open file."
        )
    if mode_of(Path(path)) is None:
        raise MissingFileError(f"There is no file {shown(path)}. Check the path.")
    if is_folder(is_there(Path(path), "The file")):
        folders = " or ".join(form.folder for form in FORMATS if form.folder)
        marks = " or ".join(mark for form in FORMATS for mark in form.marks)
        raise FileFormatError(
            f"{path} is a folder but not {folders}: it has no {marks} file. Pass an h5ad file "
            f"(HDF5) or {folders}."
        )
    try:
        return h5py.File(path, "r")
    except PermissionError as error:  # the file system checks more than the mode
        raise UnreadableFileError(
            f"The file {shown(path)} cannot be read: permission denied. Grant read permission, or "
            "use a copy."
        ) from error
    except OSError as error:
        if not h5py.is_hdf5(path):
            raise _not_hdf5(path, os.path.getsize(path)) from error
        raise _cannot_open(path, error) from error


def _open_object(file: Any, name: str) -> h5py.File:
    """Open HDF5 in an open file, which h5py reads through the file's own methods."""
    try:
        file.seek(0)
        start = file.read(len(_SIGNATURE))
        if not isinstance(start, bytes):
            raise TypeError("it gives text")
    except (OSError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{name} cannot be read as a binary file: {error}. Open it with open(path, 'rb')."
        ) from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        if start != _SIGNATURE:
            raise _not_hdf5(name, file.seek(0, os.SEEK_END)) from error
        raise _cannot_open(name, error) from error


def _not_hdf5(name: str, size: int) -> FileFormatError:
    return FileFormatError(
        f"{name} is not an HDF5 file ({size} bytes). Pass an h5ad file as written by "
        "AnnData.write_h5ad."
    )


def _cannot_open(name: str, error: OSError) -> FileFormatError:
    return FileFormatError(
        f"{name} cannot be opened: it is truncated, damaged, or open for writing elsewhere. Copy "
        f"or download it again. HDF5 says: {error}"
    )
