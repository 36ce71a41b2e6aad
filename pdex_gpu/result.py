"""The result of a comparison, and its exports."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LabelError, MissingDependencyError, OptionError, unknown
from .schema import COLUMNS, LABELS, VALUES

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_ROWS_PER_GROUP = 1 << 20
METADATA_KEY = b"pdex_gpu"


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
        for name, (codes, categories) in self._labels(slice(0, len(self.targets))).items():
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
        return self._arrow(slice(0, len(self.targets)))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file, whole or not at all, never holding the table as a frame."""
        import pyarrow.parquet as pq

        def write(temporary: Path) -> None:
            schema = self._arrow(slice(0, 0)).schema
            with pq.ParquetWriter(
                temporary, schema, compression="zstd", compression_level=1,
                use_dictionary=list(LABELS),
            ) as writer:  # fmt: skip
                for part in self._arrow_parts():
                    writer.write_table(part, row_group_size=_ROWS_PER_GROUP)

        _write_whole(path, write)

    def to_csv(self, path: str | os.PathLike[str], sep: str = ",") -> None:
        """Write a text table, whole or not at all; numbers read back to the same bits.

        Labels are quoted only if one of them holds a separator, a quote or a line break.
        """
        import pyarrow as pa
        from pyarrow import csv

        labels = [str(label) for label in (*self.targets, self.reference, *self.features)]
        plain = not any(c in label for label in labels for c in (sep, '"', "\n", "\r"))

        def write(temporary: Path) -> None:
            text = pa.schema(
                [(n, pa.string()) for n in LABELS] + [(n, pa.float64()) for n in VALUES]
            )
            options = csv.WriteOptions(
                include_header=False, delimiter=sep, quoting_style="none" if plain else "needed"
            )
            with temporary.open("wb") as file:
                file.write(sep.join(text.names).encode() + b"\n")
                with csv.CSVWriter(file, text, write_options=options) as writer:
                    for part in self._arrow_parts():
                        writer.write_table(part.cast(text))

        _write_whole(path, write)

    def _arrow_parts(self) -> Iterator[pyarrow.Table]:
        step = max(1, _ROWS_PER_GROUP // max(1, len(self.features)))
        for t in range(0, len(self.targets), step):
            yield self._arrow(slice(t, min(t + step, len(self.targets))))

    def _arrow(self, targets: slice) -> pyarrow.Table:
        import pyarrow as pa

        arrays, fields = [], []
        for name, (codes, categories) in self._labels(targets).items():
            arrays.append(
                pa.DictionaryArray.from_arrays(_numbers(codes), _strings(map(str, categories)))
            )
            fields.append((name, arrays[-1].type))
        for name in VALUES:
            arrays.append(_numbers(self[name][targets].ravel()))
            fields.append((name, pa.float64()))
        metadata = {METADATA_KEY: json.dumps(self.provenance, default=str)}
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata))

    def _labels(self, targets: slice) -> dict[str, tuple[np.ndarray, list[object]]]:
        """Codes a row and categories of each label column."""
        n_targets, n_genes = targets.stop - targets.start, len(self.features)
        genes = list(dict.fromkeys(self.features))  # names may repeat
        position = {name: i for i, name in enumerate(genes)}
        gene_codes = np.fromiter((position[f] for f in self.features), np.int32, n_genes)
        return {
            "target": (
                np.repeat(np.arange(targets.start, targets.stop, dtype=np.int32), n_genes),
                list(self.targets),
            ),
            "reference": (np.zeros(n_targets * n_genes, np.int32), [self.reference]),
            "feature": (np.tile(gene_codes, n_targets), genes),
        }


# pyarrow.array() would do, but imports pandas, which costs the command line a third of a second.


def _numbers(values: np.ndarray) -> pyarrow.Array:
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _strings(values: Iterable[str]) -> pyarrow.Array:
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    data = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), data)


def _write_whole(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: all or nothing."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {str(path.parent)!r} of {path.name!r} does not exist. Create it first."
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        mask = os.umask(0)  # mkstemp makes the file private; give it the usual permissions
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
