"""The CUDA kernel set; see :class:`pdex_gpu.backends.contract.KernelSet`."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ...design.contrasts import Contrast, Design
from ...errors import DeviceMemoryError
from ...sources.base import Chunk, Source
from ...utils.parallel import Map
from ...utils.resources import memory_budget
from ..benjamini_hochberg import benjamini_hochberg
from ..contract import StreamedKernelSet
from ..gene_values import gene_values, object_row
from ..outputs import Distances, GroupValues, Moments, Placements, RankSums
from . import anderson_darling as _anderson_darling
from . import benjamini_hochberg as device_adjustment
from . import kolmogorov_smirnov as _kolmogorov_smirnov
from . import moments as _moments
from . import placements as _placements
from . import rank_sums as _rank_sums
from .device_api import Device, Stream
from .device_matrix import fetch_small
from .dtypes import values_of
from .launch_config import Shapes
from .memory_model import most_genes, slices
from .packed import CudaPackedChunk, Slice, make_packed, make_slice
from .sort import sort_slice
from .staging import Staging
from .stream_slots import StreamSlots

logger = logging.getLogger("pdex_gpu")


def open_kernels(
    device: int | None = None, device_memory: str | float | int | None = None
) -> CudaKernels:
    """Open the kernel set of a device.

    Parameters
    ----------
    device : int, optional
        Number of the device; the first by default.
    device_memory : str, int or float, optional
        Device memory that may be used: ``"8GiB"``, bytes, or a fraction of the free memory.
    """
    from .cupy_device import open_device

    free, _ = open_device(device).memory()
    limit = memory_budget(0.9 if device_memory is None else device_memory, free)
    return CudaKernels(open_device(device, limit))


class CudaKernels:
    """Kernels on one device; safe to call from several threads.

    Parameters
    ----------
    device : Device
    shapes : Shapes
    """

    name = "cuda"
    scales_rows = False

    def __init__(self, device: Device, shapes: Shapes | None = None) -> None:
        self.device = device
        self.shapes = shapes or Shapes()
        self._staging = Staging(device, self.shapes.n_buffers, self.shapes.buffer_bytes)
        self._slots = StreamSlots(device, self.shapes)
        self._streams: queue.LifoQueue[Stream] = queue.LifoQueue()

    @property
    def description(self) -> str:
        """See :class:`pdex_gpu.backends.contract.StreamedKernelSet`."""
        return self.device.description

    @property
    def devices(self) -> tuple[StreamedKernelSet, ...]:
        """Return this kernel set, the only one; see the contract."""
        return (self,)

    def give_up(self, kernels: StreamedKernelSet, error: Exception) -> bool:
        """Return False, as there is no other device; see the contract."""
        return False

    @contextmanager
    def _stream(self) -> Iterator[Stream]:
        """Yield a stream for this context: an earlier one, with its memory, if one is free."""
        try:
            stream = self._streams.get_nowait()
        except queue.Empty:
            stream = self.device.stream()
        yield stream
        self._streams.put(stream)  # not after an error: work may be left on it

    def packed_bytes(self, n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        """Return 0 bytes of host memory: a packed gene lies on the device."""
        return 0.0

    def most_genes(self, source: Source, n_ranges: int) -> int:
        """See :class:`pdex_gpu.backends.contract.StreamedKernelSet`."""
        free, _ = self.device.memory()
        return most_genes(free, source, n_ranges)

    def pack(
        self, chunk: Chunk, design: Design, parallel_map: Map, *, finite: bool = True
    ) -> CudaPackedChunk:
        """Pack a chunk; see the contract. It stays on the device while it is referenced."""
        with self._stream() as stream:
            return make_packed(
                chunk,
                design,
                self.device,
                stream,
                self._staging,
                self.shapes,
                parallel_map,
                finite=finite,
            )

    def tasks(self, packed: CudaPackedChunk, design: Design) -> list[slice]:
        """See :class:`pdex_gpu.backends.contract.StreamedKernelSet`."""
        free, _ = self.device.memory()
        return slices(packed.entries, packed.matrix, design, free, self.shapes)

    @contextmanager
    def part(
        self,
        packed: CudaPackedChunk | Slice,
        genes: slice,
        design: Design | None = None,
        *,
        alone: bool = False,
    ) -> Iterator[Slice]:
        """Yield genes as sorted keys, holding one of few slots; see the contract."""
        if isinstance(packed, Slice):
            if genes != slice(0, packed.n_genes):
                raise ValueError(f"genes {genes} of a part of {packed.n_genes}")
            yield packed
            return
        with (
            self._slots.all() if alone else self._slots.slot() as slot,
            make_slice(packed, genes, slot) as part,
        ):
            sort_slice(part)
            yield part

    def moments(
        self,
        packed: CudaPackedChunk | Slice,
        genes: slice,
        design: Design,
        *,
        centred: bool,
        expm1: bool,
        log1p: bool = False,
        higher: bool = False,
    ) -> Moments:
        """See the contract."""
        with self.part(packed, genes, design) as part:
            return _moments.moments(part, centred=centred, expm1=expm1, log1p=log1p, higher=higher)

    def entries(self, packed: CudaPackedChunk | Slice, gene: int) -> GroupValues:
        """See the contract."""
        if not isinstance(packed, Slice):
            with self.part(packed, slice(gene, gene + 1)) as part:
                return self.entries(part, 0)
        starts = fetch_small(packed.starts, packed.slot.stream).reshape(-1, packed.n_genes)
        return _entries(packed, starts[:, gene])

    def rank_sums(
        self,
        packed: CudaPackedChunk | Slice,
        genes: slice,
        contrast: Contrast,
        *,
        lowest: bool = False,
    ) -> RankSums:
        """See the contract."""
        with self.part(packed, genes) as part:
            return _rank_sums.rank_sums(part, contrast, lowest=lowest)

    def anderson_darling(
        self,
        packed: CudaPackedChunk | Slice,
        genes: slice,
        contrast: Contrast,
        *,
        variant: str = "midrank",
    ) -> np.ndarray:
        """See the contract."""
        with self.part(packed, genes) as part:
            return _anderson_darling.anderson_darling(part, contrast, variant)

    def kolmogorov_smirnov(
        self,
        packed: CudaPackedChunk | Slice,
        genes: slice,
        contrast: Contrast,
        *,
        values: bool = False,
    ) -> Distances:
        """See the contract. Values are counted on the host."""
        with self.part(packed, genes) as part:
            found = _kolmogorov_smirnov.kolmogorov_smirnov(part, contrast)
            if not values:
                return found
            starts = fetch_small(part.starts, part.slot.stream).reshape(-1, part.n_genes)
            rows = [
                gene_values(_entries(part, its), contrast.n_cells, contrast) for its in starts.T
            ]
            return replace(found, values=object_row(rows))

    def placements(
        self, packed: CudaPackedChunk | Slice, genes: slice, contrast: Contrast
    ) -> Placements:
        """See the contract."""
        with self.part(packed, genes) as part:
            return _placements.placements(part, contrast)

    def benjamini_hochberg(
        self,
        p_value: np.ndarray,
        parallel_map: Map,
        *,
        n_tests: int | None = None,
        n_smaller: int = 0,
        ceiling: float = 1.0,
    ) -> np.ndarray:
        """Adjust p-values, on the host if the device has too little memory; see the contract."""
        try:
            with self._stream() as stream:
                return device_adjustment.benjamini_hochberg(
                    p_value, stream, self._staging, self.shapes, parallel_map,
                    n_tests=n_tests, n_smaller=n_smaller, ceiling=ceiling,
                )  # fmt: skip
        except DeviceMemoryError as error:
            logger.info("FDR of %s p-values on the host: %s", f"{p_value.size:,}", str(error))
            return benjamini_hochberg(
                p_value, parallel_map, n_tests=n_tests, n_smaller=n_smaller, ceiling=ceiling
            )


def _entries(part: Slice, starts: np.ndarray) -> GroupValues:
    """Copy the values of a gene, given where the keys of each group start."""
    bounds = starts - starts[0]
    if not bounds[-1]:
        return GroupValues(np.zeros(0), bounds)
    keys = part.keys[int(starts[0]) : int(starts[-1])]
    return GroupValues(values_of(fetch_small(keys, part.slot.stream), part.kind), bounds)
