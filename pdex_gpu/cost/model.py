"""The cost model: what a run does, in numbers, and constants of a machine, become seconds.

Every term is linear, as the kernels are. Reading and computing share the threads, so their
processor seconds are added before they are divided; the output is written by one thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: The phases of a run, in order.
PHASES = ("start", "reading", "splitting", "testing", "finishing", "writing")

#: How entries come to the kernels: see :class:`Work`.
IN_MEMORY, BY_RANGES, WHOLE, SPLIT = (
    "in memory",
    "by ranges",
    "front to back once",
    "front to back once, split",
)


@dataclass(frozen=True)
class Work:
    """What a run does, in numbers.

    Attributes
    ----------
    n_cells, n_genes : int
    n_stored : float
        Entries that are read and packed (dense: cells x genes).
    n_nonzero : float
        Entries that are ranked.
    n_pairs : float
        Pairs of a comparison and a gene that kernels go through: over strata, of each stratum.
    n_rows : float
        Rows of the result: comparisons x genes.
    n_ranges : int
        Ranges of genes.
    way : str
        How the matrix is read: :data:`IN_MEMORY`, :data:`BY_RANGES`, :data:`WHOLE` or
        :data:`SPLIT`.
    file_bytes, decoded_bytes : float
        Bytes read from the file, and as decoded; 0 in memory.
    scratch_bytes : float
        Bytes that are written to scratch files once, and read once.
    stored_bytes : float
        Bytes of results that are kept in files of ranges; 0 for a result in memory.
    n_values : float
        Values of the table written: rows x columns; 0 for a result in memory.
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


@dataclass(frozen=True)
class Rates:
    """Constants of a machine: processor seconds a unit, of one thread while all are busy.

    Attributes
    ----------
    start : float
        Seconds of a call before and after the work.
    read_stored, read_decoded : float
        Seconds a byte of the file, and a byte that comes out of it: reading, decoding, checking.
    split : float
        Seconds an entry: numbering its value, and putting it to its range.
    gather : float
        Seconds an entry: a range of a split matrix put together again.
    pack : float
        Seconds an entry: counted, checked, moved to its gene and group.
    visit : float
        Seconds a cell and range: finding a cell's entries of the range.
    rank : float
        Seconds a nonzero: sorting, ranking, moments.
    judge : float
        Seconds a pair of comparison and gene: statistic, p-value, storing.
    scratch : float
        Wall seconds a byte that is written to a scratch file and read back.
    store : float
        Wall seconds a byte of the files of ranges: written and brought to the disk.
    finish : float
        Seconds a row: false discovery rates, and for a result in memory means and changes.
    write : float
        Wall seconds a value of the table, written by one thread.
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
    """Who does the work.

    Attributes
    ----------
    n_threads : int
        Threads of this process that work side by side.
    n_workers : int, optional
        Workers of a cluster; None to work in this process alone.
    worker_threads : int
        Threads of each worker.
    cluster_start : float
        Seconds until all workers work.
    bytes_per_second : float
        What a disk, or a network in front of it, gives at most, all workers together.
    """

    n_threads: int = 1
    n_workers: int | None = None
    worker_threads: int = 1
    cluster_start: float = 0.0
    bytes_per_second: float = math.inf

    @property
    def slots(self) -> int:
        """Threads that read and compute, in all."""
        return self.n_threads if self.n_workers is None else self.n_workers * self.worker_threads


def predict(work: Work, rates: Rates, crew: Crew) -> dict[str, float]:
    """Seconds of each phase, in the order of :data:`PHASES`; a run takes their sum.

    Reading, splitting and testing are divided by the threads there are. Workers of a cluster take
    whole ranges once the matrix is split: the last round of ranges may leave some without work.
    What is finished and written is finished and written by this process alone.
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
    # Every worker has a way of its own to the scratch folder, as it has a processor.
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
    """How much longer ranges take because they cannot be dealt evenly to workers."""
    return math.ceil(n_ranges / n_workers) * n_workers / max(1, n_ranges)
