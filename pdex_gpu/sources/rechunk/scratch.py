"""A scratch file without a name, so that it disappears however the process ends."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

from ...errors import ScratchError
from ...utils.raw_file import read_into, write_at


class Scratch:
    """An unnamed file in `folder`, written and read by several threads; a context manager.

    Parameters
    ----------
    folder : pathlib.Path, optional
        The system's temporary folder by default.
    n_bytes : int
        Maximum number of bytes to write; refused here if there is not enough room.

    Raises
    ------
    ScratchError
        There is too little room, now or when writing, or the folder is not writable.
    """

    def __init__(self, folder: Path | None, n_bytes: int) -> None:
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder
        try:
            free = shutil.disk_usage(self.folder).free
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ScratchError(
                f"The scratch folder {str(self.folder)!r} cannot be used: {error.strerror}. Choose "
                "another with scratch=."
            ) from error
        if free < n_bytes:
            self._file.close()
            raise ScratchError(
                f"The scratch folder {str(self.folder)!r} has {free:,} bytes free, but up to "
                f"{n_bytes:,} are needed for data that do not fit in memory. Choose a folder with "
                "more free space with scratch=, or allow more memory with memory=."
            )
        self._fd = self._file.fileno()
        self._end = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def reserve(self, n_bytes: int) -> int:
        """Reserve room for `n_bytes` and return its offset."""
        with self._lock:
            at = self._end
            self._end += n_bytes
        return at

    def write(self, offset: int, array: np.ndarray) -> None:
        """Write a contiguous array at `offset`."""
        try:
            write_at(self._fd, offset, array)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "is full" if full else f"failed: {os.strerror(error.errno or 0)}"
            raise ScratchError(
                f"The scratch folder {str(self.folder)!r} {advice}, after about {self._end:,} "
                "bytes. Choose a folder with more free space with scratch=, or allow more memory "
                "with memory=."
            ) from error

    def read(self, offset: int, out: np.ndarray) -> None:
        """Fill a contiguous array with what was written at `offset`."""
        n = read_into(self._fd, offset, out) if out.size else 0
        if n != out.nbytes:
            raise ScratchError(
                f"The scratch file in {str(self.folder)!r} ended early: was its disk disconnected?"
            )
