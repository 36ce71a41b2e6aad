"""Nothing outlives a run that is killed: no worker process, no shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from sessions import living, shared_files, wait_until, workers

import pdex_gpu
from pdex_gpu.engines import shared_segments, worker_processes
from pdex_gpu.errors import WorkerError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ROOT = Path(pdex_gpu.__file__).parents[1]

SCRIPT = """
    import os, sys, time
    import pdex_gpu
    from pdex_gpu.simulate import simulate_screen

    told = False

    def tell(progress):
        global told
        if told or not progress.n_genes:
            return
        told = True
        if "fork" in sys.argv and not os.fork():
            time.sleep(3600)  # has the parent's ends of all pipes
        print("computing", flush=True)

    if __name__ == "__main__":
        adata = simulate_screen(500, 3000, 8, seed=5).to_anndata()
        print("begins", flush=True)
        pdex_gpu.differential_expression(
            adata, "target_gene", engine="shared_memory", n_workers=2, n_threads=1,
            backend="numpy", metric="anderson", gene_chunk_size=4, progress=tell,
        )
"""


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The script, in a session of its own; killed at the end."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(path), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def reach(process: subprocess.Popen[str], moment: str) -> None:
    """Wait for a moment of the run."""
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    if moment == "computing":
        assert process.stdout.readline() == "computing\n"
    else:
        n = {"one started": 1, "all started": 2}[moment]
        wait_until(lambda: len(workers(process.pid)) >= n, "workers are started")


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("computing", signal.SIGTERM),
        ("one started", signal.SIGKILL),
        *(
            pytest.param(moment, number, marks=pytest.mark.slow)
            for moment, number in [
                ("computing", signal.SIGKILL),
                ("all started", signal.SIGKILL),
                ("all started", signal.SIGTERM),
            ]
        ),
    ],
)
def test_workers_end_with_their_parent(moment: str, number: signal.Signals, tmp_path: Path):
    with started(tmp_path) as process:
        reach(process, moment)
        process.send_signal(number)
        assert process.wait() == -number
        wait_until(lambda: not living(process.pid), "all processes have ended")
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.thorough
def test_workers_end_though_a_fork_of_their_parent_lives(tmp_path: Path):
    with started(tmp_path, "fork") as process:
        reach(process, "computing")
        spawned = workers(process.pid)
        assert len(spawned) == 2
        process.kill()
        process.wait()
        wait_until(lambda: not workers(process.pid), "the workers have ended")
        assert len(living(process.pid)) >= 1  # the fork


@pytest.mark.thorough
def test_shared_memory_has_no_name(tmp_path: Path):
    """So that none is left if all processes are killed at once."""
    with started(tmp_path) as process:
        reach(process, "computing")
        names = shared_files(process.pid)
        assert names
        assert [name for name in names if not name.endswith(" (deleted)")] == []


@pytest.mark.thorough
def test_ctrl_c_of_the_parent_alone_ends_the_workers_at_once(tmp_path: Path):
    with started(tmp_path) as process:
        reach(process, "computing")
        process.send_signal(signal.SIGINT)
        _, text = process.communicate()
        assert text.splitlines()[-1] == "KeyboardInterrupt"
        assert text.count("Traceback") == 1
        wait_until(lambda: not living(process.pid), "all processes have ended")


@pytest.mark.slow
def test_ctrl_c_of_all_is_told_by_the_parent_alone(tmp_path: Path):
    with started(tmp_path) as process:
        reach(process, "all started")
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate()
        assert text.splitlines()[-1] == "KeyboardInterrupt"
        assert text.count("Traceback") == 1
        wait_until(lambda: not living(process.pid), "all processes have ended")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "moment", ["computing", pytest.param("all started", marks=pytest.mark.slow)]
)
def test_a_worker_that_is_killed_ends_the_run(moment: str, tmp_path: Path):
    with started(tmp_path) as process:
        reach(process, moment)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        _, text = process.communicate()
        assert process.returncode == 1
        last = text.splitlines()[-1]
        assert last.startswith("pdex_gpu.errors.WorkerError: A worker process of engine='shared_")
        assert "SIGKILL" in last or "could not start" in last
        wait_until(lambda: not living(process.pid), "all processes have ended")


# --- the processes themselves ----------------------------------------------------------------


def double(argument: int, item: int) -> int:
    return argument * item


@pytest.mark.thorough
def test_every_item_has_its_answer():
    found = dict(worker_processes.results(3, double, 10, range(17)))
    assert found == {item: 10 * item for item in range(17)}
    assert list(worker_processes.results(2, double, 10, [])) == []


def long_answer(folder: Path, item: int) -> bytes:
    if item == 0:
        return b"short"
    wait_until((folder / "go").exists, "the first answer was taken")
    (folder / "pid").write_text(str(os.getpid()))
    return bytes(1 << 26)  # far more than a pipe holds


def test_a_worker_that_is_killed_in_the_middle_of_an_answer(tmp_path: Path):
    answers = worker_processes.results(2, long_answer, tmp_path, [0, 1])
    assert next(answers) == (0, b"short")
    (tmp_path / "go").touch()
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "pid")
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: _sleeps(pid), "it waits for the pipe")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="it was ended by SIGKILL"):
        list(answers)


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def ended(how: str, item: int) -> None:
    if how == "exit":
        os._exit(7)
    if how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    raise {"plain": ValueError("no"), "unsendable": Unsendable("alas")}[how]


class Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("stays here")


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exit", "it ended with exit code 7"),
        ("segv", "it was ended by SIGSEGV"),
        ("sigterm", "it was ended by SIGTERM"),
        ("unsendable", "Unsendable in a worker process: alas"),
    ],
)
def test_how_a_worker_ended_is_told(how: str, says: str):
    with pytest.raises(WorkerError, match=says):
        list(worker_processes.results(2, ended, how, [0, 1, 2]))


def test_an_error_has_its_traceback_in_the_worker():
    with pytest.raises(ValueError, match="no") as caught:
        list(worker_processes.results(1, ended, "plain", [0]))
    assert "in ended" in str(caught.value.__cause__)


# --- shared memory ---------------------------------------------------------------------------


def total(segment: shared_segments.Segment, item: int) -> int:
    return int(np.frombuffer(segment.buffer, np.uint8, segment.size).sum()) + item


@pytest.fixture(params=["as here", "no mount", "named"])
def segment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """As on Linux, as on macOS, and as on Windows."""
    if request.param == "no mount":
        monkeypatch.setattr(shared_segments, "MOUNT", Path("/nowhere"))
    if request.param == "named":
        memory = SharedMemory(create=True, size=1000)
        yield shared_segments.NamedSegment(memory)
        memory.close()
        with suppress(FileNotFoundError):
            memory.unlink()
    else:
        made = shared_segments.make_segment(1000)
        yield made
        made.close()


@pytest.mark.sampled(every=3)
def test_memory_is_shared(segment: shared_segments.Segment):
    segment.buffer[:1000] = bytes([3]) * 1000
    assert dict(worker_processes.results(2, total, segment, [0, 1, 2])) == {
        0: 3000,
        1: 3001,
        2: 3002,
    }


def test_a_worker_knows_its_parent():
    assert parent_process() is None
    assert dict(worker_processes.results(1, who, None, [1])) == {1: os.getpid()}


def who(_: None, item: int) -> int:
    found = parent_process()
    assert found is not None
    return found.pid
