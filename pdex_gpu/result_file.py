"""A result in a Parquet file: written as it was made, or opened later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import check_path, names_of
from .disk import is_there
from .errors import FileFormatError, OptionError, PdexGpuError
from .installing import UPDATE
from .naming import Within, made_within
from .result import DEResult
from .result_base import Result
from .schema import EXTRA, INTEGERS, LABELS, SCHEMA_VERSION, VALUES
from .table import LAYOUT_KEY, METADATA_KEY
from .table_rows import find_rows

if TYPE_CHECKING:
    import pyarrow.parquet


class ResultFile(Result):
    """Differential expression of every (target, gene), in a file; holds no table.

    Attributes
    ----------
    path : pathlib.Path
    targets, references, features, columns, within, kept
        See :class:`.result_base.Result`. Of a file that was opened, labels are text.
    provenance : dict
        Backend and why, device, engine, versions, options: as in the file's metadata.
    n_hits : numpy.ndarray or None, shape (n_comparisons,), int64
        Genes of each comparison with an FDR of at most 0.05, counted as the file was written;
        None for a file that was opened.
    """

    def __init__(
        self,
        path: Path,
        targets: np.ndarray,
        references: np.ndarray,
        features: np.ndarray,
        provenance: Mapping[str, Any],
        *,
        columns: tuple[str, ...] = (),
        within: Within | None = None,
        kept: np.ndarray | None = None,
        n_hits: np.ndarray | None = None,
    ) -> None:
        further = names_of("columns", columns, "columns", "('auroc',)")
        super().__init__(
            targets, references, features, (*VALUES, *further), provenance, within, kept
        )
        self.path = check_path("path", path)
        self.n_hits = n_hits

    def __repr__(self) -> str:
        return f"ResultFile {str(self.path)!r}: {self._described()}"

    def row(self, t: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        asked, t = self._check_columns(names), self._position(t)
        with self._open() as file:
            found = self._read(file, slice(t, t + 1), asked)
        return {name: values[0] for name, values in found.items()}

    def blocks(self, names: Iterable[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        asked = self._check_columns(names)
        with self._open() as file:
            for part in self._slices(len(asked)):
                yield part, self._read(file, part, asked)

    def load(self) -> DEResult:
        """Read the values into memory, 56 bytes a row; of Parquet files alone.

        Raises
        ------
        OptionError
            The file is text.
        FileFormatError
            The file was changed since it was written.
        """
        everything = slice(0, len(self.targets))
        with self._open() as file:
            columns = {n: self._read(file, everything, [n])[n] for n in self.columns}
        return DEResult(
            self.targets,
            self.references,
            self.features,
            columns,
            self.provenance,
            within=self.within,
            kept=self.kept,
        )

    @contextmanager
    def _open(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        _check_suffix(self.path)
        import pyarrow as pa
        import pyarrow.parquet as pq

        is_there(self.path, "The results file", "It was moved or removed: open it again.")
        try:
            with pq.ParquetFile(self.path) as file:
                if file.metadata.num_rows != self.n_rows:
                    raise FileFormatError(
                        f"{str(self.path)!r} has {file.metadata.num_rows:,} rows, not the "
                        f"{self.n_rows:,} that were written: it was replaced. Run the comparison "
                        "again."
                    )
                yield file
        except PdexGpuError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise FileFormatError(
                f"{str(self.path)!r} cannot be read any more ({error}): it was damaged or "
                "replaced. Run the comparison again."
            ) from error

    def _read(
        self, file: pyarrow.parquet.ParquetFile, part: slice, names: list[str]
    ) -> dict[str, np.ndarray]:
        """Columns of the comparisons in `part`, shape (n, n_genes)."""
        shape = (part.stop - part.start, len(self.features))
        if self.kept is None:
            kept, first, last = None, part.start * shape[1], part.stop * shape[1]
        else:
            kept = self.kept[part]
            first = int(np.count_nonzero(self.kept[: part.start]))
            last = first + int(np.count_nonzero(kept))
        groups, before = _row_groups(file, first, last)
        table = file.read_row_groups(groups, columns=names)
        found = {}
        for name in names:
            values = table[name].to_numpy()[first - before : last - before]
            if kept is None:
                found[name] = values.reshape(shape)
            else:
                found[name] = np.full(shape, 0 if name in INTEGERS else np.nan, values.dtype)
                found[name][kept] = values
        return found


def open_result(path: str | os.PathLike[str]) -> ResultFile:
    """Open a result that was written as Parquet, reading its labels and none of its values.

    Parameters
    ----------
    path : str or path-like
        A file of :meth:`DEResult.to_parquet`, of ``out=``, or of ``pdex-gpu run``.

    Returns
    -------
    ResultFile

    Raises
    ------
    MissingFileError
        There is no such file.
    OptionError
        It is a folder, or text.
    FileFormatError
        It is damaged, no result of this package, or of a newer version of it.

    Examples
    --------
    >>> import os, tempfile
    >>> from pdex_gpu import differential_expression, open_result
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> path = os.path.join(tempfile.mkdtemp(), "results.parquet")
    >>> differential_expression(adata, "target_gene", progress=False).to_parquet(path)
    >>> stored = open_result(path)
    >>> stored.find("GENE00042"), stored.find_feature("GENE00003")
    (1, 3)
    >>> stored.row(1, ["fold_change"])["fold_change"][3].round(2).item()
    0.87
    """
    path = check_path("path", path)
    shown = repr(str(path))
    if is_there(path, "The results file").is_dir():
        raise OptionError(f"{shown} is a folder. Name the .parquet file of a result in it.")
    _check_suffix(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            layout, provenance = _metadata(file, shown)
            targets, references, features = (
                _labels(layout[name]) for name in ("targets", "references", "features")
            )
            levels = _levels(layout["within"])
            kept = None
            if layout["filtered"]:
                kept = find_rows(
                    file,
                    list(zip(targets, references, *levels.values(), strict=True)),
                    ["target", "reference", *levels],
                    features,
                    shown,
                )
            columns = file.schema_arrow.names
            n_rows = file.metadata.num_rows
    except PdexGpuError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"{shown} is not a Parquet file, or it is damaged ({error}). "
            "Name a file that DEResult.to_parquet(), out= or `pdex-gpu run` wrote."
        ) from error
    extra = tuple(name for name in EXTRA if name in columns)
    result = ResultFile(
        path,
        targets,
        references,
        features,
        provenance,
        columns=extra,
        within=made_within(levels),
        kept=kept,
    )
    missing = [name for name in (*LABELS, *levels, *VALUES) if name not in columns]
    if missing or n_rows != result.n_rows:
        what = f"lacks the columns {missing}" if missing else f"has {n_rows:,} rows"
        raise FileFormatError(
            f"{shown} {what}, though it says it is a pdex_gpu result of {result.n_rows:,} rows: "
            "another program changed it. Use the file as pdex_gpu wrote it."
        )
    return result


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() in (".csv", ".tsv"):
        raise OptionError(
            f"{str(path)!r} is text; only Parquet files can be loaded. Read it with "
            "pandas.read_csv, or write to a .parquet file."
        )


def _metadata(
    file: pyarrow.parquet.ParquetFile, shown: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Layout and provenance, if this version can read them."""
    found = file.schema_arrow.metadata or {}
    if LAYOUT_KEY not in found or METADATA_KEY not in found:
        names = ", ".join(file.schema_arrow.names[:8])
        raise FileFormatError(
            f"{shown} was not written by pdex_gpu, or another program wrote it anew and left out "
            f"its metadata (its columns: {names}). Name a file that DEResult.to_parquet(), out= "
            "or `pdex-gpu run` wrote."
        )
    layout, provenance = json.loads(found[LAYOUT_KEY]), json.loads(found[METADATA_KEY])
    if layout["schema"] > SCHEMA_VERSION:
        version = provenance.get("versions", {}).get("pdex_gpu", "a newer version")
        raise FileFormatError(
            f"{shown} has result schema {layout['schema']} (written by pdex_gpu {version}); this "
            f"version reads up to {SCHEMA_VERSION}. To read it, {UPDATE}"
        )
    return layout, provenance


def _labels(names: list[str]) -> np.ndarray:
    labels = np.full(len(names), None)
    labels[:] = names
    return labels


def _levels(stored: list[Any] | None) -> dict[str, np.ndarray]:
    """The columns of levels, as :class:`.table.Table` stores them."""
    if stored is None:
        return {}
    name, labels = stored
    if isinstance(name, str):
        return {name: _labels(labels)}
    return dict(zip(name, map(_labels, labels), strict=True))


def _row_groups(file: pyarrow.parquet.ParquetFile, first: int, last: int) -> tuple[list[int], int]:
    """Row groups that hold rows `first` to `last`, and the first row of those."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = [i for i, end in enumerate(ends) if end > first and end - sizes[i] < last]
    return groups, int(ends[groups[0]] - sizes[groups[0]]) if groups else first
