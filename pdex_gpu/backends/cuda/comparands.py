"""The comparands of a contrast on the device: targets, and sorted keys to compare them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...design.contrasts import Contrast
from .device_api import DeviceArray
from .device_matrix import send_small
from .launch_config import Shapes
from .packed import Slice
from .sort import sort_pool


@dataclass(frozen=True)
class Comparands:
    """The targets of a contrast and the keys they are compared with; ``Sides`` in contrast.cuh.

    Attributes
    ----------
    groups : DeviceArray or None, int32
        Groups of the targets; None if they are consecutive, from `first` on.
    first, n_targets : int
    keys : DeviceArray
        Keys of the reference or the pool.
    starts, ends : DeviceArray, int64
        Where the keys of each gene begin and end.
    bounds : numpy.ndarray, shape (n_genes,), int64
        Most keys that each gene can have there.
    n_cells : int
        Cells of the reference or the pool.
    pooled : bool
        Whether the targets' own cells are among these cells.
    """

    groups: DeviceArray | None
    first: int
    n_targets: int
    keys: DeviceArray
    starts: DeviceArray
    ends: DeviceArray
    bounds: np.ndarray
    n_cells: int
    pooled: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Return the kernel arguments for ``SIDES_PARAMETERS``."""
        return (
            self.groups, np.int64(self.first), np.int64(self.n_targets), self.keys, self.starts,
            self.ends, np.int64(self.n_cells), np.int32(self.pooled),
        )  # fmt: skip


def comparands_of(part: Slice, contrast: Contrast) -> Comparands:
    """Return the comparands of `contrast`, kept with the part because several kernels need them."""
    if part.compared is None or part.compared[0] is not contrast:
        part.compared = None  # free it before another pool takes memory
        part.compared = contrast, _comparands(part, contrast)
    found: Comparands = part.compared[1]
    return found


def _comparands(part: Slice, contrast: Contrast) -> Comparands:
    groups, first = _targets(part, contrast)
    size = part.n_genes
    if contrast.one_vs_rest:
        n_cells = int(contrast.n_cells.sum())
        bounds = np.minimum(part.entries, n_cells)
        keys, places = _pool(part, contrast, groups, bounds)
        starts, ends = places[:size], places[size:]
    else:
        group, n_cells = int(contrast.groups[0]), int(contrast.n_cells[0])
        bounds = np.minimum(part.entries, n_cells)
        keys = part.keys
        starts, ends = (part.starts[g * size : (g + 1) * size] for g in (group, group + 1))
    return Comparands(
        groups, first, contrast.n_targets, keys, starts, ends, bounds, n_cells, contrast.pooled
    )


def _targets(part: Slice, contrast: Contrast) -> tuple[DeviceArray | None, int]:
    """Return the groups of the targets, or None if they are consecutive, and the first group."""
    groups = contrast.targets
    first = int(groups[0]) if len(groups) else 0
    if np.array_equal(groups, np.arange(first, first + len(groups))):
        return None, first
    return send_small(groups.astype(np.int32), part.slot.stream), first


def _pool(
    part: Slice, contrast: Contrast, groups: DeviceArray | None, bounds: np.ndarray
) -> tuple[DeviceArray, DeviceArray]:
    """Sort all cells of a contrast into one segment per gene: keys, and where segments lie."""
    stream, n_genes = part.slot.stream, np.int64(part.n_genes)
    places = stream.empty(2 * part.n_genes, np.int64)
    pool = stream.empty(part.keys.size, part.keys.dtype)
    if groups is None:
        first, n = int(contrast.groups[0]), len(contrast.groups)
        stream.launch(
            "pool", "pool_of_span", part.slot.shapes.blocks(part.n_genes),
            part.slot.shapes.n_threads, part.starts, np.int64(first), np.int64(first + n), n_genes,
            places,
        )  # fmt: skip
        sort_pool(part, part.keys, pool, places, int(bounds.max()))
    else:
        part.launch(
            "pool", "gather_pool", part.n_genes, groups, np.int64(len(contrast.groups)), n_genes,
            pool, places,
        )  # fmt: skip
        sort_pool(part, pool, pool, places, int(bounds.max()))
    return pool, places


def launch_pairs(
    part: Slice,
    source: str,
    kernel: str,
    comparands: Comparands,
    *outputs: DeviceArray,
    targets_per_block: int,
    samples: bool = True,
    before: tuple[Any, ...] = (),
) -> None:
    """Launch a kernel on the pairs of a contrast.

    Parameters
    ----------
    *outputs : DeviceArray
        The kernel's last arguments.
    targets_per_block : int
        About how many targets share the keys that a block of threads loads.
    samples : bool
        Whether the kernel searches in shared memory.
    before : tuple
        Arguments before the outputs.
    """
    shapes = part.slot.shapes
    n_parts = parts_of_targets(comparands.n_targets, targets_per_block, shapes)
    most_samples = (np.int32(shapes.shared_bytes // (part.bits // 8)),) if samples else ()
    part.launch(
        source, kernel, part.n_genes * n_parts if comparands.n_targets else 0, part.n_cells,
        np.int64(part.n_genes), np.int32(part.kind), *comparands.arguments, np.int32(n_parts),
        *most_samples, *before, *outputs, shared=shapes.shared_bytes if samples else 0,
    )  # fmt: skip


def parts_of_targets(n_targets: int, a_block: int, shapes: Shapes) -> int:
    """Return how many blocks of threads share the targets of a gene, about `a_block` each."""
    return max(1, n_targets // max(a_block, shapes.n_threads // 32))
