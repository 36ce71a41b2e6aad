"""The result of a comparison that was written to a file as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FileFormatError, OptionError
from .result import DEResult, described, single
from .schema import COLUMNS, VALUES


class ResultFile:
    """Differential expression of every (target, gene), in a file; holds no table.

    Attributes
    ----------
    path : pathlib.Path
    targets, references : numpy.ndarray, shape (n_comparisons,), object
        Labels of the groups compared, and of what they are compared with.
    features : numpy.ndarray, shape (n_genes,), object
        Gene names.
    columns : tuple of str
        Names of the columns of values.
    within, kept
        See :class:`.result.DEResult`.
    provenance : dict
        Backend and why, device, engine, versions, options: as in the file's metadata.
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
        within: tuple[str, np.ndarray] | None = None,
        kept: np.ndarray | None = None,
    ) -> None:
        self.path = path
        self.targets = targets
        self.references = references
        self.features = features
        self.columns = (*VALUES, *columns)
        self.within = within
        self.kept = kept
        self.provenance = dict(provenance)

    @property
    def reference(self) -> object:
        """The label that all are compared with; None if there are several."""
        return single(self.references)

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        if self.kept is not None:
            return int(np.count_nonzero(self.kept))
        return len(self.targets) * len(self.features)

    def __repr__(self) -> str:
        names = [*(c.name for c in COLUMNS), *self.columns[len(VALUES) :]]
        return f"ResultFile {str(self.path)!r}: {described(self)}; columns {', '.join(names)}"

    def load(self) -> DEResult:
        """Read the values into memory, 56 bytes a row; of Parquet files alone.

        Raises
        ------
        OptionError
            The file is text.
        FileFormatError
            The file was changed since it was written.
        """
        if self.path.suffix.lower() != ".parquet":
            raise OptionError(
                f"{str(self.path)!r} is text; only Parquet files can be loaded. Read it with "
                "pandas.read_csv, or write to a .parquet file."
            )
        import pyarrow.parquet as pq

        shape = (len(self.targets), len(self.features))
        columns = {}
        with pq.ParquetFile(self.path) as file:
            if file.metadata.num_rows != self.n_rows:
                raise FileFormatError(
                    f"{str(self.path)!r} has {file.metadata.num_rows:,} rows, not the "
                    f"{self.n_rows:,} that were written: it was replaced. Run the comparison again."
                )
            for name in self.columns:
                values = file.read([name])[name].to_numpy()
                columns[name] = values.reshape(shape) if self.kept is None else self._at(values)
        return DEResult(
            self.targets,
            self.references,
            self.features,
            columns,
            self.provenance,
            within=self.within,
            kept=self.kept,
        )

    def _at(self, values: np.ndarray) -> np.ndarray:
        """Values of the rows that there are, in their places."""
        assert self.kept is not None
        missing = np.nan if values.dtype.kind == "f" else 0
        out = np.full(self.kept.shape, missing, values.dtype)
        out[self.kept] = values
        return out
