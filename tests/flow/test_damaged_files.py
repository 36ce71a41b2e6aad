"""Damaged files, and files that change during a run: one clear error, no result, nothing left.

Through the package's own call, on a path and on a backed AnnData; with all in memory, and with
almost all in a scratch file.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse
from screens import as_anndata
from stored_screens import assert_same_bits

from pdex_gpu import differential_expression
from pdex_gpu.cli import main
from pdex_gpu.errors import FileFormatError
from pdex_gpu.sources.rechunk import store
from pdex_gpu.sources.stored import hdf5
from pdex_gpu.utils.exit_codes import Exit

N_CELLS, N_GENES = 220, 40
SMALL, LARGE = 1, 1 << 30  # budgets: a scratch file, and none
# Dense files by rows are read whole, by columns along the ranges.
CHUNKS = {"csr": (150,), "csc": (150,), "rows": (20, N_GENES), "columns": (N_CELLS, 8)}
LAYOUTS = list(CHUNKS)
SPARSE = ["csr", "csc"]


@pytest.fixture(autouse=True)
def nothing_left(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", 200)
    yield
    assert list(folder.iterdir()) == []
    if os.path.isdir("/proc/self/fd"):  # a scratch file has no name, but is open until closed
        links = [os.path.realpath(link.path) for link in os.scandir("/proc/self/fd")]
        assert not any(link.startswith(str(folder)) for link in links)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Sound files, by layout and filter."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    values = rng.poisson(0.7, (N_CELLS, N_GENES)).astype("f4")
    codes = rng.integers(0, 3, N_CELLS)
    found = {}
    for layout, chunks in CHUNKS.items():
        for name, options in {
            "plain": {},
            "gzip": {"chunks": chunks, "compression": "gzip"},
            "fletcher32": {"chunks": chunks, "fletcher32": True},
        }.items():
            path = folder / f"{layout} {name}.h5ad"
            as_anndata(np.zeros_like(values), codes).write_h5ad(path)
            with h5py.File(path, "r+") as file:
                del file["X"]
                if layout in SPARSE:
                    kind = sparse.csr_matrix if layout == "csr" else sparse.csc_matrix
                    matrix, group = kind(values), file.create_group("X")
                    group.attrs.update(
                        {"encoding-type": f"{layout}_matrix", "encoding-version": "0.1.0",
                         "shape": values.shape}
                    )  # fmt: skip
                    group["indptr"] = matrix.indptr
                    group.create_dataset("data", data=matrix.data, **options)
                    group.create_dataset("indices", data=matrix.indices, **options)
                else:
                    node = file.create_dataset("X", data=values, **options)
                    node.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            found[layout, name] = path
    return found


@pytest.fixture
def copy(files, tmp_path) -> Callable[..., Path]:
    def make(layout: str, filters: str = "gzip") -> Path:
        return Path(shutil.copy(files[layout, filters], tmp_path / "screen.h5ad"))

    return make


def run(data: Any, **options: Any) -> Any:
    return differential_expression(data, "group", reference="ref", progress=False, **options)


def refusal(path: Path, memory: int, opened: str = "path", **options: Any) -> str:
    """The message of the error; the file must be closed after it."""
    data = ad.read_h5ad(path, backed="r") if opened == "backed" else path
    try:
        with pytest.raises(FileFormatError) as caught:
            run(data, memory=memory, **options)
    finally:
        if opened == "backed":
            data.file.close()
    assert type(caught.value) is FileFormatError
    text = str(caught.value)
    assert str(path) in text
    assert text.endswith(".") or " HDF5 says: " in text
    del caught
    gc.collect()
    return text


#: A scratch file or none, a path or a backed AnnData: pairs, for time's sake.
in_every_way = pytest.mark.parametrize(
    ("opened", "memory"), [("path", SMALL), ("backed", LARGE)], ids=["path-small", "backed-large"]
)


def names(layout: str) -> list[str]:
    return ["X/data", "X/indices"] if layout in SPARSE else ["X"]


EACH_DATASET = [(layout, name) for layout in LAYOUTS for name in names(layout)]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(content)


def places(path: Path, name: str) -> list[Any]:
    """Of every chunk of a dataset: where it is."""
    found: list[Any] = []
    with h5py.File(path) as file:
        file[name].id.chunk_iter(found.append)
    return sorted(found, key=lambda info: info.chunk_offset)


def chunk_name(layout: str, info: Any) -> str:
    """How a chunk is called in messages."""
    number = ", ".join(str(o // c) for o, c in zip(info.chunk_offset, CHUNKS[layout], strict=True))
    unit = "entries" if layout in SPARSE else "rows"
    return f"chunk {number} ({unit} {info.chunk_offset[0]} to "


def test_the_files_are_sound(files):
    for path in files.values():
        for memory in (SMALL, LARGE):
            run(path, memory=memory)


@pytest.mark.sampled(every=5)
@in_every_way
@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize(("layout", "name"), EACH_DATASET)
def test_a_chunk_that_does_not_decompress(copy, layout, name, which, opened, memory):
    path = copy(layout)
    infos = places(path, name)
    info = infos[{"first": 0, "middle": len(infos) // 2, "last": -1}[which]]
    overwrite(path, info.byte_offset + info.size // 2, bytes(info.size // 2))
    text = refusal(path, memory, opened)
    assert text.startswith(f"{name} of {path}, {chunk_name(layout, info)}")
    assert "does not decompress" in text
    assert f"from byte {info.byte_offset} of the file" in text


@pytest.mark.sampled(every=5)
@in_every_way
@pytest.mark.parametrize(("layout", "name"), EACH_DATASET)
@pytest.mark.parametrize("filters", ["gzip", "fletcher32"])
def test_a_wrong_checksum(copy, filters, layout, name, opened, memory):
    """Adler-32 ends a stream of zlib, Fletcher-32 a chunk with that filter."""
    path = copy(layout, filters)
    info = places(path, name)[1]
    end = info.byte_offset + info.size - 4
    found = path.read_bytes()[end : end + 4]
    overwrite(path, end, bytes(255 - byte for byte in found))
    text = refusal(path, memory, opened)
    assert text.startswith(f"{name} of {path}, {chunk_name(layout, info)}")
    assert ("does not decompress" if filters == "gzip" else "checksum is wrong") in text


@pytest.mark.sampled(every=5)
@in_every_way
@pytest.mark.parametrize(("layout", "name"), EACH_DATASET)
@pytest.mark.parametrize("extra", [-8, 8], ids=["short", "long"])
def test_a_chunk_of_the_wrong_length(copy, extra, layout, name, opened, memory):
    path = copy(layout)
    info = places(path, name)[1]
    size = 4 * int(np.prod(CHUNKS[layout])) + extra
    with h5py.File(path, "r+") as file:
        file[name].id.write_direct_chunk(info.chunk_offset, zlib.compress(bytes(size)))
    text = refusal(path, memory, opened)
    assert text.startswith(f"{name} of {path}, {chunk_name(layout, info)}")


def change(path: Path, name: str, at: int, value: int) -> None:
    with h5py.File(path, "r+") as file:
        file[name][at] = value


@pytest.mark.sampled(every=5)
@in_every_way
@pytest.mark.parametrize("bad", [-1, "limit", 70_000])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("layout", SPARSE)
def test_indices_out_of_range(copy, layout, place, bad, opened, memory):
    path = copy(layout)
    with h5py.File(path) as file:
        indptr = file["X/indptr"][:]
    at = {"first": 0, "middle": int(indptr[-1]) // 2, "last": int(indptr[-1]) - 1}[place]
    limit = N_GENES if layout == "csr" else N_CELLS
    bad = limit if bad == "limit" else bad
    change(path, "X/indices", at, bad)
    line = int(np.searchsorted(indptr, at, side="right")) - 1
    major, minor = ("row", "column") if layout == "csr" else ("column", "row")
    text = refusal(path, memory, opened)
    assert text.startswith(
        f"X/indices of {path} is malformed: {major} {line} has an entry in {minor} {bad}, but there"
    )


@pytest.mark.sampled(every=5)
@in_every_way
@pytest.mark.parametrize("repeated", [True, False], ids=["repeated", "falling"])
@pytest.mark.parametrize("place", ["first", "border", "last"])
@pytest.mark.parametrize("layout", SPARSE)
def test_indices_that_do_not_ascend_are_sorted(copy, layout, place, repeated, opened, memory):
    path = copy(layout)
    with h5py.File(path) as file:
        indptr, indices = file["X/indptr"][:], file["X/indices"][:]
    inner = np.setdiff1d(np.arange(1, len(indices)), indptr)
    border = inner[np.searchsorted(inner, 300)]  # a chunk begins there
    at = int({"first": inner[0], "border": border, "last": inner[-1]}[place])
    before = int(indices[at - 1])
    bad = before if repeated else max(0, before - 1)
    change(path, "X/indices", at, bad)
    want = run(ad.read_h5ad(path))
    data = ad.read_h5ad(path, backed="r") if opened == "backed" else path
    found = run(data, memory=memory, gene_chunk_size=None if repeated else 7)
    if opened == "backed":
        data.file.close()
    assert_same_bits(found, want)
    gc.collect()


@pytest.mark.sampled(every=3)
@in_every_way
@pytest.mark.parametrize("layout", SPARSE)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda p: np.r_[1, p[1:]], "but number 0 is 1."),
        (lambda p: np.r_[-1, p[1:]], "but number 0 is -1."),
        (lambda p: np.r_[p[:9], p[11], p[9], p[11:]], "but number 10 is "),
        (lambda p: np.r_[p[:-1], p[-1] + 1], "but the last is "),
        (lambda p: p[:-1], "but it holds "),
        (lambda p: np.r_[p, p[-1]], "but it holds "),
        (lambda p: p[:0], "but it holds 0."),
    ],
    ids=["starts late", "starts early", "falls", "ends late", "short", "long", "empty"],
)
def test_indptr_that_does_not_match(copy, layout, fault, says, opened, memory):
    path = copy(layout)
    with h5py.File(path, "r+") as file:
        indptr = fault(file["X/indptr"][:].astype("i8"))
        del file["X/indptr"]
        file["X/indptr"] = indptr
    text = refusal(path, memory, opened)
    n = (N_CELLS if layout == "csr" else N_GENES) + 1
    assert text.startswith(f"X/indptr of {path} is malformed: indptr must hold {n} numbers")
    assert says in text


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("memory", [SMALL, LARGE])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_file(copy, layout, memory):
    """Wherever it ends: in the superblock, the labels, the values, the last byte."""
    path = copy(layout)
    content = path.read_bytes()
    ends = [4, 60, len(content) - 1, len(content) // 3]
    ends += [places(path, name)[1].byte_offset + 10 for name in names(layout)]
    for end in ends:
        path.write_bytes(content[:end])
        text = refusal(path, memory)
        assert "truncated" in text or f"is not an HDF5 file ({end} bytes)" in text


# --- changes during a run -------------------------------------------------------------------


def replaced(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def removed(path: Path) -> None:
    path.unlink()


def rewritten(path: Path) -> None:
    content = path.read_bytes()
    with path.open("r+b") as raw:
        raw.write(content)
    os.utime(path, ns=(1, 1))  # clocks of file systems are coarse


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 8)


def zeroed(path: Path) -> None:
    """Nothing that was there decodes any more."""
    size = path.stat().st_size
    overwrite(path, size // 8, bytes(size - size // 8))
    os.utime(path, ns=(1, 1))


def garbled(path: Path) -> None:
    """What can be read is NaN, and indices out of range."""
    size = path.stat().st_size
    overwrite(path, size // 8, b"\xff" * (size - size // 8))
    os.utime(path, ns=(1, 1))


SAYS = {
    replaced: "was replaced by another file while it was being read",
    removed: "was removed while it was being read",
    rewritten: "was changed while it was being read",
    truncated: "was changed while it was being read",
    zeroed: "was changed while it was being read",
    garbled: "was changed while it was being read",
}


#: When, of all reads; what the file is compressed with; how it is opened; the budget.
WAYS = [
    ("first", "gzip", "path", SMALL),
    ("middle", "gzip", "path", LARGE),
    ("last", "gzip", "path", SMALL),
    ("middle", "plain", "path", SMALL),
    ("last", "plain", "backed", LARGE),
]


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("fault", SAYS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize(("when", "filters", "opened", "memory"), WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_changes_while_it_is_read(
    copy, monkeypatch, layout, opened, memory, filters, when, fault
):
    path = copy(layout, filters)
    reads = [0]
    real = hdf5.read_at, hdf5.read_into
    turn = -1

    def step():
        if reads[0] == turn:
            fault(path)
        reads[0] += 1

    def read_at(*arguments):
        step()
        return real[0](*arguments)

    def read_into(*arguments):
        step()
        return real[1](*arguments)

    monkeypatch.setattr(hdf5, "read_at", read_at)
    monkeypatch.setattr(hdf5, "read_into", read_into)
    first = 1 if layout in SPARSE else 0  # labels or indptr come first
    data = ad.read_h5ad(path, backed="r") if opened == "backed" else path
    run(data, memory=memory, n_threads=1, n_workers=1)
    if opened == "backed":
        data.file.close()
    n_reads, reads[0] = reads[0], 0
    turn = {"first": first, "middle": (first + n_reads) // 2, "last": n_reads - 1}[when]
    text = refusal(path, memory, opened, n_threads=1, n_workers=1)
    assert text.startswith(f"{path} {SAYS[fault]}")


# --- permission, tables -----------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read anything")
def test_no_permission(copy):
    path = copy("csr")
    path.chmod(0)
    with pytest.raises(PermissionError, match=re.escape(str(path))):
        run(path)


def test_no_permission_whoever_asks(copy, monkeypatch):
    """Also for root, whom nothing is forbidden."""
    path = copy("csr")

    def denied(name, *_, **__):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(h5py, "File", denied)
    with pytest.raises(PermissionError, match=re.escape(str(path))):
        run(path)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("memory", ["100", "1GB"])
@pytest.mark.parametrize(("layout", "name"), EACH_DATASET)
def test_a_file_that_is_refused_gives_no_table(copy, tmp_path, capsys, layout, name, memory):
    path, output = copy(layout), tmp_path / "de.csv"
    argv = ["run", str(path), "--groupby", "group", "--reference", "ref", "--memory", memory,
            "--output", str(output), "--backend", "cpu"]  # fmt: skip
    assert main(argv) == Exit.OK
    output.unlink()
    info = places(path, name)[-1]
    overwrite(path, info.byte_offset + info.size // 2, bytes(info.size // 2))
    capsys.readouterr()
    assert main(argv) == Exit.INPUT
    assert f"{name} of {path}, chunk" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["screen.h5ad"]
