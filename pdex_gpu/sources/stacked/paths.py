"""The files that a list, a mapping or a pattern names, in order, each with a name of its own."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

from ...errors import MissingFileError, OptionError, UnsupportedDataError, listing, shown
from ...utils.checks import check_path, kind
from ..formats import is_url

_SPARE_FILES = 64  # open files besides the data: libraries, scratch, output, a cluster's sockets


def is_pattern(data: Any) -> bool:
    """Return whether `data` is a path with ``*``, ``?`` or ``[``, and not that of a file."""
    if not isinstance(data, str | os.PathLike):
        return False
    try:
        path = os.fspath(data)
        if not isinstance(path, str) or not glob.has_magic(path) or is_url(path):
            return False
        return any(glob.has_magic(part) and not exists for part, exists in _parts(path))
    except Exception:  # raised by the object itself, or no path at all
        return False


def _parts(path: str) -> Iterator[tuple[str, bool]]:
    """Yield the folders, separators and file of a path, and whether each exists as it is spelt.

    A path may go on inside a file: ``"screen[1].h5mu/mod/rna"``.
    """
    begun = ""
    for part in re.split(f"({re.escape(os.sep)})", path):
        begun += part
        yield part, glob.has_magic(part) and os.path.lexists(begun)


def _pattern(path: str) -> str:
    """Return a path as a pattern in which what exists as it is spelt stands for itself."""
    return "".join(glob.escape(part) if exists else part for part, exists in _parts(path))


def named_paths(data: Any) -> dict[str, str]:
    """Return the path of each file by its name, in order.

    Parameters
    ----------
    data : list, tuple, dict or path
        Paths; a mapping of names to paths; or a pattern. A list may hold patterns, too. The files
        of a pattern are in natural order: plate2 comes before plate10.

    Raises
    ------
    OptionError
        There is no path, or the same file twice, or a name that is no text; or more files than
        this process may open.
    MissingFileError
        Nothing matches a pattern.
    UnsupportedDataError
        Something is not a path.
    """
    if isinstance(data, dict):
        for name in data:
            if not isinstance(name, str) or not name:
                raise OptionError(
                    f"The name {shown(name)} of a file must be text. Pass a mapping of names to "
                    "paths, such as {'plate1': 'plate1.h5ad'}."
                )
        found = {name: _path(path, f"data[{name!r}]") for name, path in data.items()}
    else:
        items = data if isinstance(data, list | tuple) else [data]
        paths = [path for i, item in enumerate(items) for path in _expanded(item, f"data[{i}]")]
        _check_distinct(paths)
        found = dict(zip(distinct_names(paths), paths, strict=True))
    if not found:
        raise OptionError("The list of files is empty. Pass at least one path.")
    _check_distinct(list(found.values()))
    _check_limit(len(found))
    return found


def _expanded(item: Any, where: str) -> list[str]:
    path = _path(item, where)
    return matches(path) if is_pattern(path) else [path]


def _path(item: Any, where: str) -> str:
    if not isinstance(item, str | os.PathLike):
        raise UnsupportedDataError(
            f"{where} is a {kind(item)}. Only files can be read as one screen: pass their paths. "
            "Objects in memory can be concatenated with anndata.concat."
        )
    check_path(where, item)
    return os.fspath(item)


def matches(pattern: str) -> list[str]:
    """Return the paths that a pattern matches, in natural order.

    Raises
    ------
    MissingFileError
        There are none.
    """
    found = glob.glob(_pattern(pattern), recursive=True)
    if found:
        return sorted(found, key=_natural)
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder) and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    where = os.path.abspath(folder or os.curdir)
    try:
        there = sorted(os.listdir(where), key=_natural)
    except OSError as error:
        raise MissingFileError(
            f"No file matches {shown(pattern)}: the folder {where!r} cannot be listed "
            f"({error.strerror}). Check the path."
        ) from error
    raise MissingFileError(
        f"No file matches {shown(pattern)}. The folder {where!r} holds {listing(there)}. Check the "
        "path and the pattern."
    )


def _natural(path: str) -> list[Any]:
    """Return a key that sorts numbers within a path by size."""
    parts = re.split(r"(\d+)", path)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)] + [path]


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return the stems of paths; if stems repeat, with as many folders as make them distinct."""
    pure = [PurePath(path) for path in paths]
    for depth in range(1, max((len(path.parts) for path in pure), default=0) + 1):
        for last in ("stem", "name"):
            names = ["/".join((*p.parts[-depth:-1], getattr(p, last))) for p in pure]
            if len(set(names)) == len(names):
                return names
    return list(paths)


def _check_distinct(paths: Iterable[str]) -> None:
    """Raise OptionError if a file occurs twice: each of its cells would be counted twice."""
    times = Counter(path if is_url(path) else os.path.realpath(path) for path in paths)
    twice = [path for path, n in times.items() if n > 1]
    if twice:
        raise OptionError(
            f"{listing(twice, limit=3)} occurs more than once among the files, so each of its "
            "cells would be counted several times. Name each file once."
        )


def _check_limit(n_files: int) -> None:
    """Raise OptionError if this process may not open that many files."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return
    allowed = getrlimit(RLIMIT_NOFILE)[0]
    if allowed != RLIM_INFINITY and n_files + _SPARE_FILES > allowed:
        raise OptionError(
            f"{n_files:,} files are to be read, but this process may have only {allowed:,} open at "
            f"a time. Raise the limit before the call (ulimit -n {n_files + 2 * _SPARE_FILES}), or "
            "join some of the files first."
        )
