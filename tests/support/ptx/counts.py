"""What a device would have to do for a kernel, counted while it ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cuda_sources
import numpy as np

from .decoder import Kernel

#: Of each instruction; the order is that of ``Count`` in ``executor/launch.h``.
COUNTS = (
    "issues", "lanes", "sectors", "least", "misses", "wavefronts", "collisions", "splits",
)  # fmt: skip
#: Of a launch; the order is that of ``Total``.
TOTALS = ("read", "written", "longest_warp", "longest_block")

SECTOR = 32  # bytes
IN_GLOBAL = ("load.global", "store.global", "atomic.global")
IN_SHARED = ("load.shared", "store.shared")
_OF_BITS = ("mov", "selp", "neg", "abs")  # whatever the type, integer units do these
ATOMICS = ("atomic.global", "atomic.shared")


@dataclass
class Counted:
    """What all launches of a kernel did; the longest warp and block are those of one launch.

    Attributes
    ----------
    source : Source
    kernel : Kernel
    counts : numpy.ndarray, shape (instructions, len(COUNTS)), uint64
        Warp instructions issued; active lanes over them; sectors of 32 bytes of device memory that
        requests touch; the fewest sectors or, in shared memory, wavefronts that could hold what was
        asked for; sectors that L1 does not answer; wavefronts in shared memory; atomics that queue
        at one address; branches that part a warp.
    launches, blocks, warps : int
    read, written : int
        Sectors of device memory that are touched at all, each once a launch.
    longest_warp, longest_block : int
        Warp instructions.
    """

    source: cuda_sources.Source
    kernel: Kernel
    counts: np.ndarray = field(init=False)
    launches: int = 0
    blocks: int = 0
    warps: int = 0
    read: int = 0
    written: int = 0
    longest_warp: int = 0
    longest_block: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.kernel.code), len(COUNTS)), np.uint64)

    def add(self, n_blocks: int, n_threads: int, totals: np.ndarray) -> None:
        """Add a launch, whose instructions the executor has counted already."""
        self.launches += 1
        self.blocks += n_blocks
        self.warps += n_blocks * n_threads // 32
        of = dict(zip(TOTALS, map(int, totals), strict=True))
        self.read += of["read"]
        self.written += of["written"]
        self.longest_warp = max(self.longest_warp, of["longest_warp"])
        self.longest_block = max(self.longest_block, of["longest_block"])

    def of(self, count: str, *kinds: str) -> int:
        """A count over all instructions, or over those of some kinds, such as "load.global"."""
        column = self.counts[:, COUNTS.index(count)]
        if kinds:
            column = column[np.isin(self.kernel.kinds, kinds)]
        return int(column.sum())

    @property
    def float64_issues(self) -> int:
        """Warp instructions of float64 arithmetic, of which consumer cards do few per cycle."""
        return int(self.counts[self._is_float64, COUNTS.index("issues")].sum())

    @property
    def _is_float64(self) -> np.ndarray:
        parts = [opcode.split(".") for opcode in self.kernel.opcodes]
        known = np.array(["f64" in part and part[0] not in _OF_BITS for part in parts])
        return known & (self.kernel.kinds == "plain")

    def hottest(self, count: str) -> Iterator[tuple[cuda_sources.Line, dict[str, int]]]:
        """Lines of the source with all their counts, those with the most of one count first."""
        lines = self.kernel.code["line"]
        by_line = {int(n): self.counts[lines == n].sum(axis=0) for n in np.unique(lines)}
        column = COUNTS.index(count)
        for number, counts in sorted(by_line.items(), key=lambda item: -int(item[1][column])):
            yield self.source.line(number), dict(zip(COUNTS, map(int, counts), strict=True))
