"""One measured call in a process of its own, whose peak of memory is that of the call.

    python files_child.py run|read JSON

writes ``ready`` before the call and a line of JSON after it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from peak import peak

HERE = Path(__file__).resolve().parent
SLICE_BYTES = 64_000_000


def run(path: str, threads: int, resumable: bool = False, **options: Any) -> dict[str, Any]:
    """A whole call of pdex_gpu on a file; if `resumable`, it is watched for where it starts."""
    sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed
    from pdex_gpu import differential_expression

    reports: list[Any] = []

    def watch(progress: Any) -> None:
        if not reports:  # the first comes before anything is computed
            reports.append(progress.n_genes)

    _ready()
    start = time.perf_counter()
    differential_expression(
        path,
        "target_gene",
        backend="cpu",
        n_threads=threads,
        progress=watch if resumable else False,
        **options,
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "genes_found_done": reports[0] if reports else None}


def read(path: str, whole: bool) -> dict[str, Any]:
    """The arrays of a CSR matrix, read with h5py: at once, or in slices of whole chunks.

    The slices go to one buffer a dataset, which is used again.
    """
    import h5py
    import numpy as np

    _ready()
    start = time.perf_counter()
    n_bytes = 0
    kept = []
    with h5py.File(path, "r") as file:
        for name in ("data", "indices", "indptr"):
            array = file["X"][name]
            n_bytes += array.nbytes
            if whole:
                kept.append(array[:])
                continue
            chunk = array.chunks[0]
            step = max(1, SLICE_BYTES // (chunk * array.dtype.itemsize)) * chunk
            buffer = np.empty(min(step, len(array)), array.dtype)
            for first in range(0, len(array), step):
                last = min(first + step, len(array))
                array.read_direct(buffer, np.s_[first:last], np.s_[: last - first])
    return {"seconds": time.perf_counter() - start, "bytes": n_bytes}


def _ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    done = {"run": run, "read": read}[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps({**done, "peak_bytes": peak()}))
