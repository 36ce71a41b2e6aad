"""Every exception and warning class of the package.

Each message says what was asked, what was found and what to do. Classes also inherit the
built-in exception that callers of pdex or scanpy would catch in the same place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

SHOWN = 20


class PdexGpuError(Exception):
    """Base class of every error raised on purpose by pdex_gpu."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Not the built-in one: tblib, by which Dask sends errors, makes such objects by a
        # `__new__` that classes with two bases do not have.
        return super().__reduce__()


class OptionError(PdexGpuError, ValueError):
    """An option has a value that does not exist or makes no sense here."""


class LabelError(PdexGpuError, ValueError):
    """A group or the reference does not exist, or nothing is left to compare."""


class ColumnError(PdexGpuError, KeyError):
    """A column of obs does not exist."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class LayerError(PdexGpuError, KeyError):
    """A layer does not exist."""

    __str__ = Exception.__str__


class DataError(PdexGpuError, ValueError):
    """The matrix holds values that no test is defined for, or is malformed."""


class FileFormatError(PdexGpuError, OSError):
    """A file is not HDF5, is truncated, or is not laid out as anndata writes it."""


class ScratchError(PdexGpuError, OSError):
    """The scratch folder has too little room or cannot be used."""


class OutputError(PdexGpuError, OSError):
    """The output could not be written: its disk is full or failed, or permission is missing."""


class CheckpointError(PdexGpuError, ValueError):
    """What an earlier run left beside an output is of another call, or is in use."""


class UnsupportedDataError(PdexGpuError, TypeError):
    """A matrix of a kind that this package does not read."""


class LowMemoryError(PdexGpuError, TypeError):
    """Backed data with ``low_memory=False``."""


class BackendError(PdexGpuError, RuntimeError):
    """A backend asked for by name cannot run here."""


class KernelError(BackendError):
    """A kernel cannot be loaded or started on a device, or went wrong there.

    The fault is the program's or that of what it was installed with, not the device's.
    """


class DeviceMemoryError(PdexGpuError, MemoryError):
    """The memory of a device, or the share of it that may be used, is too small."""


class DeviceLostError(PdexGpuError, RuntimeError):
    """A device failed while it was used."""


class MemoryBudgetError(PdexGpuError, MemoryError):
    """The memory that may be used is too small for what was asked."""


class SharedMemoryError(PdexGpuError, MemoryError):
    """Shared memory is too small for the shared-memory engine."""


class ClusterError(PdexGpuError, RuntimeError):
    """A Dask cluster cannot be reached or used, or was lost."""


class WorkerError(PdexGpuError, RuntimeError):
    """A worker process died."""


class MissingDependencyError(PdexGpuError, ImportError):
    """An optional package is needed for what was asked."""


class CoverageError(PdexGpuError, AssertionError):
    """Part of the results was never written, or written twice: a bug in pdex_gpu."""


class DuplicateGeneWarning(UserWarning):
    """Gene names occur more than once."""


class MissingLabelWarning(UserWarning):
    """Cells without a label are left out."""


class UnknownGroupWarning(UserWarning):
    """Some of the groups asked for do not exist and are left out."""


class SkippedWarning(UserWarning):
    """Some comparisons cannot be made and are left out."""


def listing(names: Iterable[object], *, limit: int = SHOWN) -> str:
    """The first `limit` names, quoted, with a count of the rest."""
    names = list(names)
    shown = ", ".join(repr(str(n)) for n in names[:limit])
    rest = len(names) - limit
    return f"{shown} ... and {rest} more" if rest > 0 else (shown or "none")


def unknown(kind: str, asked: object, available: Sequence[object]) -> str:
    """Text for a name that does not exist: close matches, then what does exist."""
    names = [str(a) for a in available]
    close = difflib.get_close_matches(str(asked), names, n=3, cutoff=0.6)
    if not close:
        lowered = {name.lower(): name for name in names}
        close = [lowered[c] for c in difflib.get_close_matches(str(asked).lower(), lowered, n=3)]
    text = f"Unknown {kind} {str(asked)!r}."
    if close:
        text += f" Did you mean {' or '.join(repr(c) for c in close)}?"
    return f"{text} Available ({len(names)}): {listing(names)}."
