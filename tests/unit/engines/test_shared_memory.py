"""The shared-memory engine: the same bits, nothing densified, nothing left behind."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from stored_screens import (
    GROUPBY,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    counts,
    logged,
    screen,
    stored,
)

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends.contract import NonFiniteError
from pdex_gpu.backends.numpy import kernel_set as numpy_kernels
from pdex_gpu.engines import shared_memory
from pdex_gpu.engines.shared_segments import make_segment
from pdex_gpu.sinks.memory import MemorySink
from pdex_gpu.sources.base import NotCanonicalError

DEV_SHM = Path("/dev/shm")
ROOT = Path(pdex_gpu.__file__).parents[1]

needs_dev_shm = pytest.mark.skipif(not DEV_SHM.is_dir(), reason="there is no /dev/shm")


@pytest.fixture(autouse=True)
def no_hang():
    """A test that waits for a dead worker ends the test run, with a traceback."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def segments(monkeypatch: pytest.MonkeyPatch):
    """The bytes of every segment that a test makes; none may outlive the test."""
    made: list[Any] = []

    def recorded(size: int) -> Any:
        made.append(make_segment(size))
        return made[-1]

    monkeypatch.setattr(shared_memory, "make_segment", recorded)
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    before = set(multiprocessing.active_children())  # pools of other packages may be waiting
    sizes = _Sizes(made)
    yield sizes
    for segment in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(segment.handle)
    assert set(multiprocessing.active_children()) <= before


class _Sizes(Sequence[int]):
    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, i: Any) -> Any:
        return self._made[i].size


def run(data, *, engine="shared_memory", n_workers=1, **options):
    if engine != "shared_memory":
        n_workers = None
    return pdex_gpu.differential_expression(
        data, GROUPBY, reference=REFERENCE, progress=False, engine=engine, n_workers=n_workers,
        **options,
    )  # fmt: skip


# --- the same results -----------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("how", MEMORY)
def test_same_bits_as_threads(how, tmp_path, segments):
    adata = stored(how, logged(), tmp_path)
    result = run(adata, exp_post_agg=False)
    assert_same_bits(result, run(adata, engine="threads", exp_post_agg=False))
    assert result.provenance["engine"] == "shared_memory"
    assert result.provenance["is_log1p"] is True
    assert segments


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {"metric": "t-test", "n_workers": 2, "n_threads": 2, "gene_chunk_size": 1},
        {"metric": "anderson", "backend": "numpy", "n_workers": 2},
        {"metric": "t-test", "trim": 0.1},  # through scipy
    ],
    ids=str,
)
def test_same_bits_for_every_metric_and_kernel_set(options):
    adata = screen(sparse.csr_matrix(counts()))
    assert_same_bits(run(adata, **options), run(adata, engine="threads", **options))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["strided", "view", "int64", "bool"])
def test_same_bits_of_unusual_matrices(kind):
    values = counts()
    if kind == "strided":
        matrix = np.repeat(np.repeat(values, 2, 0), 3, 1)[::2, ::3]
    elif kind == "int64":
        matrix = values.astype(np.int64) + 2**60
    else:
        matrix = values > 1 if kind == "bool" else values
    adata = screen(matrix)
    if kind == "view":
        adata = adata[::-1, ::-1]
    assert_same_bits(run(adata), run(adata, engine="threads"))


@pytest.mark.thorough
def test_unsorted_and_repeated_indices_are_made_canonical(caplog, segments):
    """NotCanonicalError crosses from the worker to the caller, which starts over on a copy."""
    clean = sparse.csr_matrix(counts())
    messy = clean.copy()
    first = slice(messy.indptr[3], messy.indptr[4])
    messy.indices[first] = messy.indices[first][::-1]
    messy.data[first] = messy.data[first][::-1]
    messy.has_sorted_indices = False
    before = messy.indices.copy()
    adata = screen(messy)
    with caplog.at_level("INFO", logger="pdex_gpu"):
        result = run(adata)
    assert sum("starting over" in r.getMessage() for r in caplog.records) == 1
    assert len(segments) == 6  # data, indices and indptr, twice
    np.testing.assert_array_equal(adata.X.indices, before)
    assert_same_bits(result, run(screen(clean), engine="threads"))


# --- what is shared -------------------------------------------------------------------------


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_a_sparse_matrix_is_shared_as_it_is(kind, segments):
    values = np.zeros((300, 200), np.float32)
    values[::3, ::11] = np.random.default_rng(0).poisson(3.0, values[::3, ::11].shape)
    matrix = kind(values)
    adata = screen(matrix, [REFERENCE, "A"] * 150, [f"g{j}" for j in range(200)])
    run(adata, backend="numpy")
    expected = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.size * 8
    assert sum(segments) == expected
    assert expected < values.nbytes / 10


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["C", "F"])
def test_a_dense_matrix_is_shared_once(how, segments, tmp_path):
    run(stored(how, counts(), tmp_path), backend="numpy")
    assert list(segments) == [counts().nbytes]


@pytest.mark.thorough
def test_workers_are_spawned(monkeypatch):
    """A forked worker would inherit the kernels that are broken here."""

    def broken(*args, **options):
        raise AssertionError("the worker was forked")

    monkeypatch.setattr(numpy_kernels, "pack", broken)
    adata = screen()
    with pytest.raises(AssertionError, match="forked"):
        run(adata, engine="threads", backend="numpy")
    assert run(adata, backend="numpy").n_rows == 27


# --- errors in a worker ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        NonFiniteError(3, 5, float("inf")),
        NotCanonicalError("indices are unsorted"),
        *(kind("text") for kind in vars(errors).values()
          if isinstance(kind, type) and issubclass(kind, errors.PdexGpuError)),
    ],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_every_error_survives_the_way_from_a_worker(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values()
     if isinstance(kind, type) and issubclass(kind, errors.PdexGpuError)],
)  # fmt: skip
def test_every_error_survives_the_way_from_a_dask_worker(kind):
    core = pytest.importorskip("distributed.core")
    try:
        raise kind("text") from ValueError("a cause")
    except errors.PdexGpuError as error:
        error.add_note("a note")
        message = core.error_message(error)
    parts = {name: getattr(message[name], "data", message[name]) for name in message}
    _, copy, _ = core.clean_exception(parts["exception"], parts["traceback"])
    assert type(copy) is kind
    assert str(copy) == str(kind("text"))
    assert copy.__notes__ == ["a note"]
    assert repr(copy.__cause__) == "ValueError('a cause')"


@pytest.mark.thorough
@pytest.mark.parametrize("bad", [np.nan, -np.inf], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_a_nonfinite_value_found_in_a_worker(bad, backend):
    values = counts()
    values[31, 5] = bad
    adata = screen(sparse.csr_matrix(values))
    texts = []
    for engine in ("shared_memory", "threads"):
        with pytest.raises(errors.DataError) as caught:
            run(adata, engine=engine, backend=backend)
        assert type(caught.value) is errors.DataError
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"X is {bad} in cell 'cell31' (row 31), gene 'gene5' (column 5).")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_worker_is_an_error_not_a_hang(monkeypatch, segments):
    """Killed in the middle: the first range is stored, the others have not begun."""
    real, others = MemorySink.store, set(multiprocessing.active_children())
    killed = []

    def store_and_kill(sink, result):
        real(sink, result)
        if not killed:
            children = set(multiprocessing.active_children()) - others
            killed.extend(child.pid for child in children)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(MemorySink, "store", store_and_kill)
    values = np.random.default_rng(0).normal(size=(400, 60)).astype(np.float32)
    adata = screen(values, [REFERENCE, "A", "B", "C"] * 100, [f"g{j}" for j in range(60)])
    with pytest.raises(errors.WorkerError) as caught:
        run(adata, metric="t-test", trim=0.1, gene_chunk_size=1)  # many slow ranges
    assert killed
    text = str(caught.value)
    assert "died before its results were complete" in text
    assert "engine='threads'" in text
    assert "__main__" in text
    assert segments


# --- data that cannot be shared -------------------------------------------------------------


@pytest.mark.parametrize("opened", ["backed", "path"])
def test_a_matrix_in_a_file_is_refused(opened, tmp_path, segments):
    adata = stored("backed csr", counts(), tmp_path)
    data = adata if opened == "backed" else adata.filename
    with pytest.raises(errors.OptionError) as caught:
        run(data)
    text = str(caught.value)
    assert text.startswith("engine='shared_memory' needs the matrix in memory")
    assert "CSR float32 in a file" in text
    assert "engine='threads'" in text
    assert not segments
    adata.file.close()


@needs_dev_shm
def test_too_little_room_is_said_before_anything_is_made(monkeypatch, segments):
    matrix = sparse.csr_matrix(counts())
    needed = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.size * 8
    usage = namedtuple("usage", "total used free")
    asked = []

    def full(path):
        asked.append(Path(path))
        return usage(10**6, 10**6, needed - 1)

    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(errors.SharedMemoryError) as caught:
        run(screen(matrix))
    text = str(caught.value)
    assert f"needs {needed:,} bytes" in text
    assert f"{needed - 1:,} free" in text
    assert "engine='threads'" in text
    assert "--shm-size=" in text
    assert asked == [DEV_SHM]
    assert not segments


def script(text: str) -> str:
    """A script that makes a screen larger than 64 KiB, and then does what `text` says."""
    return textwrap.dedent(
        """
        import os, sys
        import numpy as np, pandas as pd, anndata as ad
        import pdex_gpu
        from pdex_gpu import errors

        def call():
            labels = ["ctl", "A", "B", "C"] * 100
            obs = pd.DataFrame({"g": labels}, index=[f"cell{i}" for i in range(400)])
            values = np.random.default_rng(0).poisson(1.0, (400, 50)).astype("f8")  # 160 kB
            return pdex_gpu.differential_expression(
                ad.AnnData(values, obs), "g", reference="ctl", engine="shared_memory",
                n_workers=1, backend="numpy", progress=False,
            )
        """
    ) + textwrap.dedent(text)


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="mount namespaces are Linux's")
def test_a_shared_memory_mount_that_is_really_too_small(tmp_path):
    """In a mount namespace of its own, where /dev/shm is 64 KiB.

    First as found; then as if another process had filled it just after it was looked at.
    """
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    try:
        subprocess.run(["unshare", "-m", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount")
    path = tmp_path / "small.py"
    path.write_text(
        script(
            """
            import shutil
            from collections import namedtuple

            assert shutil.disk_usage("/dev/shm").total == 65536
            for what in ("needs 160,000 bytes", "could not reserve 160,000 bytes"):
                try:
                    call()
                except errors.SharedMemoryError as error:
                    assert what in str(error), error
                    assert "engine='threads'" in str(error), error
                else:
                    raise AssertionError("no error")
                assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
                shutil.disk_usage = lambda _: namedtuple("usage", "free")(10**9)
            print("done")
            """
        )
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, str(path)],
        capture_output=True, text=True, env=environment(), timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.thorough
def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script("call()\n"))
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True, text=True, env=environment(), timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pdex_gpu.errors.WorkerError: A worker process"), done.stderr
    assert "if __name__ == '__main__'" in last
    assert "leaked" not in done.stderr


@pytest.mark.thorough
def test_a_script_with_a_main_guard_runs_and_leaves_nothing(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script("if __name__ == '__main__':\n    assert call().n_rows == 150\n"))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True, text=True, env=environment(), timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.thorough
def test_the_matrix_of_the_user_is_left_alone(tmp_path):
    adata = screen(sparse.csr_matrix(counts()))
    parts = (adata.X.data, adata.X.indices, adata.X.indptr)
    before = [p.copy() for p in parts]
    for part in parts:
        part.flags.writeable = False
    run(adata, backend="numpy")
    for part, old in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, old)
        assert not part.flags.writeable
