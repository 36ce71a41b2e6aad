"""The result table as blocks of whole targets: arrow tables, and the files made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .schema import LABELS, VALUES

if TYPE_CHECKING:
    import pyarrow

#: Rows of a block, about: whole targets. It depends on nothing else, so that the same table gives
#: the same file.
ROWS_PER_GROUP = 1 << 20
METADATA_KEY = b"pdex_gpu"


class Table:
    """The labels of the rows, and what else a file says beside its values.

    Parameters
    ----------
    targets : sequence, shape (n_targets,)
    reference : object
    features : sequence of str, shape (n_genes,)
        Names may repeat.
    provenance : mapping
    """

    def __init__(
        self,
        targets: Sequence[object] | np.ndarray,
        reference: object,
        features: Sequence[str] | np.ndarray,
        provenance: Mapping[str, Any],
    ) -> None:
        self._n_targets, self._n_genes = len(targets), len(features)
        genes = list(dict.fromkeys(features))
        position = {name: i for i, name in enumerate(genes)}
        self._gene_codes = np.fromiter((position[f] for f in features), np.int32, self._n_genes)
        self._categories: dict[str, list[Any]] = {
            "target": list(targets),
            "reference": [reference],
            "feature": genes,
        }
        self._metadata = {METADATA_KEY: json.dumps(provenance, default=str)}

    def blocks(self) -> list[slice]:
        """Targets of each block."""
        step = max(1, ROWS_PER_GROUP // max(1, self._n_genes))
        return [slice(t, min(t + step, self._n_targets)) for t in range(0, self._n_targets, step)]

    def labels(self, targets: slice) -> dict[str, tuple[np.ndarray, list[Any]]]:
        """Codes a row and categories of each label column."""
        n_targets = targets.stop - targets.start
        codes = {
            "target": np.repeat(
                np.arange(targets.start, targets.stop, dtype=np.int32), self._n_genes
            ),
            "reference": np.zeros(n_targets * self._n_genes, np.int32),
            "feature": np.tile(self._gene_codes, n_targets),
        }
        return {name: (codes[name], self._categories[name]) for name in LABELS}

    def arrow(self, targets: slice, columns: Mapping[str, np.ndarray]) -> pyarrow.Table:
        """The rows of `targets` as a pyarrow table; `columns` holds their values alone."""
        import pyarrow as pa

        arrays, fields = [], []
        for name, (codes, categories) in self.labels(targets).items():
            arrays.append(
                pa.DictionaryArray.from_arrays(_numbers(codes), _strings(map(str, categories)))
            )
            fields.append((name, arrays[-1].type))
        for name in VALUES:
            arrays.append(_numbers(columns[name].ravel()))
            fields.append((name, pa.float64()))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=self._metadata))

    def schema(self) -> pyarrow.Schema:
        """The schema of each table that :meth:`arrow` makes."""
        return self.arrow(slice(0, 0), dict.fromkeys(VALUES, np.zeros(0))).schema

    def is_plain(self, sep: str) -> bool:
        """Whether no label holds a separator, a quote or a line break."""
        special = (sep, '"', "\n", "\r")
        return not any(
            mark in str(label)
            for categories in self._categories.values()
            for label in categories
            for mark in special
        )


def write_parquet(path: Path, table: Table, parts: Iterable[pyarrow.Table]) -> None:
    """Write the parts as a Parquet file, a row group each; labels are dictionary-encoded."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(
        path, table.schema(), compression="zstd", compression_level=1, use_dictionary=list(LABELS)
    ) as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROWS_PER_GROUP)


def write_text(path: Path, table: Table, parts: Iterable[pyarrow.Table], sep: str) -> None:
    """Write the parts as text; numbers read back to the same bits.

    Labels are quoted only if one of them holds a separator, a quote or a line break.
    """
    import pyarrow as pa
    from pyarrow import csv

    text = pa.schema([(n, pa.string()) for n in LABELS] + [(n, pa.float64()) for n in VALUES])
    options = csv.WriteOptions(
        include_header=False,
        delimiter=sep,
        quoting_style="none" if table.is_plain(sep) else "needed",
    )
    with path.open("wb") as file:
        file.write(sep.join(text.names).encode() + b"\n")
        with csv.CSVWriter(file, text, write_options=options) as writer:
            for part in parts:
                writer.write_table(part.cast(text))


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
