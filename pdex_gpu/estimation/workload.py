"""The work of a call, derived from its labels and from the shape and size of its matrix."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from ..backends.contract import KernelSet
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..engines.plan import _BYTES_PER_CELL_OF_RANGE, _BYTES_PER_PAIR, Plan, make_plan
from ..engines.schedule import make_schedule
from ..errors import MemoryBudgetError
from ..request.options import Settings
from ..results.schema import VALUES
from ..sinks.base import Sink
from ..sinks.memory import BYTES_PER_ROW, check_result_size
from ..sources.base import Source
from ..sources.sizes import BYTES_PER_CELL
from ..sources.wrapped import WrappedSource
from ..utils.parallel import Map
from ..utils.resources import cpu_count
from .model import BY_RANGES, IN_MEMORY, SPLIT, WHOLE, Work

#: Assumed share of nonzeros in a dense matrix, where it is not known.
DENSE_SHARE = 0.2

# In a split matrix, each value is a one-byte number, and a table says what the numbers mean. The
# table takes at most one byte per entry, if a cell has enough entries for values to repeat. Values
# of short types are stored as they are.
_REPEATING = 200
_SHORT = 4

# Bytes per value in a file; for Parquet see docs/scaling.md.
_BYTES_PER_VALUE = {".parquet": 6.3, ".csv": 22.0, ".tsv": 22.0}
_BYTES_OF_FDR = 8
_FLOAT = 8
_RANGES_PER_WORKER = 4
_FIRST_BUDGET = 1 << 12
_PRECISION = 64  # the least memory is found to one part in this many


class _Unread(WrappedSource):
    """A source that counts the entries of its genes only where that reads no values.

    Elsewhere all genes are assumed to have equally many entries. With `one_full`, one gene has a
    value in every cell.
    """

    def __init__(self, source: Source, *, one_full: bool) -> None:
        super().__init__(source)
        self._one_full = one_full

    def density(self, run: Map) -> np.ndarray | None:
        """See :meth:`.sources.base.Source.density`."""
        source = self.inner
        if source.in_memory or source.knows_density:
            return source.density(run)
        found = np.full(source.n_genes, source.nnz / max(1, source.n_genes))
        if self._one_full:
            found[0] = min(source.n_cells, source.nnz)
        return found


class _Promised:
    """The part of a sink that a plan needs."""

    def __init__(self, n_bytes: int, n_genes: int) -> None:
        self.n_bytes = n_bytes
        self.stored = np.zeros(n_genes, np.uint8)


@dataclass(frozen=True)
class Counted:
    """A call, and the quantities that follow from it.

    Attributes
    ----------
    settings : Settings
    source : Source
    design : Design
    analysis : Analysis
    kernels : KernelSet
    engine : str
    workers : int or None
        Workers of a cluster.
    density : float or None
        Share of nonzeros of a dense matrix, if given.
    """

    settings: Settings
    source: Source
    design: Design
    analysis: Analysis
    kernels: KernelSet
    engine: str
    workers: int | None
    density: float | None

    # --- matrix -------------------------------------------------------------------------------

    @property
    def is_dense(self) -> bool:
        """Return whether all cells x genes are stored, so that nonzeros are not known."""
        return self.source.nnz == self.source.n_cells * self.source.n_genes

    @property
    def n_nonzero(self) -> float:
        """Return the number of nonzeros, which is an assumption for a dense matrix."""
        if not self.is_dense:
            return float(self.source.nnz)
        return self.source.nnz * (DENSE_SHARE if self.density is None else self.density)

    @property
    def decoded_bytes(self) -> int:
        """Return the bytes of the matrix as decoded from the file; 0 in memory."""
        return self.source.decoded_bytes

    # --- result -------------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        """Return the number of rows of the result."""
        return self.design.n_rows * self.source.n_genes

    @property
    def result_bytes(self) -> int:
        """Return the bytes of the result in memory; see :func:`.sinks.memory.check_result_size`."""
        a_row = BYTES_PER_ROW + _FLOAT * len(self.analysis.columns)
        return self._reserved + a_row * self.n_rows

    @property
    def n_values(self) -> int:
        """Return the number of values in the table, rows x numeric columns; 0 without output."""
        if self.settings.output.out is None:
            return 0
        return self.n_rows * (len(VALUES) + len(self.analysis.columns))

    @property
    def output_bytes(self) -> int:
        """Return the approximate bytes of the table in its file."""
        if self.settings.output.out is None:
            return 0
        return int(self.n_values * _BYTES_PER_VALUE[Path(self.settings.output.out).suffix.lower()])

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of the files of ranges, which are kept until the table is written."""
        if self.settings.output.out is None:
            return 0
        return self._reserved

    @property
    def checkpoint_bytes(self) -> int:
        """Return the temporary bytes next to the output: files of ranges, false discovery rates."""
        return self.stored_bytes + (
            0 if self.settings.output.out is None else _BYTES_OF_FDR * self.n_rows
        )

    @property
    def _reserved(self) -> int:
        """Return the bytes of the fields that are stored for all genes."""
        return _FLOAT * sum(self._fields.values()) * self.source.n_genes

    @property
    def _fields(self) -> dict[str, int]:
        return self.analysis.fields(self.design)

    # --- memory -------------------------------------------------------------------------------

    def plan(self, budget: int, *, safe: bool = False) -> Plan:
        """Return the plan of the call, or of a worker, within `budget` bytes.

        Parameters
        ----------
        budget : int
        safe : bool
            Allow for a gene that has a value in every cell.

        Raises
        ------
        MemoryBudgetError
            If the budget is too small.
        """
        source = _Unread(self.source, one_full=safe)
        if self.workers is not None:
            return make_plan(
                source,
                self._width,
                packed_bytes=self.kernels.packed_bytes,
                budget=budget,
                n_workers=1,
                n_threads=self.settings.execution.n_threads or 1,
                gene_chunk_size=self.settings.execution.gene_chunk_size,
                at_least=min(_RANGES_PER_WORKER * self.workers, self.source.n_genes),
            )
        reserved = 0
        if self.settings.output.out is None:
            fields, n_columns = self._fields, len(self.analysis.columns)
            shape = self.design.n_rows, n_columns, self.source.n_genes
            check_result_size(fields, *shape, budget)
            reserved = self._reserved
        sink = cast(Sink, _Promised(reserved, self.source.n_genes))
        return make_schedule(
            source, self._width, self.kernels, self.engine, self.settings, sink, budget, map
        )

    @property
    def _width(self) -> int:
        return self.analysis.width(self.design)

    def least_memory(self) -> int:
        """Return the bytes of the smallest possible plan, or of checks before it if larger."""
        high = _FIRST_BUDGET
        while not self.fits(high):
            high *= 2
        low = high // 2
        while high - low > high // _PRECISION:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(middle) else (middle, high)
        # A plan may be accepted although its budget is slightly too small.
        return max(high, self.used_memory(self.plan(high)))

    def fits(self, budget: int) -> bool:
        """Return whether `budget` bytes are enough for any distribution of values over genes."""
        try:
            self.plan(budget, safe=True)
        except MemoryBudgetError:
            return False
        return True

    def used_memory(self, plan: Plan) -> int:
        """Return the approximate bytes that a plan uses of the allowed memory."""
        source, width = self.source, max(np.diff(plan.edges))
        packed = [self.kernels.packed_bytes(source.n_cells, n, source.dtype) for n in (0.0, 1.0)]
        raw = 0 if source.in_memory else source.bytes_per_entry
        a_gene = packed[0] + _BYTES_PER_PAIR * self._width
        a_gene += (packed[1] - packed[0] + raw) * source.nnz / max(1, source.n_genes)
        ranges = plan.n_workers * (a_gene * width + _BYTES_PER_CELL_OF_RANGE * source.n_cells)
        held = min(plan.budget, self.kept_bytes(plan)[1]) if self.way(plan) == SPLIT else 0
        reserved, result = 0, 0
        if self.settings.output.out is None and self.workers is None:
            reserved, result = self._reserved, self.result_bytes
        during = reserved + BYTES_PER_CELL * source.n_cells + plan.work + held + ranges
        return int(max(during, result))  # ranges are freed before the result is finished

    # --- reading ------------------------------------------------------------------------------

    def way(self, plan: Plan) -> str:
        """Return how the matrix is read; see :class:`.model.Work`."""
        source = self.source
        if source.in_memory:
            return IN_MEMORY
        if not source.read_whole:
            return BY_RANGES
        whole = plan.n_ranges == 1 and source.nnz * source.bytes_per_entry <= plan.budget
        return WHOLE if whole and self.workers is None else SPLIT

    def kept_bytes(self, plan: Plan) -> tuple[int, int]:
        """Return the least and most bytes that the entries of a split matrix take anywhere."""
        source = self.source
        if self.is_dense:
            n_bytes = source.nnz * source.dtype.itemsize
            return n_bytes, n_bytes
        counts = (2 if source.n_genes < 1 << 16 else 4) * source.n_cells * plan.n_ranges
        item = source.dtype.itemsize
        if item < _SHORT:
            least = most = 1 + item
        else:
            repeating = source.nnz >= _REPEATING * source.n_cells
            least, most = 2, 3 if repeating else 1 + item
        return least * source.nnz + counts, most * source.nnz + counts

    def scratch_bytes(self, plan: Plan) -> tuple[int, int]:
        """Return the least and most bytes in the scratch folder."""
        if self.way(plan) != SPLIT:
            return 0, 0
        kept = self.kept_bytes(plan)
        held = 0 if self.workers is not None else plan.budget
        return max(0, kept[0] - held), max(0, kept[1] - held)

    @property
    def scratch_folder(self) -> Path:
        """Return the scratch folder."""
        return Path(self.settings.execution.scratch or tempfile.gettempdir())

    # --- work ---------------------------------------------------------------------------------

    def n_threads(self, plan: Plan) -> int:
        """Return the number of threads of this process that work in parallel."""
        if self.workers is not None:
            return cpu_count()
        return min(cpu_count(), plan.n_workers * plan.n_threads)

    def work(self, plan: Plan) -> Work:
        """Return the amount of work of the run."""
        source = self.source
        return Work(
            n_cells=source.n_cells,
            n_genes=source.n_genes,
            n_stored=float(source.nnz),
            n_nonzero=self.n_nonzero,
            n_pairs=float(sum(c.n_targets for c in self.design.contrasts) * source.n_genes),
            n_rows=float(self.n_rows),
            n_ranges=plan.n_ranges,
            way=self.way(plan),
            file_bytes=float(source.n_bytes),
            decoded_bytes=float(self.decoded_bytes),
            scratch_bytes=sum(self.scratch_bytes(plan)) / 2.0,
            stored_bytes=float(self.stored_bytes),
            n_values=float(self.n_values),
        )
