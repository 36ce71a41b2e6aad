"""A result in a Parquet file: just written, or opened later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.naming import Within, combined_levels, level_columns
from ..errors import FileFormatError, MemoryBudgetError, OptionError
from ..utils.atomic_files import is_there
from ..utils.checks import check_path, names_of
from ..utils.foreign_errors import reading
from ..utils.keywords import known_keywords, known_keywords_of_init
from ..utils.resources import available_memory
from .base import Result
from .footer import Footer, as_labels, read_footer
from .memory import DEResult
from .reader import Expected, RowReader
from .row_index import find_rows
from .schema import INTEGERS, VALUES
from .text_file import SEPARATORS

if TYPE_CHECKING:
    import pyarrow.parquet

_NOT_PARQUET = "it is not a Parquet file, or it is damaged"
_NAME_ONE = "Pass a file written by DEResult.to_parquet(), out= or `pdex-gpu run`."
_DAMAGED = "it was damaged or replaced"
_RUN_AGAIN = "Run the comparison again."

# Identifies a file and its state, so that a change shows.
_Stamp = tuple[int, ...]


@known_keywords_of_init
class ResultFile(Result):
    """Differential expression of every (target, gene) in a file; holds no table in memory.

    Attributes
    ----------
    path : pathlib.Path
    targets, references, features, symbols, columns, within, kept
        See :class:`.results.base.Result`. In a file that was opened, labels are text.
    provenance : dict
        Backend and the reason for it, device, engine, versions, options: as in the file's
        metadata.
    n_hits : numpy.ndarray or None, shape (n_comparisons,), int64
        Number of genes of each comparison with an FDR of at most 0.05, counted while the file was
        written; None for a file that was opened.
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
        symbols: np.ndarray | None = None,
        n_hits: np.ndarray | None = None,
    ) -> None:
        further = names_of("columns", columns, "columns", "('auroc',)")
        super().__init__(
            targets, references, features, (*VALUES, *further), provenance, within, kept, symbols
        )
        self.path = check_path("path", path)
        self.n_hits = n_hits
        self._stamp: _Stamp | None = None  # of the file that `_expected` describes
        self._expected: Expected | None = None

    def __repr__(self) -> str:
        return f"ResultFile {str(self.path)!r}: {self._described()}"

    @known_keywords
    def row(self, t: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        asked, t = self._check_columns(names), self._position(t)
        with self._open() as rows:
            found = rows.read(slice(t, t + 1), asked)
        return {name: values[0] for name, values in found.items()}

    @known_keywords
    def blocks(self, names: Iterable[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        asked = self._check_columns(names)
        with self._open() as rows:
            for part in self._slices(len(asked)):
                yield part, rows.read(part, asked)

    @known_keywords
    def load(self) -> DEResult:
        """Read the values into memory, 8 bytes per pair and column; Parquet files only.

        Pairs of comparison and gene that a filter removed take memory, too. The ten columns of a
        call without ``columns=`` take 80 bytes per pair. Labels and digests of all rows are
        verified.

        Raises
        ------
        OptionError
            If the file is text.
        FileFormatError
            If the file was changed since it was written.
        MemoryBudgetError
            If the values take more memory than is free.
        """
        shape = len(self.targets), len(self.features)
        needed = 8 * shape[0] * shape[1] * len(self.columns)
        free = available_memory()
        if needed > free:
            raise MemoryBudgetError(
                f"The values of {str(self.path)!r} take {needed / 1e9:.1f} GB in memory, but only "
                f"{free / 1e9:.1f} GB are free. Read one comparison at a time with row(), or "
                "blocks with blocks()."
            )
        columns = {
            name: np.empty(shape, np.int64 if name in INTEGERS else np.float64)
            for name in self.columns
        }
        with self._open() as rows:
            for part in rows.expected.blocks():
                for name, values in rows.read(part, [*columns]).items():
                    columns[name][part] = values
        return DEResult(
            self.targets,
            self.references,
            self.features,
            columns,
            self.provenance,
            within=self.within,
            kept=self.kept,
            symbols=self.symbols,
        )

    @known_keywords
    def verify(self) -> dict[str, str]:
        """Check the whole file against its own metadata, block by block.

        Returns
        -------
        dict of str to str
            What is wrong, by column; empty if the file is as it was written. If the rows are not
            those that the file lists, this is under ``"rows"``; columns then mean nothing, and are
            not checked.

        Raises
        ------
        FileFormatError
            If the file cannot be read at all, or was replaced since it was opened.
        """
        found: dict[str, str] = {}
        with self._open() as rows:
            rows.expected.forget()
            blocks = rows.expected.blocks()
            for name in (None, *self.columns):
                try:
                    for part in blocks:
                        rows.read(part, [] if name is None else [name])
                except FileFormatError as error:
                    found[name or "rows"] = str(error)
                    if name is None:
                        break
        return found

    @property
    def has_digests(self) -> bool:
        """Return whether the file has digests of its columns; see :meth:`verify`."""
        with self._open() as rows:
            return rows.expected.digests is not None

    @contextmanager
    def _open(self) -> Iterator[RowReader]:
        _check_suffix(self.path)
        shown = repr(str(self.path))
        is_there(self.path, "The results file", "It was moved or removed. Open it again.")
        stamp = _stamp(self.path)
        with _opened(self.path, _DAMAGED, _RUN_AGAIN) as file:
            if self._expected is None or stamp != self._stamp:
                footer = read_footer(file, shown)
                self._check_same(footer, shown)
                self._expected, self._stamp = Expected(footer, self.kept), stamp
            yield RowReader(file, self._expected, shown)

    def _check_same(self, footer: Footer, shown: str) -> None:
        """Raise FileFormatError if the file is not the one that was written or opened."""
        if footer.n_rows != self.n_rows:
            raise FileFormatError(
                f"{shown} has {footer.n_rows:,} rows, but {self.n_rows:,} were written: it was "
                f"replaced. {_RUN_AGAIN}"
            )
        levels = level_columns(self.within)
        of_file = footer.labels | footer.gene_labels
        own = {"target": self.targets, "reference": self.references, **levels}
        own["feature"] = self.features
        if self.symbols is not None:
            own["symbol"] = self.symbols
        if of_file != {name: list(map(str, labels)) for name, labels in own.items()} or (
            footer.columns != self.columns[len(VALUES) :]
        ):
            raise FileFormatError(
                f"{shown} does not have the comparisons, genes or columns that were written: it "
                f"was replaced. {_RUN_AGAIN}"
            )


def open_parquet(path: Path) -> ResultFile:
    """Open a result that was written as Parquet, reading its labels but not its values.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is a folder, or text.
    FileFormatError
        If it is damaged, is not a result of this package, or was written by a newer version.
    """
    shown = repr(str(path))
    if is_there(path, "The results file").is_dir():
        raise OptionError(f"{shown} is a folder. Pass the file of a result in it.")
    _check_suffix(path)
    stamp = _stamp(path)
    with _opened(path, _NOT_PARQUET, _NAME_ONE) as file:
        footer = read_footer(file, shown)
        levels = {name: as_labels(texts) for name, texts in footer.levels.items()}
        kept = find_rows(file, footer, shown) if footer.filtered else None
        result = ResultFile(
            path,
            as_labels(footer.targets),
            as_labels(footer.references),
            as_labels(footer.features),
            footer.provenance,
            columns=footer.columns,
            within=combined_levels(levels),
            kept=kept,
            symbols=None if footer.symbols is None else as_labels(footer.symbols),
        )
        expected = Expected(footer, kept)
        if kept is None:
            RowReader(file, expected, shown).verify_first()
    result._expected, result._stamp = expected, stamp
    return result


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() in SEPARATORS:
        raise OptionError(
            f"{str(path)!r} is text, which cannot be read in parts. Read it with open_result(), "
            "or write to a .parquet file."
        )


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _opened(path: Path, why: str, advice: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    """Open the file with page checksums verified, and turn pyarrow's errors into messages."""
    import pyarrow.parquet as pq

    with reading(repr(str(path)), "pyarrow", why, advice):
        file = pq.ParquetFile(path, page_checksum_verification=True)
    with file:
        yield file
