"""Every exception and warning class of the package.

Each message says what was asked, what was found and what to do. Classes also inherit the
built-in exception that callers of pdex or scanpy would catch in the same place.
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

#: The folder of this package: where its own lines are.
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")

#: Letters of a value that a message shows.
SHOWN_LETTERS = 200

_WITH_SIZES = 6  # groups whose number of cells is told

# What control cells are called, without case: words of a label, and how labels begin.
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


class MissingFileError(PdexGpuError, FileNotFoundError):
    """There is no such file or folder."""


class UnreadableFileError(PdexGpuError, PermissionError):
    """There is a file, but not the permission to read it."""


class FileFormatError(PdexGpuError, OSError):
    """A file is not HDF5, is truncated, or is not laid out as anndata writes it."""


class ScratchError(PdexGpuError, OSError):
    """The scratch folder has too little room or cannot be used."""


class OutputError(PdexGpuError, OSError):
    """The output could not be written: its disk is full or failed, or permission is missing."""


class CheckpointError(PdexGpuError, ValueError):
    """What an earlier run left beside an output is of another call, in use or damaged."""


class UnsupportedDataError(PdexGpuError, TypeError):
    """A matrix of a kind that this package does not read."""


class LowMemoryError(PdexGpuError, TypeError):
    """Backed data with ``low_memory=False``."""


class BackendError(PdexGpuError, RuntimeError):
    """A backend asked for by name cannot run here."""


class KernelError(BackendError):
    """A kernel cannot be loaded or started on a device, or failed there.

    The fault lies with the program or its installation, not with the device.
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


class TextEncodingWarning(UserWarning):
    """Text in a file is not UTF-8."""


class UnknownGroupWarning(UserWarning):
    """Some of the groups asked for do not exist and are left out."""


class ScaleWarning(UserWarning):
    """Values are on a scale on which some columns have no meaning."""


class DamagedCheckpointWarning(UserWarning):
    """Part of a checkpoint is not as it was written, and is computed again."""


class SkippedWarning(UserWarning):
    """Some comparisons cannot be made and are left out."""


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Give a warning that points to the line that called this package, however deep it arises."""
    depth, level = 1, 1
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            level = depth + 1
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def shown(value: object, limit: int = SHOWN_LETTERS) -> str:
    """A value for a message: its repr in one line, cut to so many letters; never raises."""
    try:
        text = " ".join(repr(value).split()) if not isinstance(value, str) else repr(value)
    except Exception:  # the object's own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 20]} ... {text[-15:]}"


def listing(names: Iterable[object], *, limit: int = SHOWN) -> str:
    """The first `limit` names, quoted, with a count of the rest."""
    names = list(names)
    listed = ", ".join(_quoted(n) for n in names[:limit])
    rest = len(names) - limit
    return f"{listed} ... and {rest} more" if rest > 0 else (listed or "none")


def close_matches(asked: object, names: Sequence[str], n: int = 3) -> list[str]:
    """Names spelt much like what was asked for, the closest first."""
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
    """Text for a name that does not exist: close matches, then what does exist."""
    names = [_text(a) for a in available]
    return f"{_unknown(kind, asked, names)} Available ({len(names)}): {listing(names)}."


def unknown_label(kind: str, asked: object, sizes: Mapping[Any, int], *, control: bool) -> str:
    """The same for the label of a group: then likely controls, and the largest groups.

    Parameters
    ----------
    kind : str
        What was looked for, and where.
    asked : object
    sizes : mapping of label to int
        Cells of each group.
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
    """Whether a label reads like that of control cells: non-targeting, NTC, DMSO and the like."""
    words = re.split(r"[^a-z0-9]+", label.casefold())
    joined = "".join(words)
    return joined.startswith(_CONTROL_STARTS) or any(
        word.removeprefix("sg") in _CONTROL_WORDS or word.rstrip("0123456789") == "ntc"
        for word in words  # with a number others are genes, such as WT1
    )


def _unknown(kind: str, asked: object, names: Sequence[str]) -> str:
    text = f"Unknown {kind} {_quoted(asked)}."
    close = close_matches(asked, names)
    return text + (f" Did you mean {' or '.join(map(shown, close))}?" if close else "")


def _with_sizes(names: Sequence[str], sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(name)} ({sizes[name]:,} cells)" for name in names[:_WITH_SIZES])


def _text(value: object) -> str:
    """What a name reads like; never raises."""
    try:
        return str(value)
    except Exception:  # the object's own
        return shown(value)


def _quoted(value: object) -> str:
    return shown(_text(value))


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
