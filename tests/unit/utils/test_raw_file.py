"""Positions of files, read and written by several threads, and files that change meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pdex_gpu.errors import FileFormatError
from pdex_gpu.utils import raw_file
from pdex_gpu.utils.raw_file import RawFile, read_at, read_into, write_at

CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=[True, False], ids=["positions", "seeking"])
def positions(request, monkeypatch):
    """With and without the system calls that take a position, which Windows lacks."""
    monkeypatch.setattr(raw_file, "_HAS_POSITIONS", request.param)
    return request.param


@pytest.fixture
def fd(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    opened = os.open(path, os.O_RDWR)
    yield opened
    os.close(opened)


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 1), (17, 999), (10_000, 240)])
def test_reading(positions, fd, offset, size):
    assert read_at(fd, offset, size) == CONTENT[offset : offset + size]
    buffer = np.zeros(size, np.uint8)
    assert read_into(fd, offset, buffer) == size
    assert buffer.tobytes() == CONTENT[offset : offset + size]


def test_reading_past_the_end_gives_less(positions, fd):
    assert read_at(fd, len(CONTENT) - 3, 10) == CONTENT[-3:]
    assert read_at(fd, len(CONTENT) + 3, 10) == b""
    assert read_into(fd, len(CONTENT) - 8, np.zeros((3, 2), "f4")) == 8
    assert read_into(fd, len(CONTENT), np.zeros(3, "f4")) == 0


def test_a_system_that_reads_and_writes_little_at_a_time(monkeypatch, fd):
    """Linux reads and writes 2 GiB at most."""
    real = os.pread, os.preadv, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real[0](fd, min(n, 100), at))
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real[1](fd, [views[0][:100]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real[2](fd, data[:100], at))
    assert read_at(fd, 5, 1000) == CONTENT[5:1005]
    assert read_at(fd, len(CONTENT) - 150, 1000) == CONTENT[-150:]
    values = np.zeros(1000, "u1")
    assert read_into(fd, 7, values) == 1000
    assert values.tobytes() == CONTENT[7:1007]
    write_at(fd, 3, values[::-1].copy())
    assert read_at(fd, 3, 1000) == CONTENT[7:1007][::-1]


def test_threads_do_not_disturb_each_other(positions, fd):
    def check(i: int) -> None:
        at = 8192 + 16 * i
        write_at(fd, at, np.full(4, i, "i4"))
        found = np.zeros(4, "i4")
        assert read_into(fd, at, found) == 16
        assert found.tolist() == [i] * 4
        assert read_at(fd, i, 1) == CONTENT[i : i + 1]

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(check, range(400)))) == 400


def test_writing_nothing(positions, fd):
    write_at(fd, 0, np.zeros((0, 3)))
    assert read_at(fd, 0, 9) == CONTENT[:9]


@pytest.fixture
def watched(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as opened:
        yield path, RawFile(opened.fileno(), str(path))


def test_an_unchanged_file(watched):
    path, file = watched
    file.check_unchanged()
    assert file.size == len(CONTENT)
    assert file.identity() == {
        "file size": len(CONTENT), "file modified": path.stat().st_mtime_ns
    }  # fmt: skip


def overwrite(path):
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(1, 1))  # clocks of file systems are coarse


def replace(path):
    other = path.with_name("other")
    other.write_bytes(CONTENT)
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            overwrite,
            f"was changed while it was being read: it had {len(CONTENT)} bytes and",
        ),
        (lambda path: os.truncate(path, 99), "was changed .* bytes and now has 99[.]"),
        (replace, "was replaced by another file while"),
        (lambda path: path.unlink(), "was removed while"),
        (lambda path: path.rename(path.with_name("moved")), "was removed while"),
    ],
    ids=["overwritten", "truncated", "replaced", "removed", "renamed"],
)
def test_a_changed_file_is_told(watched, change, says):
    path, file = watched
    change(path)
    with pytest.raises(FileFormatError, match=f"^{path} {says}"):
        file.check_unchanged()


def test_a_link_to_the_file_is_the_file(tmp_path, watched):
    path, _ = watched
    link = tmp_path / "link"
    link.symlink_to(path)
    with link.open("rb") as opened:
        RawFile(opened.fileno(), str(link)).check_unchanged()
