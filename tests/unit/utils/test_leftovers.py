"""What killed processes left under a name is removed by the next; what is in use is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pdex_gpu
from pdex_gpu.utils import leftovers
from pdex_gpu.utils.atomic_files import write_atomically
from pdex_gpu.utils.leftovers import temporary_file, temporary_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there, what is left stays")

ROOT = Path(pdex_gpu.__file__).parents[1]

CHILD = """
import sys, time
from pathlib import Path
from pdex_gpu.utils.leftovers import temporary_file, temporary_folder
folder = Path(sys.argv[1])
with temporary_file(folder) as file, temporary_folder(folder, "pdex_gpu-some-") as own:
    file.write_text("half")
    (own / "below").mkdir()
    (own / "below" / "large").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is using a temporary file and folder."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def use(folder: Path) -> list[Path]:
    with temporary_file(folder) as file, temporary_folder(folder, "pdex_gpu-some-") as own:
        assert file.read_bytes() == b""
        return [file, own]


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    with another(tmp_path) as process:
        theirs = sorted(tmp_path.iterdir())
        assert len(theirs) == 2
        use(tmp_path)
        assert sorted(tmp_path.iterdir()) == theirs  # in use
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert sorted(tmp_path.iterdir()) == theirs
    use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_was_being_written_by_a_killed_process(tmp_path: Path):
    """The next file written to the folder, of whatever name, removes what is left of it."""
    with another(tmp_path):
        pass
    write_atomically(tmp_path / "new.csv", lambda path: path.write_text("whole") and None)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in left if not name.startswith("pdex_gpu-some-")] == ["new.csv"]


@pytest.mark.parametrize("whose", ["another host's", "another kind's", "a link"])
def test_what_may_be_in_use_elsewhere_is_left_alone(
    whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = use(tmp_path)
    for path in files:
        path.touch()
    if whose == "another host's":
        monkeypatch.setattr(leftovers, "_host", lambda: "ffffffff")
    elif whose == "another kind's":
        files = [path.rename(tmp_path / f"x{path.name}") for path in files]
    else:
        target = tmp_path / "target"
        target.touch()
        for path in files:
            path.unlink()
            path.symlink_to(target)
    use(tmp_path)
    assert all(os.path.lexists(path) for path in files)


def test_folders_that_were_not_locked_yet(tmp_path: Path):
    """One that is empty is taken for left, and its process makes another."""
    with temporary_folder(tmp_path, "pdex_gpu-some-") as own:
        empty = tmp_path / f"{own.name}empty"
        empty.mkdir()
        use(tmp_path)
        assert sorted(tmp_path.iterdir()) == [own]


def test_a_file_taken_for_left_between_making_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, made = leftovers._lock, []

    def late(handle: int, path: Path) -> bool:
        made.append(path)
        if len(made) in (1, 3):
            path.unlink()
        return real(handle, path)

    monkeypatch.setattr(leftovers, "_lock", late)
    with temporary_file(tmp_path) as file:
        assert made == [made[0], file]
        assert list(tmp_path.iterdir()) == [file]
    with temporary_folder(tmp_path, "pdex_gpu-some-") as own:
        assert own == made[-1].parent != made[2].parent


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_file(tmp_path) as file, temporary_folder(tmp_path, "pdex_gpu-some-") as own:
        use(tmp_path)
        assert {file, own} == set(tmp_path.iterdir())
