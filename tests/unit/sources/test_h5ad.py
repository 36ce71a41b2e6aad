"""AnnData objects and h5ad files: the same labels, names and values however they come."""

import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from labelled_example import (
    CELLS,
    COLUMNS,
    GENES,
    VALUES,
    assert_example,
    assert_labels,
    example,
    meaning,
)
from scipy import sparse
from source_reads import read_back

from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    LayerError,
    UnsupportedDataError,
)
from pdex_gpu.sources.anndata_files.h5ad import open_h5ad
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.detect import is_backed
from pdex_gpu.sources.open import open_dataset


@pytest.fixture(params=[True, False], ids=["strings as categories", "strings as they are"])
def path(request, tmp_path):
    """The example as this version of anndata writes it."""
    path = tmp_path / "example.h5ad"
    with anndata.settings.override(allow_write_nullable_strings=True):
        example().write_h5ad(path, convert_strings_to_categoricals=request.param)
    return path


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_in_memory(column):
    with open_dataset(example(), column) as dataset:
        assert_example(dataset)
        assert_labels(dataset.labels, column)
        assert dataset.description == "AnnData in memory, X"


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_a_file(path, column):
    with open_dataset(str(path), column) as dataset:
        assert_example(dataset)
        assert dataset.description == f"{path}, X"
        with h5py.File(path) as file:
            node = file["obs"][column]
            rewritten = column in ("object", "string") and "codes" in node
        if rewritten:  # anndata made it a categorical, whose categories it sorted
            values = COLUMNS[column][0]
            assert meaning(dataset.labels) == [None if pd.isna(v) else v for v in values]
        else:
            assert_labels(dataset.labels, column)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_a_backed_anndata(path, column):
    adata = anndata.read_h5ad(path, backed="r")
    with open_dataset(adata, column) as dataset, open_h5ad(path, column) as direct:
        assert_example(dataset)
        assert not dataset.source.in_memory
        assert meaning(dataset.labels) == meaning(direct.labels)
        assert str(path) in dataset.description
    assert adata.file.is_open  # it is the user's to close
    adata.file.close()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_every_layout_and_way_in(tmp_path, kind):
    path = tmp_path / "a.h5ad"
    adata = example(kind)
    with anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(path)
    for layer, factor in ((None, 1), ("twice", 2)):
        with open_dataset(adata, "integer", MatrixChoice(layer)) as dataset:
            assert_example(dataset, factor)
            assert dataset.source.in_memory
        with open_dataset(path, "integer", MatrixChoice(layer)) as dataset:
            assert_example(dataset, factor)
            assert not dataset.source.in_memory
        backed = anndata.read_h5ad(path, backed="r")
        with open_dataset(backed, "integer", MatrixChoice(layer)) as dataset:
            assert_example(dataset, factor)
        backed.file.close()


def test_views(path):
    for adata in (example(), anndata.read_h5ad(path, backed="r")):
        view = adata[[5, 0, 3], ["C", "A"]]
        with open_dataset(view, "integer") as dataset:
            source = dataset.source
            assert source.in_memory != adata.isbacked
            if source.in_memory:  # scipy leaves the rows of reordered columns unsorted
                source = source.canonical()
            np.testing.assert_array_equal(
                read_back(source, [0, 1, 2]), VALUES[[5, 0, 3]][:, [2, 0]]
            )
            assert [dataset.labels.categories[c] for c in dataset.labels.codes] == [5, 5, 4]
            assert list(dataset.genes) == ["C", "A"]
            assert dataset.cell_name(1) == "cell0"
    adata.file.close()


def test_a_closed_backed_anndata_is_opened_again(path):
    adata = anndata.read_h5ad(path, backed="r")
    adata.file.close()
    with open_dataset(adata, "integer") as dataset:
        assert_example(dataset)
    adata.file.close()


def test_x_left_in_the_file_by_anndata(path):
    with h5py.File(path) as file:
        lazy = anndata.io.sparse_dataset(file["X"])
        adata = anndata.AnnData(lazy, obs=example().obs, var=example().var)
        with open_dataset(adata, "integer") as dataset:
            assert_example(dataset)
            assert not dataset.source.in_memory


def test_is_backed(path):
    adata = anndata.read_h5ad(path, backed="r")
    assert is_backed(adata)
    adata.file.close()
    assert not is_backed(example())
    assert not is_backed(VALUES)


def test_reading_a_file_imports_neither_anndata_nor_pandas(path):
    code = (
        "import sys; from pdex_gpu.sources.open import open_dataset\n"
        "with open_dataset(sys.argv[1], 'categorical') as d: assert d.genes[1] == 'B'\n"
        "assert not {'anndata', 'pandas', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


# Files as older versions wrote them, and files that went wrong.


@pytest.fixture
def old(tmp_path):
    """A file as anndata 0.7 and h5sparse left it, open for changes; its path is `filename`."""
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        x = sparse.csr_matrix(VALUES)
        group = file.create_group("X")
        group.attrs.update({"h5sparse_format": "csr", "h5sparse_shape": VALUES.shape})
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(x, name)
        obs, var = file.create_group("obs"), file.create_group("var")
        obs.attrs["_index"] = "barcode"
        obs["barcode"] = np.array(CELLS, "S10")
        var["_index"] = np.array(GENES, object)
        obs["pert"] = np.array([1, 0, -1, 1, 0, 1], "i1")
        obs["__categories/pert"] = np.array(["x", "ctrl"], object)
        obs["pert"].attrs["categories"] = obs["__categories/pert"].ref
        obs["fixed"] = np.array([b"p", b"q", b"p", b"q", b"q", b"p"])
        obs["count"] = np.array([1, 2, 1, 1, 2, 1], ">i4")
        yield file


def reopened(file):
    path = file.filename
    file.close()
    return path


@pytest.mark.parametrize(
    ("column", "codes", "categories"),
    [
        ("pert", [1, 0, -1, 1, 0, 1], ["x", "ctrl"]),
        ("fixed", [0, 1, 0, 1, 1, 0], ["p", "q"]),
        ("count", [0, 1, 0, 0, 1, 0], [1, 2]),
    ],
)
def test_old_files(old, column, codes, categories):
    with open_dataset(reopened(old), column) as dataset:
        assert_example(dataset)
        assert dataset.labels.codes.tolist() == codes
        assert list(dataset.labels.categories) == categories


def test_an_index_that_is_a_categorical_or_a_column_too(old):
    del old["var/_index"]
    index = old.create_group("var/_index")
    index.attrs["encoding-type"] = "categorical"
    index["codes"] = [3, 2, 1, 0]
    index["categories"] = np.array(GENES[::-1], object)
    old["obs"].attrs["column-order"] = np.array(["barcode", "gone"], object)
    with open_dataset(reopened(old), "barcode") as dataset:
        assert_example(dataset)
        assert list(dataset.labels.categories) == CELLS


def test_closing_twice_closes_the_file(old):
    path = reopened(old)
    dataset = open_h5ad(path, "pert")
    dataset.close()
    dataset.close()
    with h5py.File(path, "r+"):  # refused while another handle reads
        pass


def refused(file_or_path, error, match, groupby="pert", layer=None):
    path = file_or_path if isinstance(file_or_path, str) else reopened(file_or_path)
    with pytest.raises(error, match=match) as raised:
        open_dataset(path, groupby, MatrixChoice(layer))
    if Path(path).is_file() and h5py.is_hdf5(path) and error is not FileFormatError:
        with h5py.File(path, "r+"):  # nothing holds the file
            pass
    return raised.value


def test_missing_files_folders_and_other_formats(tmp_path):
    refused(str(tmp_path / "none.h5ad"), FileNotFoundError, r"There is no file '.*none\.h5ad'")
    refused(
        str(tmp_path),
        FileFormatError,
        "is a folder but not a matrix folder of Cell Ranger or a zarr store",
    )
    for content in ("", "gene,cell\n"):
        (tmp_path / "a.h5ad").write_text(content)
        error = refused(
            str(tmp_path / "a.h5ad"), FileFormatError, rf"not an HDF5 file \({len(content)} bytes\)"
        )
        assert isinstance(error.__cause__, OSError)


def test_a_truncated_file(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    error = refused(str(path), FileFormatError, "cannot be opened: it is truncated, .*HDF5 says: ")
    assert isinstance(error.__cause__, OSError)


def test_unknown_columns_name_those_that_exist(old, path):
    error = refused(
        old,
        ColumnError,
        r"^Unknown column of obs 'prt'. Did you mean 'pert'\? Available \(3\): "
        r"'count', 'fixed', 'pert'\.$",
        "prt",
    )
    assert isinstance(error, KeyError)
    refused(str(path), ColumnError, "Did you mean 'categorical'", "categoricl")
    refused(str(path), ColumnError, r"Unknown column of obs '_index'", "_index")
    with pytest.raises(ColumnError, match=r"Unknown column of obs 'prt'\..* Available"):
        open_dataset(example(), "prt")


def test_a_column_that_occurs_twice():
    adata = example()
    adata.obs = pd.DataFrame(np.zeros((6, 2)), columns=["a", "a"], index=CELLS)
    with pytest.raises(ColumnError, match="several columns named 'a'"):
        open_dataset(adata, "a")


def test_unknown_layers_name_those_that_exist(old, path):
    expected = r"Unknown layer 'twise'. Did you mean 'twice'\? Available \(1\): 'twice'"
    refused(str(path), LayerError, expected, "integer", "twise")
    refused(old, LayerError, r"Unknown layer 'twise'. Available \(0\): none", layer="twise")
    with pytest.raises(LayerError, match=expected):
        open_dataset(example(), "integer", MatrixChoice("twise"))


def test_no_x(old, tmp_path):
    adata = example()
    adata.X = None
    with pytest.raises(DataError, match="X is None"):
        open_dataset(adata, "integer")
    with anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(tmp_path / "no_x.h5ad")
    refused(str(tmp_path / "no_x.h5ad"), DataError, "X is None", "integer")
    backed = anndata.read_h5ad(tmp_path / "no_x.h5ad", backed="r")
    with pytest.raises(DataError, match="X is None"):
        open_dataset(backed, "integer")
    backed.file.close()
    del old["X"]
    old["X"] = h5py.Empty("f4")
    old["X"].attrs["encoding-type"] = "null"
    refused(old, DataError, "X is None")


def test_x_of_another_encoding(old):
    del old["X"].attrs["h5sparse_format"]
    old["X"].attrs["encoding-type"] = "dataframe"
    refused(old, UnsupportedDataError, "X has the encoding 'dataframe'. Supported: ")


@pytest.mark.parametrize(
    ("frame", "text"), [("obs", "5 rows and var 4"), ("var", "6 rows and var 3")]
)
def test_shapes_that_disagree(old, frame, text):
    for key in [key for key in old[frame] if not key.startswith("__")]:
        values = old[frame][key][:-1]
        del old[frame][key]
        old[frame][key] = values
    refused(old, FileFormatError, f"the matrix has 6 cells x 4 genes, but obs has {text}")


@pytest.mark.parametrize("frame", ["obs", "var"])
def test_frames_that_anndata_did_not_write(old, frame):
    path = old.filename
    index = old[frame].attrs.get("_index", "_index")
    del old[frame][index]
    refused(old, FileFormatError, f"not laid out as anndata writes it: it has no {frame} with an")
    with h5py.File(path, "r+") as file:
        del file[frame]
        file[frame] = np.zeros(6, "i4")
    refused(path, FileFormatError, f"not laid out as anndata writes it: it has no {frame} with an")


def test_malformed_columns(old):
    path = old.filename
    old["obs/pert"][0] = 2
    refused(old, FileFormatError, "Column 'pert' of obs is malformed: a code has no category")
    with h5py.File(path, "r+") as file:
        file["obs"].create_group("nested").attrs["encoding-type"] = "awkward-array"
        file["obs"].create_group("half").attrs["encoding-type"] = "categorical"
    refused(path, UnsupportedDataError, "'nested' of obs has the encoding 'awkward-arr", "nested")
    refused(path, FileFormatError, "obs/half/codes of .* is missing", "half")


def test_other_objects_are_named():
    with pytest.raises(UnsupportedDataError, match=r"Cannot read a numpy\.ndarray\. Supported: "):
        open_dataset(VALUES, "a")


# Real files.

REAL = {
    "papalexi_thp1_counts.h5ad": (20_729, 299, 1_390_126, 26, 2_386, "non-targeting"),
    "vcc_h1_dense.h5ad": (600, 1_000, 599_805, 6, 100, "non-targeting"),
    "heart_celltypes.h5ad": (5_000, 26_128, 3_243_301, 12, 1_380, "aCM"),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_files(name, real_data):
    path = real_data(name)
    n_cells, n_genes, nnz, n_groups, n_control, control = REAL[name]
    adata = anndata.read_h5ad(path)
    with open_dataset(path, "perturbation") as dataset:
        source = dataset.source
        assert (source.n_cells, source.n_genes, source.nnz) == (n_cells, n_genes, nnz)
        assert source.description == "CSR float32 in a file"
        assert list(dataset.genes) == list(adata.var_names)
        assert dataset.cell_name(17) == adata.obs_names[17]
        labels = dataset.labels
        assert len(labels.categories) == n_groups
        assert np.count_nonzero(labels.categories[labels.codes] == control) == n_control
        expected = open_dataset(adata, "perturbation")
        np.testing.assert_array_equal(labels.codes, expected.labels.codes)
        assert list(labels.categories) == list(expected.labels.categories)

        edges = [0, n_genes // 3, n_genes // 2, n_genes]
        columns = adata.X.tocsc()
        with (
            source.open(edges, 1 << 20) as scratch,
            source.open(edges, 1 << 30) as loaded,
            expected.source.open(edges, 0) as memory,
        ):
            for k in range(3):
                for reader in (scratch, loaded, memory):
                    chunk = reader.read(k)
                    lengths = chunk.stops - chunk.starts
                    taken = np.repeat(chunk.stops - np.cumsum(lengths), lengths)
                    taken += np.arange(len(taken))
                    part = sparse.csr_matrix(
                        (
                            chunk.data[taken],
                            chunk.indices[taken].astype(np.int32) - chunk.gene_start,
                            np.append(0, np.cumsum(lengths)),
                        ),
                        shape=(n_cells, chunk.n_genes),
                    )
                    assert (part != columns[:, edges[k] : edges[k + 1]].tocsr()).nnz == 0
