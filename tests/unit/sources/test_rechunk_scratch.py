"""Scratch files: nobody sees them, they are gone however the process ends, errors in words."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from screens import as_anndata

from pdex_gpu import differential_expression
from pdex_gpu.errors import ScratchError
from pdex_gpu.sources.rechunk import scratch as module
from pdex_gpu.sources.rechunk.scratch import Scratch

posix = pytest.mark.skipif(os.name == "nt", reason="files with a name are deleted when closed")
Usage = namedtuple("Usage", "total used free")


def test_what_was_written_comes_back(tmp_path):
    arrays = [np.arange(n, dtype=dtype) for n in (0, 1, 999) for dtype in ("u1", "i8", "f4")]
    with Scratch(tmp_path, 1000) as scratch:
        places = [scratch.reserve(array.nbytes) for array in arrays]
        assert places == np.cumsum([0, *(array.nbytes for array in arrays)])[:-1].tolist()
        for place, array in reversed(list(zip(places, arrays, strict=True))):
            scratch.write(place, array)
        for place, array in zip(places, arrays, strict=True):
            found = np.zeros_like(array)
            scratch.read(place, found)
            np.testing.assert_array_equal(found, array)


def test_threads_write_at_once(tmp_path):
    with Scratch(tmp_path, 1000) as scratch, ThreadPoolExecutor(8) as pool:

        def put(i):
            at = scratch.reserve(4 * (i % 7))
            scratch.write(at, np.full(i % 7, i, "i4"))
            return at

        for i, at in enumerate(pool.map(put, range(500))):
            found = np.zeros(i % 7, "i4")
            scratch.read(at, found)
            assert (found == i).all()


@posix
def test_nobody_sees_the_file(tmp_path, monkeypatch):
    with Scratch(tmp_path, 100) as scratch:
        scratch.write(scratch.reserve(8), np.zeros(1))
        assert list(tmp_path.iterdir()) == []
        assert scratch.folder == tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(ScratchError, match="none"):
        Scratch(None, 0)


def test_the_file_is_closed(tmp_path):
    with Scratch(tmp_path, 100) as scratch:
        pass
    with pytest.raises(ScratchError):
        scratch.write(0, np.zeros(1))


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: Usage(10**6, 0, 12_345))
    Scratch(tmp_path, 12_345).__exit__(None, None, None)
    with pytest.raises(ScratchError) as caught:
        Scratch(tmp_path, 9_876_543)
    text = str(caught.value)
    for fragment in (str(tmp_path), "12,345 bytes free", "9,876,543", "scratch=", "memory="):
        assert fragment in text
    assert "None" not in text


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ScratchError, match=r"missing' cannot be used: No such file"):
        Scratch(tmp_path / "missing", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ScratchError, match=r"file' cannot be used: Not a directory"):
        Scratch(tmp_path / "file", 1)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ScratchError, match="cannot be used: Permission denied"):
        Scratch(tmp_path, 1)


def test_a_folder_without_permission_whoever_asks(tmp_path, monkeypatch):
    def denied(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", denied)
    with pytest.raises(ScratchError, match=r"cannot be used: Permission denied\. Choose another"):
        Scratch(tmp_path, 1)


def failing(number):
    def write_at(fd, offset, array):
        raise OSError(number, os.strerror(number))

    return write_at


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "is full, after about 80 bytes"),
        (errno.EDQUOT, "is full, after about 80 bytes"),
        (errno.EIO, "failed: Input/output error, after about 80 bytes"),
    ],
)
def test_a_disk_that_fails(tmp_path, monkeypatch, number, says):
    monkeypatch.setattr(module, "write_at", failing(number))
    with Scratch(tmp_path, 100) as scratch:
        at = scratch.reserve(80)
        with pytest.raises(ScratchError, match=says) as caught:
            scratch.write(at, np.zeros(10))
    assert str(tmp_path) in str(caught.value)
    assert "scratch=" in str(caught.value)


def test_a_file_that_lost_its_end(tmp_path):
    with Scratch(tmp_path, 100) as scratch:
        scratch.write(scratch.reserve(80), np.zeros(10))
        with pytest.raises(ScratchError, match=r"ended early"):
            scratch.read(8, np.zeros(10))


# --- through a whole run --------------------------------------------------------------------


@pytest.fixture
def screen(tmp_path):
    """A CSR file and an empty folder for temporary files."""
    rng = np.random.default_rng(0)
    from scipy import sparse

    matrix = sparse.csr_matrix(rng.poisson(0.5, (300, 40)).astype("f4"))
    path, folder = tmp_path / "screen.h5ad", tmp_path / "scratch"
    as_anndata(matrix, rng.integers(0, 3, 300)).write_h5ad(path)
    folder.mkdir()
    return path, folder


def run(path, **options):
    return differential_expression(path, "group", reference="ref", progress=False, **options)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_run_on_a_disk_that_fills_up(screen, monkeypatch, number):
    path, folder = screen
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    real, seen = module.write_at, []

    def write_at(fd, offset, array):
        seen.append(offset)
        if len(seen) == 2:
            raise OSError(number, os.strerror(number))
        real(fd, offset, array)

    monkeypatch.setattr(module, "write_at", write_at)
    with pytest.raises(ScratchError, match=str(folder)):
        run(path, memory=1)
    assert list(folder.iterdir()) == []


def test_a_run_without_room(screen, monkeypatch):
    path, folder = screen
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: Usage(10**6, 0, 7))
    with pytest.raises(ScratchError, match=f"{folder}' has 7 bytes free, but up to"):
        run(path, memory=1)
    run(path, memory=1 << 30)  # needs none


CHILD = """
import sys, time
from pdex_gpu.engines import base
from pdex_gpu import differential_expression
real = base.run_range
def slow(job, reader, k, run, store):
    if k == 1:
        print("ready", flush=True)
        time.sleep(3600)
    return real(job, reader, k, run, store)
from pdex_gpu.engines import serial
serial.run_range = slow
differential_expression(sys.argv[1], "group", reference="ref", progress=False, memory=1,
                        engine="serial", gene_chunk_size=8)
"""


@pytest.mark.sampled(every=3)
@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_process_ends(screen, number):
    path, folder = screen
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        if os.path.isdir("/proc"):  # it is there, without a name
            links = [os.readlink(link.path) for link in os.scandir(f"/proc/{child.pid}/fd")
                     if os.path.islink(link.path)]  # fmt: skip
            assert any(link.startswith(str(folder)) for link in links), links
        assert list(folder.iterdir()) == []
        child.send_signal(number)
        assert child.wait(timeout=600) != 0
    for _ in range(600):
        if not list(folder.iterdir()):
            break
        time.sleep(0.1)
    assert list(folder.iterdir()) == []
