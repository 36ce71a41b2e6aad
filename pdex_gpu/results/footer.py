"""The metadata of a result file, checked before anything is built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..design.lone_surrogates import writable
from ..errors import FileFormatError, MemoryBudgetError, listing
from ..utils.foreign_errors import reading
from ..utils.install_hints import UPDATE
from ..utils.resources import available_memory
from .digests import ALGORITHM, Digests, metadata_digest, parse_digests
from .schema import EXTRA, INTEGERS, LABELS, SCHEMA_VERSION, VALUES
from .table import DIGESTS_KEY, LAYOUT_KEY, METADATA_KEY, OF_GENES

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

#: Advice for a file that was changed.
ADVICE = (
    "Use the file as pdex-gpu wrote it, or run the comparison again. To read it as a plain table "
    "without checks, use pandas.read_parquet()."
)

# Bytes of pages per row and per column, including headers of small pages and indices.
_BYTES_PER_VALUE = 64
_BYTES_PER_COLUMN = 1 << 18
# Bytes per value of a column that another program added.
_BYTES_PER_FOREIGN_VALUE = 1 << 10


@dataclass(frozen=True)
class Footer:
    """The metadata of a result file.

    Attributes
    ----------
    targets, references, features : list of str
    symbols : list of str or None
        Symbols of `features`.
    levels : dict of str to list of str
        The columns of levels, with one level per comparison.
    filtered : bool
        Whether some pairs may have no row.
    columns : tuple of str
        Further columns of values.
    provenance : dict
    digests : Digests or None
        None in a file of an earlier version, or one that another program wrote from
        ``to_arrow()``.
    n_rows : int
    """

    targets: list[str]
    references: list[str]
    features: list[str]
    symbols: list[str] | None
    levels: dict[str, list[str]]
    filtered: bool
    columns: tuple[str, ...]
    provenance: dict[str, Any]
    digests: Digests | None
    n_rows: int

    @property
    def labels(self) -> dict[str, list[str]]:
        """Return the labels of each comparison, by column."""
        return {"target": self.targets, "reference": self.references, **self.levels}

    @property
    def gene_labels(self) -> dict[str, list[str]]:
        """Return the labels of each gene, by column."""
        symbols = {} if self.symbols is None else {"symbol": self.symbols}
        return {"feature": self.features, **symbols}


def changed(shown: str, what: str) -> FileFormatError:
    """Return the error for a file that is not as it was written."""
    return FileFormatError(
        f"{shown} was changed after pdex-gpu wrote it: {what}. Another program may have changed "
        f"it, or it was damaged. {ADVICE}"
    )


def read_footer(file: pyarrow.parquet.ParquetFile, shown: str) -> Footer:
    """Read the metadata of an open file; it must be an intact result of a known version.

    Raises
    ------
    FileFormatError
        If it is not a result of this package, is of a newer version, or was changed.
    MemoryBudgetError
        If it lists more pairs than fit in memory.
    """
    with reading(shown, "pyarrow", "its metadata are damaged", ADVICE):
        schema = file.schema_arrow
        metadata = schema.metadata or {}
        _check_is_result(metadata, schema, shown)
        layout, provenance = (_json(metadata[key], shown) for key in (LAYOUT_KEY, METADATA_KEY))
        if not isinstance(layout, dict) or not isinstance(provenance, dict):
            raise changed(shown, "its metadata have an unknown form")
        _check_version(layout, provenance, shown)
        return _Reader(file, shown, metadata, layout, provenance).footer()


def _json(text: bytes, shown: str) -> object:
    with reading(shown, "The JSON reader", "its metadata are damaged", ADVICE):
        return json.loads(text)


def _check_is_result(metadata: Mapping[bytes, bytes], schema: pyarrow.Schema, shown: str) -> None:
    if LAYOUT_KEY not in metadata or METADATA_KEY not in metadata:
        names = ", ".join(schema.names[:8])
        raise FileFormatError(
            f"{shown} was not written by pdex_gpu, or another program rewrote it without its "
            f"metadata (its columns: {names}). Pass a file written by DEResult.to_parquet(), out= "
            "or `pdex-gpu run`."
        )


def _check_version(layout: dict[str, Any], provenance: dict[str, Any], shown: str) -> None:
    schema = layout.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise changed(shown, "its metadata do not state the schema version")
    if schema > SCHEMA_VERSION:
        versions = provenance.get("versions")
        writer = versions.get("pdex_gpu") if isinstance(versions, dict) else None
        raise FileFormatError(
            f"{shown} has result schema {schema} (written by pdex_gpu "
            f"{writer or 'of a newer version'}); this version reads schemas up to "
            f"{SCHEMA_VERSION}. To read it, {UPDATE}"
        )


class _Reader:
    """Reads the parts of a footer and checks each."""

    def __init__(
        self,
        file: pyarrow.parquet.ParquetFile,
        shown: str,
        metadata: Mapping[bytes, bytes],
        layout: dict[str, Any],
        provenance: dict[str, Any],
    ) -> None:
        self._file, self._shown, self._metadata = file, shown, metadata
        self._layout, self._provenance = layout, provenance

    def footer(self) -> Footer:
        targets, references, features = (
            self._texts(name, self._layout.get(name))
            for name in ("targets", "references", "features")
        )
        symbols = None
        if "symbols" in self._layout:
            symbols = self._texts("symbols", self._layout["symbols"])
            if len(symbols) != len(features):
                self._refuse("the list of symbols in its metadata is damaged")
        levels = self._levels(self._layout.get("within"), len(targets))
        filtered = self._layout.get("filtered")
        if len(references) != len(targets) or not isinstance(filtered, bool):
            self._refuse("its metadata are incomplete")
        digests = self._digests(len(targets))
        of_genes = ["feature", *([] if symbols is None else ["symbol"])]
        columns = self._columns([*levels, *of_genes], digests)
        n_rows = self._rows(len(targets) * len(features), filtered)
        found = Footer(
            targets, references, features, symbols, levels, filtered, columns, self._provenance,
            digests, n_rows,
        )  # fmt: skip
        self._check_sizes(found)
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise changed(self._shown, what)

    def _texts(self, name: str, found: object) -> list[str]:
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            self._refuse(f"the list of {name} in its metadata is damaged")
        return [writable(text) for text in found]

    def _levels(self, stored: object, n: int) -> dict[str, list[str]]:
        """Return the columns of levels from what :class:`.table.Table` stored."""
        if stored is None:
            return {}
        if not isinstance(stored, list) or len(stored) != 2:
            self._refuse("the list of levels in its metadata is damaged")
        names, labels = stored
        if isinstance(names, str):
            names, labels = [names], [labels]
        names = self._texts("columns of levels", names)
        if not isinstance(labels, list):
            self._refuse("the list of levels in its metadata is damaged")
        lists = [self._texts("levels", of_column) for of_column in labels]
        known = {*LABELS, *OF_GENES, *VALUES, *EXTRA}
        if (
            len(lists) != len(names)
            or len(set(names)) != len(names)
            or known & set(names)
            or any(len(of_column) != n for of_column in lists)
        ):
            self._refuse("the list of levels in its metadata is damaged")
        return dict(zip(names, lists, strict=True))

    def _digests(self, n_comparisons: int) -> Digests | None:
        if "digests" not in self._layout and DIGESTS_KEY not in self._metadata:
            return None
        if self._layout.get("digests") != ALGORITHM or DIGESTS_KEY not in self._metadata:
            self._refuse("its digests are missing")
        found = _json(self._metadata[DIGESTS_KEY], self._shown)
        digests = parse_digests(found, n_comparisons)
        if digests is None or not isinstance(found, dict):
            self._refuse("its digests are damaged")
        described = self._metadata[LAYOUT_KEY], self._metadata[METADATA_KEY]
        if found.get("metadata") != metadata_digest(described):
            self._refuse("its metadata were changed")
        return digests

    def _columns(self, labels: list[str], digests: Digests | None) -> tuple[str, ...]:
        """Return the further columns of values; check that all columns exist with their types."""
        import pyarrow as pa

        schema = self._file.schema_arrow
        text = pa.dictionary(pa.int32(), pa.string())
        types = dict.fromkeys(("target", "reference", *labels), text)
        types |= dict.fromkeys(VALUES, pa.float64())
        further = {
            name: pa.int64() if name in INTEGERS else pa.float64()
            for name in EXTRA
            if name in (schema.names if digests is None else digests.columns)
        }
        types |= further
        foreign = [n for n in (digests.columns if digests else ()) if n not in types]
        if foreign and set(foreign) <= set(schema.names):
            raise FileFormatError(
                f"{self._shown} has columns that are not known here: {listing(foreign)}. Import "
                "the package that registers them (pdex_gpu.columns.registry.register), then open "
                "the file."
            )
        missing = [name for name in types if name not in schema.names]
        if missing:
            self._refuse(f"it lacks the columns {missing}")
        for name, kind in types.items():
            if schema.names.count(name) > 1:
                self._refuse(f"it has the column {name!r} twice")
            if schema.field(name).type != kind:
                self._refuse(f"its column {name!r} has type {schema.field(name).type}")
        if digests is not None and set(digests.columns) != {*VALUES, *further}:
            self._refuse("its digests belong to different columns")
        strange = [name for name in EXTRA if name in schema.names and name not in further]
        if strange:
            self._refuse(f"columns were added to it: {listing(strange)}")
        return tuple(further)

    def _rows(self, n_pairs: int, filtered: bool) -> int:
        """Return the number of rows; the metadata and the row groups must agree on it."""
        found = self._file.metadata
        n_rows = int(found.num_rows)
        in_groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
        if sum(in_groups) != n_rows or min(in_groups, default=0) < 0:
            self._refuse("its row groups do not add up to the stated number of rows")
        if n_rows > n_pairs or (n_rows < n_pairs and not filtered):
            self._refuse(f"it has {n_rows:,} rows, but {n_pairs:,} were written")
        if filtered and n_pairs > available_memory():
            raise MemoryBudgetError(
                f"{self._shown} lists {n_pairs:,} pairs of comparison and gene. Telling them apart "
                f"takes {n_pairs / 1e9:.1f} GB of memory, more than is free. If it should not be "
                "that large, it was damaged."
            )
        return n_rows

    def _check_sizes(self, footer: Footer) -> None:
        """Refuse pages that unpack to far more than the rows can take.

        Row groups are checked as a whole, because asking pyarrow about a single column of a
        damaged file can end the process.
        """
        labels = [*footer.labels.values(), *footer.gene_labels.values()]
        longest = sum(max(map(len, texts), default=0) for texts in labels)
        listed = sum(len(text) for texts in labels for text in texts)
        found = self._file.metadata
        n_columns = len(labels) + len(VALUES) + len(footer.columns)
        bytes_per_row = (
            _BYTES_PER_VALUE * n_columns + 4 * longest
        )  # UTF-8: up to 4 bytes per character
        bytes_per_row += _BYTES_PER_FOREIGN_VALUE * max(0, found.num_columns - n_columns)
        for i in range(found.num_row_groups):
            group = found.row_group(i)
            most = (
                group.num_rows * bytes_per_row + 4 * listed + _BYTES_PER_COLUMN * found.num_columns
            )
            if not 0 <= group.total_byte_size <= most:
                self._refuse(
                    f"it states that {group.num_rows:,} rows take {group.total_byte_size:,} bytes"
                )


def as_labels(texts: list[str]) -> np.ndarray:
    """Return labels as the object array that a result has."""
    labels = np.full(len(texts), None)
    labels[:] = texts
    return labels
