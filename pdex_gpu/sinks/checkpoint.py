"""The checkpoint of an unfinished run: a folder next to its output, with one file per range.

Every file is written under a temporary name, flushed to disk and then renamed. A file with its
final name is therefore complete, whenever the process or the machine stops. If it is changed or
damaged later, its checksums fail (:mod:`.range_file`). Only one run at a time uses a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from io import FileIO
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import (
    CheckpointError,
    DamagedCheckpointWarning,
    FileFormatError,
    OutputError,
    shown,
    warn,
)
from ..utils.atomic_files import (
    CHECKPOINT,
    create,
    is_strangers,
    kind_of,
    make_private,
    open_or_create,
    open_plain,
    remove,
    sync_folder,
    write_whole,
    writing,
)
from ..utils.foreign_errors import reading
from ..utils.parallel import Map
from ..utils.raw_file import read_at
from ..utils.value_summary import ValueSummary
from .identity_diff import differences
from .range_file import DamagedRangeError, RangeFile

logger = logging.getLogger("pdex_gpu")

_FORMAT = 4
_RUN, _FINISHED, _LOCK, _SPLIT = "run.json", "finished.json", "lock", "split"
_RANGES = "genes-"
_TEMPORARY = ".tmp"
_WHAT = "The checkpoint of the output"
_ADVICE = (
    "Pass restart=True (--restart) to discard its contents and start over, or choose another "
    "output."
)
_MOST_JSON = 1 << 28  # bytes; the file holds the names of all groups
_MOST_SHOWN = 20  # differences between two runs


def checkpoint_folder(output: Path) -> Path:
    """Return the checkpoint folder of an output: a hidden folder next to it."""
    return output.parent / f".{output.name}{CHECKPOINT}"


def _output_of(folder: Path) -> Path:
    """Return the output that a checkpoint belongs to; error messages name it."""
    return folder.parent / folder.name.removeprefix(".").removesuffix(CHECKPOINT)


def is_own_output(output: Path) -> bool:
    """Return whether a run wrote `output` but stopped before it had removed its checkpoint."""
    folder = checkpoint_folder(output)
    try:
        return _json(folder, _FINISHED, file=dict)["file"] == _stamp(output)
    except (CheckpointError, OSError):  # any fault is reported by the call that opens it
        return False


class Checkpoint:
    """An open checkpoint: the ranges that are done, and room for more.

    Parameters
    ----------
    folder : pathlib.Path
    identity : mapping
        Facts that distinguish this run from others.
    fields : mapping of str to int
        The fields kept per gene, and the number of values of each.
    n_genes : int

    Attributes
    ----------
    ranges : list of RangeFile
        The ranges that are done, in the order of genes.
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
        self._ranges: dict[int, RangeFile] = {}
        self._damaged: list[str] = []
        self._finished: dict[str, Any] | None = None
        self._lock = threading.Lock()

    @property
    def n_values(self) -> int:
        """Return the number of values per gene, over all fields."""
        return sum(self.fields.values())

    @property
    def split_folder(self) -> Path:
        """Return where a cluster run keeps the rechunked rows; removed with the checkpoint."""
        return self.folder / _SPLIT

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return the facts that distinguish this run from others."""
        return {**self._identity, "canonical": self.canonical}

    @property
    def run(self) -> str:
        """Return an identifier of the run, the same in every call that continues it."""
        facts = [_FORMAT, self.canonical, self._identity, self.fields, self.n_genes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def note(self) -> str:
        """Return a digest of what the folder says about its run."""
        return _note_of(self.folder)

    def place(self, field: str) -> slice:
        """Return the slice of a gene's values that belongs to a field."""
        return self._places[field]

    @property
    def ranges(self) -> list[RangeFile]:
        return [self._ranges[start] for start in sorted(self._ranges)]

    @property
    def worth_keeping(self) -> bool:
        """Return whether there is anything that a later call could continue from."""
        return bool(self._ranges) or self.split_folder.exists()

    @property
    def complete(self) -> bool:
        """Return whether all ranges are done."""
        return sum(found.width for found in self._ranges.values()) == self.n_genes

    @property
    def summary(self) -> ValueSummary:
        """Return the summary of the matrix values in the ranges that are done."""
        return reduce(or_, (found.summary for found in self.ranges), ValueSummary())

    def load(self, *, restart: bool, parallel_map: Map = map) -> None:
        """Take up what an earlier run of the same identity left, or start a new checkpoint.

        Damaged ranges are removed, see :meth:`warn_of_damage`; `parallel_map` spreads the work.

        Raises
        ------
        CheckpointError
            The folder belongs to another run, or holds something that no run leaves.
        """
        if restart:
            self._clear()
            sync_folder(self.folder)
        names = self._check_kinds()
        if _RUN in names:
            self._check_run()
        if _FINISHED in names:
            self._check_finished(run_is_known=_RUN in names)
        ranges = [self.folder / name for name in names if name.startswith(_RANGES)]
        if _RUN in names or self._finished is not None:
            self._take_up([path for path in ranges if path.suffix != _TEMPORARY], parallel_map)
            for name in names:
                if name.endswith(_TEMPORARY):  # left by a process that was killed
                    remove(self.folder / name)
            return
        self._clear()  # ranges of an unknown run
        sync_folder(self.folder)
        sync_folder(self.folder.parent)
        try:
            self._write_run()
        except OutputError:
            self._clear()
            raise

    def warn_of_damage(self) -> None:
        """Warn of damaged ranges that must be computed again."""
        if not self._damaged:
            return
        n_found = len(self._ranges) + len(self._damaged)
        warn(
            f"This checkpoint was damaged: {len(self._damaged):,} of {n_found:,} ranges will be "
            f"computed again. Their files in {str(self.folder)!r} were changed or truncated after "
            f"pdex-gpu wrote them; the first is {shown(self._damaged[0], 300)}. If nobody touched "
            "them, the disk may be failing.",
            DamagedCheckpointWarning,
        )

    def write(self, genes: slice, summary: ValueSummary, values: np.ndarray) -> None:
        """Write the results of a range, float64 of shape (values, genes)."""
        self.add(write_range(self.folder, genes, summary, values, self.run))

    def add(self, written: RangeFile) -> None:
        """Register a range that :func:`write_range` wrote to the folder."""
        with self._lock:
            self._ranges[written.genes.start] = written

    def start_over(self) -> None:
        """Discard the ranges; later ones are computed from the matrix's sorted copy."""
        self._clear()
        self._ranges.clear()
        self.canonical = True
        self._write_run()

    def output_file(self, suffix: str) -> Path:
        """Return the path at which to write the output before it is renamed."""
        return self._temporary(f"output{suffix}")

    @contextmanager
    def unnamed_file(self) -> Iterator[FileIO]:
        """Open a file for the duration of the block; it disappears however the block ends."""
        with writing(_WHAT, _output_of(self.folder)):
            file = tempfile.TemporaryFile(  # noqa: SIM115
                dir=self.folder, suffix=_TEMPORARY, buffering=0
            )
        with file:
            yield file

    def mark_finished(self, written: Path, facts: Mapping[str, Any]) -> None:
        """Record that `written` is the complete output, about to be renamed."""
        content = {"file": _stamp(written), **facts}
        self._write_json(_FINISHED, {**content, "digest": self._digest(content)})

    def finished(self, output: Path) -> dict[str, Any] | None:
        """Return what was recorded about `output` if it exists and is complete, else None."""
        try:
            whole = self._finished is not None and self._finished["file"] == _stamp(output)
        except OSError:
            return None
        return self._finished if whole else None

    def remove(self) -> None:
        """Remove all but the folder and its lock, which :func:`open_checkpoint` removes."""
        self._clear()
        self._ranges.clear()

    def _clear(self) -> None:
        """Remove everything under the names that runs use; the most informative files go last.

        If this is interrupted, `run.json` still describes the ranges that are left. The output
        stays marked as complete until nothing else is left, even if the power fails.
        """
        with writing(_WHAT, _output_of(self.folder)):
            for name in self._own_names():
                if name not in (_RUN, _FINISHED):
                    remove(self.folder / name)
            remove(self.folder / _RUN)
            if kind_of(self.folder / _FINISHED) is not None:
                sync_folder(self.folder)
                remove(self.folder / _FINISHED)
        self._finished = None

    def _own_names(self) -> list[str]:
        """Return the names in the folder that runs use, except the lock."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:  # removed while it was in use
            return []
        return [
            name
            for name in names
            if name in (_RUN, _FINISHED, _SPLIT)
            or name.startswith(_RANGES)
            or name.endswith(_TEMPORARY)
        ]

    def _check_kinds(self) -> list[str]:
        """Return the names there; raise CheckpointError if one is not the expected kind of file."""
        names = self._own_names()
        for name in names:
            wanted = "a folder" if name == _SPLIT else "a file"
            found = kind_of(self.folder / name)
            if found not in (wanted, None):
                raise _refused(self.folder, f"{shown(name)} in it is {found}, not {wanted}")
        return names

    def _temporary(self, name: str) -> Path:
        return self.folder / f"{name}{_TEMPORARY}"

    def _write_run(self) -> None:
        self._write_json(
            _RUN, {"format": _FORMAT, "canonical": self.canonical, "run": self._identity}
        )

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        def save(temporary: Path) -> None:
            with create(temporary) as file:
                file.write(json.dumps(content, indent=1).encode())

        write_whole(
            self.folder / name,
            save,
            _WHAT,
            through=self._temporary(name),
            named=_output_of(self.folder),
        )

    def _digest(self, content: Mapping[str, Any]) -> str:
        text = json.dumps([self.run, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_run(self) -> None:
        found = _json(self.folder, _RUN, format=int)
        if found["format"] != _FORMAT:
            age = "a newer" if found["format"] > _FORMAT else "an older"
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} was left by {age} version of pdex-gpu, in "
                f"format {found['format']}; this version writes format {_FORMAT}. Continue with "
                f"that version. {_ADVICE}"
            )
        found = _json(self.folder, _RUN, canonical=bool, run=dict)
        differing = differences(found["run"], self._identity)
        if differing:
            more = len(differing) - _MOST_SHOWN
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} belongs to a different run:\n"
                + "".join(f"  {line}\n" for line in differing[:_MOST_SHOWN])
                + (f"  and {more:,} more\n" if more > 0 else "")
                + f"Repeat the original call to continue it. {_ADVICE}"
            )
        self.canonical = found["canonical"]

    def _check_finished(self, *, run_is_known: bool) -> None:
        """Load the record of the finished output; its digest tells which run it belongs to."""
        found = _json(self.folder, _FINISHED, file=dict, digest=str)
        digest = found.pop("digest")
        for canonical in (self.canonical,) if run_is_known else (False, True):
            self.canonical = canonical
            if digest == self._digest(found):
                self._finished = found
                return
        raise _refused(self.folder, f"{_FINISHED} in it is damaged, or belongs to a different run")

    def _take_up(self, paths: list[Path], parallel_map: Map) -> None:
        """Take up the intact range files, and remove the others."""
        files = [RangeFile.named(path, self.n_values, self.run) for path in paths]
        for file in files:
            if file and not 0 <= file.genes.start < file.genes.stop <= self.n_genes:
                raise _refused(
                    self.folder, f"{file.path.name} in it covers genes that the data do not have"
                )
        faults = dict(zip(paths, parallel_map(self._fault, files), strict=True))
        last: RangeFile | None = None
        disjoint = []
        for file in sorted(filter(None, files), key=lambda file: file.genes.start):
            if last is None or file.genes.start >= last.genes.stop:
                disjoint.append(file)
                last = file
            elif faults[file.path] or faults[last.path]:
                raise _refused(
                    self.folder,
                    f"{last.path.name} and {file.path.name} in it cover some of the same genes",
                )
            # Otherwise a worker of an earlier call wrote it late, with other ranges.
        intact = {file.path: file for file in disjoint if not faults[file.path]}
        self._ranges = {file.genes.start: file for file in intact.values()}
        for path, fault in faults.items():
            if fault:
                logger.info("%s is damaged: %s", path, fault)
                self._damaged.append(f"{path.name}: {fault}")
            if path not in intact:
                remove(path)

    def _fault(self, file: RangeFile | None) -> str | None:
        """Return what is wrong with a range file; None if nothing is."""
        if file is None:
            return "its name is not that of a range"
        try:
            file.check()
        except DamagedRangeError as error:
            return str(error)
        except PermissionError as error:
            raise _refused(
                self.folder, f"{file.path.name} in it cannot be read: permission denied"
            ) from error
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return None


def write_range(
    folder: Path,
    genes: slice,
    summary: ValueSummary,
    values: np.ndarray,
    run: str,
    note: str | None = None,
) -> RangeFile:
    """Write the results of a range to the folder of a checkpoint, whole or not at all.

    Any process may call this; two that write the same range write the same file.

    Parameters
    ----------
    folder : pathlib.Path
    genes : slice
    summary : ValueSummary
        Summary of the matrix values in these genes.
    values : numpy.ndarray, shape (values, genes), float64
    run : str
        :attr:`Checkpoint.run`.
    note : str, optional
        Value of :attr:`Checkpoint.note` when the work was assigned: nothing is written once the
        folder belongs to another run.

    Raises
    ------
    CheckpointError
        The folder no longer belongs to this run.
    OutputError
        The file cannot be written.
    """
    file = RangeFile.of(folder, genes, summary, len(values), run)

    def save(temporary: Path) -> None:
        file.write(temporary, values)
        if note is not None and _note_of(folder) != note:
            raise CheckpointError(
                f"{str(folder)!r} now belongs to another run: the call that these results are for "
                "has ended."
            )

    through = folder / f"{file.path.name}.{uuid.uuid4().hex}{_TEMPORARY}"
    write_whole(file.path, save, _WHAT, through=through, named=_output_of(folder))
    return file


def _note_of(folder: Path) -> str:
    try:
        return hashlib.sha256(_content(folder / _RUN)).hexdigest()
    except FileNotFoundError:
        return ""


def _content(path: Path) -> bytes:
    fd = open_plain(path)
    try:
        size = os.fstat(fd).st_size
        if size > _MOST_JSON:
            raise OSError(f"it has {size:,} bytes")
        return read_at(fd, 0, size)
    finally:
        os.close(fd)


def _json(folder: Path, name: str, **kinds: type) -> dict[str, Any]:
    """Load the object in an existing JSON file, with members of these kinds.

    Raises
    ------
    CheckpointError
        The file holds anything else.
    """
    why = f"{name} in it is damaged"
    try:
        with reading(f"{name} of the checkpoint {str(folder)!r}", "JSON"):
            found = json.loads(_content(folder / name).decode())
    except FileFormatError as error:
        if isinstance(error.__cause__, PermissionError):
            why = f"{name} in it cannot be read: permission denied"
        raise _refused(folder, why) from error
    if type(found) is not dict or any(
        type(found.get(key)) is not kind for key, kind in kinds.items()
    ):
        raise _refused(folder, why)
    return found


def _refused(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {str(folder)!r} cannot be read: {why}. Nothing was removed. {_ADVICE}"
    )


@contextmanager
def open_checkpoint(
    output: Path,
    identity: Mapping[str, Any],
    fields: Mapping[str, int],
    n_genes: int,
    *,
    restart: bool,
    parallel_map: Map = map,
) -> Iterator[Checkpoint]:
    """Open and lock the checkpoint of `output`; at the end, remove its folder if it is empty.

    `parallel_map` spreads the work of reading what is there.

    Raises
    ------
    CheckpointError
        It belongs to another run, cannot be read, or another run is using it.
    OutputError
        It cannot be written.
    """
    folder = checkpoint_folder(output)
    checkpoint = Checkpoint(folder, identity, fields, n_genes)
    with writing(_WHAT, output):
        lock = _lock(folder, restart=restart)
    try:
        with writing(_WHAT, output):
            checkpoint.load(restart=restart, parallel_map=parallel_map)
        yield checkpoint
    finally:
        if kind_of(folder / _RUN) is None:
            (folder / _LOCK).unlink(missing_ok=True)
        os.close(lock)
        with suppress(OSError):  # not empty, or belongs to another run by now
            folder.rmdir()


def _lock(folder: Path, *, restart: bool) -> int:
    """Make the folder and lock it against other runs; return the handle that holds the lock."""
    path = folder / _LOCK
    while True:
        _make(folder, restart=restart)
        try:
            handle = open_or_create(path)
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


def _make(folder: Path, *, restart: bool) -> None:
    """Make the folder unless it exists; refuse, or on restart remove, what is in its way."""
    try:
        make_private(folder)
        return
    except FileExistsError:
        pass
    found = kind_of(folder)
    if found == "a folder" and is_strangers(folder):
        raise CheckpointError(
            f"The checkpoint {str(folder)!r} belongs to another user. Choose an output in a folder "
            "of your own."
        )
    if found not in ("a folder", None):
        if not restart:
            raise _refused(folder, f"it is {found}, not a folder")
        remove(folder)
        return _make(folder, restart=restart)
    found = kind_of(folder / _LOCK)
    if found not in ("a file", None):
        if not restart:
            raise _refused(folder, f"{_LOCK!r} in it is {found}, not a file")
        remove(folder / _LOCK)


def _take(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"Another run is writing the same output: it uses the checkpoint {str(folder)!r}. Wait "
            "until it has ended, or choose another output."
        ) from error
    except OSError:  # a file system without locks
        logger.info("%s cannot be locked: let only one run write this output", folder)


def _stamp(path: Path) -> dict[str, int]:
    facts = path.stat()
    return {"inode": facts.st_ino, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
