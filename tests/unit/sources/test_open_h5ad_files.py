"""h5ad files given as open files, and files compressed with filters of hdf5plugin."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import anndata
import h5py
import numpy as np
import pytest
from labelled_example import assert_example
from labelled_example import example as labelled
from scipy import sparse
from source_reads import read_back
from stored_screens import GROUPBY, MEMORY, REFERENCE, assert_same_bits, logged, screen

from pdex_gpu import differential_expression
from pdex_gpu.errors import ColumnError, FileFormatError, MissingDependencyError
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.stored import hdf5
from pdex_gpu.utils.parallel import pool_map


class Minimal:
    """A file that has no more than h5py asks for."""

    def __init__(self, content):
        self._file = io.BytesIO(content)
        self.read, self.seek, self.tell = self._file.read, self._file.seek, self._file.tell
        self.readinto = self._file.readinto


@pytest.fixture
def path(tmp_path):
    with anndata.settings.override(allow_write_nullable_strings=True):
        labelled().write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    return tmp_path / "a.h5ad"


def test_open_files(path):
    with path.open("rb") as file:
        for layer, factor in ((None, 1), ("twice", 2)):
            file.seek(5)  # wherever it stands
            with open_dataset(file, "integer", MatrixChoice(layer)) as dataset:
                assert_example(dataset, factor)
                assert str(path) in dataset.description
            assert not file.closed
    for file in (io.BytesIO(path.read_bytes()), Minimal(path.read_bytes())):
        with open_dataset(file, "integer") as dataset:
            assert_example(dataset)
            assert dataset.description == f"{type(file).__name__}, X"


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("how", MEMORY)
def test_results_are_those_in_memory(tmp_path, how, compression):
    adata = screen(MEMORY[how](logged()))
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path, compression=compression)
    expected = differential_expression(adata, GROUPBY, reference=REFERENCE)
    for options in ({}, {"memory": 1, "n_threads": 3}, {"engine": "serial"}):
        file = io.BytesIO(path.read_bytes())
        found = differential_expression(file, GROUPBY, reference=REFERENCE, **options)
        assert_same_bits(found, expected)
        assert not file.closed


def test_several_threads_read_an_open_file(tmp_path):
    values = np.random.default_rng(0).random((300, 40))
    adata = anndata.AnnData(sparse.csr_matrix(values))
    adata.obs["g"] = "a"
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    with (
        (tmp_path / "a.h5ad").open("rb") as file,
        open_dataset(file, "g") as dataset,
        ThreadPoolExecutor(8) as pool,
    ):
        reading = Reading(parallel_map=pool_map(pool), n_threads=8)
        with dataset.source.open([0, 20, 40], 1, reading) as reader:
            assert reader.read(1).n_genes == 20
        np.testing.assert_array_equal(read_back(dataset.source, [0, 20, 40], 1), values)


def refused(file, match, error=FileFormatError, groupby="integer"):
    with pytest.raises(error, match=match):
        open_dataset(file, groupby)


def test_open_files_of_other_kinds(path, tmp_path):
    (tmp_path / "a.csv").write_text("gene,cell\n")
    with (tmp_path / "a.csv").open("rb") as file:
        refused(file, r"a\.csv is not an HDF5 file \(10 bytes\)")
    with (tmp_path / "a.csv").open() as file:
        refused(file, r"cannot be read as a binary file: .* Open it with open\(path, 'rb'\)")
    refused(io.BytesIO(b""), r"^BytesIO is not an HDF5 file \(0 bytes\)")
    content = path.read_bytes()
    refused(io.BytesIO(content[: len(content) // 2]), "BytesIO cannot be opened: it is truncated")
    closed = io.BytesIO(content)
    closed.close()
    refused(closed, "cannot be read as a binary file: I/O operation on closed file")
    file = io.BytesIO(content)
    refused(file, "Unknown column of obs 'nothing'", ColumnError, "nothing")
    assert not file.closed


# Filters of hdf5plugin.

hdf5plugin = pytest.importorskip("hdf5plugin")
FILTERS = {
    "zstd": lambda: hdf5plugin.Zstd(clevel=3),
    "blosc lz4": lambda: hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE),
    "blosc zstd": lambda: hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
    "blosc2": hdf5plugin.Blosc2,
    "lz4": hdf5plugin.LZ4,
    "bitshuffle": hdf5plugin.Bitshuffle,
    "bzip2": hdf5plugin.BZip2,
}


def compress(adata, path, name):
    """The AnnData in a file, all its numbers compressed; blosc crashes on strings."""
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(lambda key, node: found.append(key) if numbers(node) else None)
        for key in found:
            values, attributes = file[key][...], dict(file[key].attrs)
            del file[key]
            chunks = tuple(min(40, n) for n in values.shape)
            file.create_dataset(key, data=values, chunks=chunks, **FILTERS[name]())
            file[key].attrs.update(attributes)
    return path


def numbers(node):
    return isinstance(node, h5py.Dataset) and node.ndim and node.dtype.kind in "iuf" and node.size


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("how", MEMORY)
@pytest.mark.parametrize("name", FILTERS)
def test_files_with_a_filter(tmp_path, name, how):
    adata = screen(MEMORY[how](logged()))
    path = compress(adata, tmp_path / "a.h5ad", name)
    with h5py.File(path) as file:
        node = file["X"] if isinstance(file["X"], h5py.Dataset) else file["X/data"]
        assert node.id.get_create_plist().get_nfilters() >= 1
    expected = differential_expression(adata, GROUPBY, reference=REFERENCE)
    for options in ({}, {"memory": 1, "n_threads": 2}):
        found = differential_expression(path, GROUPBY, reference=REFERENCE, **options)
        assert_same_bits(found, expected)


def test_a_file_that_anndata_compressed_with_zstd(tmp_path):
    adata = screen(sparse.csr_matrix(logged()))
    adata.write_h5ad(tmp_path / "a.h5ad", compression=hdf5plugin.FILTERS["zstd"])
    found, expected = (
        differential_expression(x, GROUPBY, reference=REFERENCE)
        for x in (tmp_path / "a.h5ad", adata)
    )
    assert_same_bits(found, expected)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("name", FILTERS)
def test_a_process_that_has_not_imported_hdf5plugin(tmp_path, name):
    path = compress(screen(sparse.csr_matrix(logged())), tmp_path / "a.h5ad", name)
    code = (
        "import sys; from pdex_gpu.sources.open import open_dataset\n"
        "with open_dataset(sys.argv[1], sys.argv[2]) as dataset:\n"
        "    with dataset.source.open([0, 4, 9], 1) as reader:\n"
        "        assert reader.read(0).n_genes == 4\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path), GROUPBY], check=True)


def test_hdf5plugin_is_not_installed(tmp_path, monkeypatch):
    path = compress(screen(sparse.csr_matrix(logged())), tmp_path / "a.h5ad", "blosc2")
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    available = h5py.h5z.filter_avail
    monkeypatch.setattr(hdf5.h5py.h5z, "filter_avail", lambda n: n != 32026 and available(n))
    refused(
        path,
        r"^Column 'perturbation' of obs is compressed with the HDF5 filter 32026 \(blosc2\), which "
        r"is not installed\. The package hdf5plugin provides most filters: pip install "
        r"hdf5plugin\.$",
        MissingDependencyError,
        GROUPBY,
    )
    with (
        h5py.File(path) as file,
        pytest.raises(MissingDependencyError, match=r"^X/data of .*a\.h5"),
    ):
        hdf5.open_hdf5_array(file["X/data"], "X/data")
