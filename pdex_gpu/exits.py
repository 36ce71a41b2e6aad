"""The exit codes of the command line, and which error gives which."""

from __future__ import annotations

from enum import IntEnum

from . import errors


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INPUT = 3
    BACKEND = 4
    MEMORY = 5
    DISK = 6
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES = """\
exit codes:
  0    done
  1    unexpected error (--debug shows the traceback)
  2    usage: an unknown option or value, an output that cannot be used, or a checkpoint of
       another run
  3    bad input: the file, its labels or its values
  4    the backend cannot run here, its device failed, or an optional package is missing
  5    out of memory, shared memory or memory of the device
  6    the disk of the output or of the scratch folder is full or failed while it was written
  130  interrupted (Ctrl-C); 143 terminated
"""

# The first match counts: the package's own classes also inherit from built-in ones.
_CODES: tuple[tuple[tuple[type[BaseException], ...], Exit], ...] = (
    ((errors.SharedMemoryError, errors.DeviceMemoryError, MemoryError), Exit.MEMORY),
    (
        (errors.BackendError, errors.DeviceLostError, errors.MissingDependencyError),
        Exit.BACKEND,
    ),
    ((errors.OutputError, errors.ScratchError), Exit.DISK),
    ((errors.OptionError, errors.CheckpointError), Exit.USAGE),
    ((errors.WorkerError, errors.CoverageError), Exit.UNEXPECTED),
    ((errors.PdexGpuError,), Exit.INPUT),
    ((FileNotFoundError, IsADirectoryError, PermissionError), Exit.INPUT),
)


def exit_code(error: BaseException) -> Exit:
    """The exit code for an error."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return Exit.UNEXPECTED
