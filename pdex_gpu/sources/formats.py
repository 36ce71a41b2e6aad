"""The formats of data that can be opened, of matrices in them, and of the files they are stored in.

A format is one line here (or one call of :func:`register`) and a :class:`FormatCode`, which is
imported when data are first opened. Nothing else in the package tells formats apart.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..utils.install_hints import install_command

if TYPE_CHECKING:  # the command line imports this module for its help texts
    import numpy as np

    from .allowed import Allowed
    from .base import Source
    from .choice import MatrixChoice
    from .dataset import Dataset
    from .stored.base import StoredArray
    from .stored.layout import Storage, StoredLike

#: A path or URL, or several by name, from which several processes can open the same data.
SharedPath = str | dict[str, str]

_HERE = __name__.rpartition(".")[0]


def is_url(path: str) -> bool:
    """Return whether a path is a URL, for object storage or another place that fsspec reads."""
    return "://" in path


class FormatCode:
    """The code of a format of data; a base class.

    :meth:`claims` and :meth:`open` must be defined; the others have defaults.

    Attributes
    ----------
    shares_labels : bool
        Whether another process finds the labels at :meth:`shared_path`, too.
    """

    shares_labels = True

    def claims(self, data: Any) -> bool:
        """Return whether `data` is of this format.

        Called with everything that users pass, so it must neither raise nor read values.

        Parameters
        ----------
        data : object
            A path (str or os.PathLike), an open file, or an object of another package.
        """
        raise NotImplementedError

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """Open data that :meth:`claims` returned True for.

        Parameters
        ----------
        data : object
        groupby : str or None
            Column of obs that holds the label of each cell; None to leave cells without labels.
        choice : MatrixChoice
            The matrix to read.

        Raises
        ------
        ColumnError, LayerError
            There is no such column or layer.
        DataError, FileFormatError, MissingFileError, UnsupportedDataError
            The data cannot be read; see :mod:`pdex_gpu.errors`.
        """
        raise NotImplementedError

    def shared_path(self, data: Any) -> SharedPath | None:
        """Return a path or URL from which another process can open the same data.

        Returns
        -------
        str, dict of str to str, or None
            Of several files, the path of each by its name. None if only this process can read
            them. By default, paths are shared, and other data are not.
        """
        if not isinstance(data, str | os.PathLike):
            return None
        path = os.fspath(data)
        return path if is_url(path) else os.path.abspath(path)

    def files(self, data: Any) -> list[Path]:
        """Return the files that hold the data, which must not be overwritten."""
        return [Path(data)] if isinstance(data, str | os.PathLike) else []

    def open_root(self, path: str, choice: MatrixChoice) -> AbstractContextManager[Any] | None:
        """Open the group that holds X, layers and raw, to find how these are stored.

        Returns
        -------
        context manager or None
            Yields a group whose arrays one of :data:`LIBRARIES` knows; None if there is no such
            group, as by default.
        """
        return None


@dataclass(frozen=True)
class Format:
    """A format of data.

    Attributes
    ----------
    name : str
    code : str or FormatCode
        The code, or ``"module:Class"``, imported when it is first needed.
    objects : str
        For objects in Python: how messages call them, ``"AnnData objects"``.
    files : str
        For files: how messages call them, ``"zarr stores"``.
    short : str
        How help texts call the files: ``".h5ad"``.
    suffixes : tuple of str
        Suffixes by which other parts recognise a file of this format.
    folder : str
        For files that are folders: how messages call one, ``"a zarr store"``.
    marks : tuple of str
        The files by which such a folder is recognised.
    by_url : bool
        Whether files can be read from a URL.
    extra : str
        The extra of this package that the format needs; "" if none.
    packages : tuple of str
        The packages of the extra, as arguments of pip.
    """

    name: str
    code: str | FormatCode
    objects: str = ""
    files: str = ""
    short: str = ""
    suffixes: tuple[str, ...] = ()
    folder: str = ""
    marks: tuple[str, ...] = ()
    by_url: bool = False
    extra: str = ""
    packages: tuple[str, ...] = ()

    def load(self) -> FormatCode:
        """Return the code."""
        found: FormatCode = _load(self.code)
        return found

    @property
    def how_to_install(self) -> str:
        """Return the command that installs the packages that the format needs."""
        return install_command(self.packages)


#: All formats. The last one that claims the data opens them.
FORMATS = [
    Format("h5ad", ".anndata_files.h5ad:H5ad", files="h5ad files", short=".h5ad",
           suffixes=(".h5ad", ".h5mu", ".h5")),
    Format("cell_ranger", ".cell_ranger.hdf5:CellRangerHdf5", files="Cell Ranger's HDF5 files",
           short="Cell Ranger's .h5"),
    Format("matrix_folder", ".cell_ranger.folder:MatrixFolder", files="its matrix folders",
           folder="a matrix folder of Cell Ranger", marks=("matrix.mtx", "matrix.mtx.gz")),
    Format("zarr", ".anndata_files.zarr:Zarr", files="zarr stores", short="zarr",
           suffixes=(".zarr",), folder="a zarr store", marks=(".zgroup", "zarr.json"), by_url=True,
           extra="zarr", packages=("zarr",)),
    Format("mudata", ".anndata_files.multimodal:MuData"),
    Format("anndata", ".anndata_objects:AnnDataObjects", objects="AnnData objects"),
    Format("collection", ".stacked.collection:Collections", objects="their collections"),
    Format("stacked", ".stacked.files:StackedFiles"),
]  # fmt: skip


def register(form: Format) -> None:
    """Add a format, or replace the one of the same name; it is asked before all others."""
    unregister(form.name)
    FORMATS.append(form)


def unregister(name: str) -> None:
    """Remove a format, if there is one of this name."""
    FORMATS[:] = [form for form in FORMATS if form.name != name]


def code_for(data: Any) -> FormatCode | None:
    """Return the code of the format that claims `data`; None if there is none."""
    codes = (form.load() for form in reversed(FORMATS))
    return next((code for code in codes if code.claims(data)), None)


def shared_path(data: Any) -> SharedPath | None:
    """Return where another process can open the same data: see :meth:`FormatCode.shared_path`."""
    code = code_for(data)
    return None if code is None else code.shared_path(data)


def paths_in(shared: SharedPath | None) -> list[str]:
    """Return the paths and URLs of what :func:`shared_path` returned."""
    if isinstance(shared, dict):
        return list(shared.values())
    return [] if shared is None else [shared]


def shares_labels(data: Any) -> bool:
    """Return whether another process can also read the labels of data with a shared path."""
    code = code_for(data)
    return code is not None and code.shares_labels


def files_of(data: Any) -> list[Path]:
    """Return the files that hold the data of a call; none if they are only in memory."""
    code = code_for(data)
    return [] if code is None else code.files(data)


def supported() -> str:
    """Return the supported formats in words, for messages."""
    objects = _enumerated([form.objects for form in FORMATS if form.objects], "and")
    files = _enumerated([form.files for form in FORMATS if form.files], "and")
    return f"{objects}, and {files} as paths or open files"


def short_names() -> str:
    """Return the formats of files in words, for help texts: ``".h5ad or zarr"``."""
    return _enumerated([form.short for form in FORMATS if form.short], "or")


def _enumerated(words: Sequence[str], last: str) -> str:
    """Return words with commas between them, and `last` before the last one."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end


# --- matrices -------------------------------------------------------------------------------------


class MatrixCode(Protocol):
    """The code of a kind of matrix, as AnnData objects hold them in X and layers."""

    def claims(self, matrix: Any) -> bool:
        """Return whether `matrix` is of this kind, without reading values."""
        ...

    def open(self, matrix: Any, what: str, allow: Allowed) -> Source:
        """Return a source over `matrix`, called `what` in messages.

        Raises
        ------
        DataError, FileFormatError, UnsupportedDataError
            The matrix cannot be read.
        """
        ...


#: All kinds of matrices. The last one that claims a matrix opens it.
MATRICES = [
    ".memory.open:Arrays",
    ".dask_arrays.array:DaskArrays",
    ".anndata_files.nodes:StoredMatrices",
]


def source_of(matrix: Any, what: str, allow: Allowed = frozenset()) -> Source:
    """Return a source over an array, or over the node of a matrix that anndata left in a file.

    Parameters
    ----------
    matrix : object
        An array in memory or on a device, a dask array, or a node of an open file.
    what : str
        Name of the matrix in messages: ``"X"``, ``"layer 'counts'"``.
    allow : frozenset of str
        See :mod:`.allowed`.

    Raises
    ------
    DataError, FileFormatError, UnsupportedDataError
        The matrix cannot be read.
    """
    for where in reversed(MATRICES):
        code: MatrixCode = _load(where)
        if code.claims(matrix):
            return code.open(matrix, what, allow)
    raise AssertionError("arrays in memory are claimed in any case")


# --- libraries ------------------------------------------------------------------------------------


class Nodes(Protocol):
    """The arrays and groups of a library that stores them in files, as anndata writes them."""

    def is_node(self, node: Any) -> bool:
        """Return whether `node` is an array or a group of this library."""
        ...

    def checked(self, node: Any, what: str, allow: Allowed) -> Any:
        """Return a node that anndata opened, with the checks of this package.

        Raises
        ------
        FileFormatError
            It was not fully written, or is in another file that is not allowed.
        """
        ...

    def texts(self, node: Any, what: str) -> np.ndarray | None:
        """Read the strings of an array as an object array; None if it holds something else."""
        ...

    def open_array(self, node: Any, what: str, *, sparse_data: bool = False) -> StoredArray:
        """Open an array; with `sparse_data`, parts that were never written are refused."""
        ...

    def layout(self, node: Any) -> StoredLike:
        """Return how an array is stored."""
        ...

    def written(
        self,
        storage: Storage,
        folder: Path,
        arrays: dict[str, np.ndarray],
        indptr: np.ndarray | None,
        shape: tuple[int, int],
    ) -> AbstractContextManager[Any]:
        """Write a matrix to `folder` as `storage` says; the context is its node."""
        ...


#: For each library: its top-level package, and its code.
LIBRARIES = {
    "hdf5": ("h5py", ".stored.hdf5_nodes:Hdf5Nodes"),
    "zarr": ("zarr", ".stored.zarr_nodes:ZarrNodes"),
}


def nodes_of(library: str) -> Nodes:
    """Return the code of a library: a key of :data:`LIBRARIES`."""
    found: Nodes = _load(LIBRARIES[library][1])
    return found


def library_of(node: Any) -> str | None:
    """Return the library of an array or group of an open file or store; None for other objects."""
    return next((name for name in _imported() if nodes_of(name).is_node(node)), None)


def _imported() -> Iterator[str]:
    """Yield the libraries that have been imported; nodes of others cannot exist."""
    return (name for name, (package, _) in LIBRARIES.items() if package in sys.modules)


_loaded: dict[str, Any] = {}


def _load(code: Any) -> Any:
    """Return the object that ``"module:Class"`` names, made once; return other objects as is."""
    if not isinstance(code, str):
        return code
    if code not in _loaded:
        module, _, name = code.partition(":")
        _loaded[code] = getattr(import_module(module, _HERE), name)()
    return _loaded[code]
