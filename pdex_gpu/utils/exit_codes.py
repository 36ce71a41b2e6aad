"""The exit codes of the command line, and the errors that lead to each."""

from __future__ import annotations

from enum import IntEnum

from .. import errors


class Exit(IntEnum):
    """An exit code of the command line."""

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
exit codes: 0 done, 1 unexpected error (see --debug), 2 usage, 3 bad input,
4 backend or package missing, 5 memory, 6 disk, 130 interrupted, 143 terminated
"""

# The first match wins: the package's own classes also inherit from built-in ones.
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
    """Return the exit code for an error."""
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    return Exit.UNEXPECTED
