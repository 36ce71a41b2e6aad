"""What the CUDA kernels do per nonzero, counted without a GPU: their PTX, run on the host.

    python benchmarks/ptx_counts.py            a slice of genes of the GPU benchmark's screen
    python benchmarks/ptx_counts.py --quick    a small screen, to see that everything runs

Needs a C++ compiler and the wheel nvidia-cuda-nvrtc. Knows no time. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent, HERE.parent / "tests" / "support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import nvrtc  # noqa: E402
from gpu_screen import Screen, Sizes, simulate  # noqa: E402
from ptx.compiler import ARCHITECTURE  # noqa: E402
from ptx.counts import ATOMICS, IN_GLOBAL, IN_SHARED, SECTOR, Counted  # noqa: E402
from ptx.device import PtxDevice  # noqa: E402
from record import Record  # noqa: E402

from pdex_gpu.backends.cuda.kernel_set import CudaKernels  # noqa: E402
from pdex_gpu.backends.cuda.packed import CudaPackedChunk  # noqa: E402
from pdex_gpu.design.build import make_design  # noqa: E402
from pdex_gpu.design.contrasts import Design  # noqa: E402

RESULTS = HERE / "results"
_MEMORY = 16 << 30
_HOTTEST = 3  # lines of the source kept for each kernel


@dataclass(frozen=True)
class Shape:
    """The part of a screen that is counted.

    Attributes
    ----------
    reference, groups, cells_per_group : int
    genes : int
        Of a slice: kernels that visit rows depend on it.
    row_cells, row_genes : int
        Cells whose whole rows are checked, and genes of these rows.
    anderson_genes : int
        Genes of the slice for Anderson-Darling, which takes a hundred times as long.
    """

    reference: int
    groups: int
    cells_per_group: int
    genes: int
    row_cells: int
    row_genes: int
    anderson_genes: int

    @property
    def cells(self) -> int:
        return self.reference + self.groups * self.cells_per_group

    @property
    def codes(self) -> np.ndarray:
        """The group of each cell, in random order; the reference is 0."""
        treated = 1 + np.arange(self.cells - self.reference) % self.groups
        codes = np.concatenate([np.zeros(self.reference, np.int64), treated])
        return np.random.default_rng(0).permutation(codes)


# The screen of gpu.py, of which a slice holds about 190 genes.
FULL = Shape(30_000, 2_000, 135, 190, 3_000, 8_000, 2)
QUICK = Shape(1_500, 12, 100, 20, 60, 2_000, 2)


def design_of(codes: np.ndarray) -> Design:
    names = np.array([f"g{k}" for k in range(int(codes.max()) + 1)], object)
    return make_design(codes, names, reference="g0")


def normalised(screen: Screen, row_genes: int) -> np.ndarray:
    """Values as if the screen were some of `row_genes` genes.

    How many cells share a value, and so how much there is to search, depends on the totals of
    whole rows, of which those of the screen are a part.
    """
    before = np.concatenate([[0.0], np.cumsum(screen.counts, dtype=np.float64)])
    totals = np.maximum(np.diff(before[screen.indptr]), 1.0)
    others = row_genes / screen.sizes.genes - 1.0
    totals += np.random.default_rng(1).poisson(totals * others)
    scale = (1e4 / totals).astype(np.float32)
    return np.log1p(screen.counts * np.repeat(scale, np.diff(screen.indptr)))


def packed(
    device: PtxDevice, n_cells: int, n_genes: int, row_genes: int, codes: np.ndarray
) -> tuple[CudaKernels, CudaPackedChunk, Design]:
    """A simulated screen on the device: log-normalised float32 values, CSR."""
    screen = simulate(Sizes(n_cells, n_genes, 1))
    screen.log1p = normalised(screen, row_genes)
    kernels, design = CudaKernels(device), design_of(codes)
    with screen.dataset(screen.matrix()).source.open((0, n_genes), 1 << 62) as reader:
        return kernels, kernels.pack(reader.read(0), design, map), design


def count(shape: Shape) -> Iterator[tuple[str, int, dict[str, Counted]]]:
    """Run the kernels of each task; yields its name, its nonzeros, and counts by kernel."""
    device = PtxDevice(memory=_MEMORY)

    def taken() -> dict[str, Counted]:
        found, device.counted = device.counted, {}
        return found

    n_genes = shape.row_genes
    _, block, _ = packed(device, shape.row_cells, n_genes, n_genes, np.arange(shape.row_cells) % 2)
    yield "check", int(block.entries.sum()), taken()

    kernels, block, design = packed(device, shape.cells, shape.genes, n_genes, shape.codes)
    taken()
    genes, nonzeros = slice(0, shape.genes), int(block.entries.sum())
    with kernels.part(block, genes, design) as part:
        kernels.rank_sums(part, genes, design.contrasts[0])
        kernels.moments(part, genes, design, centred=False, expm1=False)
        yield "Wilcoxon", nonzeros, taken()
        kernels.moments(part, genes, design, centred=True, expm1=False)
        yield "t-test", nonzeros, taken()
    # Genes of average density.
    first = int(np.argmin(np.abs(block.entries - block.entries.mean())))
    first = min(first, shape.genes - shape.anderson_genes)
    few = slice(first, first + shape.anderson_genes)
    with kernels.part(block, few, design) as part:
        part.slot.stream.synchronize()
        taken()
        own = slice(0, part.n_genes)
        kernels.anderson_darling(part, own, design.contrasts[0])
    yield "Anderson-Darling", int(block.entries[few].sum()), taken()


def row(counted: Counted, nonzeros: int) -> dict[str, Any]:
    """The counts of a kernel, per nonzero where they are not shares."""
    issues, lanes = counted.of("issues"), counted.of("lanes")
    least_wavefronts = counted.of("least", *IN_SHARED)
    atomics = counted.of("issues", *ATOMICS)
    return {
        "launches": counted.launches,
        "warp_instructions": issues / nonzeros,
        "float64_instructions": counted.float64_issues / nonzeros,
        "active_lanes": lanes / (32 * issues),
        "sectors": counted.of("sectors", *IN_GLOBAL) / nonzeros,
        "least_sectors": counted.of("least", *IN_GLOBAL) / nonzeros,
        "misses": counted.of("misses", *IN_GLOBAL) / nonzeros,
        "bytes_read": SECTOR * counted.read / nonzeros,
        "bytes_written": SECTOR * counted.written / nonzeros,
        "wavefronts": counted.of("wavefronts", *IN_SHARED) / nonzeros,
        "bank_factor": counted.of("wavefronts", *IN_SHARED) / least_wavefronts
        if least_wavefronts
        else None,
        "atomics": atomics / nonzeros,
        "atomic_queue": counted.of("collisions", *ATOMICS) / atomics if atomics else None,
        "longest_warp": counted.longest_warp,
        "hottest": list(hottest(counted, issues)),
    }


def hottest(counted: Counted, issues: int) -> Iterator[dict[str, Any]]:
    """The lines with the most warp instructions."""
    for _, (line, counts) in zip(range(_HOTTEST), counted.hottest("issues"), strict=False):
        share = counts["issues"] / issues
        yield {"line": line.place, "share": share, "text": line.text.strip()}


_HEAD = ("kernel", "instr.", "lanes", "sectors", "least", "bytes", "banks", "queue")


def table(tasks: dict[str, Any]) -> Iterator[str]:
    """The counts as text."""
    for task, content in tasks.items():
        yield f"\n{task}: {content['nonzeros']:,} nonzeros"
        yield f"{_HEAD[0]:28}" + "".join(f"{name:>9}" for name in _HEAD[1:])
        for name, kernel in content["kernels"].items():
            n_bytes = kernel["bytes_read"] + kernel["bytes_written"]
            factors = (kernel["bank_factor"], kernel["atomic_queue"])
            cells = (
                f"{kernel['warp_instructions']:.3f}", f"{kernel['active_lanes']:.2f}",
                f"{kernel['sectors']:.3f}", f"{kernel['least_sectors']:.3f}", f"{n_bytes:.2f}",
                *("" if factor is None else f"{factor:.2f}" for factor in factors),
            )  # fmt: skip
            yield f"{name:28}" + "".join(f"{cell:>9}" for cell in cells)
            for hot in kernel["hottest"]:
                yield f"    {hot['share']:4.0%} {hot['line']:28} {hot['text'][:60]}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small screen")
    parser.add_argument("--record", type=Path, help="default: results/ptx_counts-DATE.json")
    options = parser.parse_args(argv)
    shape = QUICK if options.quick else FULL
    record = Record({"shape": asdict(shape)}, full_size=not options.quick)
    for task, nonzeros, kernels in count(shape):
        found = {name: row(counted, nonzeros) for name, counted in sorted(kernels.items())}
        record.task(task, {"nonzeros": nonzeros, "kernels": found})
        for name, kernel in found.items():
            figure = f"{task}, {name}: warp instructions counted per nonzero"
            record.figure(figure, kernel["warp_instructions"])
        print("\n".join(table({task: record.content["tasks"][task]})), flush=True)
    record.note("Counted in PTX run on the host, not measured on a device.")
    versions = {"nvrtc": ".".join(map(str, nvrtc.version())), "architecture": ARCHITECTURE}
    record.finish({"pdex_gpu": versions})
    path = options.record or RESULTS / f"ptx_counts-{date.today():%Y-%m-%d}.json"
    if not options.quick or options.record:
        record.write(path)
        print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
