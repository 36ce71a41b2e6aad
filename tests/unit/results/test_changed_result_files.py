"""Result files that were changed: the right table or one error, never other numbers."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.errors import FileFormatError, MemoryBudgetError, PdexGpuError
from pdex_gpu.results import footer, table
from pdex_gpu.results.schema import VALUES
from pdex_gpu.results.table import DIGESTS_KEY, LAYOUT_KEY, METADATA_KEY
from pdex_gpu.utils.exit_codes import Exit

N, G = 6, 15
CHANGED = r"was changed after pdex-gpu wrote it: .*"


def labels(prefix: str, n: int) -> np.ndarray:
    return np.array([f"{prefix}{i}" for i in range(n)], object)


def made(*, filtered: bool = False) -> pdex_gpu.DEResult:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {name: rng.random((N, G)) for name in VALUES}
    columns["fdr"][:, 3] = np.nan
    columns["fold_change"][1] = 1.0
    columns["target_n_cells"] = rng.integers(0, 9, (N, G))
    kept = rng.random((N, G)) < 0.6 if filtered else None
    return pdex_gpu.DEResult(
        labels("T", N), np.full(N, "ctl", object), labels("G", G), columns, {"metric": "wilcoxon"},
        within=("level", labels("L", N)), kept=kept,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS_PER_GROUP", 2 * G)


@pytest.fixture(params=["all pairs", "filtered"])
def result(request: pytest.FixtureRequest) -> pdex_gpu.DEResult:
    return made(filtered=request.param == "filtered")


@pytest.fixture
def path(tmp_path: Path, result: pdex_gpu.DEResult) -> Path:
    result.to_parquet(tmp_path / "r.parquet")
    return tmp_path / "r.parquet"


def is_same(found: pdex_gpu.DEResult, result: pdex_gpu.DEResult) -> bool:
    there = np.full((N, G), True) if result.kept is None else result.kept
    return (
        found.columns == result.columns
        and all(list(getattr(found, n)) == list(getattr(result, n))
                for n in ("targets", "references", "features"))
        and list(found.within[1]) == list(result.within[1])
        and (found.kept is None) == (result.kept is None)
        and (found.kept is None or np.array_equal(found.kept, there))
        and found.provenance == result.provenance
        and all(found[n][there].tobytes() == result[n][there].tobytes() for n in result.columns)
    )  # fmt: skip


# --- what does not matter ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"row_group_size": 7},
        {"row_group_size": 10**6},
        {"compression": "none", "use_dictionary": True},
        {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 100},
        {"write_statistics": False, "version": "1.0"},
        {"use_dictionary": False, "column_encoding": {"fdr": "BYTE_STREAM_SPLIT"}},
    ],
    ids=str,
)
def test_another_form_of_the_same_content(options: dict, path: Path, result: Any):
    pq.write_table(pq.read_table(path), path, **options)
    opened = pdex_gpu.open_result(path)
    assert is_same(opened.load(), result)
    assert opened.verify() == {}
    expected = result["p_value"][4]
    if result.kept is not None:
        expected = np.where(result.kept[4], expected, np.nan)
    np.testing.assert_array_equal(opened.row(4, ["p_value"])["p_value"], expected)


def test_digests_do_not_depend_on_how_it_was_written(path: Path, tmp_path: Path, result: Any):
    result.to_parquet(tmp_path / "again.parquet")
    assert path.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_nan_of_other_bits_is_another_value(path: Path, result: Any):
    """What a digest is of are bits."""
    changed = pq.read_table(path)
    fdr = changed["fdr"].to_numpy().copy()
    place = int(np.flatnonzero(np.isnan(fdr))[0])
    fdr.view(np.uint64)[place] ^= 1
    put(path, changed, "fdr", pa.array(fdr, from_pandas=False))
    assert set(pdex_gpu.open_result(path).verify()) == {"fdr"}


def test_a_column_of_another_program_does_no_harm(path: Path, result: Any):
    found = pq.read_table(path)
    pq.write_table(found.append_column("note", pa.array(["x"] * len(found))), path)
    assert is_same(pdex_gpu.open_result(path).load(), result)


def test_pages_have_checksums(path: Path):
    """Compressed pages with a flipped bit would else unpack to other values."""
    pq.write_table(pq.read_table(path), path, compression="none", use_dictionary=False,
                   write_page_checksum=True)  # fmt: skip
    data = bytearray(path.read_bytes())
    at = data.find(made()["p_value"][0, :4].tobytes()[:8])
    if at < 0:  # not among the rows of the filtered result
        return
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="CRC checksum verification failed"):
        pdex_gpu.open_result(path).load()


# --- what was changed ---------------------------------------------------------------------------


def put(path: Path, found: pa.Table, name: str, values: Any) -> None:
    place = found.schema.get_field_index(name)
    pq.write_table(found.set_column(place, found.schema.field(name), values), path)


def exchanged(found: pa.Table, i: int, j: int) -> pa.Table:
    order = np.arange(len(found))
    order[[i, j]] = j, i
    return found.take(order)


def replaced(found: pa.Table, name: str, make: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    place = found.schema.get_field_index(name)
    return found.set_column(place, name, pa.array(make(found[name].to_numpy().copy())))


def bumped(values: np.ndarray) -> np.ndarray:
    values.view(np.uint64)[len(values) - 1] ^= 1
    return values


CHANGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "sorted by FDR": lambda t: t.sort_by("fdr"),
    "sorted by gene": lambda t: t.take(np.argsort(t["feature"].to_pylist(), kind="stable")),
    "sorted from the end": lambda t: t.take(np.argsort(t["target"].to_pylist())[::-1]),
    "first rows exchanged": lambda t: exchanged(t, 0, 1),
    "last rows exchanged": lambda t: exchanged(t, len(t) - 2, len(t) - 1),
    "a row twice": lambda t: pa.concat_tables([t.slice(0, 5), t.slice(4)]),
    "a row twice for another": lambda t: t.take([*range(len(t) - 1), len(t) - 2]),
    "filtered": lambda t: t.filter(pc.less(t["p_value"], 0.5)),
    "cut": lambda t: t.slice(0, len(t) - 1),
    "empty": lambda t: t.slice(0, 0),
    "twice": lambda t: pa.concat_tables([t, t]),
    "the last bit of a value": lambda t: replaced(t, "p_value", bumped),
    "values rounded": lambda t: replaced(t, "p_value", lambda v: np.round(v, 3)),
    "values in another order": lambda t: replaced(t, "fdr", lambda v: v[::-1].copy()),
    "whole numbers": lambda t: replaced(t, "target_n_cells", lambda v: v + 1),
    "columns exchanged": lambda t: t.rename_columns(
        [{"fdr": "p_value", "p_value": "fdr"}.get(n, n) for n in t.column_names]
    ).replace_schema_metadata(t.schema.metadata),
    "a column gone": lambda t: t.drop_columns(["statistic"]),
    "a further column gone": lambda t: t.drop_columns(["target_n_cells"]),
    "a column added": lambda t: t.append_column("auroc", t["fdr"]),
    "a column twice": lambda t: t.append_column("fdr", t["fdr"]),
    "single precision": lambda t: t.set_column(
        t.schema.get_field_index("fdr"), "fdr", t["fdr"].cast(pa.float32())
    ),
    "labels no longer encoded": lambda t: t.set_column(
        0, "target", t["target"].cast(pa.string())
    ),
    "missing values": lambda t: t.set_column(
        t.schema.get_field_index("fdr"), "fdr",
        pc.if_else(pc.less(t["p_value"], 0.5), t["fdr"], None),
    ),
    "missing labels": lambda t: t.set_column(
        0, "target", pa.array([*t["target"].to_pylist()[:-1], None]).dictionary_encode()
    ),
    "another label": lambda t: t.set_column(
        0, "target", pa.array([*t["target"].to_pylist()[:-1], "T0"]).dictionary_encode()
    ),
    "another level": lambda t: t.set_column(
        2, "level", pa.array([*t["level"].to_pylist()[:-1], "x"]).dictionary_encode()
    ),
}  # fmt: skip


def all_blocks(path: Path) -> None:
    opened = pdex_gpu.open_result(path)
    for _ in opened.blocks(opened.columns):
        pass


def all_rows(path: Path) -> None:
    opened = pdex_gpu.open_result(path)
    for t in range(N):
        opened.row(t, opened.columns)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("row_group_size", [13, 10**6])
def test_changed_by_another_program(change: str, row_group_size: int, path: Path):
    pq.write_table(CHANGES[change](pq.read_table(path)), path, row_group_size=row_group_size)
    with pytest.raises(FileFormatError, match=CHANGED + r"use pandas\.read_parquet\(\)"):
        pdex_gpu.open_result(path).load()
    for read in (all_blocks, all_rows):
        with pytest.raises(FileFormatError, match=CHANGED):
            read(path)
    assert main(["doctor", str(path), "--json"]) == Exit.INPUT


def layout(**changes: Any) -> Callable[[dict[bytes, bytes]], None]:
    def change(metadata: dict[bytes, bytes]) -> None:
        found = json.loads(metadata[LAYOUT_KEY])
        for name, value in changes.items():
            if value is KeyError:
                del found[name]
            else:
                found[name] = value
        metadata[LAYOUT_KEY] = json.dumps(found).encode()

    return change


def content(key: bytes, value: bytes | None) -> Callable[[dict[bytes, bytes]], None]:
    def change(metadata: dict[bytes, bytes]) -> None:
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value

    return change


NAMES = ("targets", "references", "features", "within", "filtered", "schema")
METADATA = {
    **{f"no {name}": layout(**{name: KeyError}) for name in NAMES if name != "within"},
    **{f"{name} {value!r}": layout(**{name: value})
       for name in NAMES
       for value in (7.5, "x", {}, [1], ["x"], [["x"], 3], [3, 4], [["a"], [["b"]]])},
    "a gene more": layout(features=[f"G{i}" for i in range(G + 1)]),
    "another gene": layout(features=[f"G{i}" for i in range(1, G + 1)]),
    "genes exchanged": layout(features=["G1", "G0", *(f"G{i}" for i in range(2, G))]),
    "other targets": layout(targets=[f"T{i}" for i in range(1, N + 1)]),
    "another reference": layout(references=["ntc"] * N),
    "no comparison": layout(targets=[], references=[], within=["level", []]),
    "schema 0": layout(schema=0),
    "schema true": layout(schema=True),
    "digests of another kind": layout(digests="md5"),
    "digests null": layout(digests=None),
    "digests not named": layout(digests=KeyError),
    "no digests": content(DIGESTS_KEY, None),
    **{f"{key.decode()} {value[:6]!r}": content(key, value)
       for key in (LAYOUT_KEY, METADATA_KEY, DIGESTS_KEY)
       for value in (b"", b"{", b"\xff", b"null", b"[]", b"7", b"[" * 10**5, b"9" * 5000, b"{}",
                     b'{"comparisons": 0, "columns": {}}',
                     b'{"comparisons": 2, "columns": {"fdr": 3}}')},
}  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("change", METADATA)
def test_changed_metadata(change: str, tmp_path: Path):
    path = tmp_path / "r.parquet"
    made().to_parquet(path)
    found = pq.read_table(path)
    metadata = dict(found.schema.metadata)
    METADATA[change](metadata)
    pq.write_table(found.replace_schema_metadata(metadata), path)
    with pytest.raises(FileFormatError):
        pdex_gpu.open_result(path)


def test_provenance_counts(tmp_path: Path):
    path = tmp_path / "r.parquet"
    made().to_parquet(path)
    found = pq.read_table(path)
    metadata = {**found.schema.metadata, METADATA_KEY: b'{"metric": "t-test"}'}
    pq.write_table(found.replace_schema_metadata(metadata), path)
    with pytest.raises(FileFormatError, match=CHANGED + "metadata were changed"):
        pdex_gpu.open_result(path)


def test_a_table_without_digests(path: Path, result: Any):
    """As pyarrow writes ``to_arrow()``: values cannot be verified, labels are."""
    pq.write_table(result.to_arrow(), path)
    opened = pdex_gpu.open_result(path)
    assert not opened.has_digests
    assert is_same(opened.load(), result)
    assert main(["doctor", str(path)]) == Exit.OK
    pq.write_table(exchanged(result.to_arrow(), 20, 21), path)
    with pytest.raises(FileFormatError, match=CHANGED + "sorted, filtered or swapped"):
        pdex_gpu.open_result(path).load()


# --- while it is open ---------------------------------------------------------------------------


def test_changed_while_it_is_open(path: Path, result: Any):
    opened = pdex_gpu.open_result(path)
    opened.load()
    pq.write_table(exchanged(pq.read_table(path), 20, 21), path)
    with pytest.raises(FileFormatError, match=CHANGED):
        opened.load()
    made(filtered=result.kept is not None).to_parquet(path)
    assert is_same(opened.load(), result)


def test_a_written_file_that_was_replaced(tmp_path: Path):
    path = tmp_path / "r.parquet"
    result = made()
    result.to_parquet(path)
    written = pdex_gpu.ResultFile(
        path, result.targets, result.references, labels("X", G), result.provenance,
        columns=("target_n_cells",), within=result.within,
    )  # fmt: skip
    with pytest.raises(FileFormatError, match="does not have the comparisons, genes or columns"):
        written.row(0, ["fdr"])


# --- what is no file, or says it is huge ----------------------------------------------------------


def test_what_could_hang(tmp_path: Path):
    pipe, sock = tmp_path / "pipe.parquet", tmp_path / "s.parquet"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sock))
    for path in (pipe, sock, Path("/dev/zero")):
        with pytest.raises(FileFormatError, match=r"is a (pipe|socket|device), but a file"):
            pdex_gpu.open_result(path)


def test_pages_that_are_too_large_for_their_rows(tmp_path: Path):
    path = tmp_path / "r.parquet"
    made().to_parquet(path)
    found = pq.read_table(path)
    names = pa.array(["x" * 10**7 if i == 3 else f"T{i // G}" for i in range(N * G)])
    pq.write_table(
        found.set_column(0, "target", names.dictionary_encode()), path, compression="zstd"
    )
    assert path.stat().st_size < 10**6
    with pytest.raises(FileFormatError, match=r"it states that 90 rows take 10,\d*,\d* bytes"):
        pdex_gpu.open_result(path)


def test_more_than_memory_holds(path: Path, result: Any, monkeypatch: pytest.MonkeyPatch):
    opened = pdex_gpu.open_result(path)
    for module in ("results.footer", "results.file"):
        monkeypatch.setattr(f"pdex_gpu.{module}.available_memory", lambda: 50)
    with pytest.raises(MemoryBudgetError, match=r"Read one comparison at a time with row\(\)"):
        opened.load()
    if result.kept is not None:
        with pytest.raises(MemoryBudgetError, match="lists 90 pairs"):
            pdex_gpu.open_result(path)


def test_codes_beyond_the_labels():
    """Arrow does not look at them."""
    from pdex_gpu.results.row_index import OtherRowsError, decoded

    column = pa.DictionaryArray.from_arrays(
        pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False
    )
    with pytest.raises(OtherRowsError):
        decoded(column)


# --- the doctor -----------------------------------------------------------------------------------


def test_doctor(path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", str(path), "--json"]) == Exit.OK
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"]
    assert [c["name"] for c in document["checks"]] == ["file", "rows", "columns"]
    pq.write_table(CHANGES["values rounded"](pq.read_table(path)), path)
    assert main(["doctor", str(path), "--json"]) == Exit.INPUT
    document = json.loads(capsys.readouterr().out)
    assert not document["healthy"]
    assert [c["name"] for c in document["checks"] if c["status"] == "problem"] == ["p_value"]
    pq.write_table(CHANGES["last rows exchanged"](pq.read_table(path)), path)
    assert main(["doctor", str(path)]) == Exit.INPUT
    assert "do not match its own list" in capsys.readouterr().out


def test_doctor_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.parquet").write_text("no")
    assert main(["doctor", str(tmp_path / "text.parquet")]) == Exit.INPUT
    assert "is not a Parquet file, or it is damaged" in capsys.readouterr().out
    for path, code in (("x.h5ad", Exit.USAGE), ("none.parquet", Exit.INPUT), (".", Exit.USAGE)):
        assert main(["doctor", str(tmp_path / path)]) == code
    assert "is not a results file. Pass a .parquet file" in capsys.readouterr().err


# --- bytes ----------------------------------------------------------------------------------------


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The file with some bytes others; as often in the footer as anywhere."""
    found = bytearray(data)
    at = draw.randrange(len(found)) if draw.random() < 0.5 else -1 - draw.randrange(5000)
    kind = draw.randrange(5)
    if kind == 0:
        found[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        for _ in range(draw.randrange(1, 30)):
            found[draw.randrange(len(found))] = draw.randrange(256)
    elif kind == 2:
        del found[at : at + draw.randrange(1, 200) or None]
    elif kind == 3:
        found[at:at] = found[at : at + 50]
    else:
        found[at:at] = draw.randbytes(20)
    return bytes(found)


def hold(path: Path, result: pdex_gpu.DEResult, n: int, seed: int) -> int:
    """How many of `n` damaged files were refused; all others give the right table."""
    data, draw, refused = path.read_bytes(), random.Random(seed), 0
    for _ in range(n):
        path.write_bytes(damaged(data, draw))
        try:
            found = pdex_gpu.open_result(path).load()
        except PdexGpuError:
            refused += 1
        else:
            assert is_same(found, result)
    return refused


def test_damaged_bytes(path: Path, result: Any):
    assert 60 < hold(path, result, 100, seed=0) < 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_many_damaged_bytes(path: Path, result: Any, seed: int):
    assert hold(path, result, 2000, seed=1 + seed) > 1000


def test_a_fault_of_ours_passes(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(footer, "_BYTES_PER_VALUE", "x")
    with pytest.raises(TypeError):
        pdex_gpu.open_result(path)
