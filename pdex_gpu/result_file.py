"""The result of a comparison that was written to a file as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FileFormatError, OptionError
from .result import DEResult
from .schema import COLUMNS, VALUES


class ResultFile:
    """Differential expression of every (target, gene), in a file; holds no table.

    Attributes
    ----------
    path : pathlib.Path
    targets : numpy.ndarray, shape (n_targets,), object
        Labels of the groups compared.
    reference : object
        Label of the group they are compared with.
    features : numpy.ndarray, shape (n_genes,), object
        Gene names.
    provenance : dict
        Backend and why, device, engine, versions, options: as in the file's metadata.
    """

    def __init__(
        self,
        path: Path,
        targets: np.ndarray,
        reference: object,
        features: np.ndarray,
        provenance: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.targets = targets
        self.reference = reference
        self.features = features
        self.provenance = dict(provenance)

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return len(self.targets) * len(self.features)

    def __repr__(self) -> str:
        p = self.provenance
        return (
            f"ResultFile {str(self.path)!r}: {p.get('metric', 'unknown test')}, "
            f"{len(self.targets):,} targets against {str(self.reference)!r} x "
            f"{len(self.features):,} genes = {self.n_rows:,} rows; backend "
            f"{p.get('backend', 'unknown')} ({p.get('device', 'unknown device')}, engine "
            f"{p.get('engine', 'unknown')}); columns {', '.join(c.name for c in COLUMNS)}"
        )

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
            for name in VALUES:
                columns[name] = file.read([name])[name].to_numpy().reshape(shape)
        return DEResult(self.targets, self.reference, self.features, columns, self.provenance)
