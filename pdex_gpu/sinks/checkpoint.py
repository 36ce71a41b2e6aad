"""What a run leaves beside its output until that is complete: a folder with a file a range.

Every file is written under a temporary name, brought to the disk and renamed, so a file that has
its name is whole, whenever the process or the machine stops. One run at a time uses a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from io import FileIO
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..disk import CHECKPOINT, write_whole, writing
from ..errors import CheckpointError, OutputError
from ..value_summary import ValueSummary
from .differences import differences

logger = logging.getLogger("pdex_gpu")

_FORMAT = 3
_RUN, _FINISHED, _LOCK = "run.json", "finished.json", "lock"
_TEMPORARY = ".tmp"
# Genes, then the summary of their values: a file is renamed with both, or not there.
_RANGE = re.compile(
    r"genes-(?P<start>\d+)-(?P<stop>\d+)-(?P<kind>fractional|whole)"
    r"_(?P<minimum>[-+.e\d]+)_(?P<maximum>[-+.e\d]+)\.npy"
)
_WHAT = "The checkpoint of the output"
_ADVICE = (
    "Give restart=True (--restart) to throw away what it holds and start over, or name another "
    "output."
)


def checkpoint_folder(output: Path) -> Path:
    """Where the checkpoint of an output is: a hidden folder beside it."""
    return output.parent / f".{output.name}{CHECKPOINT}"


def _output_of(folder: Path) -> Path:
    """The output that a checkpoint is beside: what errors name."""
    return folder.parent / folder.name.removeprefix(".").removesuffix(CHECKPOINT)


def is_own_output(output: Path) -> bool:
    """Whether a run wrote `output` and was stopped before it had removed its checkpoint."""
    return _finished(checkpoint_folder(output), output) is not None


@dataclass(frozen=True)
class RangeFile:
    """The results of a range of genes: an array (values, genes of the range), float64.

    A field has as many values a gene as the checkpoint says; they follow each other.

    Attributes
    ----------
    path : pathlib.Path
    genes : slice
    summary : ValueSummary
        Of the values of the matrix in these genes.
    offset : int
        Where the array begins.
    """

    path: Path
    genes: slice
    summary: ValueSummary
    offset: int


class Checkpoint:
    """An open checkpoint: the ranges that are done, and room for more.

    Parameters
    ----------
    folder : pathlib.Path
    identity : mapping
        What tells this run from others.
    fields : mapping of str to int
        What is kept of each gene, and how many values that is.
    n_genes : int

    Attributes
    ----------
    ranges : list of RangeFile
        In the order of genes.
    canonical : bool
        Whether the results are those of the matrix's sorted copy.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        fields: Mapping[str, int],
        n_genes: int,
    ) -> None:
        self.folder, self.fields, self.n_genes = folder, dict(fields), n_genes
        starts = np.cumsum([0, *self.fields.values()]).tolist()
        self._places = {
            name: slice(a, b)
            for name, a, b in zip(self.fields, starts[:-1], starts[1:], strict=True)
        }
        self.canonical = False
        self._identity = json.loads(json.dumps(identity))
        self._found: dict[int, RangeFile] = {}
        self._lock = threading.Lock()

    @property
    def n_values(self) -> int:
        """Values a gene, of all fields."""
        return sum(self.fields.values())

    @property
    def split_folder(self) -> Path:
        """Where a run on a cluster keeps the matrix's rows, split; removed with the checkpoint."""
        return self.folder / "split"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells this run from others."""
        return {**self._identity, "canonical": self.canonical}

    @property
    def run(self) -> str:
        """A digest of what the folder says of its run."""
        return _run_of(self.folder)

    def place(self, field: str) -> slice:
        """Where the values of a field are among all of a gene."""
        return self._places[field]

    @property
    def ranges(self) -> list[RangeFile]:
        return [self._found[start] for start in sorted(self._found)]

    @property
    def worth_keeping(self) -> bool:
        """Whether there is something that a later call could carry on with."""
        return bool(self._found) or self.split_folder.exists()

    @property
    def summary(self) -> ValueSummary:
        """Of the values of the matrix in the ranges that are done."""
        return reduce(or_, (found.summary for found in self.ranges), ValueSummary())

    def load(self, *, restart: bool) -> None:
        """Find what an earlier run of the same identity left, or begin."""
        if restart:
            self._clear()
        for left in self.folder.glob(f"*{_TEMPORARY}"):  # of a process that was killed
            left.unlink(missing_ok=True)
        try:
            text = (self.folder / _RUN).read_text(encoding="utf-8")
        except FileNotFoundError:
            self._clear()
            self._write_run()
            return
        self._check_run(text)
        for path in sorted(self.folder.glob("genes-*.npy")):
            self._find(path)

    def write(self, genes: slice, summary: ValueSummary, values: np.ndarray) -> None:
        """Keep the results of a range, float64 of shape (values, genes)."""
        self.add(write_range(self.folder, genes, summary, values))

    def add(self, written: RangeFile) -> None:
        """Count a range that :func:`write_range` wrote to the folder."""
        with self._lock:
            self._found[written.genes.start] = written

    def start_over(self) -> None:
        """Forget the ranges; those to come are of the matrix's sorted copy."""
        self._clear()
        self._found.clear()
        self.canonical = True
        self._write_run()

    def output_file(self, suffix: str) -> Path:
        """Where to write the output before it is renamed."""
        return self._temporary(f"output{suffix}")

    @contextmanager
    def unnamed_file(self) -> Iterator[FileIO]:
        """A file for the time of the block, which is gone however that ends."""
        with writing(_WHAT, _output_of(self.folder)):
            file = tempfile.TemporaryFile(  # noqa: SIM115
                dir=self.folder, suffix=_TEMPORARY, buffering=0
            )
        with file:
            yield file

    def mark_finished(self, written: Path, facts: Mapping[str, Any]) -> None:
        """Note that `written` is the complete output, about to be renamed."""
        self._write_json(_FINISHED, {"file": _stamp(written), **facts})

    def finished(self, output: Path) -> dict[str, Any] | None:
        """What was noted of `output`, if it is there and complete."""
        return _finished(self.folder, output)

    def remove(self) -> None:
        """Remove all but the folder and its lock, which :func:`open_checkpoint` removes."""
        self._clear()
        self._found.clear()

    def _clear(self) -> None:
        # Whoever is stopped here leaves ranges that `run.json` still tells about.
        for path in self.folder.glob("genes-*.npy"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"*{_TEMPORARY}"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.split_folder, ignore_errors=True)
        for name in (_FINISHED, _RUN):
            (self.folder / name).unlink(missing_ok=True)

    def _temporary(self, name: str) -> Path:
        return self.folder / f"{name}{_TEMPORARY}"

    def _write_run(self) -> None:
        self._write_json(
            _RUN, {"format": _FORMAT, "canonical": self.canonical, "run": self._identity}
        )

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        def save(temporary: Path) -> None:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

        write_whole(
            self.folder / name,
            save,
            _WHAT,
            through=self._temporary(name),
            named=_output_of(self.folder),
        )

    def _check_run(self, text: str) -> None:
        try:
            found = json.loads(text)
            if found["format"] != _FORMAT:
                raise ValueError(f"format {found['format']!r}")
            self.canonical, earlier = found["canonical"], dict(found["run"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} cannot be read: its {_RUN} is damaged or of "
                f"another version of pdex_gpu. {_ADVICE}"
            ) from error
        differing = differences(earlier, self._identity)
        if differing:
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} is of another run:\n"
                + "".join(f"  {line}\n" for line in differing)
                + f"Call again as before to carry on with it. {_ADVICE}"
            )

    def _find(self, path: Path) -> None:
        """Take up a range file, or remove one that is not as it was written."""
        name = _RANGE.fullmatch(path.name)
        if name:
            genes = slice(int(name["start"]), int(name["stop"]))
            try:
                summary = ValueSummary(
                    name["kind"] == "fractional", float(name["minimum"]), float(name["maximum"])
                )
                offset = self._check_file(path, genes)
            except (OSError, ValueError) as error:
                logger.warning("%s is damaged, its genes are computed again: %s", path, error)
            else:
                self._found[genes.start] = RangeFile(path, genes, summary, offset)
                return
        path.unlink(missing_ok=True)

    def _check_file(self, path: Path, genes: slice) -> int:
        """Where the array of a range file begins; raises ValueError if the file is not whole."""
        if not 0 <= genes.start < genes.stop <= self.n_genes:
            raise ValueError(f"there are {self.n_genes} genes")
        shape = (self.n_values, genes.stop - genes.start)
        with path.open("rb") as file:
            npy.read_magic(file)
            found = npy.read_array_header_1_0(file)
            offset = file.tell()
            size = os.fstat(file.fileno()).st_size
        if found != (shape, False, np.dtype(np.float64)):
            raise ValueError(f"it holds {found[2]} of shape {found[0]}, not float64 of {shape}")
        if size != offset + 8 * int(np.prod(shape)):
            raise ValueError(f"it has {size} bytes")
        return offset


def write_range(
    folder: Path, genes: slice, summary: ValueSummary, values: np.ndarray, run: str | None = None
) -> RangeFile:
    """Write the results of a range to the folder of a checkpoint, whole or not at all.

    Any process may; two that write the same range write the same file.

    Parameters
    ----------
    folder : pathlib.Path
    genes : slice
    summary : ValueSummary
        Of the values of the matrix in these genes.
    values : numpy.ndarray, shape (values, genes), float64
    run : str, optional
        What :attr:`Checkpoint.run` was when the work was given out: nothing is written once the
        folder is another run's.

    Raises
    ------
    CheckpointError
        The folder is not this run's any more.
    OutputError
        It cannot be written.
    """
    kind = "fractional" if summary.fractional else "whole"
    path = folder / (
        f"genes-{genes.start:09d}-{genes.stop:09d}-{kind}"
        f"_{summary.minimum!r}_{summary.maximum!r}.npy"
    )
    offset = 0

    def save(temporary: Path) -> None:
        nonlocal offset
        with temporary.open("wb") as file:
            npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(values))
            offset = file.tell()
            file.write(values.data)
        if run is not None and _run_of(folder) != run:
            raise CheckpointError(
                f"{str(folder)!r} belongs to another run by now: the call that these results are "
                "for has ended."
            )

    through = folder / f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}"
    write_whole(path, save, _WHAT, through=through, named=_output_of(folder))
    return RangeFile(path, genes, summary, offset)


def _run_of(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / _RUN).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


@contextmanager
def open_checkpoint(
    output: Path,
    identity: Mapping[str, Any],
    fields: Mapping[str, int],
    n_genes: int,
    *,
    restart: bool,
) -> Iterator[Checkpoint]:
    """The checkpoint of `output`, locked; its folder is removed if nothing is left in it.

    Raises
    ------
    CheckpointError
        It is of another run, cannot be read, or another run is using it.
    OutputError
        It cannot be written.
    """
    folder = checkpoint_folder(output)
    checkpoint = Checkpoint(folder, identity, fields, n_genes)
    with writing(_WHAT, output):
        lock = _lock(folder)
    try:
        try:
            checkpoint.load(restart=restart)
        except OutputError:  # before anything was kept
            checkpoint.remove()
            raise
        yield checkpoint
    finally:
        if not (folder / _RUN).exists():
            (folder / _LOCK).unlink(missing_ok=True)
        os.close(lock)
        with suppress(OSError):  # it holds something, or is another run's by now
            folder.rmdir()


def _lock(folder: Path) -> int:
    """Make the folder and lock it against other runs; gives the handle that holds the lock."""
    path = folder / _LOCK
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another run has just ended
            continue
        try:
            _take(handle, folder)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # removed by a run that ended meanwhile


def _take(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"Another run is writing the same output: it uses the checkpoint {str(folder)!r}. "
            "Wait until it has ended, or name another output."
        ) from error
    except OSError:  # a file system without locks
        logger.info("%s cannot be locked: let no other run write the same output", folder)


def _finished(folder: Path, output: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads((folder / _FINISHED).read_text(encoding="utf-8"))
        return facts if facts["file"] == _stamp(output) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stamp(path: Path) -> dict[str, int]:
    facts = path.stat()
    return {"inode": facts.st_ino, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
