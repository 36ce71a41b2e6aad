"""What was measured on a GPU against what was counted and predicted without one.

Ranges say what may be expected before anything was measured. A figure outside its range means that
an assumption is wrong, of `ptx_times.py` or of this file.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent, HERE.parent / "tests" / "support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from ptx_times import ASSUMED, CARDS, NONZEROS, Card, predict  # noqa: E402

from pdex_gpu.backends.cuda import sources  # noqa: E402

#: The task of a record of counts whose kernels are measured.
TASK = "Wilcoxon"

#: Measured over counted, at least and at most.
RANGES = {
    # Machine instructions per PTX instruction.
    "instructions": (ASSUMED["low"].expansion, ASSUMED["high"].expansion),
    # The same requests; a compiler may join some.
    "sectors": (0.9, 1.1),
    "wavefronts": (0.9, 1.25),
    # L1 and L2 of a device are neither as small nor as perfect as those that are counted.
    "misses": (0.6, 1.5),
    "bytes": (0.5, 1.5),
}
#: Most that the share of active lanes may differ.
LANES = 0.15

#: Phases that gpu.py times, by the sources of their kernels.
PHASES = {
    "layout": ("layout", "offsets"),
    "sort": ("sort",),
    "rank sums": ("rank_sums",),
    "moments": ("moments",),
}


@dataclass(frozen=True)
class Figure:
    """A number, and the range it was expected in.

    Attributes
    ----------
    name : str
    value : float or None
        None if it was not measured.
    low, high : float or None
        None on a side without a bound.
    unit : str
    held : bool or None
        Whether the value is in range; None where nothing was measured that could be judged.
    note : str
        Why not, if so.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    held: bool | None
    note: str = ""

    @classmethod
    def judged(cls, name: str, value: float, low: float, high: float, unit: str = "") -> Figure:
        return cls(name, value, low, high, unit, low <= value <= high)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def card_of(name: str) -> Card | None:
    """The card that predictions are for, by the name that the driver gives; None for others."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return next((card for card in CARDS if card.name == short), None)


def counters(
    measured: Mapping[str, Mapping[str, float]], counted: Mapping[str, Any], nonzeros: int
) -> Iterator[Figure]:
    """Counters of ncu, over `nonzeros`, against a task of a record of counts."""
    for kernel, of in measured.items():
        row = counted["kernels"].get(kernel)
        if row is None:
            continue
        expected = {
            "instructions": row["warp_instructions"],
            "sectors": row["sectors"],
            "wavefronts": row["wavefronts"],
            "misses": row["misses"],
            "bytes": row["bytes_read"] + row["bytes_written"],
        }
        for name, value in expected.items():
            if value > 0 and name in of:
                low, high = RANGES[name]
                label = f"{kernel}: {name} measured / counted"
                yield Figure.judged(label, of[name] / nonzeros / value, low, high)
        if of.get("instructions") and "threads" in of:
            lanes, share = of["threads"] / of["instructions"] / 32, row["active_lanes"]
            label = f"{kernel}: active lanes"
            yield Figure.judged(label, lanes, max(0.0, share - LANES), min(1.0, share + LANES))


def kernel_times(
    measured: Mapping[str, Mapping[str, float]],
    counted: Mapping[str, Any],
    nonzeros: int,
    card: Card,
    registers: Mapping[str, int],
) -> Iterator[Figure]:
    """Times of kernels as ncu gives them, in ms per `NONZEROS`."""
    for kernel, of in measured.items():
        if kernel in counted["kernels"] and "seconds" in of:
            low, high = _predicted(counted, [kernel], card, registers)
            value = 1e3 * of["seconds"] * NONZEROS / nonzeros
            yield Figure.judged(f"{kernel}: time per {NONZEROS:.0e} nonzeros", value, low, high,
                                " ms")  # fmt: skip


def phase_times(
    record: Mapping[str, Any],
    counted: Mapping[str, Any],
    card: Card,
    registers: Mapping[str, int],
) -> Iterator[Figure]:
    """Times of phases, and rates of copies, in a record of gpu.py."""
    times = record["times"].get("phases", {})
    for phase, files in PHASES.items():
        text = "\n".join(sources.text(name) for name in files)
        kernels = [name for name in counted["kernels"] if _is_in(name, text)]
        if phase in times and kernels:
            low, high = _predicted(counted, kernels, card, registers)
            value = 1e3 * statistics.median(times[phase]["times"])
            value *= NONZEROS / record["screen"]["nnz"]
            yield Figure.judged(f"phase {phase}: time per {NONZEROS:.0e} nonzeros", value, low,
                                high, " ms")  # fmt: skip
    for rate, most in (
        ("device copy, read + written, GB/s", card.memory),
        ("copy from pinned memory, GB/s", card.bus),
    ):
        if rate in record["rates"]:
            low, high = (most * ASSUMED[key].transferred / 1e9 for key in ("high", "low"))
            name = rate.removesuffix(", GB/s")
            yield Figure.judged(name, record["rates"][rate], low, high, " GB/s")


def _is_in(kernel: str, text: str) -> bool:
    """Whether a source has a kernel, whose name may end with the bits of its keys."""
    return f" {kernel.removesuffix('_32').removesuffix('_64')}_##BITS(" in text or (
        f" {kernel}(" in text
    )


def _predicted(
    counted: Mapping[str, Any], kernels: list[str], card: Card, registers: Mapping[str, int]
) -> tuple[float, float]:
    """The least and the most ms of some kernels over `NONZEROS`."""

    def total(key: str) -> float:
        return 1e3 * sum(
            predict(
                counted["kernels"][name], counted["nonzeros"], registers[name], card, ASSUMED[key]
            ).seconds
            for name in kernels
        )

    return total("low"), total("high")
