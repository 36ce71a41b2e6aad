"""What an engine runs, and where the results of a range of genes go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Protocol

import numpy as np

from ..arrays import nan_filled
from ..backends.contract import KernelSet, Map
from ..design import Design
from ..errors import CoverageError
from ..plan import Plan
from ..sources.base import Reader, Source
from ..stats.base import StatisticalTest

_TASKS_PER_THREAD = 8
_MOST_GENES = 64
_PAIRS_A_TASK = 1 << 15  # arrays of a task's pairs stay in a core's cache


@dataclass(frozen=True)
class Job:
    """All that an engine needs.

    Attributes
    ----------
    source : Source
    design : Design
    kernels : KernelSet
    test : StatisticalTest
    plan : Plan
    expm1 : bool
        Whether means of ``expm1(x)`` are wanted.
    sink : Sink
    advance : callable
        Told how many more genes are done.
    """

    source: Source
    design: Design
    kernels: KernelSet
    test: StatisticalTest
    plan: Plan
    expm1: bool
    sink: Sink
    advance: Callable[[int], None]


class Engine(Protocol):
    """Runs every range of a job once."""

    def run(self, job: Job) -> None: ...


@dataclass(frozen=True)
class RangeResult:
    """Results of genes ``[start, start + width)``."""

    start: int
    mean: np.ndarray
    mean_expm1: np.ndarray | None
    statistic: np.ndarray
    p_value: np.ndarray


@dataclass
class Sink:
    """Result arrays, NaN until a range is stored, each range exactly once."""

    n_groups: int
    n_genes: int
    expm1: bool
    run: InitVar[Map] = map
    fractional: bool = False
    mean: np.ndarray = field(init=False)
    mean_expm1: np.ndarray | None = field(init=False)
    statistic: np.ndarray = field(init=False)
    p_value: np.ndarray = field(init=False)
    stored: np.ndarray = field(init=False)

    def __post_init__(self, run: Map) -> None:
        groups, pairs = (self.n_groups, self.n_genes), (self.n_groups - 1, self.n_genes)
        self.mean = nan_filled(groups, run)
        self.mean_expm1 = nan_filled(groups, run) if self.expm1 else None
        self.statistic = nan_filled(pairs, run)
        self.p_value = nan_filled(pairs, run)
        self.stored = np.zeros(self.n_genes, np.uint8)

    def store(self, result: RangeResult) -> None:
        """Store the results of a range; safe for different ranges at once."""
        genes = slice(result.start, result.start + result.mean.shape[1])
        if self.stored[genes].any():
            raise CoverageError(f"genes {genes.start} to {genes.stop} were computed twice")
        self.mean[:, genes] = result.mean
        if self.mean_expm1 is not None:
            self.mean_expm1[:, genes] = result.mean_expm1
        self.statistic[:, genes] = result.statistic
        self.p_value[:, genes] = result.p_value
        self.stored[genes] = 1

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        missing = np.flatnonzero(self.stored == 0)
        if len(missing):
            raise CoverageError(
                f"{len(missing)} of {self.n_genes} genes were never computed, "
                f"the first is number {missing[0]}. This is a bug in pdex_gpu."
            )


def run_range(
    job: Job, reader: Reader, k: int, run: Map, store: Callable[[RangeResult], None]
) -> bool:
    """Read and compute range `k`, `run` spreading the work; returns whether X is fractional."""
    chunk = reader.read(k)
    block = job.kernels.pack(chunk, job.design, run, finite=job.test.refuses_nonfinite)
    del chunk

    def compute(genes: slice) -> None:
        moments = job.kernels.moments(
            block, genes, job.design, centred=job.test.needs_m2, expm1=job.expm1
        )
        measured = job.test.measure(job.kernels, block, genes, job.design)
        statistic, p_value = job.test.judge(measured, moments, job.design)
        start = block.gene_start + genes.start
        store(RangeResult(start, moments.mean, moments.mean_expm1, statistic, p_value))
        job.advance(genes.stop - genes.start)

    tasks = gene_tasks(block.n_genes, job.design.n_groups, job.plan.n_threads)
    for _ in run(compute, tasks):
        pass
    return block.fractional


def gene_tasks(n_genes: int, n_groups: int, n_threads: int) -> list[slice]:
    """Slices of ``[0, n_genes)`` small enough that threads end at about the same time."""
    width = min(
        _MOST_GENES, _PAIRS_A_TASK // n_groups, -(-n_genes // (_TASKS_PER_THREAD * n_threads))
    )
    width = max(1, width)
    return [slice(i, min(i + width, n_genes)) for i in range(0, n_genes, width)]
