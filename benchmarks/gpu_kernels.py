"""The kernels alone: the matrix lies on the device, and what they find stays there."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_screen import Screen

from pdex_gpu.backends.cuda import anderson_darling, moments, rank_sums
from pdex_gpu.backends.cuda.packed import make_slice
from pdex_gpu.backends.cuda.sort import sort_slice
from pdex_gpu.backends.cuda.stream_slots import StreamSlot
from pdex_gpu.design.contrasts import Contrast, Design
from pdex_gpu.stats.two_sample.wilcoxon import Wilcoxon

PHASES = ("layout", "sort", "rank sums", "moments", "moments with m2", "Anderson-Darling")


def pack(kernels: Any, screen: Screen, design: Design, run: Any) -> Any:
    """The log-normalised matrix as one block on the device."""
    source = screen.dataset(screen.matrix()).source
    with source.open((0, source.n_genes), 1 << 62) as reader:
        return kernels.pack(reader.read(0), design, run)


@dataclass
class Resident:
    """A block on the device, and one slot to compute it on."""

    kernels: Any
    block: Any
    design: Design
    slot: StreamSlot
    slices: list[slice]

    @classmethod
    def of(cls, kernels: Any, block: Any, design: Design) -> Resident:
        slot = StreamSlot(kernels.device, kernels.shapes)
        return cls(kernels, block, design, slot, kernels.tasks(block, design))

    @property
    def contrast(self) -> Contrast:
        """Every target against the reference."""
        return self.design.contrasts[0]

    def all_queued(self) -> float:
        """Layout, sort and rank sums of every slice, queued on one slot; seconds."""
        stream = self.slot.stream
        stream.synchronize()
        start = time.perf_counter()
        for genes in self.slices:
            with make_slice(self.block, genes, self.slot) as part:
                sort_slice(part)
                rank_sums.queue(part, self.contrast)
        stream.synchronize()
        return time.perf_counter() - start

    def on_all_slots(self) -> float:
        """The same side by side, as in a call; seconds."""

        def compute(genes: slice) -> None:
            with self.kernels.part(self.block, genes, self.design) as part:
                rank_sums.queue(part, self.contrast)
                part.slot.stream.synchronize()

        with ThreadPoolExecutor(self.kernels.shapes.n_slots) as pool:
            start = time.perf_counter()
            list(pool.map(compute, self.slices))
            return time.perf_counter() - start

    def phases(self) -> dict[str, float]:
        """Seconds of each phase over all slices; the host waits for each to end."""
        seconds = dict.fromkeys(PHASES, 0.0)
        stream = self.slot.stream
        stream.synchronize()
        last = time.perf_counter()

        def done(name: str) -> None:
            nonlocal last
            stream.synchronize()
            now = time.perf_counter()
            seconds[name] += now - last
            last = now

        for genes in self.slices:
            with make_slice(self.block, genes, self.slot) as part:
                done("layout")
                sort_slice(part)
                done("sort")
                rank_sums.queue(part, self.contrast)
                done("rank sums")
                moments.queue(part, centred=False, expm1=False)
                done("moments")
                moments.queue(part, centred=True, expm1=False)
                done("moments with m2")
                anderson_darling.queue(part, self.contrast)
                done("Anderson-Darling")
        return seconds

    def sums(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """U and tie terms of every slice, on the host."""
        found = []
        for genes in self.slices:
            with self.kernels.part(self.block, genes, self.design) as part:
                sums = rank_sums.rank_sums(part, self.contrast)
            found.append((sums.u2, sums.ties))
        return found


def p_values(sums: list[tuple[np.ndarray, np.ndarray]], design: Design, run: Any) -> float:
    """P-values from U and ties: the host does that, while the device has other slices; seconds."""
    test, contrast = Wilcoxon(), design.contrasts[0]
    n_target, n_reference = contrast.n_target[:, None] * 1.0, contrast.n_reference[:1, None] * 1.0
    start = time.perf_counter()
    for _ in run(lambda pair: test.finish(*pair, n_target, n_reference), sums):
        pass
    return time.perf_counter() - start
