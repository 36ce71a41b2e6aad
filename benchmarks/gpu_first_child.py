"""What NVIDIA's tools watch: kernels on the device, started by ``gpu_first.py``.

    python benchmarks/gpu_first_child.py every-kernel    each kernel, on inputs of a few cells
    python benchmarks/gpu_first_child.py counted         what ptx_counts.py counts for Wilcoxon

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent, HERE.parent / "tests" / "support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import every_kernel  # noqa: E402
import ptx_counts  # noqa: E402

from pdex_gpu.backends.cuda import probe  # noqa: E402


class Unpooled:
    """In place of CuPy's pool, which hides overruns from one array into the next."""

    def __init__(self) -> None:
        self._cuda = importlib.import_module("cupy").cuda

    def malloc(self, n_bytes: int) -> Any:
        return self._cuda.MemoryPointer(self._cuda.Memory(n_bytes), 0)

    def free_all_blocks(self) -> None:
        """Nothing is kept."""

    def free_bytes(self) -> int:
        return 0

    def used_bytes(self) -> int:
        return 0

    def get_limit(self) -> int:
        return 0


def open_device() -> Any:
    """The device that a call would use."""
    module = importlib.import_module("pdex_gpu.backends.cuda.cupy_device")
    return module.open_device(probe.usable_device())


def run_every_kernel() -> dict[str, Any]:
    """Launch each kernel, on keys of 32 and of 64 bits."""
    device = open_device()
    if hasattr(device, "pool"):
        device.pool = Unpooled()
    found = {
        f"{dtype}, {name}": array
        for dtype in ("float32", "float64")
        for name, array in every_kernel.outputs(device, dtype).items()
    }
    return {"arrays": len(found), "values": sum(array.size for array in found.values())}


def run_counted(shape: ptx_counts.Shape) -> dict[str, Any]:
    """Launch the kernels of a Wilcoxon test on the slice that is counted."""
    kernels, block, design = ptx_counts.packed(
        open_device(), shape.cells, shape.genes, shape.row_genes, shape.codes
    )
    genes = slice(0, shape.genes)
    with kernels.part(block, genes, design) as part:
        kernels.rank_sums(part, genes, design.contrasts[0])
        kernels.moments(part, genes, design, centred=False, expm1=False)
    return {"nonzeros": int(block.entries.sum())}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("every-kernel", "counted"))
    parser.add_argument("--quick", action="store_true", help="a small screen")
    options = parser.parse_args(argv)
    if options.what == "every-kernel":
        found = run_every_kernel()
    else:
        found = run_counted(ptx_counts.QUICK if options.quick else ptx_counts.FULL)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
