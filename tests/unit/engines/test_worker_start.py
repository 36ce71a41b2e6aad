"""Where worker processes cannot be started, or the program not imported again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from repository import ROOT, SUPPORT
from stored_screens import GROUPBY, REFERENCE, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.engines import worker_processes


def run(text: str, *how: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """A program, with the screens of the tests to import."""
    path = os.pathsep.join([str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *how],
        input=given, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


SCRIPT = textwrap.dedent(
    """
    import pdex_gpu
    from stored_screens import GROUPBY, REFERENCE, screen

    if __name__ == "__main__":
        one = pdex_gpu.differential_expression(
            screen(), GROUPBY, reference=REFERENCE, engine="shared_memory", n_workers=1,
            backend="numpy", progress=False,
        )
        print(one.n_rows)
    """
)


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["-", "-c"])
def test_a_program_that_is_in_no_file(how):
    """Spawned workers would import ``<stdin>`` again."""
    done = run(SCRIPT, how, *([SCRIPT] if how == "-c" else []), given=SCRIPT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "27\n", "")


@pytest.fixture
def daemonic(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, as those of Celery, multiprocessing.Pool or a Dask nanny are."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)


def test_a_daemonic_process_is_told_what_to_do(daemonic):
    with pytest.raises(errors.WorkerError) as caught:
        pdex_gpu.differential_expression(
            screen(), GROUPBY, reference=REFERENCE, engine="shared_memory", n_workers=2,
            backend="numpy", progress=False,
        )  # fmt: skip
    for part in ("Celery", "multiprocessing.Pool", "engine='threads'", "n_threads="):
        assert part in str(caught.value)


def test_a_daemonic_process_works_with_threads_unless_processes_were_named(daemonic, caplog):
    asked = {
        "groupby_key": GROUPBY,
        "reference": REFERENCE,
        "backend": "numpy",
        "show_progress": False,
    }
    with caplog.at_level(logging.WARNING, "pdex_gpu"):
        found = pdex_gpu.parallel_differential_expression(screen(), num_workers=2, **asked)
    assert "using threads instead of worker processes" in caplog.text
    assert found.equals(pdex_gpu.parallel_differential_expression(screen(), **asked))
    with pytest.raises(errors.WorkerError):
        pdex_gpu.parallel_differential_expression(screen(), engine="shared_memory", **asked)


@pytest.mark.parametrize(
    ("where", "name", "value", "says"),
    [
        ("process", "_inheriting", True, "__main__"),
        ("executable", None, None, "sys.executable"),
    ],
)
def test_other_processes_that_cannot_start_any(where, name, value, says, monkeypatch):
    if where == "process":
        monkeypatch.setattr(multiprocessing.current_process(), name, value, raising=False)
    else:
        monkeypatch.setattr(worker_processes, "get_executable", lambda: None)
    assert says in str(worker_processes.why_no_processes())


def test_a_process_that_may_start_others():
    assert worker_processes.why_no_processes() is None


class _Label(str):
    """A label of a class that cannot be sent to another process."""

    def __reduce__(self):
        raise TypeError("stays here")


@pytest.mark.thorough
def test_labels_are_not_sent_to_workers():
    adata = screen()
    adata.obs["own"] = [_Label(label) for label in adata.obs[GROUPBY]]
    asked = {"reference": REFERENCE, "backend": "numpy", "progress": False}
    found, same = (
        pdex_gpu.differential_expression(adata, "own", engine=engine, **asked)
        for engine in ("shared_memory", "serial")
    )
    assert found.to_pandas().equals(same.to_pandas())


# --- compiling turned off, or its tools broken ----------------------------------------------

_CALL = textwrap.dedent(
    """
    import logging, sys
    import pdex_gpu
    from stored_screens import GROUPBY, REFERENCE, screen
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    try:
        found = pdex_gpu.differential_expression(
            screen(), GROUPBY, reference=REFERENCE, backend=sys.argv[1], progress=False
        )
        print(found.provenance["backend"])
    except pdex_gpu.errors.PdexGpuError as error:
        print(type(error).__name__, error)
    """
)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("cpu", "BackendError backend='cpu' was requested, but it cannot run here: NUMBA_DISABLE_"),
        ("auto", "cpu not usable: NUMBA_DISABLE_JIT is set"),
    ],
)
def test_compiling_turned_off(backend, says, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    done = run(_CALL, "-c", _CALL, backend)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert done.stdout.endswith("numpy\n") == (backend == "auto")


@pytest.mark.thorough
def test_a_compiler_that_cannot_be_imported(monkeypatch):
    broken = f"import sys; sys.modules['numba'] = None\n{_CALL}"
    done = run(broken, "-c", broken, "cpu")
    assert done.returncode == 0, done.stderr
    assert "BackendError " in done.stdout


# --- where compiled kernels are kept ---------------------------------------------------------

_KERNEL = textwrap.dedent(
    """
    from pdex_gpu.utils.jit import jit

    @jit
    def double(x):
        return 2 * x
    """
)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A module with a kernel, kept in the folder ``cache`` beside it."""
    (tmp_path / "kernel.py").write_text(_KERNEL)
    return tmp_path


def use(kernel: Path, cache: str) -> str:
    call = (
        f"import sys; sys.path.insert(0, {str(kernel)!r}); import kernel; print(kernel.double(4))"
    )
    os.environ["NUMBA_CACHE_DIR"] = cache
    try:
        done = run(call, "-c", call)
    finally:
        del os.environ["NUMBA_CACHE_DIR"]
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("place", ["/proc/nowhere", "file/below", "not/there/yet"])
def test_a_place_for_kernels_that_is_none(kernel, place):
    (kernel / "file").write_text("")
    place = place if place.startswith("/") else str(kernel / place)
    assert use(kernel, place) == "8\n"


@pytest.mark.thorough
def test_kernels_that_are_damaged_are_compiled_again(kernel):
    assert use(kernel, str(kernel / "cache")) == "8\n"
    kept = list((kernel / "cache").rglob("*.nb*"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:7])
    assert use(kernel, str(kernel / "cache")) == "8\n"
    for path in kept:
        path.unlink()
        path.mkdir()  # where nothing can be written
    assert use(kernel, str(kernel / "cache")) == "8\n"


# --- a command whose streams are of no use --------------------------------------------------

_SHELL = 'exec "$0" -m pdex_gpu '


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("words", ["backends >&-", "backends 2>&-", "backends --json >&- 2>&-"])
def test_a_command_with_a_closed_stream(words):
    done = subprocess.run(
        ["bash", "-c", _SHELL + words, sys.executable],
        capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_command_whose_output_is_full():
    done = subprocess.run(
        ["bash", "-c", _SHELL + "backends >/dev/full", sys.executable],
        capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.startswith("pdex-gpu: error: Cannot write to standard output: No")
    assert done.stderr.count("\n") == 1
