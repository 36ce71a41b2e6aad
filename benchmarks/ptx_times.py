"""Times of the CUDA kernels on named cards, predicted from counts: nothing here was measured.

    python benchmarks/ptx_times.py [RECORD]    of the newest record of ptx_counts.py

A kernel takes as long as the scarcest thing it needs: issue slots, float64 units, device memory,
L2, shared memory, or the warp with the most instructions. Each limit follows from the counts, the
facts of a card, and assumptions, of which a low, a likely and a high value give the range. Times
that are measured on a device are to replace the assumptions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _folder in (HERE.parent, HERE.parent / "tests" / "support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import nvrtc  # noqa: E402

from pdex_gpu.backends.cuda import sources  # noqa: E402
from pdex_gpu.backends.cuda.launch_config import Shapes  # noqa: E402

RESULTS = HERE / "results"
NONZEROS = 1e9  # of the GPU benchmark's screen
_SECTOR = 32
_SCHEDULERS = 4  # of a multiprocessor; each issues one instruction per cycle
_REGISTERS = 65_536  # of a multiprocessor; given to a warp by 256
_BUS_BYTES = 6  # per nonzero: float32, and uint16 as index


@dataclass(frozen=True)
class Card:
    """Facts of a card, from its data sheet; bytes are per second."""

    name: str
    architecture: str
    multiprocessors: int
    clock: float
    float64_lanes: int  # of a multiprocessor
    memory: float
    bus: float
    most_warps: int  # of a multiprocessor

    def occupancy(self, registers: int) -> int:
        """Warps of a multiprocessor, in whole blocks."""
        of_a_warp = -(-registers * 32 // 256) * 256
        in_block = Shapes().n_threads // 32
        return min(self.most_warps, _REGISTERS // of_a_warp) // in_block * in_block


CARDS = (
    Card("H200", "sm_90", 132, 1.98e9, 64, 4.8e12, 64e9, 64),
    Card("RTX 4090", "sm_89", 128, 2.52e9, 2, 1.008e12, 32e9, 48),
)


@dataclass(frozen=True)
class Assumed:
    """What the counts do not tell.

    Attributes
    ----------
    expansion : float
        Machine instructions per PTX instruction.
    float64_expansion : float
        The same of float64 arithmetic.
    issued : float
        Share of the issue slots that are used, with enough warps.
    enough_warps : float
        Warps per multiprocessor that hide latencies; with fewer, less is issued.
    transferred : float
        Share of the bandwidth of device memory and bus.
    l2_bytes : float
        Per cycle and multiprocessor.
    warp_cycles : float
        Per instruction of the longest warp.
    launch : float
        Seconds per launch.
    """

    expansion: float
    float64_expansion: float
    issued: float
    enough_warps: float
    transferred: float
    l2_bytes: float
    warp_cycles: float
    launch: float


ASSUMED = {
    "low": Assumed(1.1, 1.0, 0.80, 16, 0.92, 48, 4, 2e-6),
    "likely": Assumed(1.6, 1.5, 0.60, 24, 0.80, 32, 8, 3e-6),
    "high": Assumed(2.4, 3.0, 0.40, 32, 0.65, 20, 16, 6e-6),
}


@dataclass(frozen=True)
class Predicted:
    """Seconds of a kernel over the benchmark's nonzeros, and what limits it."""

    seconds: float
    limit: str


def predict(
    kernel: Mapping[str, Any], nonzeros: int, registers: int, card: Card, assumed: Assumed
) -> Predicted:
    """Predict a kernel over `NONZEROS`, from its row of a record that is of `nonzeros`."""
    cycles = card.multiprocessors * card.clock  # of all multiprocessors, per second
    hidden = min(1.0, card.occupancy(registers) / assumed.enough_warps)
    slots = cycles * _SCHEDULERS * assumed.issued * hidden
    n_bytes = kernel["bytes_read"] + kernel["bytes_written"]
    launches = kernel["launches"] * NONZEROS / nonzeros
    limits = {
        "instructions": NONZEROS * kernel["warp_instructions"] * assumed.expansion / slots,
        "float64": NONZEROS * kernel["float64_instructions"] * assumed.float64_expansion * 32
        / (cycles * card.float64_lanes),
        "device memory": NONZEROS * n_bytes / (card.memory * assumed.transferred),
        "L2": NONZEROS * kernel["misses"] * _SECTOR / (cycles * assumed.l2_bytes),
        "shared memory": NONZEROS * kernel["wavefronts"] / cycles,
        "the longest warp": launches / Shapes().n_slots
        * kernel["longest_warp"] * assumed.warp_cycles / card.clock,
    }  # fmt: skip
    limit = max(limits, key=lambda name: limits[name])
    return Predicted(limits[limit] + launches * assumed.launch, limit)


def bus_seconds(card: Card, assumed: Assumed) -> float:
    """Seconds for the upload of the benchmark's nonzeros."""
    return NONZEROS * _BUS_BYTES / (card.bus * assumed.transferred)


def registers_of(architecture: str) -> dict[str, int]:
    """Registers of a thread by kernel, as ptxas gives them."""
    return {
        function.name: function.registers
        for name in sources.names()
        for function in nvrtc.compile_source(name, architecture).functions
        if function.registers
    }


def table(record: Mapping[str, Any], card: Card, registers: Mapping[str, int]) -> Iterator[str]:
    """Milliseconds of every kernel on a card."""
    yield f"\n{card.name}: predicted ms per {NONZEROS:.0e} nonzeros, likely (low to high)"
    for task, content in record["tasks"].items():
        sums = dict.fromkeys(ASSUMED, 0.0)
        for name, kernel in content["kernels"].items():
            found = {
                key: predict(kernel, content["nonzeros"], registers[name], card, assumed)
                for key, assumed in ASSUMED.items()
            }
            seconds = {key: one.seconds for key, one in found.items()}
            sums = {key: sums[key] + seconds[key] for key in sums}
            yield f"  {name:30} {_range(seconds)}  {found['likely'].limit}"
        yield f"{task:32} {_range(sums)}"
    bus = {key: bus_seconds(card, assumed) for key, assumed in ASSUMED.items()}
    yield f"{'bus':32} {_range(bus)}"


def _range(seconds: Mapping[str, float]) -> str:
    low, likely, high = (1e3 * seconds[key] for key in ("low", "likely", "high"))
    return f"{likely:8.1f} ({low:.1f} to {high:.1f})"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", type=Path, nargs="?", help="default: the newest in results/")
    options = parser.parse_args(argv)
    path = options.record or max(RESULTS.glob("ptx_counts-*.json"), default=None)
    if path is None:
        parser.error("there is no record: run ptx_counts.py first")
    record = json.loads(path.read_text())
    for card in CARDS:
        print("\n".join(table(record, card, registers_of(card.architecture))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
