"""Checkpoints that were changed or damaged: computed again or refused, never a wrong table."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stopped_runs import interrupted, names, ranges, run, stop_at
from stored_screens import GENES

from pdex_gpu.backends.cpu import kernel_set
from pdex_gpu.errors import CheckpointError, DamagedCheckpointWarning, OptionError
from pdex_gpu.sinks.checkpoint import Checkpoint, checkpoint_folder, open_checkpoint, write_range
from pdex_gpu.sinks.checkpoint_sink import StoredResults
from pdex_gpu.sinks.range_file import DamagedRangeError, RangeFile
from pdex_gpu.stats.multitest import correction
from pdex_gpu.utils.checksums import crc32
from pdex_gpu.utils.value_summary import ValueSummary

N_RANGES = len(GENES)
N_DONE = 5

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "de.parquet"
    run(out)
    return out.read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with some ranges of a gene."""
    return interrupted(tmp_path_factory.mktemp("stopped") / "de.parquet", N_DONE)


@pytest.fixture
def out(tmp_path: Path, stopped: Path) -> Path:
    """An output that has such a checkpoint."""
    path = tmp_path / "folder" / "de.parquet"
    path.parent.mkdir()
    shutil.copytree(stopped, checkpoint_folder(path))
    return path


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def nan(path: Path) -> None:
    content = path.read_bytes()
    values = np.load(path)
    at = len(content) - 4 - 32 - values.nbytes
    path.write_bytes(
        content[:at] + np.full_like(values, np.nan).tobytes() + content[at + values.nbytes :]
    )


def exchange_contents(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def exchange_names(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def rename(path: Path, old: str, new: str) -> None:
    assert path.name.count(old) >= 1
    path.rename(path.with_name(path.name.replace(old, new, 1)))


def of_another_run(path: Path) -> None:
    """The file of a run that differs in a number alone."""
    elsewhere = path.parents[1] / "other.parquet"
    folder = interrupted(elsewhere, N_DONE, clip_value=7)
    (found,) = folder.glob(path.name[:19] + "*")
    content = found.read_bytes()
    assert len(content) == path.stat().st_size
    shutil.rmtree(folder)
    path.write_bytes(content)


def shape(path: Path) -> None:
    np.save(path, np.zeros((3, 4, 2)))


#: What is done to the files of genes 1 and 3, and how many ranges that damages.
DAMAGES: dict[str, tuple[Callable[[Path, Path], object], int]] = {
    "the first byte": (lambda one, other: flip(one, 0), 1),
    "a byte of the shape": (lambda one, other: flip(one, 70), 1),
    "the first byte of a result": (lambda one, other: flip(one, 128), 1),
    "the last byte of a result": (lambda one, other: flip(one, -37), 1),
    "a byte of a checksum": (lambda one, other: flip(one, -34), 1),
    "the last byte": (lambda one, other: flip(one, -1), 1),
    "bytes of two files": (lambda one, other: (flip(one, 140), flip(other, 150)), 2),
    "cut by a byte": (lambda one, other: os.truncate(one, one.stat().st_size - 1), 1),
    "cut by half": (lambda one, other: os.truncate(one, one.stat().st_size // 2), 1),
    "emptied": (lambda one, other: os.truncate(one, 0), 1),
    "zeros": (lambda one, other: one.write_bytes(bytes(one.stat().st_size)), 1),
    "grown by a byte": (lambda one, other: one.write_bytes(one.read_bytes() + b"x"), 1),
    "text": (lambda one, other: one.write_text("precious" * 100), 1),
    "an array of another shape": (lambda one, other: shape(one), 1),
    "NaN": (lambda one, other: nan(one), 1),
    "another file's contents": (lambda one, other: one.write_bytes(other.read_bytes()), 1),
    "exchanged contents": (exchange_contents, 2),
    "exchanged names": (exchange_names, 2),
    "exchanged genes": (
        lambda one, other: (
            rename(one, "1-000000002", "7-000000008"), rename(other, "3-000000004", "1-000000002")
        ), 2,
    ),
    "a flag renamed": (lambda one, other: rename(one, "-fractional_", "-whole_"), 1),
    "the minimum renamed": (lambda one, other: rename(one, "_0.0_", "_-1.0_"), 1),
    "the maximum renamed": (lambda one, other: rename(one, "_0.0_", "_0.0_1"), 1),
    "no number": (lambda one, other: rename(one, "_0.0_", "_e_"), 1),
    "other genes": (lambda one, other: rename(one, "1-000000002", "7-000000008"), 1),
    "no name of a range": (lambda one, other: one.rename(one.with_name("genes-7.npy")), 1),
    "another run": (lambda one, other: of_another_run(one), 1),
}  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_ranges_alone_are_computed_again(out, expected, monkeypatch, caplog, kind):
    damage, n_damaged = DAMAGES[kind]
    one, other = (checkpoint_folder(out) / ranges(out)[k] for k in (1, 3))
    damage(one, other)
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(out)
    assert len(packed) == N_RANGES - N_DONE + n_damaged
    messages = [str(w.message) for w in caught if w.category is DamagedCheckpointWarning]
    assert len(messages) == len(caught) == bool(n_damaged)
    for message in messages:
        assert message.startswith(
            f"This checkpoint was damaged: {n_damaged} of {N_DONE} ranges will be computed again. "
            f"Their files in '{checkpoint_folder(out)}' were changed or truncated after "
            "pdex-gpu wrote them; the first is 'genes-"
        )
    assert out.read_bytes() == expected
    assert names(out.parent) == [out.name]


def test_every_byte_of_a_range_counts(out):
    path = checkpoint_folder(out) / ranges(out)[2]
    content = path.read_bytes()
    text = json.loads((checkpoint_folder(out) / "run.json").read_text())
    fields = {"target_mean": 3, "reference_mean": 1, "statistic": 3, "p_value": 3}
    checkpoint = Checkpoint(checkpoint_folder(out), text["run"], fields, N_RANGES)
    found = RangeFile.named(path, checkpoint.n_values, checkpoint.run)
    assert found is not None
    found.check()
    for at in range(len(content)):
        flip(path, at)
        with pytest.raises(DamagedRangeError):
            found.check()
        path.write_bytes(content)
    found.check()


@pytest.mark.parametrize("width", [1, 3, 700, 1500])
def test_lines_are_checked_as_they_are_read(tmp_path, width):
    """Blocks of many lines, of two, and lines longer than a block."""
    n_values = 50
    values = np.random.default_rng(0).random((n_values, width))
    file = write_range(tmp_path, slice(0, width), ValueSummary(), values, "run")
    file.check()
    for rows in (slice(0, 50), slice(3, 4), slice(7, 40), slice(49, 50)):
        straight = np.zeros((rows.stop - rows.start, width))
        file.read(rows, straight)
        np.testing.assert_array_equal(straight, values[rows])
        apart = np.zeros((rows.stop - rows.start, 2 * width))
        file.read(rows, apart[:, 1 : width + 1])
        np.testing.assert_array_equal(apart[:, 1 : width + 1], values[rows])
    np.testing.assert_array_equal(np.load(file.path), values)
    flip(file.path, 128 + 8 * width * 20)  # in line 20
    for rows in (slice(20, 21), slice(0, 50), slice(19, 22)):
        with pytest.raises(DamagedRangeError, match="contents have changed"):
            file.read(rows, np.zeros((rows.stop - rows.start, width)))
    with pytest.raises(DamagedRangeError, match="contents have changed"):
        file.check()


def test_lines_out_of_place_do_not_pass(tmp_path):
    """Blocks exchanged with their checksums, within a file and between files of a run."""
    values = np.random.default_rng(0).random((6, 1100))  # a line is longer than a block
    a = write_range(tmp_path, slice(0, 1100), ValueSummary(), values, "run")
    b = write_range(tmp_path, slice(1100, 2200), ValueSummary(), values + 1, "run")
    content, line = a.path.read_bytes(), 8 * 1100
    sums = 128 + 6 * line
    swapped = bytearray(content)
    swapped[128 : 128 + line], swapped[128 + line : 128 + 2 * line] = (
        content[128 + line : 128 + 2 * line], content[128 : 128 + line]
    )  # fmt: skip
    swapped[sums : sums + 4], swapped[sums + 4 : sums + 8] = (
        content[sums + 4 : sums + 8], content[sums : sums + 4]
    )  # fmt: skip
    for changed in (bytes(swapped), b.path.read_bytes()):
        a.path.write_bytes(changed)
        with pytest.raises(DamagedRangeError):
            a.read(slice(0, 1), np.zeros((1, 1100)))
        with pytest.raises(DamagedRangeError):
            a.check()


@pytest.mark.parametrize("kind", ["a byte", "exchanged", "cut", "NaN", "gone", "a link"])
def test_damage_while_it_is_needed(tmp_path, monkeypatch, expected, kind):
    """Between storing and writing the table: an error, and the same call mends it."""
    out = tmp_path / "de.parquet"
    real = correction.adjust

    def adjust(*args, **options):
        one, other = (checkpoint_folder(out) / name for name in ranges(out)[2:4])
        if kind == "a byte":
            flip(one, 128)
        elif kind == "exchanged":
            exchange_contents(one, other)
        elif kind == "cut":
            os.truncate(one, 100)
        elif kind == "NaN":
            nan(one)
        else:
            one.rename(tmp_path / "aside")
            if kind == "a link":
                one.symlink_to(tmp_path / "aside")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(correction, "adjust", adjust)
        with pytest.raises(CheckpointError, match=r"genes-.*cannot be read back.*Call again:"):
            run(out)
    assert not out.exists()
    (tmp_path / "aside").unlink(missing_ok=True)
    for link in checkpoint_folder(out).glob("genes-*"):
        if link.is_symlink():
            link.unlink()
    n_damaged = {"exchanged": 2, "gone": 0, "a link": 0}.get(kind, 1)
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(out)
    assert [str(w.message)[:42] for w in caught] == [
        f"This checkpoint was damaged: {n_damaged} of 9 ranges"
    ] * bool(n_damaged)
    assert len(packed) == (n_damaged or 1)
    assert out.read_bytes() == expected
    assert names(tmp_path) == [out.name]


# --- refused --------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, object]:
    """All that is in a folder; links and the like by where they lead or what they are."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink()
            else path.read_bytes() if path.is_file()
            else path.lstat().st_mode
        )
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


def refused(out: Path, says: str, **options: object) -> None:
    """The call is refused with advice and changes nothing; restart=True starts over."""
    folder = checkpoint_folder(out)
    before = tree(folder)
    with pytest.raises(CheckpointError) as caught:
        run(out, **options)
    assert str(caught.value).startswith(f"The checkpoint {str(folder)!r} ")
    assert says in str(caught.value)
    assert "Pass restart=True (--restart) to discard its contents" in str(caught.value)
    assert tree(folder) == before
    assert not out.exists()


def starts_over(out: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    run(out, restart=True)
    assert len(packed) == N_RANGES
    assert out.read_bytes() == expected
    assert names(out.parent) == [out.name]


DEEP = "[" * 100_000 + "]" * 100_000
JUNK = {
    "nothing": b"",
    "cut": b'{"format": 4, "ru',
    "text": b"precious",
    "a list": b"[]",
    "a number": b"4",
    "null": b"null",
    "no keys": b"{}",
    "no UTF-8": b'{"format": 4, "run": "\xff\xfe"}',
    "UTF-16": '{"format": 4}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "binary": bytes(range(256)) * 50,
    "zeros": bytes(4096),
    "deep": DEEP.encode(),
    "deep in the run": f'{{"format": 4, "canonical": false, "run": {DEEP}}}'.encode(),
    "a long number": b'{"format": ' + b"9" * 10_000 + b"}",
    "a format in words": b'{"format": "4", "canonical": false, "run": {}}',
    "a format that is true": b'{"format": true, "canonical": false, "run": {}}',
    "a format with a fraction": b'{"format": 4.0, "canonical": false, "run": {}}',
    "canonical in words": b'{"format": 4, "canonical": "no", "run": {}}',
    "no run": b'{"format": 4, "canonical": false}',
    "a run that is a list": b'{"format": 4, "canonical": false, "run": [1]}',
}


@pytest.mark.parametrize("name", ["run.json", "finished.json"])
def test_junk_is_refused(out, expected, monkeypatch, name):
    for junk in JUNK.values():
        (checkpoint_folder(out) / name).write_bytes(junk)
        refused(out, f"cannot be read: {name} in it is damaged")
    starts_over(out, expected, monkeypatch)


@pytest.mark.parametrize("name", ["run.json", "finished.json"])
def test_huge_files_are_not_read(out, name):
    with (checkpoint_folder(out) / name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=f"{name} in it is damaged"):
        run(out)


def test_a_run_of_anything_is_another(out):
    """Names and values in words that fit on a page."""
    path = checkpoint_folder(out) / "run.json"
    said = json.loads(path.read_text())
    said["run"] |= {f"x{i}": "y" * 10_000 for i in range(1000)}
    said["run"] |= {"\x1b[31mred\n": 1, "metric": [[["deep"]]], "layer": {"a": ["b"] * 1000}}
    path.write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="belongs to a different run") as caught:
        run(out)
    text = str(caught.value)
    assert "\x1b" not in text
    assert len(text) < 10_000
    assert "more\n" in text


@pytest.mark.parametrize(("number", "age"), [(1, "an older"), (3, "an older"), (99, "a newer")])
def test_another_format_is_told(out, expected, monkeypatch, number, age):
    (checkpoint_folder(out) / "run.json").write_text(json.dumps({"format": number, "what": "ever"}))
    refused(out, f"was left by {age} version of pdex-gpu, in format {number}; this version writes")
    starts_over(out, expected, monkeypatch)


def test_ranges_that_overlap(out, expected, monkeypatch):
    folder, name = checkpoint_folder(out), ranges(out)[1]
    shutil.copy(folder / name, folder / name.replace("1-000000002", "1-000000004"))
    refused(out, "cover some of the same genes")
    starts_over(out, expected, monkeypatch)


def test_the_same_range_twice(out, expected, monkeypatch):
    folder, name = checkpoint_folder(out), ranges(out)[1]
    shutil.copy(folder / name, folder / name.replace("-fractional_", "-whole_"))
    refused(out, "cover some of the same genes")
    starts_over(out, expected, monkeypatch)


@pytest.mark.parametrize(
    "genes", ["000000008-000000010", "000000009-000000010", "000000001-000000001",
              "000000002-000000001", "000000001-99999999999999999"],
)  # fmt: skip
def test_genes_that_there_are_not(out, expected, monkeypatch, genes):
    folder, name = checkpoint_folder(out), ranges(out)[1]
    (folder / name).rename(folder / name.replace("000000001-000000002", genes))
    refused(out, "in it covers genes that the data do not have")
    starts_over(out, expected, monkeypatch)


def test_ranges_that_a_worker_wrote_late_are_left_out(tmp_path, caplog):
    """Of an earlier call that had cut the genes otherwise: as good, but in the way."""
    fields = {"statistic": 2, "p_value": 2}
    values = np.random.default_rng(0).random((4, 7))
    out = tmp_path / "de.csv"
    with open_checkpoint(out, {"x": 1}, fields, 7, restart=False) as opened:
        for genes in (slice(0, 3), slice(2, 5), slice(3, 4), slice(5, 7)):
            piece = np.ascontiguousarray(values[:, genes])
            write_range(opened.folder, genes, ValueSummary(), piece, opened.run)
    with open_checkpoint(out, {"x": 1}, fields, 7, restart=False) as opened:
        assert [found.genes for found in opened.ranges] == [slice(0, 3), slice(3, 4), slice(5, 7)]
        opened.warn_of_damage()  # there is none
        stored = StoredResults(opened)
        np.testing.assert_array_equal(stored.read_range("p_value", 1), values[2:, 3:4])
        assert len(list(opened.folder.glob("genes-*"))) == 3


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "within").write_text("precious")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("devices cannot be made here")


def make_link(path: Path) -> None:
    """To a folder of somebody else, or a file in it."""
    elsewhere = path.parents[2] / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "precious").write_text("precious")
    path.symlink_to(elsewhere if path.name == "split" else elsewhere / "precious")


def make_dangling(path: Path) -> None:
    path.symlink_to(path.parents[2] / "nowhere")


STRANGE = {
    "a folder": make_folder,
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": make_device,
    "a link": make_link,
    "a dangling link": make_dangling,
}
RANGE = "genes-000000007-000000008-whole_0.0_1.0.npy"


@posix
@pytest.mark.parametrize(
    "name", ["run.json", "finished.json", "lock", "output.parquet.tmp", RANGE, "split"]
)
def test_what_is_not_a_file(out, expected, monkeypatch, name):
    path = checkpoint_folder(out) / name
    path.unlink(missing_ok=True)
    wanted = "a folder" if name == "split" else "a file"
    for kind, make in STRANGE.items():
        if kind == wanted:
            continue
        make(path)
        what = kind.replace("dangling ", "")
        refused(out, f"{name!r} in it is {what}, not {wanted}")
        if kind != "a dangling link":
            shutil.rmtree(path) if kind == "a folder" else path.unlink()
    starts_over_beside(out, expected, monkeypatch)


@posix
def test_all_of_it_is_cleared(out, expected, monkeypatch):
    """Whatever is there, under any name of ours; links are not followed."""
    folder = checkpoint_folder(out)
    for i, make in enumerate(STRANGE.values()):
        make(folder / f"genes-{i}.npy")
        make(folder / f"{i}.tmp")
    for name, kind in (("lock", "a folder"), ("run.json", "a link"), ("finished.json", "a pipe"),
                       ("split", "a link")):  # fmt: skip
        (folder / name).unlink(missing_ok=True)
        STRANGE[kind](folder / name)
    starts_over_beside(out, expected, monkeypatch)


def starts_over_beside(out: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing elsewhere was touched."""
    beside = out.parents[1]
    before = {name: found for name, found in tree(beside).items() if "folder" not in name}
    starts_over(out, expected, monkeypatch)
    assert {name: found for name, found in tree(beside).items() if "folder" not in name} == before


@posix
@pytest.mark.parametrize("kind", [kind for kind in STRANGE if kind != "a folder"])
def test_what_is_not_a_folder(tmp_path, expected, monkeypatch, kind):
    out = tmp_path / "folder" / "de.parquet"
    out.parent.mkdir()
    folder = checkpoint_folder(out)
    if kind == "a link":  # to a whole checkpoint of the same run
        elsewhere = tmp_path / "elsewhere"
        interrupted(out, N_DONE)
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
    else:
        STRANGE[kind](folder)
    what = kind.replace("dangling ", "")
    with pytest.raises(CheckpointError, match=f"cannot be read: it is {what}, not a folder.*rest"):
        run(out)
    starts_over_beside(out, expected, monkeypatch)


def test_a_file_in_place_of_the_folder(tmp_path, expected, monkeypatch):
    out = tmp_path / "de.parquet"
    checkpoint_folder(out).write_text("precious")
    with pytest.raises(CheckpointError, match=r"it is a file, not a folder\. Nothing was removed"):
        run(out)
    assert checkpoint_folder(out).read_text() == "precious"
    starts_over(out, expected, monkeypatch)


@posix
@pytest.mark.parametrize("name", ["run.json", "finished.json", "a range"])
def test_what_may_not_be_read(out, expected, monkeypatch, name):
    path = checkpoint_folder(out) / (ranges(out)[1] if name == "a range" else name)
    path.touch()
    path.chmod(0)
    if os.access(path, os.R_OK):  # as root may: let opening fail as it does for others
        real = os.open

        def opening(found, *args, **options):
            if Path(found).name == path.name and not args[0] & os.O_CREAT:
                raise PermissionError(13, "Permission denied")
            return real(found, *args, **options)

        monkeypatch.setattr(os, "open", opening)
    with pytest.raises(CheckpointError, match=r"permission denied.*restart=True"):
        run(out)
    monkeypatch.undo()
    assert path.exists()
    starts_over(out, expected, monkeypatch)


# --- the note of a complete output ----------------------------------------------------------


def left(out: Path, **options: object) -> Path:
    """A complete output whose checkpoint alone was not removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        run(out, **options)
    return checkpoint_folder(out)


@pytest.mark.parametrize("key", ["n_hits", "values", "digest"])
def test_a_note_that_was_changed(tmp_path, key):
    out = tmp_path / "de.parquet"
    path = left(out) / "finished.json"
    said = json.loads(path.read_text())
    said[key] = {"n_hits": [9, 9, 9], "values": {"fractional": False}, "digest": "0" * 64}[key]
    path.write_text(json.dumps(said))
    before = out.read_bytes()
    with pytest.raises(CheckpointError, match=r"finished\.json in it is damaged, or belongs to a"):
        run(out)
    assert out.read_bytes() == before
    run(out, restart=True, force=True)
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "ranges", "run.json and ranges"])
def test_a_note_without_the_rest(tmp_path, monkeypatch, expected, name):
    """As a run leaves it that is stopped while it removes its checkpoint."""
    out = tmp_path / "de.parquet"
    folder = left(out)
    if "ranges" in name:
        for path in folder.glob("genes-*"):
            path.unlink()
    if "run.json" in name:
        (folder / "run.json").unlink()
    stop_at(monkeypatch, kernel_set, "pack", 0)
    inode = out.stat().st_ino
    result = run(out)
    assert out.stat().st_ino == inode
    assert out.read_bytes() == expected
    assert result.provenance["is_log1p"] is True
    assert names(tmp_path) == [out.name]


def test_filters_need_the_ranges(tmp_path, monkeypatch):
    """Which pairs are kept is found from the ranges: some may be gone, or damaged."""
    out = tmp_path / "de.parquet"
    whole = run(tmp_path / "whole.parquet", min_fraction=0.5)
    expected = (tmp_path / "whole.parquet").read_bytes()
    folder = left(out, min_fraction=0.5)
    (folder / ranges(out)[2]).unlink()
    flip(folder / ranges(out)[4], 128)
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    with pytest.warns(DamagedCheckpointWarning, match="1 of 8 ranges will be computed again"):
        result = run(out, min_fraction=0.5)
    assert len(packed) == 2
    assert out.read_bytes() == expected
    assert result.n_rows == whole.n_rows


# --- who may read it ------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_it_is_private(tmp_path, monkeypatch, umask, suffix):
    out = tmp_path / f"de.{suffix}"
    seen = []
    real = Checkpoint.mark_finished

    def mark_finished(self, written, facts):
        seen.append(self.folder.stat().st_mode & 0o7777)
        seen.extend(path.stat().st_mode & 0o7777 for path in self.folder.iterdir())
        real(self, written, facts)

    monkeypatch.setattr(Checkpoint, "mark_finished", mark_finished)
    before = os.umask(umask)
    try:
        run(out)
    finally:
        os.umask(before)
    # What is about to be the output has its permissions by then, in a folder that none may enter.
    assert sorted(seen) == sorted([0o700, 0o666 & ~umask, *[0o600] * (N_RANGES + 2)])
    assert out.stat().st_mode & 0o7777 == 0o666 & ~umask


@posix
def test_an_output_that_is_replaced_keeps_its_permissions(tmp_path):
    out = tmp_path / "de.parquet"
    out.write_text("old")
    out.chmod(0o640)
    result = run(out, force=True)
    assert out.stat().st_mode & 0o7777 == 0o640
    again = tmp_path / "again.csv"
    again.write_text("old")
    again.chmod(0o600)
    result.load().to_csv(again)
    assert again.stat().st_mode & 0o7777 == 0o600


@posix
@pytest.mark.parametrize(("value", "mode"), [("007", 0o770), ("027", 0o750), ("", 0o700)])
def test_the_group_may_be_let_in(tmp_path, monkeypatch, value, mode):
    monkeypatch.setenv("PDEX_GPU_UMASK", value)
    folder = interrupted(tmp_path / "de.parquet", 3)
    assert folder.stat().st_mode & 0o7777 == mode
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {mode & 0o666}


@pytest.mark.parametrize("value", ["rwx", "8", "1000", "-1", "7.5"])
def test_what_is_no_umask(tmp_path, monkeypatch, value):
    monkeypatch.setenv("PDEX_GPU_UMASK", value)
    with pytest.raises(OptionError, match=r"PDEX_GPU_UMASK is .*, which is not a umask"):
        run(tmp_path / "de.parquet")
    assert not names(tmp_path)


@posix
def test_the_folder_of_a_stranger(tmp_path, monkeypatch):
    """Made by somebody else in a folder where anybody can, such as /tmp."""
    out = tmp_path / "de.parquet"
    interrupted(out, 3)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    run(out)  # a folder where only some can
    out.unlink()
    interrupted(out, 3)
    tmp_path.chmod(0o1777)
    with pytest.raises(CheckpointError, match=r"belongs to another user\. Choose an output in"):
        run(out)


def test_checksums_are_those_of_zlib():
    data = np.random.default_rng(0).bytes(10_001)
    for some in (data, data[:1], b"", memoryview(data)[3:]):
        for start in (0, 7, 0xFFFFFFFF):
            assert crc32(some, start) == zlib.crc32(some, start)
