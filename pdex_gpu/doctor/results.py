"""Checks that a file of results is as it was written, and if not, what was changed."""

from __future__ import annotations

from pathlib import Path

from ..errors import FileFormatError, OptionError, listing, shown
from ..results.file import ResultFile, open_parquet
from ..sources.formats import FORMATS
from ..utils.atomic_files import is_folder
from ..utils.formats import PROGRAM
from .base import NOTE, OK, PROBLEM, Check
from .machine import size

_OTHER_SCREENS = (".loom",)


def examine(path: Path) -> list[Check]:
    """Verify every row of a file of results.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    list of Check
        All are required. There is one problem for each column that was changed.

    Raises
    ------
    OptionError
        If `path` is a folder, or a file of another kind.
    MissingFileError
        If there is no such file.
    """
    screens = [suffix for form in FORMATS for suffix in form.suffixes] + [*_OTHER_SCREENS]
    if is_folder(path) or path.suffix.lower() in screens:
        raise OptionError(
            f"{shown(str(path))} is not a results file. Pass a .parquet file written by "
            f"`{PROGRAM} run`. To estimate what a run of a screen needs, use `{PROGRAM} estimate`."
        )
    topic = str(path)
    try:
        result = open_parquet(path)
        wrong = result.verify()
        has_digests = result.has_digests
    except FileFormatError as error:
        return [Check(topic, "file", PROBLEM, str(error), required=True)]
    checks = [Check(topic, "file", OK, _described(result), required=True)]
    if "rows" in wrong:
        return [*checks, Check(topic, "rows", PROBLEM, wrong["rows"], required=True)]
    rows = f"{len(result.targets):,} comparisons x {len(result.features):,} genes, as recorded"
    checks.append(Check(topic, "rows", OK, f"{result.n_rows:,}: {rows}", required=True))
    checks += [Check(topic, name, PROBLEM, why, required=True) for name, why in wrong.items()]
    right = [name for name in result.columns if name not in wrong]
    if has_digests and right:
        text = f"unchanged since they were written: {listing(right)}"
        checks.append(Check(topic, "columns", OK, text, required=True))
    elif right:
        text = "the file has no digests, so changed values cannot be detected"
        checks.append(Check(topic, "columns", NOTE, text, required=True))
    return checks


def _described(result: ResultFile) -> str:
    versions = result.provenance.get("versions")
    version = versions.get("pdex_gpu") if isinstance(versions, dict) else None
    n_bytes = size(result.path.stat().st_size)
    text = f"results of pdex_gpu {version or 'of an unknown version'}, {n_bytes}"
    kind = result.provenance.get("p_values")
    return f"{text}, p-values: {kind}" if isinstance(kind, str) else text
