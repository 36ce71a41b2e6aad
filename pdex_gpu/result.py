"""The result of a comparison, and its exports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .disk import write_beside
from .errors import LabelError, MissingDependencyError, OptionError, unknown
from .schema import COLUMNS, EXTRA, INTEGERS, VALUES
from .table import Table, write_parquet, write_text

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class DEResult:
    """Differential expression of every (comparison, gene).

    ``result[name]`` is a column as an array of shape (n_comparisons, n_genes), float64 or int64:
    no object a row is ever made. Rows of the exported tables are comparison by comparison, genes
    in matrix order; those that are not `kept` are not in them, and NaN in the arrays.

    Attributes
    ----------
    targets : numpy.ndarray, shape (n_comparisons,), object
        Labels of the groups compared.
    references : numpy.ndarray, shape (n_comparisons,), object
        Labels of what they are compared with.
    features : numpy.ndarray, shape (n_genes,), object
        Gene names.
    columns : tuple of str
        Names of the columns of values.
    within : tuple of str and numpy.ndarray, or None
        Name of the column and level, shape (n_comparisons,), that each is made within.
    kept : numpy.ndarray or None, shape (n_comparisons, n_genes), bool
        Which pairs are in the result; None if all are.
    provenance : dict
        Backend and why, device, engine, versions, options, seconds.
    """

    def __init__(
        self,
        targets: np.ndarray,
        references: np.ndarray,
        features: np.ndarray,
        columns: Mapping[str, np.ndarray],
        provenance: Mapping[str, Any],
        *,
        within: tuple[str, np.ndarray] | None = None,
        kept: np.ndarray | None = None,
    ) -> None:
        shape = (len(targets), len(features))
        known = (*VALUES, *(name for name in EXTRA if name in columns))
        if set(columns) != set(known):
            raise ValueError(f"columns must be {VALUES} and of {EXTRA}, got {tuple(columns)}")
        for name, values in columns.items():
            wanted = np.dtype(np.int64 if name in INTEGERS else np.float64)
            if values.shape != shape or values.dtype != wanted:
                raise ValueError(
                    f"column {name!r} must be {wanted} of shape {shape}, "
                    f"got {values.dtype} of shape {values.shape}"
                )
        if len(references) != len(targets):
            raise ValueError(f"{len(references)} references for {len(targets)} targets")
        self.targets = targets
        self.references = references
        self.features = features
        self.columns = known
        self.within = within
        self.kept = kept
        self.provenance = dict(provenance)
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise OptionError(unknown("column", name, self.columns))
        return self._columns[name]

    @property
    def reference(self) -> object:
        """The label that all are compared with; None if there are several."""
        return single(self.references)

    @property
    def n_rows(self) -> int:
        """Rows of the exported tables."""
        if self.kept is not None:
            return int(np.count_nonzero(self.kept))
        return len(self.targets) * len(self.features)

    def __repr__(self) -> str:
        names = [*(c.name for c in COLUMNS), *self.columns[len(VALUES) :]]
        return f"DEResult: {described(self)}; columns {', '.join(names)}"

    def top(
        self, target: object, n: int = 10, *, reference: object = None, within: object = None
    ) -> list[dict[str, Any]]:
        """The `n` genes of `target` with the smallest p-values, as rows.

        Ties in p are broken by the larger change of the mean, then by matrix order. Where `target`
        was compared more than once, `reference` and `within` say which comparison is meant.

        Raises
        ------
        LabelError
            If `target` was not compared, or more than once.
        """
        matching = np.flatnonzero(_equal(self.targets, target))
        if not len(matching):
            raise LabelError(unknown("target", target, self.targets.tolist()))
        levels = None if self.within is None else self.within[1]
        for name, label, labels in (
            ("reference", reference, self.references),
            ("within", within, levels),
        ):
            if label is None:
                continue
            found = np.empty(0, object) if labels is None else labels[matching]
            chosen = _equal(found, label)
            if not chosen.any():
                raise LabelError(unknown(f"{name} of target {target!r}:", label, found.tolist()))
            matching = matching[chosen]
        if len(matching) > 1:
            raise LabelError(
                f"Target {str(target)!r} was compared {len(matching)} times. Say which with "
                "reference= or within=."
            )
        t = int(matching[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.abs(np.log2(self["fold_change"][t]))
        order = np.lexsort((-np.nan_to_num(change, nan=0.0), self["p_value"][t]))
        if self.kept is not None:
            order = order[self.kept[t, order]]
        return [self._row(t, int(g)) for g in order[:n]]

    def _row(self, t: int, g: int) -> dict[str, Any]:
        labels = {"target": self.targets[t], "reference": self.references[t]}
        if self.within is not None:
            labels[self.within[0]] = self.within[1][t]
        labels["feature"] = self.features[g]
        return labels | {name: self[name][t, g].item() for name in self.columns}

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas frame; labels are categorical."""
        import pandas as pd

        frame: dict[str, Any] = {}
        for name, (codes, categories) in self._table().labels(slice(0, len(self.targets))).items():
            frame[name] = pd.Categorical.from_codes(codes, categories=pd.Index(categories))
        frame |= {name: self.flat(name) for name in self.columns}
        return pd.DataFrame(frame)

    def flat(self, name: str) -> np.ndarray:
        """A column as the exported tables have it, shape (n_rows,)."""
        return self[name].ravel() if self.kept is None else self[name][self.kept]

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
        return table.arrow(targets, {name: self[name][targets] for name in self.columns})

    def _table(self) -> Table:
        return Table(
            self.targets,
            self.references,
            self.features,
            self.provenance,
            columns=self.columns[len(VALUES) :],
            within=self.within,
            kept=self.kept,
        )


def single(labels: np.ndarray) -> object:
    """The label that all are; None if they differ."""
    first: object = labels[0] if len(labels) else None
    return first if all(label == first for label in labels) else None


def described(result: Any) -> str:
    """What was compared and where, for `repr`."""
    p = result.provenance
    reference = "several references" if result.reference is None else repr(str(result.reference))
    return (
        f"{p.get('metric', 'unknown test')}, {len(result.targets):,} targets against "
        f"{reference} x {len(result.features):,} genes = {result.n_rows:,} rows; "
        f"backend {p.get('backend', 'unknown')} ({p.get('device', 'unknown device')}, "
        f"engine {p.get('engine', 'unknown')})"
    )


def _equal(labels: np.ndarray, asked: object) -> np.ndarray:
    """Which labels are the one asked for; ``"3"`` finds the integer 3, as it does among groups."""
    found = np.array([label == asked for label in labels], bool)
    return found if found.any() else np.array([str(label) == str(asked) for label in labels], bool)
