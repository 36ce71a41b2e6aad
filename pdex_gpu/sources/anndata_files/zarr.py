"""Zarr stores as anndata writes them (formats 2 and 3, also sharded), decoded by zarr.

zarr decodes on threads of its own and may be called from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

from ...errors import MissingDependencyError
from ..allowed import Allowed
from ..choice import MatrixChoice, X
from ..dataset import Dataset
from ..formats import FORMATS, FormatCode, is_url
from ..sizes import check_room
from ..stored.zarr import _needing_fsspec, reading
from ..stored.zarr_group import METADATA, StoredZarrGroup, local_store
from .multimodal import chosen_modality
from .store import Store, read_dataset

_PARSED = 10  # approximate bytes of objects per byte of JSON


class Zarr(FormatCode):
    """Zarr stores: folders, zip files and URLs."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        return isinstance(data, str | os.PathLike) and is_zarr_path(os.fspath(data))

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        return open_zarr(os.fspath(data), groupby, choice)

    def open_root(self, path: str, choice: MatrixChoice) -> AbstractContextManager[StoredZarrGroup]:
        """See :meth:`.formats.FormatCode.open_root`."""
        return open_zarr_root(path, choice)


def is_zarr_path(path: str) -> bool:
    """Return whether a path is a zarr store: a URL, a folder with group metadata or a zip file."""
    if is_url(path):
        return not path.endswith((".h5ad", ".h5"))
    if os.path.isfile(path):
        return path.endswith(".zip")
    return any(os.path.exists(os.path.join(path, name)) for name in METADATA)


def open_zarr(
    path: str,
    groupby: str | None,
    choice: MatrixChoice = X,
) -> Dataset:
    """Open a zarr store; arguments and errors are those of :func:`.h5ad.open_h5ad`.

    Raises
    ------
    MissingDependencyError
        The package zarr is not installed.
    """
    with ExitStack() as stack:
        root = _root(stack, path, choice.allow)
        dataset = read_dataset(Store(root, path, reading, choice), groupby)
        dataset.close = stack.pop_all().close
        return dataset


@contextmanager
def open_zarr_root(path: str, choice: MatrixChoice) -> Iterator[StoredZarrGroup]:
    """Open the group of the AnnData in a zarr store, as :func:`open_zarr` does."""
    with ExitStack() as stack:
        yield chosen_modality(_root(stack, path, choice.allow), choice.modality, path)


def _root(stack: ExitStack, path: str, allow: Allowed) -> StoredZarrGroup:
    """Open the root group of a store, which `stack` closes."""
    try:
        import zarr
    except ImportError as error:
        how = next(form.how_to_install for form in FORMATS if form.name == "zarr")
        raise MissingDependencyError(
            f"{path} is a zarr store, and reading it needs the package zarr: {how}."
        ) from error

    _check_metadata(path)
    with reading(path), _needing_fsspec(path):
        zipped = os.path.isfile(path)
        store: Any = path
        if zipped:
            store = zarr.storage.ZipStore(path, mode="r")
        elif not is_url(path):
            store = local_store(path, allow)
        root = StoredZarrGroup(zarr.open_group(store, mode="r"), allow)
        if zipped:  # it cannot be closed until it is open
            stack.callback(store.close)
        return root


def _check_metadata(path: str) -> None:
    """Check the size of the metadata, which zarr reads and parses whole."""
    for name in METADATA:
        file = os.path.join(path, name)
        with suppress(OSError):
            size = os.path.getsize(file)
            check_room(_PARSED * size, f"the metadata of {file}")
