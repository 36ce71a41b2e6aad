"""Chunks as HDF5's filters leave them, decoded without HDF5: the same numbers as h5py reads."""

from __future__ import annotations

import itertools
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdex_gpu.errors import FileFormatError, MissingDependencyError, UnsupportedDataError
from pdex_gpu.sources.stored import hdf5
from pdex_gpu.sources.stored.filters import Decoder, DecodingError, make_decoder
from pdex_gpu.sources.stored.hdf5 import Hdf5Array, open_hdf5_array

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">i2", ">u8",
          ">f2", ">f4", ">f8"]  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip": {"compression": "gzip"},
    "gzip 0": {"compression": "gzip", "compression_opts": 0},
    "lzf": {"compression": "lzf"},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "gzip shuffle fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf shuffle fletcher32": {"compression": "lzf", "shuffle": True, "fletcher32": True},
}
UNKNOWN: dict[str, dict[str, Any]] = {
    "szip": {"compression": "szip"},
    "scaleoffset": {"scaleoffset": True},
}


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as opened:
        yield opened


def numbers(dtype: str, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2 if dtype == "?" else 120, shape)
    values[rng.random(shape) < 0.5] = 0
    return values.astype(dtype)


def whole(array: Hdf5Array, dtype: Any = None) -> np.ndarray:
    out = np.empty(array.shape, dtype or array.dtype)
    array.read(tuple(slice(0, n) for n in array.shape), out)
    return out


def nothing_to_decode(dataset: h5py.Dataset) -> bool:
    """Whether this is a vector without filters, all of whose chunks were written."""
    n_chunks = -(-dataset.size // dataset.chunks[0])
    return (
        dataset.ndim == 1
        and dataset.id.get_create_plist().get_nfilters() == 0
        and dataset.id.get_num_chunks() == n_chunks
        and dataset.file.userblock_size == 0
        and dataset.file.driver == "sec2"
    )


def assert_reads_as_h5py(dataset: h5py.Dataset, kind: str, parts: int = 12) -> Hdf5Array:
    """All of it and some parts, into arrays of its own dtype and wider ones."""
    array = open_hdf5_array(dataset, "X")
    if kind == "_Chunked" and nothing_to_decode(dataset):
        kind = "_Unfiltered"
    assert type(array).__name__ == kind
    expected = dataset[()]
    assert array.dtype.isnative
    found = whole(array)
    np.testing.assert_array_equal(found, expected.astype(array.dtype))
    rng = np.random.default_rng(0)
    for i in range(parts):
        where = []
        for n in array.shape:
            first, last = sorted(rng.integers(0, n + 1, 2).tolist())
            where.append(slice(first, last))
        shape = [s.stop - s.start for s in where]
        for dtype in (array.dtype, np.float64):
            if dtype == np.float64 and expected.dtype == np.uint64:
                continue
            out = np.full(shape, 77, dtype)
            if i % 3 == 2 and len(shape) == 2:  # not contiguous
                out = np.full((2 * shape[0], shape[1] + 1), 77, dtype)[::2, 1:]
            array.read(tuple(where), out)
            np.testing.assert_array_equal(out, expected[tuple(where)].astype(dtype))
    return array


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", KNOWN)
def test_filters_that_are_known(file, options, dtype):
    for i, (shape, chunks) in enumerate([((97,), (13,)), ((31, 17), (5, 4)), ((4, 3), (9, 9))]):
        dataset = file.create_dataset(
            f"X{i}", data=numbers(dtype, *shape), chunks=chunks, **KNOWN[options],
            maxshape=(None,) * len(shape),
        )  # fmt: skip
        assert_reads_as_h5py(dataset, "_Chunked")


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4"])
@pytest.mark.parametrize("options", UNKNOWN)
def test_filters_that_are_not_known_go_through_h5py(file, options, dtype):
    more = dict(UNKNOWN[options])
    if options == "scaleoffset" and dtype == "f4":
        more["scaleoffset"] = 3
    dataset = file.create_dataset("X", data=numbers(dtype, 64, 48), chunks=(16, 32), **more)
    array = assert_reads_as_h5py(dataset, "Hdf5Array")
    assert array.chunks == (16, 32)


def test_numbers_of_odd_widths_go_through_h5py(file):
    """HDF5 has numbers of any bits; read raw they would be other ones."""
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    for name, layout in (("nbit", True), ("chunked", True), ("contiguous", False)):
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if layout:
            created.set_chunk((10,))
        if name == "nbit":
            created.set_filter(h5py.h5z.FILTER_NBIT)
        space = h5py.h5s.create_simple((35,))
        h5py.h5d.create(file.id, name.encode(), kind, space, created)
        file[name][...] = np.arange(35) - 17
        assert_reads_as_h5py(file[name], "Hdf5Array")


def test_filters_of_other_packages(file):
    plugin = pytest.importorskip("hdf5plugin")
    for name, options, kind in (
        ("zstd", plugin.Zstd(), "_Chunked"),
        ("blosc", plugin.Blosc(), "_Chunked"),
        ("blosc none", plugin.Blosc(cname="zstd", shuffle=0), "_Chunked"),
        ("lz4", plugin.LZ4(), "Hdf5Array"),
        ("bitshuffle", plugin.Bitshuffle(), "Hdf5Array"),
    ):
        dataset = file.create_dataset(name, data=numbers("f4", 50, 40), chunks=(16, 16), **options)
        assert_reads_as_h5py(dataset, kind)
    dataset = file.create_dataset(
        "all", data=numbers("f4", 500), chunks=(64,), shuffle=True, fletcher32=True, **plugin.Zstd()
    )
    assert_reads_as_h5py(dataset, "_Chunked")


def test_several_that_compress_go_through_h5py(file):
    """Bytes that do not compress grow at the first: how many there are in between is not told."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((4000,))
    created.set_deflate(0)
    created.set_deflate(6)
    h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((9000,)), created)
    file["X"][...] = np.random.default_rng(0).integers(0, 256, 9000)
    assert_reads_as_h5py(file["X"], "Hdf5Array")
    assert make_decoder([(1, (6,)), (32000, ())]) is None


def test_a_filter_that_was_skipped(file):
    """A chunk that a filter did not make smaller is stored without it: its mask says so."""
    dataset = file.create_dataset(
        "X", (30,), "i4", chunks=(10,), compression="gzip", shuffle=True, fletcher32=False
    )
    values = np.arange(30, dtype="i4")
    plain, shuffled = values[:10].tobytes(), values[10:20].view("u1").reshape(10, 4).T.tobytes()
    dataset.id.write_direct_chunk((0,), plain, filter_mask=0b11)
    dataset.id.write_direct_chunk((10,), shuffled, filter_mask=0b10)
    dataset.id.write_direct_chunk((20,), zlib.compress(values[20:].tobytes()), filter_mask=0b01)
    np.testing.assert_array_equal(dataset[:], values)
    assert_reads_as_h5py(dataset, "_Chunked")
    random = np.random.default_rng(0).integers(0, 1 << 62, 1000)  # lzf gives up
    dataset = file.create_dataset("Y", data=random, chunks=(100,), compression="lzf")
    file.flush()
    assert dataset.id.get_chunk_info(0).filter_mask == 1
    assert_reads_as_h5py(dataset, "_Chunked")


@pytest.mark.parametrize("dtype", ["f4", ">i2", "?", "u8"])
@pytest.mark.parametrize("fill", [None, 1])
def test_chunks_that_were_never_written(file, fill, dtype):
    dataset = file.create_dataset("X", (40, 9), dtype, chunks=(7, 4), fillvalue=fill)
    assert_reads_as_h5py(dataset, "_Chunked")
    dataset[20:24, 3:6] = 1
    assert_reads_as_h5py(dataset, "_Chunked")
    array = open_hdf5_array(dataset, "X")
    out = np.empty((7, 4), array.dtype)
    assert array.read((slice(0, 7), slice(0, 4)), out) == 0
    contiguous = file.create_dataset("Y", (40, 9), dtype, fillvalue=fill)
    assert_reads_as_h5py(contiguous, "Hdf5Array")


@pytest.mark.parametrize("dtype", ["f4", ">i2", "?", "u8"])
@pytest.mark.parametrize("band", [1, 100, 1 << 20])
def test_vectors_without_filters_are_read_in_runs(file, monkeypatch, dtype, band):
    """Chunks beside each other, and others apart, as two vectors written in turns lie."""
    monkeypatch.setattr(hdf5, "_BAND", band)
    values = numbers(dtype, 203)
    one = file.create_dataset("X", (203,), dtype, chunks=(10,))
    two = file.create_dataset("Y", (203,), dtype, chunks=(10,))
    for first in (0, 10, 20, 120, 60, 50, 40, 30, 200, 70, 80, 90, 100, 110):
        one[first : first + 10] = values[first : first + 10]
        if first > 60:
            two[first : first + 10] = values[first : first + 10]
    one[130:200] = values[130:200]
    calls = []
    real = hdf5.read_into
    monkeypatch.setattr(hdf5, "read_into", lambda *a: (calls.append(a[1]), real(*a))[1])
    array = assert_reads_as_h5py(one, "_Chunked")
    calls.clear()
    np.testing.assert_array_equal(whole(array), values.astype(array.dtype))
    assert len(calls) == len(set(calls)) < 21
    assert array.chunks == (10 * max(1, band // (10 * one.dtype.itemsize)),)


@pytest.mark.parametrize("options", ["gzip", "gzip shuffle fletcher32", "lzf"])
@pytest.mark.parametrize("together", [1, 100, 1 << 18])
def test_encoded_chunks_beside_each_other_are_read_together(file, monkeypatch, together, options):
    """Also with chunks of another vector between them, out of order, and never written."""
    monkeypatch.setattr(hdf5, "_TOGETHER", together)
    values = numbers("i4", 203)
    one = file.create_dataset("X", (203,), "i4", chunks=(10,), **KNOWN[options])
    two = file.create_dataset("Y", (203,), "i4", chunks=(10,), **KNOWN[options])
    for first in (0, 10, 20, 120, 60, 50, 40, 30, 200, 70, 80, 90, 100, 110):
        one[first : first + 10] = values[first : first + 10]
        if first > 60:
            two[first : first + 10] = values[first : first + 10]
    calls = []
    real = hdf5.read_at
    monkeypatch.setattr(hdf5, "read_at", lambda *a: (calls.append(a[1:]), real(*a))[1])
    for dataset in (one, two):
        array = assert_reads_as_h5py(dataset, "_Chunked")
        calls.clear()
        np.testing.assert_array_equal(whole(array), dataset[()])
        sizes = [size for _, size in calls]
        stored = [dataset.id.get_chunk_info(i).size for i in range(dataset.id.get_num_chunks())]
        assert sum(sizes) == sum(stored)
        assert all(size <= max(together, *stored) for size in sizes)
        if together == 1:
            assert len(sizes) == len(stored)
        else:
            assert len(sizes) < len(stored)


def test_a_damaged_chunk_among_others_is_named(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        dataset = file.create_dataset("X", data=numbers("i4", 203), chunks=(10,), **KNOWN["gzip"])
        damaged = dataset.id.get_chunk_info(17)
    with open(tmp_path / "m.h5", "r+b") as raw:
        raw.seek(damaged.byte_offset)
        raw.write(bytes(damaged.size))
    says = r"chunk 17 \(entries 170 to 180\)"
    with h5py.File(tmp_path / "m.h5") as file, pytest.raises(FileFormatError, match=says):
        whole(open_hdf5_array(file["X"], "X"))


def test_a_dataset_that_was_made_larger(file):
    dataset = file.create_dataset("X", data=numbers("i4", 10), chunks=(8,), maxshape=(None,))
    dataset.resize((37,))
    dataset[30:35] = 5
    assert_reads_as_h5py(dataset, "_Chunked")
    dataset.resize((5,))
    assert_reads_as_h5py(dataset, "_Chunked")


@pytest.mark.parametrize("dtype", DTYPES)
def test_contiguous(file, monkeypatch, dtype):
    monkeypatch.setattr(hdf5, "_BAND", 100)
    assert_reads_as_h5py(file.create_dataset("V", data=numbers(dtype, 203)), "_Contiguous")
    assert_reads_as_h5py(file.create_dataset("M", data=numbers(dtype, 31, 17)), "_Contiguous")


def test_compact(file):
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((20,))
    h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_INT32, space, created)
    file["X"][...] = np.arange(20)
    assert_reads_as_h5py(file["X"], "Hdf5Array")


def test_external_and_virtual(file, tmp_path):
    values = numbers("f4", 12, 5)
    values.tofile(tmp_path / "raw")
    outside = file.create_dataset(
        "E", values.shape, "f4", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
    )
    np.testing.assert_array_equal(outside[()], values)
    assert_reads_as_h5py(outside, "Hdf5Array")
    file["S"] = values
    layout = h5py.VirtualLayout((24, 5), "f4")
    layout[:12], layout[12:] = h5py.VirtualSource(file["S"]), h5py.VirtualSource(file["S"])
    file.create_virtual_dataset("V", layout)
    assert_reads_as_h5py(file["V"], "Hdf5Array")


@pytest.mark.parametrize("options", ["none", "gzip shuffle fletcher32"])
def test_a_user_block(tmp_path, options):
    values = numbers("f4", 31, 17)
    with h5py.File(tmp_path / "m.h5", "w", userblock_size=1024) as file:
        file.create_dataset("X", data=values, chunks=(5, 4), **KNOWN[options])
        file["Y"] = values
    with h5py.File(tmp_path / "m.h5") as file:
        assert_reads_as_h5py(file["Y"], "Hdf5Array")
        array = assert_reads_as_h5py(file["X"], "_Chunked")
        assert array.file is not None
        os.utime(file.filename, ns=(1, 1))
        with pytest.raises(FileFormatError, match="changed"):
            array.file.check_unchanged()


@pytest.mark.parametrize("driver", ["core", "stdio", "fileobj"])
def test_other_drivers(tmp_path, driver):
    values = numbers("f4", 31, 17)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("X", data=values, chunks=(5, 4), compression="gzip")
        file["Y"] = values
    with open(tmp_path / "m.h5", "rb") as raw:
        opened = h5py.File(raw) if driver == "fileobj" else h5py.File(raw.name, driver=driver)
        with opened as file:
            assert_reads_as_h5py(file["X"], "_Chunked")
            assert_reads_as_h5py(file["Y"], "Hdf5Array")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_kind_of_index_of_chunks(tmp_path, libver):
    """HDF5 keeps places of chunks in trees or arrays, by how a dataset may grow."""
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        for i, (maxshape, chunks) in enumerate(
            [(None, (5, 4)), (None, (40, 40)), ((None, 40), (5, 4)), ((None, None), (5, 4))]
        ):
            for options in ("none", "gzip"):
                dataset = file.create_dataset(
                    f"X{i}{options}", data=numbers("i2", 40, 40), chunks=chunks, maxshape=maxshape,
                    **KNOWN[options],
                )  # fmt: skip
                assert_reads_as_h5py(dataset, "_Chunked")


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_nothing_at_all(file, shape):
    dataset = file.create_dataset("X", shape, "f4", chunks=(2,) * len(shape),
                                  maxshape=(None,) * len(shape))  # fmt: skip
    array = assert_reads_as_h5py(dataset, "Hdf5Array", parts=0)
    assert array.n_bytes == 0
    assert_reads_as_h5py(file.create_dataset("Y", shape, "f4"), "Hdf5Array", parts=0)


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=2),
    chunks=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    dtype=st.sampled_from(DTYPES),
    options=st.sampled_from(sorted(KNOWN)),
    written=st.lists(st.integers(0, 39), max_size=4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_any_shape_and_chunks(file, shape, chunks, dtype, options, written):
    if "X" in file:
        del file["X"]
    dataset = file.create_dataset(
        "X", tuple(shape), dtype, chunks=chunks[: len(shape)], maxshape=(None,) * len(shape),
        **KNOWN[options],
    )  # fmt: skip
    values = numbers(dtype, *shape)
    for row in written:
        dataset[row : row + 3] = values[row : row + 3]
    assert_reads_as_h5py(dataset, "_Chunked", parts=4)


def test_threads_may_read_at_once(file):
    values = numbers("f4", 400, 30)
    for name, options in KNOWN.items():
        dataset = file.create_dataset(name, data=values, chunks=(7, 30), **options)
        array = open_hdf5_array(dataset, "X")

        def read(i, array=array):
            out = np.empty((10, 30), "f4")
            array.read((slice(10 * i, 10 * i + 10), slice(0, 30)), out)
            np.testing.assert_array_equal(out, values[10 * i : 10 * i + 10])

        with ThreadPoolExecutor(6) as pool:
            assert len(list(pool.map(read, [*range(40)] * 3))) == 120


def test_values_that_are_no_numbers(file):
    for values in (np.zeros(3, "c8"), np.zeros(3, [("a", "i4")])):
        file.create_dataset(str(values.dtype.kind), data=values)
        with pytest.raises(UnsupportedDataError, match=r"X of .*m\.h5 has dtype"):
            open_hdf5_array(file[values.dtype.kind], "X")


# --- damage ---------------------------------------------------------------------------------


def damage(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(content)


def stored(tmp_path, at=1, **options):
    """A file of 4 chunks, with place and size of one of them."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        dtype = "i4" if "scaleoffset" in options else "f4"
        file.create_dataset("X", data=numbers(dtype, 2000), chunks=(600,), **options)
    with h5py.File(path) as file:
        info = file["X"].id.get_chunk_info(at)
    return path, info.byte_offset, info.size


def refusal(path) -> str:
    with h5py.File(path) as file, pytest.raises(FileFormatError) as caught:
        whole(open_hdf5_array(file["X"], "X"))
    text = str(caught.value)
    assert text.startswith(f"X of {path}, chunk 1 (entries 600 to 1200): ")
    return text


@pytest.mark.parametrize("options", [o for o in KNOWN if o.startswith(("gzip", "lzf"))])
def test_a_chunk_that_does_not_decompress(tmp_path, options):
    path, offset, size = stored(tmp_path, **KNOWN[options])
    damage(path, offset, b"\xff" * (size - 4))
    text = refusal(path)
    assert "wrong" in text if "fletcher32" in options else "does not decompress" in text
    assert f"{size} bytes, from byte {offset} of the file, are damaged" in text


@pytest.mark.parametrize("options", ["fletcher32", "gzip shuffle fletcher32"])
def test_a_wrong_checksum(tmp_path, options):
    for place in (0, 100, -5, -1):
        path, offset, size = stored(tmp_path, **KNOWN[options])
        at = offset + place % size
        byte = path.read_bytes()[at]
        damage(path, at, bytes([byte ^ 1]))
        assert "its Fletcher-32 checksum is wrong" in refusal(path)


def test_a_wrong_adler32(tmp_path):
    """The check sum that ends a stream of zlib."""
    path, offset, size = stored(tmp_path, compression="gzip")
    content = path.read_bytes()[offset : offset + size]
    assert content[-4:] == zlib.adler32(zlib.decompress(content)).to_bytes(4, "big")
    damage(path, offset + size - 4, b"\0\1\2\3")
    assert "does not decompress" in refusal(path)


@pytest.mark.parametrize("change", [-4, 4], ids=["short", "long"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_chunk_of_another_length(tmp_path, change, compressed):
    path = tmp_path / "m.h5"
    content = numbers("f4", 1200).tobytes()[: 2400 + change]
    with h5py.File(path, "w") as file:
        options = {"compression": "gzip"} if compressed else {"fletcher32": True}
        node = file.create_dataset("X", data=numbers("f4", 2000), chunks=(600,), **options)
        if compressed:
            node.id.write_direct_chunk((600,), zlib.compress(content))
        else:
            node.id.write_direct_chunk((600,), content, filter_mask=1)
    text = refusal(path)
    assert (
        "does not decompress" in text or f"it holds {2400 + change} bytes instead of 2400" in text
    )


def test_a_file_that_ends_within_a_chunk(tmp_path):
    for options in ({}, {"compression": "gzip"}):
        path, offset, size = stored(tmp_path, at=3, **options)
        with h5py.File(path) as file:
            array = open_hdf5_array(file["X"], "X")
            os.truncate(path, offset + size // 8)  # of the last chunk not all is needed
            os.utime(path, ns=(1, 1))
            with pytest.raises(FileFormatError, match=f"{path} was changed while it was being"):
                whole(array)


def test_what_h5py_finds_damaged(tmp_path):
    path, offset, size = stored(tmp_path, compression="gzip", shuffle=True, scaleoffset=True)
    damage(path, offset, b"\xff" * size)
    with h5py.File(path) as file:
        array = open_hdf5_array(file["X"], "X")
        assert type(array) is Hdf5Array
        with pytest.raises(FileFormatError) as caught:
            array.read((slice(500, 1200),), np.empty(700, "i4"))
        assert str(caught.value).startswith(f"X of {path}, entries 500 to 1200 cannot be read: ")
        assert isinstance(caught.value.__cause__, OSError)
        os.utime(path, ns=(1, 1))  # what was read is of no file that there is
        with pytest.raises(FileFormatError, match=f"{path} was changed while it was being"):
            array.read((slice(500, 1200),), np.empty(700, "i4"))


def test_a_missing_filter_is_named(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((10,))
        created.set_filter(32_767, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((20,))
        h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_INT32, space, created)
        file["X"].id.write_direct_chunk((0,), bytes(40))
    with (
        h5py.File(tmp_path / "m.h5") as file,
        pytest.raises(MissingDependencyError, match=r"X of .*m\.h5 is .* filter 32767 .*hdf5plug"),
    ):
        open_hdf5_array(file["X"], "X")


def test_what_decoders_say():
    decoder = make_decoder([(2, (4,)), (1, (6,))])
    assert isinstance(decoder, Decoder)
    assert not decoder.copies
    assert make_decoder([]).copies
    assert make_decoder([(5, ())]) is None
    assert make_decoder([(1, (6,)), (307, ())]) is None
    content = np.arange(10, dtype="i4")
    shuffled = content.view("u1").reshape(10, 4).T.tobytes()
    for out, data in itertools.product(
        (None, np.zeros(40, np.uint8)), (zlib.compress(shuffled), zlib.compress(shuffled, 0))
    ):
        found = decoder.decode(data, 0, 40, out)
        assert found.tobytes() == content.tobytes()
        if out is not None:
            assert out.tobytes() == content.tobytes()
    with pytest.raises(DecodingError, match="does not decompress"):
        decoder.decode(b"", 0, 40, None)
    with pytest.raises(DecodingError, match="holds 40 bytes instead of 44"):
        decoder.decode(zlib.compress(shuffled), 0, 44, None)
    with pytest.raises(DecodingError, match="holds 36 bytes instead of 40"):
        decoder.decode(shuffled[:36], 0b11, 40, np.zeros(40, np.uint8))


@pytest.mark.parametrize("item", [1, 2, 4, 8])
@pytest.mark.parametrize("extra", [0, 1, 3])
def test_shuffled_bytes_beyond_the_last_item(item, extra):
    """HDF5 leaves them where they are."""
    content = np.random.default_rng(0).integers(0, 256, 5 * item + extra % item, np.uint8)
    whole_items = content[: 5 * item].reshape(5, item).T.ravel()
    shuffled = np.concatenate([whole_items, content[5 * item :]])
    for out in (None, np.zeros(len(content), np.uint8)):
        found = make_decoder([(2, (item,))]).decode(shuffled.tobytes(), 0, len(content), out)
        np.testing.assert_array_equal(found, content)
