"""Cell Ranger's HDF5 files, of versions 2 and 3, and those of programs like it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from cell_ranger_files import (
    BARCODES,
    GUIDES,
    IDS,
    N_CELLS,
    N_GENES,
    NAMES,
    TYPES,
    counts,
    parts,
    write_hdf5,
    write_version_2,
)
from source_reads import read_back

from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    LayerError,
    TextEncodingWarning,
    UnsupportedDataError,
)
from pdex_gpu.sources.anndata_files.h5ad import H5ad
from pdex_gpu.sources.cell_ranger.features import unique_names
from pdex_gpu.sources.cell_ranger.hdf5 import CellRangerHdf5
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.dataset import Dataset
from pdex_gpu.sources.formats import code_for, shared_path
from pdex_gpu.sources.open import open_dataset

GENES = ["A", "B", "A-1", "C", "D", "E", "F"]
EDGES = [[0, N_GENES], [0, 3, N_GENES], list(range(N_GENES + 1))]


def opened(data: Any, **choice: Any) -> Dataset:
    return open_dataset(data, None, MatrixChoice(**choice))


@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_genes_are_read_and_guides_are_not(edges, tmp_path):
    with opened(write_hdf5(tmp_path / "x.h5")) as dataset:
        assert dataset.genes.tolist() == GENES
        assert dataset.all_cell_names().tolist() == BARCODES.tolist()
        assert dataset.cell_name(3) == BARCODES[3]
        assert dataset.labels.codes.tolist() == [-1] * N_CELLS
        assert (dataset.source.n_cells, dataset.source.n_genes) == (N_CELLS, N_GENES)
        assert not dataset.source.in_memory
        values = read_back(dataset.source, edges)
    np.testing.assert_array_equal(values, counts()[:, :N_GENES].toarray())


def test_a_file_of_version_2(tmp_path):
    with opened(write_version_2(tmp_path / "x.h5")) as dataset:
        assert dataset.genes.tolist() == GENES
        assert dataset.guide_counts is not None
        assert len(dataset.guide_counts().ids) == 0
        values = read_back(dataset.source, [0, N_GENES])
    np.testing.assert_array_equal(values, counts()[:, :N_GENES].toarray())


def test_a_file_of_version_2_with_several_genomes(tmp_path):
    path = write_version_2(tmp_path / "x.h5", ["hg19", "mm10"])
    with pytest.raises(LayerError, match=r"each of the genomes 'hg19', 'mm10'\. .*modality="):
        opened(path)
    with opened(path, modality="mm10") as dataset:
        assert dataset.genes.tolist() == GENES
    with pytest.raises(
        LayerError, match=r"Unknown genome of .*'mm9'\. .*Available \(2\): 'hg19', 'mm10'"
    ):
        opened(path, modality="mm9")


def test_the_umis_of_guides(tmp_path):
    with opened(write_hdf5(tmp_path / "x.h5")) as dataset:
        assert dataset.guide_counts is not None
        found = dataset.guide_counts()
    assert found.ids.tolist() == IDS[N_GENES:].tolist()
    assert found.cells.tolist() == list(range(N_CELLS))
    assert found.guides.tolist() == [i % 4 for i in range(N_CELLS)]
    assert found.umis.tolist() == [5 + i % 3 for i in range(N_CELLS)]


def test_another_feature_type_by_name(tmp_path):
    path = write_hdf5(tmp_path / "x.h5")
    with opened(path, modality=GUIDES) as dataset:
        assert dataset.genes.tolist() == ["g0", "g1", "g2", "g3"]
        assert "CRISPR" in dataset.description
        np.testing.assert_array_equal(
            read_back(dataset.source, [0, 4]), counts()[:, N_GENES:].toarray()
        )
    with pytest.raises(LayerError, match=r"Unknown feature type .*'Gene Expression', 'CRISPR"):
        opened(path, modality="rna")


@pytest.mark.parametrize(
    ("changed", "genes"),
    [
        ({"shape": None}, GENES),
        ({"shape": np.array([len(IDS), N_CELLS], float)}, GENES),
        ({"features__id": None}, GENES),
        ({"features__genome": None}, GENES),
        ({"features__name": None}, IDS[:N_GENES].tolist()),
        ({"features__feature_type": None}, [*GENES, "g0", "g1", "g2", "g3"]),
        ({"features__name": NAMES.astype(object)}, GENES),
        ({"data": counts().data.astype(np.float64)}, GENES),
        ({"indices": counts().indices.astype(np.int32)}, GENES),
    ],
)
def test_what_other_programs_leave_out_or_write_otherwise(changed, genes, tmp_path):
    with opened(write_hdf5(tmp_path / "x.h5", **changed)) as dataset:
        assert dataset.genes.tolist() == genes
        values = read_back(dataset.source, [0, len(genes)])
    np.testing.assert_array_equal(values, counts()[:, : len(genes)].toarray())


def test_cellbender_adds_groups_of_its_own(tmp_path):
    path = write_hdf5(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file["global_latents/ambient_expression"] = np.ones(3)
        file["metadata/barcodes_analyzed"] = np.array([b"x"])
    with opened(path) as dataset:
        assert dataset.genes.tolist() == GENES


def test_names_that_are_not_utf8(tmp_path):
    names = np.array([b"\xb5x", *NAMES[1:].astype("S")])
    with (
        pytest.warns(TextEncodingWarning, match="1 of 11 values"),
        opened(write_hdf5(tmp_path / "x.h5", features__name=names)) as dataset,
    ):
        assert dataset.genes[0] == "µx"


@pytest.mark.filterwarnings("ignore:Suffix used")
@pytest.mark.parametrize(
    "names",
    [
        ["A", "B"],
        ["A", "A", "B", "A"],
        ["A", "A-1", "A", "A"],
        ["A", "A", "A-1", "A-1", "A-2"],
        ["A-1", "A", "A", "A-1-1", "A-1"],
        [],
    ],
    ids=str,
)
def test_names_are_made_unique_as_anndata_does(names):
    want = ad.utils.make_index_unique(pd.Index(names, dtype=object)).tolist()
    assert unique_names(np.array(names, object)).tolist() == want


# --- which files ---------------------------------------------------------------------------------


def test_files_are_recognised_by_what_they_hold(tmp_path):
    path = write_hdf5(tmp_path / "x.h5")
    assert isinstance(code_for(path), CellRangerHdf5)
    assert shared_path(path) == str(path)
    renamed = path.rename(tmp_path / "matrix")
    assert isinstance(code_for(str(renamed)), CellRangerHdf5)
    for content in (renamed.read_bytes()[:4000], b"", b"x" * 100):
        (tmp_path / "bad.h5").write_bytes(content)
        assert isinstance(code_for(tmp_path / "bad.h5"), H5ad)
    assert isinstance(code_for(tmp_path / "none.h5"), H5ad)
    adata = ad.AnnData(np.ones((2, 2), np.float32))
    adata.uns["matrix"] = {"barcodes": np.ones(2)}
    adata.write_h5ad(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["matrix/barcodes"] = np.ones(3)
    assert isinstance(code_for(tmp_path / "a.h5"), H5ad)


def test_an_open_file_stays_open(tmp_path):
    path = write_hdf5(tmp_path / "x.h5")
    with path.open("rb") as file, opened(file) as dataset:
        assert dataset.genes.tolist() == GENES
        dataset.close()
        assert not file.closed
    with opened(io.BytesIO(path.read_bytes())) as dataset:
        values = read_back(dataset.source, [0, N_GENES])
    np.testing.assert_array_equal(values, counts()[:, :N_GENES].toarray())


# --- what is refused -----------------------------------------------------------------------------

_PARTS = parts()
_OUT = _PARTS["indices"].copy()
_OUT[5] = 99

MALFORMED = {
    **{
        f"no {part}": ({part: None}, rf"matrix of .*x\.h5 is not laid out .*: {part} is missing")
        for part in ("barcodes", "data", "indices", "indptr")
    },
    "fewer barcodes": ({"barcodes": _PARTS["barcodes"][1:]}, r"59 barcodes, but its shape is"),
    "negative shape": ({"shape": np.array([-11, 60])}, r"its shape is \[-11, 60\]"),
    "one number": ({"shape": np.int64(3)}, "its shape is 1"),
    "text as shape": ({"shape": np.array([b"a", b"b"])}, "its shape is"),
    "short indptr": ({"indptr": _PARTS["indptr"][1:]}, r"must hold 61 numbers .*it holds 60"),
    "more data": ({"data": np.append(_PARTS["data"], 1)}, "data values but"),
    "data in a table": ({"data": _PARTS["data"].reshape(1, -1)}, "data is not a vector of numbers"),
    "text as data": ({"data": np.array([b"a"])}, "data is not a vector of numbers"),
    "fewer ids": ({"features__id": _PARTS["features/id"][1:]}, "10 ids, but 11 values of name"),
    "fewer types": ({"features__feature_type": TYPES[:3].astype("S")}, "3 values of feature_type"),
    "numbers as names": ({"features__name": np.arange(11)}, "name is not a list of texts"),
    "names in a table": (
        {"features__name": NAMES.astype("S").reshape(1, -1)}, "name is not a list of texts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_files(how, tmp_path):
    changed, says = MALFORMED[how]
    with pytest.raises(FileFormatError, match=says):
        opened(write_hdf5(tmp_path / "x.h5", **changed))


def test_an_index_that_is_out_of_range(tmp_path):
    with (
        opened(write_hdf5(tmp_path / "x.h5", indices=_OUT)) as dataset,
        pytest.raises(FileFormatError, match="row 0 has an entry in column 99"),
    ):
        read_back(dataset.source, [0, N_GENES])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"genes": None, "gene_names": None}, "features or genes is missing"),
        ({"gene_names": np.array([b"A"])}, "7 genes, but 1 gene_names"),
    ],
)
def test_malformed_files_of_version_2(changed, says, tmp_path):
    with pytest.raises(FileFormatError, match=says):
        opened(write_version_2(tmp_path / "x.h5", **changed))


def test_features_without_genes(tmp_path):
    types = np.array([b"Antibody Capture"] * 9 + [b"Custom"] * 2)
    says = r"no features of the type 'Gene Expression'.*'Antibody Capture' \(9\), 'Custom' \(2\)"
    with pytest.raises(DataError, match=says):
        opened(write_hdf5(tmp_path / "x.h5", features__feature_type=types))


@pytest.mark.parametrize(
    ("choice", "says"), [({"layer": "counts"}, "layer 'counts'"), ({"raw": True}, r"raw\.X")]
)
def test_there_is_one_matrix(choice, says, tmp_path):
    with pytest.raises(LayerError, match=f"has one matrix, so there is no {says}"):
        opened(write_hdf5(tmp_path / "x.h5"), **choice)


def test_there_are_no_columns(tmp_path):
    path = write_hdf5(tmp_path / "x.h5")
    says = r"no columns such as 'gene'\. .*guide_calls="
    with pytest.raises(ColumnError, match=says):
        open_dataset(path, "gene", MatrixChoice())
    with opened(path) as dataset, pytest.raises(ColumnError, match=says):
        dataset.column("gene")


def test_molecules_are_no_matrix(tmp_path):
    with h5py.File(tmp_path / "molecule_info.h5", "w") as file:
        file["barcode_idx"], file["umi"] = [1], [2]
    with pytest.raises(UnsupportedDataError, match=r"filtered_feature_bc_matrix\.h5"):
        opened(tmp_path / "molecule_info.h5")


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    target = write_hdf5(tmp_path / "out" / "x.h5")
    path = Path(write_hdf5(tmp_path / "in" / "x.h5", data=None))
    with h5py.File(path, "r+") as file:
        file["matrix/data"] = h5py.ExternalLink(str(target), "matrix/data")
    with pytest.raises(FileFormatError, match="points outside the folder"):
        opened(path)
    with opened(path, allow=frozenset({"external"})) as dataset:
        assert dataset.genes.tolist() == GENES
