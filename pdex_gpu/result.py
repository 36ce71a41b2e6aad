"""The result of a comparison, and its exports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .disk import write_beside
from .errors import LabelError, MissingDependencyError, OptionError, unknown
from .schema import COLUMNS, VALUES
from .table import Table, write_parquet, write_text

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class DEResult:
    """Differential expression of every (target, gene).

    ``result[name]`` is a column as an array of shape (n_targets, n_genes), float64: no object a
    row is ever made. Rows of the exported tables are target-major, genes in matrix order.

    Attributes
    ----------
    targets : numpy.ndarray, shape (n_targets,), object
        Labels of the groups compared.
    reference : object
        Label of the group they are compared with.
    features : numpy.ndarray, shape (n_genes,), object
        Gene names.
    provenance : dict
        Backend and why, device, engine, versions, options, seconds.
    """

    def __init__(
        self,
        targets: np.ndarray,
        reference: object,
        features: np.ndarray,
        columns: Mapping[str, np.ndarray],
        provenance: Mapping[str, Any],
    ) -> None:
        shape = (len(targets), len(features))
        if set(columns) != set(VALUES):
            raise ValueError(f"columns must be {VALUES}, got {tuple(columns)}")
        for name, values in columns.items():
            if values.shape != shape or values.dtype != np.float64:
                raise ValueError(
                    f"column {name!r} must be float64 of shape {shape}, "
                    f"got {values.dtype} of shape {values.shape}"
                )
        self.targets = targets
        self.reference = reference
        self.features = features
        self.provenance = dict(provenance)
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise OptionError(unknown("column", name, VALUES))
        return self._columns[name]

    @property
    def n_rows(self) -> int:
        """Rows of the exported tables."""
        return len(self.targets) * len(self.features)

    def __repr__(self) -> str:
        p = self.provenance
        return (
            f"DEResult: {p.get('metric', 'unknown test')}, {len(self.targets):,} targets against "
            f"{str(self.reference)!r} x {len(self.features):,} genes = {self.n_rows:,} rows; "
            f"backend {p.get('backend', 'unknown')} ({p.get('device', 'unknown device')}, "
            f"engine {p.get('engine', 'unknown')}); columns {', '.join(c.name for c in COLUMNS)}"
        )

    def top(self, target: object, n: int = 10) -> list[dict[str, Any]]:
        """The `n` genes of `target` with the smallest p-values, as rows.

        Ties in p are broken by the larger change of the mean, then by matrix order.

        Raises
        ------
        LabelError
            If `target` was not compared.
        """
        labels = self.targets.tolist()
        if target not in labels:  # "3" finds the integer 3, as it does among groups
            labels, target = [str(label) for label in labels], str(target)
        if target not in labels:
            raise LabelError(unknown("target", target, labels))
        t = labels.index(target)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.abs(np.log2(self["fold_change"][t]))
        order = np.lexsort((-np.nan_to_num(change, nan=0.0), self["p_value"][t]))[:n]
        return [self._row(t, int(g)) for g in order]

    def _row(self, t: int, g: int) -> dict[str, Any]:
        labels = {
            "target": self.targets[t],
            "reference": self.reference,
            "feature": self.features[g],
        }
        return labels | {name: float(self[name][t, g]) for name in VALUES}

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame; labels are categorical."""
        import pandas as pd

        frame: dict[str, Any] = {}
        for name, (codes, categories) in self._table().labels(slice(0, len(self.targets))).items():
            frame[name] = pd.Categorical.from_codes(codes, categories=pd.Index(categories))
        frame |= {name: self[name].ravel() for name in VALUES}
        return pd.DataFrame(frame)

    def to_polars(self) -> polars.DataFrame:
        """A polars frame; labels are categorical. Needs the extra ``polars``."""
        try:
            import polars as pl
        except ImportError as error:
            raise MissingDependencyError(
                "polars is not installed. Run: pip install 'pdex_gpu[polars]'"
            ) from error
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table; labels are dictionary-encoded, provenance is in the metadata."""
        return self._arrow(self._table(), slice(0, len(self.targets)))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file, whole or not at all, never holding the table as a frame."""
        table = self._table()
        write_beside(path, lambda file: write_parquet(file, table, self._arrow_parts()))

    def to_csv(self, path: str | os.PathLike[str], sep: str = ",") -> None:
        """Write a text table, whole or not at all; numbers read back to the same bits.

        Labels are quoted only if one of them holds a separator, a quote or a line break.
        """
        table = self._table()
        write_beside(path, lambda file: write_text(file, table, self._arrow_parts(), sep))

    def _arrow_parts(self) -> Iterator[pyarrow.Table]:
        table = self._table()
        for targets in table.blocks():
            yield self._arrow(table, targets)

    def _arrow(self, table: Table, targets: slice) -> pyarrow.Table:
        return table.arrow(targets, {name: self[name][targets] for name in VALUES})

    def _table(self) -> Table:
        return Table(self.targets, self.reference, self.features, self.provenance)
