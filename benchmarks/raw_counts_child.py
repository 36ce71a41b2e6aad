"""One measured call of ``raw_counts.py`` in a process of its own, whose peak is that of the call.

    python raw_counts_child.py run|scanpy JSON

writes a line of JSON. ``scanpy`` runs in the environment of the peers.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from peak import peak

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # this checkout, whatever is installed


def run(data: Any, threads: int, **options: Any) -> tuple[float, Any]:
    """One call on files."""
    from pdex_gpu import differential_expression

    started = time.perf_counter()
    found = differential_expression(
        data, "target_gene", backend="cpu", progress=False, n_threads=threads, **options
    )
    return time.perf_counter() - started, found


def scanpy(path: str, threads: int) -> tuple[float, Any]:
    """Load the file, normalise with scanpy, and test what that gives."""
    import anndata
    import scanpy

    from pdex_gpu import differential_expression

    started = time.perf_counter()
    adata = anndata.read_h5ad(path)
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    found = differential_expression(
        adata, "target_gene", backend="cpu", progress=False, n_threads=threads
    )
    return time.perf_counter() - started, found


if __name__ == "__main__":
    seconds, result = {"run": run, "scanpy": scanpy}[sys.argv[1]](**json.loads(sys.argv[2]))
    columns = b"".join(result[name].tobytes() for name in result.columns)
    print(json.dumps({
        "seconds": seconds,
        "peak_bytes": peak(),
        "digest": hashlib.sha256(columns).hexdigest(),
    }))  # fmt: skip
