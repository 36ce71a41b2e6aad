"""A case: a call, what befalls it, and when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from emulated.build import compiler

MEMORY = ("memory csr", "memory csc", "memory dense")
PATHS = ("h5ad csr", "h5ad csc", "h5ad dense", "zarr csr", "zarr csc", "zarr dense")
BACKED = ("backed csr", "backed csc", "backed dense")

# One of a cluster takes longest.
ENGINES = (*["serial", "threads", "shared_memory", "streams"] * 2, "shared_memory", "dask")
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
FAULTS = (
    *["signal"] * 10,
    "small disk",
    "file size",
    "address space",
    "open files",
    "folder removed",
    "checkpoint removed",
    "input replaced",
    "input cut",
)


@dataclass(frozen=True)
class Case:
    """A call that is disturbed.

    Attributes
    ----------
    seed : int
    engine, storage : str
    out : str
        Suffix of the output; empty for results in memory.
    command : bool
        Whether the command line is used, in place of the library.
    options : dict
        Of the call.
    fault : str
    number : str
        Of a signal.
    whom : str
        Who is sent it: "parent", "worker" or "group".
    moment : float
        When it comes, as a fraction of the time that the call takes.
    file : str
        Or once there is a file that this pattern finds.
    share : float
        How much is left, of what a limit leaves none of at 0 and enough of at 1.
    """

    seed: int
    engine: str
    storage: str
    out: str
    command: bool
    options: dict[str, Any]
    fault: str
    number: str
    whom: str
    moment: float
    file: str
    share: float

    def __str__(self) -> str:
        what = f"{self.number} of the {self.whom}" if self.fault == "signal" else self.fault
        when = f"once there is {self.file}" if self.file else f"at {self.moment:.0%}"
        if self.fault in LIMITS:
            when = f"with {self.share:.0%} left"
        how = "command" if self.command else "library"
        return (
            f"case {self.seed}: {what} {when}; {how}, {self.engine}, {self.storage} to "
            f"{self.out or 'memory'}, {self.options}"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


#: Faults that are there from the beginning.
LIMITS = ("small disk", "file size", "address space", "open files")


def draw(seed: int) -> Case:
    """The case of a number."""
    rng = np.random.default_rng([91, seed])

    def one(of: Any) -> Any:
        return of[int(rng.integers(len(of)))]

    engine = one(ENGINES)
    if engine == "streams" and compiler() is None:
        engine = "threads"
    storage = one(MEMORY if engine == "shared_memory" else (*MEMORY, *PATHS, *BACKED))
    out = one([".parquet", ".parquet", ".csv", ".tsv", ""])
    fault = one(FAULTS)
    if engine == "streams" and fault in ("address space", "open files"):
        fault = "signal"  # the emulated device itself starts processes and opens files
    if not out and fault in ("small disk", "file size", "folder removed", "checkpoint removed"):
        out = ".parquet"
    if fault.startswith("input") and storage not in PATHS:
        storage = one(PATHS)
        engine = "threads" if engine == "shared_memory" else engine
    whom = one(["parent", "group"])
    if engine in ("shared_memory", "dask") and rng.random() < 0.4:
        whom = "worker"
    number = "SIGKILL" if whom == "worker" else one(SIGNALS)
    command = storage in PATHS and bool(out) and engine != "dask" and rng.random() < 0.5
    options: dict[str, Any] = {
        "metric": one(["wilcoxon", "t-test", "anderson", "ks"]),
        "comparison": one(["reference", "rest", "pairs"]),
        "gene_chunk_size": int(one([3, 10, 40])),
    }
    if engine in ("threads", "streams", "shared_memory"):
        options["n_workers"] = int(one([1, 2])) if engine != "streams" else 1
    if not command and engine in ("serial", "threads") and rng.random() < 0.3:
        options["memory"] = 1  # so that rows are split to scratch
    files = ["", ""] if not out else ["", "", "", "lock", "run.json", "genes-*", "output*", "fin*"]
    return Case(
        seed, engine, storage, out, bool(command), options, fault, number, whom,
        float(rng.uniform(0.0, 1.05)), one(files), float(rng.uniform(0.0, 1.0)),
    )  # fmt: skip
