"""All exception and warning classes of the package.

Each message says what was asked for, what was found and what to do. Classes also inherit from
the built-in exception that callers of pdex or scanpy would catch in the same place.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

SHOWN = 20

#: The folder of this package's own code.
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")

#: Characters of a value that a message shows at most.
SHOWN_LETTERS = 200

_WITH_SIZES = 6  # groups listed with their number of cells

_MISSPELT = 3  # missing names for which close ones are looked up, which takes time

# Names of control cells in lower case: words of a label, and the starts of labels.
_CONTROL_WORDS = frozenset(
    {
        "nt", "ntc", "control", "controls", "ctrl", "ctl", "ctrls", "neg", "negative",
        "safe", "dmso", "scramble", "scrambled", "scr", "aavs1", "rosa26", "ccr5", "wt", "wildtype",
        "mock", "vehicle", "untreated", "unperturbed", "untransduced", "uninfected", "pbs", "empty",
        "gfp", "egfp", "lacz", "luciferase", "intergenic", "noguide", "unstimulated",
    }
)  # fmt: skip
_CONTROL_STARTS = (
    "nontarget", "control", "ctrl", "negctrl", "negcontrol", "negativecontrol", "safetarget",
    "safeharbo", "scramble", "wildtype", "untreated", "vehicle", "mock", "nopert", "noguide",
    "notarget",
)  # fmt: skip


class PdexGpuError(Exception):
    """Base class of every error raised on purpose by pdex_gpu."""

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Overridden for tblib, with which Dask sends errors: where the built-in `__reduce__` is
        # found, it rebuilds errors by a `__new__` that classes with two bases do not have.
        return super().__reduce__()


class OptionError(PdexGpuError, ValueError):
    """An option has a value that does not exist or makes no sense here."""


class UnknownOptionError(OptionError, TypeError):
    """A call has a keyword that is none of its parameters."""


class LabelError(PdexGpuError, ValueError):
    """A group or the reference does not exist, or nothing is left to compare."""


class ColumnError(PdexGpuError, KeyError):
    """A column of obs or var does not exist."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


class GeneError(PdexGpuError, KeyError):
    """A gene is not in the matrix, or several have its name."""

    __str__ = Exception.__str__


class LayerError(PdexGpuError, KeyError):
    """A layer does not exist."""

    __str__ = Exception.__str__


class DataError(PdexGpuError, ValueError):
    """The matrix holds values that no test is defined for, or is malformed."""


class MissingFileError(PdexGpuError, FileNotFoundError):
    """A file or folder does not exist."""


class UnreadableFileError(PdexGpuError, PermissionError):
    """A file exists, but permission to read it is missing."""


class FileFormatError(PdexGpuError, OSError):
    """A file is not HDF5, is truncated, or is not laid out as anndata writes it."""


class ScratchError(PdexGpuError, OSError):
    """The scratch folder has too little room or cannot be used."""


class OutputError(PdexGpuError, OSError):
    """The output could not be written: its disk is full or failed, or permission is missing."""


class CheckpointError(PdexGpuError, ValueError):
    """The checkpoint next to an output belongs to another call, is in use or is damaged."""


class UnsupportedDataError(PdexGpuError, TypeError):
    """A matrix is of a kind that this package does not read."""


class LowMemoryError(PdexGpuError, TypeError):
    """Backed data were given with ``low_memory=False``."""


class BackendError(PdexGpuError, RuntimeError):
    """A backend requested by name cannot run here."""


class KernelError(BackendError):
    """A kernel cannot be loaded or started on a device, or failed there.

    The fault lies with the program or its installation, not with the device.
    """


class DeviceMemoryError(PdexGpuError, MemoryError):
    """A device's memory, or the share of it that may be used, is too small."""


class DeviceLostError(PdexGpuError, RuntimeError):
    """A device failed while in use."""


class MemoryBudgetError(PdexGpuError, MemoryError):
    """The memory that may be used is too small for the request."""


class SharedMemoryError(PdexGpuError, MemoryError):
    """Shared memory is too small for the shared-memory engine."""


class ClusterError(PdexGpuError, RuntimeError):
    """A Dask cluster cannot be reached or used, or was lost."""


class WorkerError(PdexGpuError, RuntimeError):
    """A worker process died."""


class MissingDependencyError(PdexGpuError, ImportError):
    """An optional package that the request needs is not installed."""


class CoverageError(PdexGpuError, AssertionError):
    """Some results were never written, or written twice: a bug in pdex_gpu."""


class DuplicateGeneWarning(UserWarning):
    """Gene names occur more than once."""


class MissingLabelWarning(UserWarning):
    """Labels are missing: such cells are left out, and such genes keep their identifiers."""


class TextEncodingWarning(UserWarning):
    """Text in a file is not UTF-8."""


class UnknownGroupWarning(UserWarning):
    """Some of the requested groups do not exist and are left out."""


class ScaleWarning(UserWarning):
    """Values are on a scale on which some columns are meaningless."""


class DamagedCheckpointWarning(UserWarning):
    """Part of a checkpoint has changed since it was written, and is computed again."""


class SkippedWarning(UserWarning):
    """Some comparisons cannot be made and are left out."""


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Issue a warning that points to the line that called this package, at any call depth."""
    depth, level = 1, 1
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            level = depth + 1
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def shown(value: object, limit: int = SHOWN_LETTERS) -> str:
    """Return a value's repr on one line, cut to `limit` characters, for messages; never raise."""
    try:
        text = " ".join(repr(value).split()) if not isinstance(value, str) else repr(value)
    except Exception:  # the object's own repr may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 20]} ... {text[-15:]}"


def listing(names: Iterable[object], *, limit: int = SHOWN) -> str:
    """List the first `limit` names, quoted, with a count of the rest."""
    names = list(names)
    listed = ", ".join(_quoted(n) for n in names[:limit])
    rest = len(names) - limit
    return f"{listed} ... and {rest} more" if rest > 0 else (listed or "none")


def close_matches(asked: object, names: Sequence[str], n: int = 3) -> list[str]:
    """Return names spelt much like the one asked for, the closest first."""
    text = _text(asked)
    if len(text) > SHOWN_LETTERS:
        return []
    plain = _plain(text)
    alike = [name for name in names if plain and _plain(name) == plain][:n]
    if alike:
        return alike
    close = difflib.get_close_matches(text, names, n=n, cutoff=0.6)
    if not close:
        lowered = {name.lower(): name for name in names}
        close = [lowered[c] for c in difflib.get_close_matches(text.lower(), lowered, n=n)]
    return close


def unknown(kind: str, asked: object, available: Sequence[object]) -> str:
    """Describe a name that does not exist: close matches, then the names that do exist."""
    names = [_text(a) for a in available]
    return f"{_unknown(kind, asked, names)} Available ({len(names)}): {listing(names)}."


def unknown_genes(
    missing: Sequence[str],
    n_names: int,
    genes: Sequence[str],
    known: Sequence[str],
    what: str,
    where: str,
) -> str:
    """Describe names of a list that are no genes: how many, close matches, the genes there are.

    Parameters
    ----------
    missing : sequence of str
        The names that are not there.
    n_names : int
        All names of the list.
    genes : sequence of str
        The genes that are there, each by one name.
    known : sequence of str
        All their names and symbols.
    what, where : str
        The list, and what was searched: ``"genes="``, ``"the matrix"``.
    """
    text = f"{len(missing)} of {n_names} names in {what} are not in {where}: {listing(missing)}."
    for name in missing[:_MISSPELT]:
        close = close_matches(name, known)
        if close:
            text += f" Instead of {name!r}, did you mean {' or '.join(map(shown, close))}?"
    place = where[0].upper() + where[1:]
    return f"{text} {place} has {len(genes):,} genes: {listing(genes, limit=3)}."


def unknown_label(kind: str, asked: object, sizes: Mapping[Any, int], *, control: bool) -> str:
    """Describe a group label that does not exist, adding likely controls and the largest groups.

    Parameters
    ----------
    kind : str
        What was looked for, and where.
    asked : object
    sizes : mapping of label to int
        Number of cells of each group.
    control : bool
        Whether a control was looked for.
    """
    names = {_text(label): n for label, n in sizes.items()}
    text = _unknown(kind, asked, list(names))
    likely = [name for name in names if is_control(name)] if control else []
    if likely:
        text += f" Likely controls: {_with_sizes(likely, names)}."
    if len(names) > SHOWN:
        largest = sorted(names, key=lambda name: -names[name])
        text += f" Largest groups: {_with_sizes(largest, names)}."
    return f"{text} Available ({len(names)}): {listing(names)}."


def is_control(label: str) -> bool:
    """Return whether a label looks like one of control cells: non-targeting, NTC, DMSO etc."""
    words = re.split(r"[^a-z0-9]+", label.casefold())
    joined = "".join(words)
    return joined.startswith(_CONTROL_STARTS) or any(
        word.removeprefix("sg") in _CONTROL_WORDS or word.rstrip("0123456789") == "ntc"
        for word in words  # other words followed by a number are genes, such as WT1
    )


def _unknown(kind: str, asked: object, names: Sequence[str]) -> str:
    text = f"Unknown {kind} {_quoted(asked)}."
    close = close_matches(asked, names)
    return text + (f" Did you mean {' or '.join(map(shown, close))}?" if close else "")


def _with_sizes(names: Sequence[str], sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(name)} ({sizes[name]:,} cells)" for name in names[:_WITH_SIZES])


def _text(value: object) -> str:
    """Return a name as text; never raise."""
    try:
        return str(value)
    except Exception:  # the object's own str may raise anything
        return shown(value)


def _quoted(value: object) -> str:
    return shown(_text(value))


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
