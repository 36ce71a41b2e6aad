"""The work of a call, derived from its labels and from the shape and size of its matrix."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..backends.contract import KernelSet
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..design.mock_groups import MockGroups
from ..engines.memory_model import MemoryModel, ResultSize, check_null, is_dense, null_bytes
from ..engines.plan import RANGES_PER_WORKER, Plan, Schedule, make_plan
from ..engines.schedule import plan_run
from ..errors import MemoryBudgetError
from ..request.options import Settings
from ..results.schema import VALUES
from ..sources.base import Source
from ..utils.parallel import Map
from ..utils.resources import cpu_count
from .model import BY_RANGES, IN_MEMORY, SPLIT, WHOLE, Work

#: Assumed share of nonzeros in a dense matrix, where it is not known.
DENSE_SHARE = 0.2

# Bytes per value in a file; for Parquet see docs/scaling.md.
_BYTES_PER_VALUE = {".parquet": 6.3, ".csv": 22.0, ".tsv": 22.0}
_BYTES_OF_FDR = 8
_FIRST_BUDGET = 1 << 12
_PRECISION = 64  # the least memory is found to one part in this many


def _unread_density(source: Source, *, one_full: bool) -> Callable[[Map], np.ndarray | None]:
    """Return a function that counts the entries of genes only where that reads no values.

    Elsewhere all genes are assumed to have equally many entries. With `one_full`, one gene has a
    value in every cell.
    """

    def density(parallel_map: Map) -> np.ndarray | None:
        if source.in_memory or source.knows_density:
            return source.density(parallel_map)
        found = np.full(source.n_genes, source.nnz / max(1, source.n_genes))
        if one_full:
            found[0] = min(source.n_cells, source.nnz)
        return found

    return density


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
    mock : MockGroups, optional
        The mock groups that are compared as well.
    """

    settings: Settings
    source: Source
    design: Design
    analysis: Analysis
    kernels: KernelSet
    engine: str
    workers: int | None
    density: float | None
    mock: MockGroups | None = None

    # --- matrix -------------------------------------------------------------------------------

    @property
    def is_dense(self) -> bool:
        """Return whether all cells x genes are stored, so that nonzeros are not known."""
        return is_dense(self.source)

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
    def result_size(self) -> ResultSize:
        """Return the size of the result."""
        return ResultSize(
            self.analysis.fields(self.design),
            self.design.n_rows,
            len(self.analysis.columns),
            self.source.n_genes,
            self.null_bytes,
        )

    @property
    def null_bytes(self) -> int:
        """Return the bytes of the p-values of mock groups."""
        if self.mock is None:
            return 0
        filters = self.settings.filters
        filtered = filters.min_fraction is not None or filters.min_cpm is not None
        n_fields = len(self.analysis.fields(self.design)) if filtered else 1
        return null_bytes(len(self.mock.model_rows), self.source.n_genes, n_fields)

    @property
    def result_bytes(self) -> int:
        """Return the bytes of the result in memory."""
        return self.result_size.in_memory

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
        return self.result_size.stored

    @property
    def checkpoint_bytes(self) -> int:
        """Return the temporary bytes next to the output: files of ranges, false discovery rates."""
        return self.stored_bytes + (
            0 if self.settings.output.out is None else _BYTES_OF_FDR * self.n_rows
        )

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
        memory = replace(self._memory, density=_unread_density(self.source, one_full=safe))
        settings = self.settings
        if self.workers is not None:
            schedule = Schedule(
                n_threads=settings.execution.n_threads or 1,
                gene_chunk_size=settings.execution.gene_chunk_size,
                at_least=min(RANGES_PER_WORKER * self.workers, self.source.n_genes),
            )
            return make_plan(memory, schedule, budget)
        reserved = 0
        if settings.output.out is None:
            self.result_size.check(budget)
            reserved = self.result_size.stored
        else:
            check_null(self.null_bytes, budget)
        return plan_run(memory, self.kernels, self.engine, settings, budget, reserved=reserved)

    @property
    def _memory(self) -> MemoryModel:
        width = self.analysis.width(self.design)
        measured = self.analysis.bytes_per_entry
        return MemoryModel.of(self.source, width, self.kernels.packed_bytes, measured)

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
        memory, widest = self._memory, int(max(np.diff(plan.edges)))
        ranges = plan.n_workers * (memory.mean_gene() * widest + memory.per_range)
        held = min(plan.budget, self.kept_bytes(plan)[1]) if self.way(plan) == SPLIT else 0
        reserved, result = 0, 0
        if self.settings.output.out is None and self.workers is None:
            reserved, result = self.result_size.stored, self.result_size.in_memory
        during = reserved + memory.whole_run + plan.work + held + ranges
        return int(max(during, result))  # ranges are freed before the result is finished

    # --- reading ------------------------------------------------------------------------------

    def way(self, plan: Plan) -> str:
        """Return how the matrix is read; see :class:`.model.Work`."""
        source = self.source
        if source.in_memory:
            return IN_MEMORY
        if not source.read_whole:
            return BY_RANGES
        whole = plan.n_ranges == 1 and self._memory.all_entries <= plan.budget
        return WHOLE if whole and self.workers is None else SPLIT

    def kept_bytes(self, plan: Plan) -> tuple[int, int]:
        """Return the least and most bytes that the entries of a split matrix take anywhere."""
        return self._memory.kept_bytes(plan.n_ranges)

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
        source, readings = self.source, 1 if self.mock is None else 2
        n_mock_cells = 0 if self.mock is None else self.mock.n_cells
        more = 1.0 + n_mock_cells / max(1, source.n_cells)
        n_pairs = sum(c.n_targets for c in self.design.contrasts)
        n_pairs += 0 if self.mock is None else len(self.mock.model_rows)
        return Work(
            n_cells=source.n_cells + n_mock_cells,
            n_genes=source.n_genes,
            n_stored=float(source.nnz) * more,
            n_nonzero=self.n_nonzero * more,
            n_pairs=float(n_pairs * source.n_genes),
            n_rows=float(self.n_rows),
            n_ranges=plan.n_ranges,
            way=self.way(plan),
            file_bytes=float(source.n_bytes) * readings,
            decoded_bytes=float(self.decoded_bytes) * readings,
            scratch_bytes=sum(self.scratch_bytes(plan)) / 2.0 * readings,
            stored_bytes=float(self.stored_bytes),
            n_values=float(self.n_values),
        )
