"""Files that declare more than they hold, or more than memory= allows: refused before it is taken.

The calls are made in a process of its own, which tells how large it grew.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import zarr

from pdex_gpu import calibrate, differential_expression, estimate, pseudobulk
from pdex_gpu.errors import FileFormatError, MemoryBudgetError, PdexGpuError
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.sources import sizes
from pdex_gpu.sources.anndata_files.h5ad import open_h5ad
from pdex_gpu.sources.stored import encoded
from pdex_gpu.sources.stored.zarr import ZarrArray

N_CELLS, N_GENES = 120, 20
COLUMN = "target_gene"
CODES, CATEGORIES = f"obs/{COLUMN}/codes", f"obs/{COLUMN}/categories"
MEMORY = 100_000_000
SLACK = 400_000_000
LETTERS = 1_000_000
UNWRITTEN = "unwritten"  # or else these files are refused for what they lack


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    adata = simulate_screen(N_CELLS, N_GENES, 4, seed=1).to_anndata()
    adata.write_h5ad(folder / "sound.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the format that it will write one day
        adata.write_zarr(folder / "sound.zarr")
    return folder


def replaced(file: Any, name: str, **options: Any) -> Any:
    """Another dataset in place of one, with its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    found = file.create_dataset(name, **options)
    found.attrs.update(attributes)
    return found


def of_length(name: str, n: int, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        replaced(file, name, shape=(n,), dtype=file[name].dtype, **options)

    return change


def many_rows(file: h5py.File) -> None:
    """Names and codes agree on 2e9 cells, of which not one is there."""
    for name in ("obs/_index", CODES):
        of_length(name, 2 * 10**9, chunks=(10**6,))(file)


def same_text(name: str, n: int, filters: str | None) -> Callable[[h5py.File], None]:
    """Many texts that are one long text in the file."""

    def change(file: h5py.File) -> None:
        kind = h5py.string_dtype()
        one = file.create_dataset("one", data=["x" * LETTERS], dtype=kind)
        file.flush()
        with open(file.filename, "rb") as raw:
            raw.seek(one.id.get_offset())
            reference = raw.read(16)
        found = replaced(file, name, shape=(n,), dtype=kind, chunks=(n,), compression=filters)
        stored = reference * n
        found.id.write_direct_chunk((0,), zlib.compress(stored) if filters else stored)

    return change


def same_text_in_one_piece(name: str, n: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        kind = h5py.string_dtype()
        found = replaced(file, name, data=["x" * LETTERS] + [""] * (n - 1), dtype=kind)
        file.flush()
        with open(file.filename, "r+b") as raw:
            raw.seek(found.id.get_offset())
            reference = raw.read(16)
            raw.seek(found.id.get_offset())
            raw.write(reference * n)

    return change


def bomb(name: str, n: int, decoded: int, **options: Any) -> Callable[[h5py.File], None]:
    """A chunk that decodes to more than belongs into it."""

    def change(file: h5py.File) -> None:
        dtype = options.get("dtype", file[name].dtype)
        found = replaced(file, name, shape=(n,), dtype=dtype, chunks=(n,), compression="gzip")
        found.id.write_direct_chunk((0,), zlib.compress(bytes(decoded), 9))

    return change


FILES: dict[str, tuple[Callable[[h5py.File], None], type[PdexGpuError], str]] = {
    "2e9 codes": (of_length(CODES, 2 * 10**9, chunks=(10**6,)), FileFormatError, "2000000000"),
    "1e12 codes": (of_length(CODES, 10**12, chunks=(1000,)), FileFormatError, "1000000000000"),
    "1e12 row pointers": (
        of_length("X/indptr", 10**12, chunks=(1000,)), FileFormatError, "1,000,000,000 chunks"
    ),
    "2e9 row pointers in few chunks": (
        of_length("X/indptr", 2 * 10**9, chunks=(10**6,)), FileFormatError, "it holds 2000000000"
    ),
    "1e12 entries": (
        of_length("X/data", 10**12, chunks=(1000,)), FileFormatError, "1,000,000,000 chunks"
    ),
    "a chunk of 4e9 bytes": (
        of_length("X/data", 10**9, chunks=(10**9,)), MemoryBudgetError, "a chunk of X/data"
    ),
    "2e9 cells": (many_rows, MemoryBudgetError, "2,000,000,000 cells"),
    "2e9 categories": (
        of_length(CATEGORIES, 2 * 10**9, chunks=(10**6,)), MemoryBudgetError, "2,000,000,000 texts"
    ),
    "one long category many times": (
        same_text(CATEGORIES, 3000, None), MemoryBudgetError, "text of Column 'target_gene'"
    ),
    "the same, compressed": (
        same_text(CATEGORIES, 3000, "gzip"), MemoryBudgetError, "text of Column 'target_gene'"
    ),
    "the same, in one piece": (
        same_text_in_one_piece(CATEGORIES, 3000), MemoryBudgetError, "text of Column"
    ),
    "one long name of many genes": (
        same_text("var/_index", N_GENES * 50, None), FileFormatError, f"{N_GENES} genes"
    ),
    "codes that decode to 1e8": (
        bomb(CODES, N_CELLS, 10**8), FileFormatError, "only 120 once decoded"
    ),
    "codes that decode to 5e7": (bomb(CODES, N_CELLS, 5 * 10**7), FileFormatError, "chunk 0"),
    "categories that decode to 5e7": (
        bomb(CATEGORIES, 5, 5 * 10**7, dtype="S8"), FileFormatError, "the chunk of entry 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["encoding-type", "_index", "column-order"])
def test_a_list_in_an_attribute(sound: Path, tmp_path: Path, name: str) -> None:
    """Thousands of texts that are one long text in the file cannot be told apart from others."""
    path = tmp_path / "x.h5ad"
    shutil.copy(sound / "sound.h5ad", path)
    with h5py.File(path, "r+") as file:
        file["X" if name == "encoding-type" else "obs"].attrs[name] = ["a"] * 1000
    column = "none" if name == "column-order" else COLUMN  # the order is for messages
    with pytest.raises(FileFormatError, match=f"The attribute '{name}' of .* 1,000 values"):
        differential_expression(path, column, progress=False)


def make(case: str, sound: Path, folder: Path) -> Path:
    path = folder / f"{case}.h5ad"
    shutil.copy(sound / "sound.h5ad", path)
    with h5py.File(path, "r+") as file:
        FILES[case][0](file)
    return path


CHILD = """
import json, resource, sys
from pdex_gpu import differential_expression
from pdex_gpu.errors import PdexGpuError

sound, memory, *paths = json.loads(sys.argv[1])
def run(path):
    differential_expression(
        path, "target_gene", memory=memory, progress=False, allow="unwritten",
        backend="numpy", engine="serial",
    )
run(sound)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    try:
        run(path)
        told = "a table"
    except PdexGpuError as error:
        told = f"{type(error).__name__}: {error}"
    print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="others count the peak in other units")
def test_files_that_declare_too_much(sound: Path, tmp_path: Path) -> None:
    paths = [make(case, sound, tmp_path) for case in FILES]
    arguments = json.dumps([str(sound / "sound.h5ad"), MEMORY, *map(str, paths)])
    end = subprocess.run(
        [sys.executable, "-c", CHILD, arguments], capture_output=True, text=True, check=True
    )
    told = [json.loads(line) for line in end.stdout.splitlines()]
    assert len(told) == len(FILES)
    for (case, (_, kind, words)), (message, grown) in zip(FILES.items(), told, strict=True):
        assert message.startswith(f"{kind.__name__}: "), (case, message)
        assert words in message, (case, message)
        assert 1024 * grown < MEMORY + SLACK, case


@pytest.mark.parametrize("case", ["2e9 codes", "2e9 categories", "one long category many times"])
@pytest.mark.parametrize(
    "call",
    [
        lambda path: estimate(path, COLUMN, memory=MEMORY, allow=UNWRITTEN),
        lambda path: calibrate(path, COLUMN, memory=MEMORY, allow=UNWRITTEN, progress=False),
        lambda path: pseudobulk(path, COLUMN, memory=MEMORY, allow=UNWRITTEN),
        lambda path: differential_expression(
            path, ["batch", COLUMN], reference="0", memory=MEMORY, allow=UNWRITTEN, progress=False
        ),
        lambda path: differential_expression(
            path,
            "batch",
            reference="0",
            strata=COLUMN,
            memory=MEMORY,
            allow=UNWRITTEN,
            progress=False,
        ),
    ],
    ids=["estimate", "calibrate", "pseudobulk", "within", "strata"],
)
def test_every_call(sound: Path, tmp_path: Path, case: str, call: Any) -> None:
    path = make(case, sound, tmp_path)
    with h5py.File(path, "r+") as file:
        file["obs/batch"] = np.arange(N_CELLS) % 2
    with pytest.raises(FILES[case][1], match="target_gene"):
        call(path)


def test_a_file_of_many_chunks(sound: Path, tmp_path: Path) -> None:
    """One chunk an entry is foolish, but no fault."""
    path = tmp_path / "chunks.h5ad"
    shutil.copy(sound / "sound.h5ad", path)
    with h5py.File(path, "r+") as file:
        for name in ("X/data", "X/indices", CODES):
            replaced(file, name, data=file[name][:], chunks=(1,))
    expected = differential_expression(sound / "sound.h5ad", COLUMN, progress=False)
    found = differential_expression(path, COLUMN, memory=MEMORY, allow=UNWRITTEN, progress=False)
    np.testing.assert_array_equal(found["p_value"], expected["p_value"])


ZARR: dict[str, tuple[str, dict[str, Any], type[PdexGpuError], str]] = {
    "2e9 codes": (CODES, {"shape": 2 * 10**9, "chunks": 10**6}, FileFormatError, "2000000000"),
    "a chunk of 1e12 codes": (
        CODES, {"shape": N_CELLS, "chunks": 10**12}, MemoryBudgetError, "a chunk of"
    ),
    "2e9 row pointers": (
        "X/indptr", {"shape": 2 * 10**9, "chunks": 10**9}, MemoryBudgetError, "a chunk of"
    ),
    "1e12 row pointers": (
        "X/indptr", {"shape": 10**12, "chunks": 10**3}, FileFormatError, "1000000000000"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ZARR)
def test_zarr(sound: Path, tmp_path: Path, case: str) -> None:
    name, options, kind, words = ZARR[case]
    path = tmp_path / "x.zarr"
    shutil.copytree(sound / "sound.zarr", path)
    (path / ".zmetadata").unlink(missing_ok=True)  # the same, all in one place
    root = zarr.open_group(path, mode="r+")
    attributes, dtype = dict(root[name].attrs), root[name].dtype
    del root[name]
    root.create_array(name, dtype=dtype, **options).attrs.update(attributes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind, match=words):
        differential_expression(path, COLUMN, memory=MEMORY, allow=UNWRITTEN, progress=False)
    if sys.platform == "linux":
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        assert 1024 * grown < MEMORY + SLACK


def test_large_metadata_of_zarr(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    shutil.copytree(sound / "sound.zarr", path)
    with open(path / ".zattrs", "ab") as file:
        file.truncate(MEMORY)  # a file of holes
    with pytest.raises(MemoryBudgetError, match=r"the metadata of .*\.zattrs alone would take"):
        differential_expression(path, COLUMN, memory=MEMORY, allow=UNWRITTEN, progress=False)


CODECS = {
    "gzip": (2, numcodecs.GZip(9)),
    "zstd": (2, numcodecs.Zstd(3)),
    "blosc": (2, numcodecs.Blosc("zstd", 5)),
    "lz4": (2, numcodecs.LZ4()),
    "gzip, format 3": (3, zarr.codecs.GzipCodec(level=9)),
    "zstd, format 3": (3, zarr.codecs.ZstdCodec(level=3)),
    "blosc, format 3": (3, zarr.codecs.BloscCodec(cname="zstd")),
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_of_zarr_that_decodes_to_more(tmp_path: Path, codec: str) -> None:
    number, compressor = CODECS[codec]
    n, decoded = 1000, 300_000
    root = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=number)
    arrays = [
        root.create_array(name, shape=(n,), chunks=(n,), dtype="i1", compressors=compressor)
        for name, n in (("large", decoded), ("small", n))
    ]
    for array in arrays:
        array[:] = np.arange(array.shape[0]) % 7
    read = np.empty(n, "i1")
    ZarrArray(arrays[1], "codes", False).read((slice(0, n),), read)
    np.testing.assert_array_equal(read, np.arange(n) % 7)
    large, small = (
        tmp_path / "x.zarr" / array.path / array.metadata.encode_chunk_key((0,)) for array in arrays
    )
    shutil.copy(large, small)
    with pytest.raises(FileFormatError, match=f"decodes to {decoded:,} bytes"):
        ZarrArray(arrays[1], "codes", False).read((slice(0, n),), read)


@pytest.mark.parametrize("codec", ["blosc", "blosc, format 3"])
@pytest.mark.parametrize("by", [-8, 8])
def test_a_chunk_of_blosc_of_another_length(tmp_path: Path, codec: str, by: int) -> None:
    """Blosc has no checksum, and reads on behind the end."""
    number, compressor = CODECS[codec]
    root = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=number)
    array = root.create_array(
        "x", shape=(1000,), chunks=(1000,), dtype="f8", compressors=compressor
    )
    array[:] = np.random.default_rng(0).random(1000)
    file = tmp_path / "x.zarr" / array.path / array.metadata.encode_chunk_key((0,))
    content = file.read_bytes()
    file.write_bytes(content[:by] if by < 0 else content + bytes(by))
    with pytest.raises(FileFormatError, match="bytes but declares"):
        ZarrArray(array, "X", False).read((slice(0, 1000),), np.empty(1000))


@pytest.mark.parametrize("n", [1, 255, 256, 65_791, 65_792, 10**6])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc", "lz4"])
def test_what_compressed_bytes_say(tmp_path: Path, codec: str, n: int) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(CODECS[codec][1].encode(bytes(n)))
    size, head, tail = encoded.ends_of(str(path))
    assert size == path.stat().st_size
    assert encoded.decoded_size(codec, head, tail) == n


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc", "lz4", "other"])
@pytest.mark.parametrize("content", [b"", b"abc", b"\x28\xb5\x2f\xfd"])
def test_what_other_bytes_say(codec: str, content: bytes) -> None:
    assert encoded.decoded_size(codec, content, content[:3]) is None or codec == "lz4"


# The name of a cell, for a message


def test_one_name_is_read_alone(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_h5ad(sound / "sound.h5ad", COLUMN) as dataset:
        monkeypatch.setattr(
            "pdex_gpu.sources.stored.hdf5.read_texts", lambda *_: pytest.fail("all read")
        )
        assert dataset.cell_name(7) == "cell_7"


# Claims


def test_claims_add_up() -> None:
    with sizes.within(1000):
        sizes.claim(sizes.SPARE, "labels")
        sizes.check_room(1000, "a chunk")
        with pytest.raises(MemoryBudgetError, match=r"allows 1,000 bytes.*: a chunk alone would"):
            sizes.check_room(1001, "a chunk")
        sizes.claim(1000, "names")
        with sizes.within(2000):
            sizes.claim(2000, "another call's")
        with pytest.raises(MemoryBudgetError, match=f"at least {sizes.SPARE + 1001:,} are needed"):
            sizes.claim(1, "codes")


def test_a_plan_gets_what_claims_leave() -> None:
    assert sizes.left_for_plan(10**9, 1000) == 10**9
    with sizes.within(10**9):
        sizes.claim(sizes.BYTES_PER_CELL * 1000 + sizes.SPARE, "labels")
        assert sizes.left_for_plan(10**9, 1000) == 10**9  # cells it counts itself
        sizes.claim(5, "names")
        assert sizes.left_for_plan(10**9, 1000) == 10**9 - 5
        assert sizes.left_for_plan(3, 1000) == 1


def test_without_a_call_half_of_the_free_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdex_gpu.utils.resources.available_memory", lambda: 2000)
    sizes.claim(1000 + sizes.SPARE, "labels")
    with pytest.raises(MemoryBudgetError, match="memory= allows 1,000 bytes"):
        sizes.claim(1001 + sizes.SPARE, "labels")
