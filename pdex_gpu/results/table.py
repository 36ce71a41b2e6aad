"""The result table in blocks of whole targets: as Arrow tables, and written to files."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.lone_surrogates import writable_labels, writable_within
from ..design.naming import Within, level_columns
from .digests import ALGORITHM, Digests, digest_columns
from .schema import INTEGERS, SCHEMA_VERSION, VALUES

if TYPE_CHECKING:
    import pyarrow

#: Approximate rows per block of whole targets. It depends on nothing else, so that the same table
#: gives the same file.
ROWS_PER_GROUP = 1 << 20
# Values encoded at a time: with pyarrow's 1,024, writing takes a sixth longer.
_BATCH = 1 << 16
#: Columns of labels that describe genes; others describe comparisons.
OF_GENES = ("feature", "symbol")
METADATA_KEY = b"pdex_gpu"
#: Schema version and labels of every comparison and gene, including those without a row.
LAYOUT_KEY = b"pdex_gpu.layout"
#: Digests of the values and of the two above.
DIGESTS_KEY = b"pdex_gpu.digests"

# The schema as Arrow stores it in a Parquet file. Programs that rewrite the file take metadata from
# it.
_ARROW_KEY = b"ARROW:schema"

# What spreadsheets run: text that begins with one of these signs, also in full width, and also
# after blanks and quotation marks, which some of them drop; and tabs and line breaks (OWASP, CSV
# injection). Plain numbers are not run. Keep `quoted` in report/page/format.js the same.
_FORMULA = re.compile(r"""[\t\r\n]|[\s"'\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]""")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


class Table:
    """The labels of the rows of a result table, and the metadata of its files.

    Parameters
    ----------
    targets, references : sequence, shape (n_rows,)
        Labels of the rows of each gene.
    features : sequence of str, shape (n_genes,)
        Names may repeat.
    provenance : mapping
    columns : tuple of str
        Further columns of values.
    within : tuple, optional
        Further columns of labels, as :attr:`.results.base.Result.within`.
    kept : numpy.ndarray, optional, shape (n_rows, n_genes), bool
        Whether the table has each row; all by default.
    symbols : numpy.ndarray, optional, shape (n_genes,), object
        Symbols of the genes: a column of labels after `feature`.
    spreadsheet_safe : bool
        Whether labels and column names are written so that a spreadsheet does not run them.
    """

    def __init__(
        self,
        targets: Sequence[object] | np.ndarray,
        references: Sequence[object] | np.ndarray,
        features: Sequence[str] | np.ndarray,
        provenance: Mapping[str, Any],
        *,
        columns: tuple[str, ...] = (),
        within: Within | None = None,
        kept: np.ndarray | None = None,
        symbols: np.ndarray | None = None,
        spreadsheet_safe: bool = False,
    ) -> None:
        self._written = no_formula if spreadsheet_safe else str
        self._n_targets, self._n_genes, self._kept = len(targets), len(features), kept
        self.values = (*VALUES, *columns)
        targets, references, features = (
            writable_labels(np.asarray(labels, object))
            for labels in (targets, references, features)
        )
        levels = level_columns(writable_within(within))
        by_row = {"target": targets, "reference": references, **levels}
        coded = {name: encoded(labels) for name, labels in by_row.items()}
        coded["feature"] = encoded(features)
        if symbols is not None:
            coded["symbol"] = encoded(writable_labels(symbols))
        self._codes = {name: codes for name, (codes, _) in coded.items()}
        self._categories = {name: categories for name, (_, categories) in coded.items()}
        self._layout = {
            "schema": SCHEMA_VERSION,
            "targets": list(map(str, targets)),
            "references": list(map(str, references)),
            "within": _stored_levels(levels),
            "features": list(map(str, features)),
            "filtered": kept is not None,
        }
        if symbols is not None:
            self._layout["symbols"] = list(map(str, symbols))
        self._metadata = {
            METADATA_KEY: json.dumps(provenance, default=str),
            LAYOUT_KEY: json.dumps(self._layout),
        }

    def blocks(self) -> list[slice]:
        """Return the targets of each block."""
        step = block_size(self._n_genes)
        return [slice(t, min(t + step, self._n_targets)) for t in range(0, self._n_targets, step)]

    def labels(self, targets: slice) -> dict[str, tuple[np.ndarray, list[Any]]]:
        """Return the codes per row and the categories of each label column."""
        n_targets = targets.stop - targets.start
        found = {}
        for name, codes in self._codes.items():
            if name in OF_GENES:
                of_rows = np.tile(codes, n_targets)
            else:
                of_rows = np.repeat(codes[targets], self._n_genes)
            found[name] = self._only(targets, of_rows), self._categories[name]
        return found

    def _only(self, targets: slice, values: np.ndarray) -> np.ndarray:
        """Select, from one value per row, those of the rows that the table has."""
        return values if self._kept is None else values[self._kept[targets].ravel()]

    def arrow(self, targets: slice, columns: Mapping[str, np.ndarray]) -> pyarrow.Table:
        """Return the rows of `targets` as a pyarrow table; `columns` holds only their values."""
        import pyarrow as pa

        arrays, fields = [], []
        for name, (codes, categories) in self.labels(targets).items():
            arrays.append(
                pa.DictionaryArray.from_arrays(
                    _numbers(codes), _strings(map(self._written, categories))
                )
            )
            fields.append((self._written(name), arrays[-1].type))
        for name in self.values:
            arrays.append(_numbers(self._only(targets, columns[name].ravel())))
            fields.append((name, arrays[-1].type))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=self._metadata))

    def schema(self) -> pyarrow.Schema:
        """Return the schema of the tables that :meth:`arrow` makes."""
        empty = {
            name: np.zeros((0, self._n_genes), np.int64 if name in INTEGERS else np.float64)
            for name in self.values
        }
        return self.arrow(slice(0, 0), empty).schema

    def closing(self, columns: Mapping[str, Sequence[str]]) -> dict[bytes, bytes]:
        """Return the metadata of a Parquet file, once the digests of all blocks are known."""
        layout = json.dumps(self._layout | {"digests": ALGORITHM}).encode()
        provenance = self._metadata[METADATA_KEY].encode()
        digests = Digests(
            block_size(self._n_genes), {name: "".join(found) for name, found in columns.items()}
        )
        metadata = {
            METADATA_KEY: provenance,
            LAYOUT_KEY: layout,
            DIGESTS_KEY: digests.as_json((layout, provenance)),
        }
        schema = self.schema().with_metadata(metadata)
        return metadata | {_ARROW_KEY: base64.b64encode(schema.serialize())}

    @property
    def label_names(self) -> list[str]:
        """Return the names of the label columns as written, in order."""
        return list(map(self._written, self._codes))

    def is_plain(self, sep: str) -> bool:
        """Return whether no label holds a separator, a quote or a line break."""
        return all(
            _is_plain(str(label), sep)
            for categories in self._categories.values()
            for label in categories
        )


def block_size(n_genes: int) -> int:
    """Return the number of comparisons per block."""
    return max(1, ROWS_PER_GROUP // max(1, n_genes))


def write_parquet(path: Path, table: Table, parts: Iterable[pyarrow.Table]) -> None:
    """Write the blocks as a Parquet file, one row group each; labels are dictionary-encoded.

    Pages have checksums. The digests of a block's values are computed while it is written. Snappy
    takes two thirds of the time of zstd at level 1, for files that are an eighth larger.
    """
    import pyarrow.parquet as pq

    digests: dict[str, list[str]] = {name: [] for name in table.values}
    with (
        ThreadPoolExecutor(1, "pdex_gpu-digest") as pool,
        pq.ParquetWriter(
            path,
            table.schema(),
            compression="snappy",
            use_dictionary=table.label_names,
            write_batch_size=_BATCH,
            write_page_checksum=True,
        ) as writer,
    ):
        for part in parts:
            of_block = pool.submit(digest_columns, part, table.values)
            writer.write_table(part, row_group_size=ROWS_PER_GROUP)
            for name, found in of_block.result().items():
                digests[name].append(found)
        writer.add_key_value_metadata(table.closing(digests))


def write_text(path: Path, table: Table, parts: Iterable[pyarrow.Table], sep: str) -> None:
    """Write the parts as text; numbers read back to the same bits.

    Labels are quoted only if one of them holds a separator, a quote or a line break. A column name
    is quoted only if it holds one itself.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = set(table.label_names)
    text = pa.schema([(f.name, pa.string() if f.name in names else f.type) for f in table.schema()])
    options = csv.WriteOptions(
        include_header=False,
        delimiter=sep,
        quoting_style="none" if table.is_plain(sep) else "needed",
    )
    with path.open("wb") as file:
        file.write(sep.join(_field(name, sep) for name in text.names).encode() + b"\n")
        with csv.CSVWriter(file, text, write_options=options) as writer:
            for part in parts:
                writer.write_table(part.cast(text))


def no_formula(label: object) -> str:
    """Return the label as text, after an apostrophe if a spreadsheet would run it as a formula."""
    text = str(label)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _stored_levels(levels: Mapping[str, np.ndarray]) -> list[Any] | None:
    """Return the name and labels of a column; of several, a list of names and one of labels."""
    labels = [list(map(str, of_column)) for of_column in levels.values()]
    if len(labels) > 1:
        return [list(levels), labels]
    return [*levels, *labels] or None


def _is_plain(text: str, sep: str) -> bool:
    return not any(mark in text for mark in (sep, '"', "\n", "\r"))


def _field(text: str, sep: str) -> str:
    return text if _is_plain(text, sep) else '"' + text.replace('"', '""') + '"'


def encoded(labels: Sequence[object] | np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Return codes and the distinct labels they index, in order of first appearance."""
    position: dict[object, int] = {}
    codes = np.fromiter(
        (position.setdefault(label, len(position)) for label in labels), np.int32, len(labels)
    )
    return codes, list(position)


# pyarrow.array() would do, but imports pandas, which costs the command line a third of a second.


def _numbers(values: np.ndarray) -> pyarrow.Array:
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _strings(values: Iterable[str]) -> pyarrow.Array:
    import pyarrow as pa

    texts = [value.encode() for value in values]
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    data = pa.py_buffer(b"".join(texts))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), data)
