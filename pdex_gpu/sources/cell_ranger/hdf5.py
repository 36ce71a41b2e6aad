"""Matrices that Cell Ranger writes to HDF5, and those of programs that write the same layout.

Cell Ranger 3 and later, and CellBender: one group ``matrix`` with barcodes, data, indices, indptr,
shape and features. Cell Ranger 2: a group for each genome, with genes and gene_names. Both store
features x barcodes by columns, which is cells x features by rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from ...design.labels import no_labels
from ...errors import FileFormatError, LayerError, UnsupportedDataError, listing, unknown
from ...utils.parallel import pool_map
from ...utils.resources import cpu_count
from ...utils.watchdog import watched
from ..allowed import Allowed
from ..anndata_files.h5ad import name_of, open_hdf5
from ..anndata_files.nodes import is_array, sparse_arrays, texts
from ..base import Reading
from ..choice import MatrixChoice
from ..dataset import Dataset, GuideCounts
from ..formats import FormatCode, is_url
from ..sizes import BYTES_PER_CELL, claim
from ..stored.hdf5 import reading
from ..stored.hdf5_group import StoredGroup
from ..stored.sparse import SparseArrays, StoredCsr
from ..views.view import select
from .features import GUIDES, Features, labels_in, unique_names

_MATRIX = "matrix"
_SPARSE = ("data", "indices", "indptr")
_OTHERS = (".h5ad", ".h5mu", ".zip")  # opened only once, as what their suffix says
_ENTRIES = 1 << 22  # read at a time while guides are looked for


class CellRangerHdf5(FormatCode):
    """HDF5 files of Cell Ranger: paths and open files."""

    def claims(self, data: Any) -> bool:
        """See :meth:`.formats.FormatCode.claims`."""
        if isinstance(data, str | os.PathLike):
            path = os.fspath(data)
            if not isinstance(path, str) or is_url(path) or path.lower().endswith(_OTHERS):
                return False
            if not os.path.isfile(path):
                return False
        elif not (hasattr(data, "read") and hasattr(data, "seek")):
            return False
        try:
            with watched(name_of(data)), h5py.File(data, "r") as file:
                return _looks_like(StoredGroup(file))
        except Exception:  # the format that claims it then says what is wrong
            return False

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        """See :meth:`.formats.FormatCode.open`."""
        name = name_of(data)
        with watched(name), ExitStack() as stack:
            root = open_hdf5(stack, data, choice.allow)
            with reading(name):
                dataset = _dataset(root, name, groupby, choice)
            dataset.close = stack.pop_all().close
            return dataset


def _looks_like(root: StoredGroup) -> bool:
    if "obs" in root or "X" in root:  # an AnnData, whatever else is there
        return False
    found = root.get(_MATRIX)
    if isinstance(found, StoredGroup):
        return any(part in found for part in ("barcodes", "features", *_SPARSE))
    return _is_molecules(root) or bool(_genomes(root))


def _is_molecules(root: StoredGroup) -> bool:
    return "umi" in root and ("barcode_idx" in root or "gem_group" in root)


def _genomes(root: StoredGroup) -> list[str]:
    """Return the names of the groups that are matrices, as Cell Ranger 2 writes them."""
    names = [name for name in root if isinstance(name, str)]
    groups = {name: root.get(name) for name in names}
    needed = ("barcodes", *_SPARSE)
    return [
        name
        for name, group in groups.items()
        if isinstance(group, StoredGroup) and all(part in group for part in needed)
    ]


def _dataset(root: StoredGroup, name: str, groupby: str | None, choice: MatrixChoice) -> Dataset:
    matrix, choice = _matrix(root, name, choice)
    if groupby is not None:
        labels_in(name, groupby)
    columns = matrix.features.chosen(choice)
    arrays = matrix.arrays
    cells = np.arange(arrays.n_cells)
    return Dataset(
        source=select(StoredCsr(arrays), cells, columns),
        labels=no_labels(arrays.n_cells),
        genes=unique_names(matrix.features.names[columns]),
        cell_name=lambda row: str(matrix.barcodes()[row]),
        cell_names=matrix.barcodes,
        description=f"{name}, {choice.modality or 'genes'} of Cell Ranger",
        column=lambda column: labels_in(name, column),
        guide_counts=matrix.guide_counts,
    )


@dataclass(frozen=True)
class _Matrix:
    """A matrix in a file.

    Attributes
    ----------
    arrays : SparseArrays
        Cells x features.
    features : Features
    barcodes : callable
        Reads the names of the cells.
    """

    arrays: SparseArrays
    features: Features
    barcodes: Callable[[], np.ndarray]

    def guide_counts(self) -> GuideCounts:
        """Read the UMIs of guides; a row-major file is decoded whole for them."""
        guides = self.features.of_type(GUIDES)
        is_guide = np.zeros(self.arrays.n_genes, bool)
        is_guide[guides] = True
        arrays = self.arrays

        def block(rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            umis, columns, bounds = arrays.block(rows, Reading())
            keep = is_guide[columns]
            cells = np.repeat(np.arange(rows.start, rows.stop), np.diff(bounds))[keep]
            return cells, columns[keep], umis[keep]

        found = []
        if len(guides):
            with ThreadPoolExecutor(cpu_count(), "pdex_gpu") as pool:
                found = list(pool_map(pool)(block, arrays.cut(_ENTRIES)))
        arrays.check_unchanged()
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, arrays.dtype))
        parts = [np.concatenate(some) for some in zip(empty, *found, strict=True)]
        return self.features.guide_counts(*parts)


def _matrix(root: StoredGroup, name: str, choice: MatrixChoice) -> tuple[_Matrix, MatrixChoice]:
    """Return the matrix of a file, and the choice of its features.

    Raises
    ------
    LayerError, UnsupportedDataError
        There are several genomes, and none of them is chosen; or it holds molecules.
    """
    group = root.get(_MATRIX)
    if isinstance(group, StoredGroup):
        features = _features(group, f"{_MATRIX} of {name}", name)
        return _open(group, _MATRIX, features, name, choice.allow), choice
    if _is_molecules(root):
        raise UnsupportedDataError(
            f"{name} is a molecule_info.h5 of Cell Ranger, which holds molecules and no matrix. "
            "Pass filtered_feature_bc_matrix.h5 of the same run."
        )
    genomes = _genomes(root)
    genome = choice.modality
    if genome is None:
        if len(genomes) > 1:
            raise LayerError(
                f"{name} has a matrix for each of the genomes {listing(genomes)}. Name one of them "
                f"with modality= (--modality): {genomes[0]!r}."
            )
        genome = genomes[0]
    elif genome not in genomes:
        raise LayerError(unknown(f"genome of {name}:", genome, genomes))
    group = root[genome]
    assert isinstance(group, StoredGroup)  # see _genomes
    features = _genes(group, f"{genome} of {name}", name)
    return _open(group, genome, features, name, choice.allow), replace(choice, modality=None)


def _features(group: StoredGroup, place: str, name: str) -> Features:
    node = group.get("features")
    if not isinstance(node, StoredGroup):
        return _genes(group, place, name)
    place = f"features of {place}"
    ids = _texts(node, "id", place, may_lack=True)
    names = _texts(node, "name", place, may_lack=True)
    ids = names if ids is None else ids
    if ids is None:
        raise _lacks("id", place)
    types = _texts(node, "feature_type", place, may_lack=True)
    for what, values in (("name", names), ("feature_type", types)):
        if values is not None and len(values) != len(ids):
            raise FileFormatError(
                f"{place} is malformed: it has {len(ids):,} ids, but {len(values):,} values of "
                f"{what}. Copy or download the file again."
            )
    return Features.of(ids, names, types, name)


def _genes(group: StoredGroup, place: str, name: str) -> Features:
    """Return the features of a matrix that has genes alone."""
    ids = _texts(group, "genes", place, may_lack=True)
    names = _texts(group, "gene_names", place, may_lack=True)
    found = names if ids is None else ids
    if found is None:
        raise _lacks("features or genes", place)
    if names is not None and len(names) != len(found):
        raise FileFormatError(
            f"{place} is malformed: it has {len(found):,} genes, but {len(names):,} gene_names. "
            "Copy or download the file again."
        )
    return Features.of(found, names, None, name)


def _texts(
    group: StoredGroup, part: str, place: str, *, may_lack: bool = False
) -> np.ndarray | None:
    """Read a vector of text; None if there is none and it may lack."""
    node = group.get(part)
    if node is None:
        if may_lack:
            return None
        raise _lacks(part, place)
    found = None
    if is_array(node) and node.ndim == 1:
        found = texts(node, part) if node.size else np.empty(0, object)
    if found is None:
        raise FileFormatError(
            f"{place} is malformed: {part} is not a list of texts. Copy or download the file again."
        )
    return found


def _lacks(part: str, place: str) -> FileFormatError:
    return FileFormatError(
        f"{place} is not laid out as Cell Ranger writes it: {part} is missing. Copy or download "
        "the file again."
    )


def _open(group: StoredGroup, what: str, features: Features, name: str, allow: Allowed) -> _Matrix:
    place = f"{what} of {name}"
    nodes = {part: group.get(part) for part in ("barcodes", *_SPARSE)}
    for part, node in nodes.items():
        if node is None:
            raise _lacks(part, place)
        numbers = part in _SPARSE
        if not is_array(node) or node.ndim != 1 or (numbers and node.dtype.kind not in "biuf"):
            raise FileFormatError(
                f"{place} is malformed: {part} is not a vector of "
                f"{'numbers' if numbers else 'texts'}. Copy or download the file again."
            )
    barcodes = nodes["barcodes"]
    n_cells, n_features = int(barcodes.shape[0]), len(features.ids)
    claim(BYTES_PER_CELL * n_cells, f"the barcodes of {name} ({n_cells:,} cells)")
    _check_shape(group.get("shape"), (n_features, n_cells), place)
    arrays = sparse_arrays(group, True, what, allow, (n_cells, n_features))

    def read_barcodes() -> np.ndarray:
        with reading(f"The barcodes of {name}"):
            found = _texts(group, "barcodes", place)
        assert found is not None  # see nodes
        return found

    return _Matrix(arrays, features, read_barcodes)


def _check_shape(node: Any, expected: tuple[int, int], place: str) -> None:
    """Raise FileFormatError unless the shape that a file declares is that of its names."""
    if node is None:
        return
    n = node.size if is_array(node) else None
    found = np.asarray(node[...]).reshape(-1).tolist() if n == 2 else n
    if found != list(expected):
        raise FileFormatError(
            f"{place} is malformed: it has {expected[0]:,} features and {expected[1]:,} barcodes, "
            f"but its shape is {found}. Copy or download the file again."
        )
