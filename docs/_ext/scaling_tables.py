"""Tables of the page about scaling: constants, predicted against measured, what large screens take.

They are made of the newest record of ``benchmarks/scaling.py``. Nothing here knows Sphinx.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import tables

from pdex_gpu.engines.memory_model import RESULTS_PER_RANGE
from pdex_gpu.estimation.model import SPLIT, Crew, MachineRates, Work, predict

_UNITS = {
    "start": ("s", 1.0, "opening the file, reading labels"),
    "read_stored": ("ns per byte in the file", 1e9, "reading, decompressing"),
    "read_decoded": ("ns per byte decoded", 1e9, "the same, checking, narrowing"),
    "split": ("ns per entry", 1e9, "numbering values, putting entries to ranges"),
    "gather": ("ns per entry", 1e9, "putting a range together"),
    "pack": ("ns per entry", 1e9, "counting, checking, to gene and group"),
    "visit": ("ns per cell and range", 1e9, "finding a cell's entries"),
    "rank": ("ns per nonzero", 1e9, "sorting, ranking, moments"),
    "judge": ("ns per pair", 1e9, "statistic, p-value, storing"),
    "scratch": ("ns per byte, wall", 1e9, "scratch file, written and read"),
    "store": ("ns per byte, wall", 1e9, "files of ranges, brought to the disk"),
    "finish": ("ns per row", 1e9, "FDR; in memory changes, too"),
    "write": ("ns per value, wall", 1e9, "Parquet, one thread"),
}

NONE_YET = "No run has been recorded yet.\n"

# Of the file of a billion nonzeros that the benchmark reads.
_FILE_BYTES, _DECODED_BYTES = 2.12, 8.0
_KEPT_BYTES = 2.5
_RANGE = 256
_COLUMNS, _BYTES_PER_VALUE, _BYTES_STORED = 7, 6.3, 24

# What is assumed of machines that were not measured.
_DISK, _SHARED = 3e9, 1e9  # bytes per second
_BUS, _BUS_BYTES = 50e9, 6.0  # bytes per second, and bytes per entry
_MEMORY = 64e9


@dataclass(frozen=True)
class Large:
    """A published screen, and what is assumed of it."""

    name: str
    cells: float
    genes: float
    comparisons: float
    groups: int
    nonzeros_a_cell: float

    @property
    def entries(self) -> float:
        return self.cells * self.nonzeros_a_cell

    @property
    def rows(self) -> float:
        return self.comparisons * self.genes

    @property
    def n_ranges(self) -> int:
        """Ranges of genes: so narrow that a gene takes a byte, and that a crash loses little."""
        return -(-int(self.genes) // max(1, min(_RANGE, RESULTS_PER_RANGE // self.groups)))

    def work(self, held: float) -> Work:
        """The run with ``out=``, with `held` bytes of entries in memory."""
        n_ranges = self.n_ranges
        kept = _KEPT_BYTES * self.entries + 2.0 * self.cells * n_ranges
        return Work(
            n_cells=int(self.cells), n_genes=int(self.genes), n_stored=self.entries,
            n_nonzero=self.entries, n_pairs=self.rows, n_rows=self.rows, n_ranges=n_ranges,
            way=SPLIT, file_bytes=_FILE_BYTES * self.entries,
            decoded_bytes=_DECODED_BYTES * self.entries, scratch_bytes=max(0.0, kept - held),
            stored_bytes=_BYTES_STORED * self.rows, n_values=_COLUMNS * self.rows,
        )  # fmt: skip


LARGE = (
    Large("K562 genome-wide", 2.0e6, 8_248, 9_326, 9_327, 3_300),
    Large("X-Atlas/Orion", 8.0e6, 18_000, 37_236, 37_238, 5_000),
    Large("Tahoe-100M", 1.0e8, 62_710, 55_000, 55_050, 1_500),
)


def newest() -> dict[str, Any] | None:
    """The newest record, if there is one."""
    found = [path for path in tables.records() if path.stem.startswith("scaling-")]
    return json.loads(found[0].read_text("utf-8")) if found else None


def constants(record: dict[str, Any] | None = None) -> str:
    """The constants of the model, medians over the sizes of the record."""
    record = newest() if record is None else record
    if record is None:
        return NONE_YET
    rows = [
        (tables.code(name), f"{record['rates'][name] * scale:.3g}", unit, what)
        for name, (unit, scale, what) in _UNITS.items()
    ]
    return tables.markdown(("constant", "measured", "unit", "of"), rows)


def sizes(record: dict[str, Any] | None = None) -> str:
    """Predicted against measured."""
    record = newest() if record is None else record
    if record is None:
        return NONE_YET
    rows = [
        (
            tables.code(name),
            task["counted"]["way"],
            "fitted" if task["fitted"] else "judged",
            f"{task['predicted']:.3g}",
            f"{task['measured']:.3g}",
            f"{task['ratio']:.2f}",
            f"{task['ratio_with_factor']:.2f}",
        )
        for name, task in record["tasks"].items()
    ]
    head = ("cells x genes x targets, result in", "read", "use", "plan, s", "measured, s",
            "plan / measured", "with the factor")  # fmt: skip
    factor = record["figures"]["factor"]["value"]
    return tables.markdown(head, rows) + f"\nFactor: {factor:.2f}.\n"


def screens() -> str:
    """Return the assumptions on large screens, and the sizes that follow."""
    rows = []
    for large in LARGE:
        work = large.work(0.0)
        rows.append(
            (
                large.name,
                f"{large.cells / 1e6:g} M x {large.genes:,.0f}",
                f"{large.nonzeros_a_cell:,.0f} ({large.nonzeros_a_cell / large.genes:.1%})",
                f"{large.entries / 1e9:,.1f} billion",
                f"{large.comparisons:,.0f}",
                f"{large.rows / 1e6:,.0f} M",
                f"{large.n_ranges:,}",
                f"{work.file_bytes / 1e9:,.0f}",
                f"{work.scratch_bytes / 1e9:,.0f}",
                f"{(work.stored_bytes + 8 * large.rows) / 1e9:,.0f}",
                f"{_BYTES_PER_VALUE * work.n_values / 1e9:,.0f}",
            )
        )
    head = (
        "screen", "cells x genes", "nonzeros per cell", "nonzeros", "comparisons", "rows", "ranges",
        "file, GB", "split, GB", "checkpoint, GB", "Parquet, GB",
    )  # fmt: skip
    return tables.markdown(head, rows)


def reckoned(record: dict[str, Any] | None = None) -> str:
    """Minutes that large screens would take, by machine."""
    record = newest() if record is None else record
    if record is None:
        return NONE_YET
    rates = MachineRates(**record["rates"])
    rows = []
    for large in LARGE:
        for name, found in machines(large, rates).items():
            total = sum(found.values())
            first = max(found, key=lambda phase: found[phase])
            split = found.get("splitting", 0.0)
            rows.append(
                (
                    large.name, name, _minutes(total), _minutes(found["reading"]),
                    _minutes(split), _minutes(found["testing"]),
                    _minutes(found["finishing"] + found["writing"]), first,
                )
            )  # fmt: skip
    head = (
        "screen",
        "on",
        "minutes",
        "reading",
        "splitting",
        "testing",
        "FDR, writing",
        "most of it",
    )
    return tables.markdown(head, rows)


def machines(large: Large, rates: MachineRates) -> dict[str, dict[str, float]]:
    """Seconds of each phase, by machine."""
    cpu = predict(large.work(_MEMORY), rates, Crew(16, bytes_per_second=_DISK))
    cluster = predict(large.work(0.0), rates, Crew(16, 16, 1, 5.0, _SHARED))
    return {
        "16 threads": cpu,
        "16 workers": cluster,
        "one H200 (a bound)": _device(large, rates, 1, 16),
        "8 H200 (a bound)": _device(large, rates, 8, 64),
    }


def _device(large: Large, rates: MachineRates, n_devices: int, n_threads: int) -> dict[str, float]:
    """Return what the host and the bus allow; kernels are assumed to cost nothing."""
    work = large.work(_MEMORY)
    host = replace(rates, pack=0.0, visit=0.0, rank=0.0)
    found = predict(work, host, Crew(n_threads, bytes_per_second=_DISK))
    bus = _BUS_BYTES * large.entries / (_BUS * n_devices)
    found["testing"] = max(found["testing"], bus)
    return found


def _minutes(seconds: float) -> str:
    minutes = seconds / 60.0
    return f"{minutes:,.0f}" if minutes >= 10 else f"{minutes:.2g}"


MADE = {"constants": constants, "sizes": sizes, "screens": screens, "reckoned": reckoned}


def table(name: str) -> str:
    """One of the tables."""
    return MADE[name]()
