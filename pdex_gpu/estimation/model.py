"""The cost model, which turns the amount of work and a machine's constants into seconds.

Every term is linear, as the kernels are. Reading and computing share the threads, so their
processor seconds are added before they are divided. One thread writes the output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..utils.keywords import known_keywords_of_init

#: The phases of a run, in order.
PHASES = ("start", "reading", "splitting", "testing", "finishing", "writing")

#: How entries reach the kernels; see :class:`Work`.
IN_MEMORY, BY_RANGES, WHOLE, SPLIT = (
    "in memory",
    "by ranges",
    "front to back once",
    "front to back once, split",
)


@dataclass(frozen=True)
class Work:
    """The amount of work of a run.

    Attributes
    ----------
    n_cells, n_genes : int
    n_stored : float
        Entries that are read and packed (dense: cells x genes).
    n_nonzero : float
        Entries that are ranked.
    n_pairs : float
        Pairs of a comparison and a gene that kernels process; with strata, counted per stratum.
    n_rows : float
        Rows of the result: comparisons x genes.
    n_ranges : int
        Number of ranges of genes.
    way : str
        How the matrix is read: :data:`IN_MEMORY`, :data:`BY_RANGES`, :data:`WHOLE` or
        :data:`SPLIT`.
    file_bytes, decoded_bytes : float
        Bytes read from the file, and their size once decoded; 0 in memory.
    scratch_bytes : float
        Bytes written to scratch files once and read back once.
    stored_bytes : float
        Bytes of results kept in files of ranges; 0 for a result in memory.
    n_values : float
        Values of the written table: rows x columns; 0 for a result in memory.
    """

    n_cells: int
    n_genes: int
    n_stored: float
    n_nonzero: float
    n_pairs: float
    n_rows: float
    n_ranges: int = 1
    way: str = IN_MEMORY
    file_bytes: float = 0.0
    decoded_bytes: float = 0.0
    scratch_bytes: float = 0.0
    stored_bytes: float = 0.0
    n_values: float = 0.0


@known_keywords_of_init
@dataclass(frozen=True)
class MachineRates:
    """The constants of a machine: processor seconds per unit, of one thread while all are busy.

    Attributes
    ----------
    start : float
        Seconds of a call before and after the work.
    read_stored, read_decoded : float
        Seconds per byte of the file, and per decoded byte: reading, decoding, checking.
    split : float
        Seconds per entry: numbering its value, and putting it in its range.
    gather : float
        Seconds per entry: reassembling a range of a split matrix.
    pack : float
        Seconds per entry: counting, checking, moving to its gene and group.
    visit : float
        Seconds per cell and range: finding a cell's entries in the range.
    rank : float
        Seconds per nonzero: sorting, ranking, moments.
    judge : float
        Seconds per pair of comparison and gene: statistic, p-value, storing.
    scratch : float
        Wall seconds per byte written to a scratch file and read back.
    store : float
        Wall seconds per byte of the files of ranges, written and flushed to disk.
    finish : float
        Seconds per row: false discovery rates, and for a result in memory means and changes.
    write : float
        Wall seconds per value of the table, written by one thread.
    """

    start: float = 0.0
    read_stored: float = 0.0
    read_decoded: float = 0.0
    split: float = 0.0
    gather: float = 0.0
    pack: float = 0.0
    visit: float = 0.0
    rank: float = 0.0
    judge: float = 0.0
    scratch: float = 0.0
    store: float = 0.0
    finish: float = 0.0
    write: float = 0.0


@dataclass(frozen=True)
class Crew:
    """The threads and workers that do the work.

    Attributes
    ----------
    n_threads : int
        Threads of this process that work in parallel.
    n_workers : int, optional
        Workers of a cluster; None if only this process works.
    worker_threads : int
        Threads of each worker.
    cluster_start : float
        Seconds until all workers work.
    bytes_per_second : float
        Largest throughput of the disk, or of the network to it, for all workers together.
    """

    n_threads: int = 1
    n_workers: int | None = None
    worker_threads: int = 1
    cluster_start: float = 0.0
    bytes_per_second: float = math.inf

    @property
    def slots(self) -> int:
        """Return the total number of threads that read and compute."""
        return self.n_threads if self.n_workers is None else self.n_workers * self.worker_threads


def predict(work: Work, rates: MachineRates, crew: Crew) -> dict[str, float]:
    """Return the seconds of each phase, in the order of :data:`PHASES`; a run takes their sum.

    Reading, splitting and testing are divided by the number of threads. Workers of a cluster take
    whole ranges once the matrix is split, so the last round of ranges may leave some idle. Only
    this process does the finishing and writing.
    """
    read = rates.read_stored * work.file_bytes + rates.read_decoded * work.decoded_bytes
    split = rates.split * work.n_stored if work.way == SPLIT else 0.0
    gather = rates.gather * work.n_stored if work.way == SPLIT else 0.0
    pack = rates.pack * work.n_stored + rates.visit * work.n_cells * work.n_ranges
    test = gather + pack + rates.rank * work.n_nonzero + rates.judge * work.n_pairs
    scratch = rates.scratch * work.scratch_bytes
    start = rates.start + (crew.cluster_start if crew.n_workers else 0.0)
    idle = _idle(work.n_ranges, crew.n_workers or 1)
    by_range = idle if work.way == BY_RANGES else 1.0
    disk = (work.file_bytes + 2.0 * work.scratch_bytes) / crew.bytes_per_second
    reading = max(read * by_range / crew.slots, disk)
    # Every worker has its own path to the scratch folder, as it has its own processor.
    found = (
        start,
        reading,
        split / crew.slots + scratch / (crew.n_workers or 1),
        test * idle / crew.slots,
        rates.finish * work.n_rows / crew.n_threads,
        rates.store * work.stored_bytes + rates.write * work.n_values,
    )
    return dict(zip(PHASES, found, strict=True))


def _idle(n_ranges: int, n_workers: int) -> float:
    """Return the factor by which ranges take longer because workers cannot share them evenly."""
    return math.ceil(n_ranges / n_workers) * n_workers / max(1, n_ranges)
