"""Three ways for the rows of a CSR file to become ranges of genes on the workers of a cluster.

Each reads every row once on a worker and puts every range together on a worker; how pieces get
from the one to the other differs. What comes back of each range is the number of its entries and
the sum of their values, so that all can be seen to have moved the same.
"""

from __future__ import annotations

import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gpu_screen import GROUPBY

from pdex_gpu.engines.dask.split_files import SplitFiles
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.rechunk.ranges import Ranges, join_range, rechunk_block

Checks = list[tuple[int, float]]


@cache
def _rows(path: str) -> Any:
    return open_dataset(path, GROUPBY).source.rows()


def _cut(path: str, width: int, blocks: int) -> tuple[Ranges, list[slice], Any]:
    rows = _rows(path)
    edges = (*range(0, rows.n_genes, width), rows.n_genes)
    return Ranges.of(edges, rows.n_genes, rows.index_dtype), rows.cut(rows.nnz // blocks), rows


def _split(path: str, ranges: Ranges, rows: slice) -> Any:
    source = _rows(path)
    seen = np.zeros(source.n_genes, np.int64)
    return rechunk_block(ranges, rows, source.block(rows, Reading()), range(ranges.n), seen), seen


def _check(chunk: Any) -> tuple[int, float]:
    return len(chunk.data), float(chunk.data.sum(dtype=np.float64))


# --- files in a shared folder, as engine="dask" does -------------------------------------------


def _write(path: str, files: SplitFiles, rows: slice) -> None:
    files.write(*_split(path, files.ranges, rows))


def _join_files(files: SplitFiles, k: int) -> tuple[int, float]:
    return _check(files.join(k, files.blocks(), map))


def through_folder(client: Any, path: str, width: int, blocks: int, folder: Path) -> Checks:
    """Rows are written split; ranges are read from all files."""
    ranges, parts, rows = _cut(path, width, blocks)
    files = SplitFiles(folder, ranges, rows.n_cells, rows.dtype, rows.index_dtype)
    client.gather([client.submit(_write, path, files, part, pure=False) for part in parts])
    done = [client.submit(_join_files, files, k, pure=False) for k in range(ranges.n)]
    return client.gather(done)


# --- results of tasks, moved by Dask -----------------------------------------------------------


def _pieces(path: str, ranges: Ranges, rows: slice) -> list[Any]:
    """A block of each range alone."""
    from dataclasses import replace

    block, _ = _split(path, ranges, rows)
    n_rows = rows.stop - rows.start
    found = []
    for k in range(ranges.n):
        a, b = int(block.bounds[k]), int(block.bounds[k + 1])
        bounds = np.zeros(ranges.n + 1, np.int64)
        bounds[k + 1 :] = b - a
        found.append(
            replace(
                block,
                bounds=bounds,
                counts=block.counts[k * n_rows : (k + 1) * n_rows].copy(),
                values=block.values[a:b].copy(),
                indices=block.indices[a:b].copy(),
            )
        )
    return found


def _pick(pieces: list[Any], k: int) -> Any:
    return pieces[k]


def _join_pieces(path: str, ranges: Ranges, k: int, blocks: list[Any]) -> tuple[int, float]:
    rows = _rows(path)
    starts = {id(block.counts): k * (block.rows.stop - block.rows.start) for block in blocks}

    def get(array: np.ndarray, first: int, last: int) -> np.ndarray:
        shift = starts.get(id(array), 0)
        return array[first - shift : last - shift]

    return _check(join_range(ranges, k, blocks, (rows.dtype, rows.index_dtype), get, map))


def through_tasks(client: Any, path: str, width: int, blocks: int, folder: Path) -> Checks:
    """Pieces are results of tasks, kept in the memory of workers (or spilled) until fetched."""
    ranges, parts, _ = _cut(path, width, blocks)
    split = [client.submit(_pieces, path, ranges, part, pure=False) for part in parts]
    done = []
    for k in range(ranges.n):
        pieces = [client.submit(_pick, block, k, pure=False) for block in split]
        done.append(client.submit(_join_pieces, path, ranges, k, pieces, pure=False))
    return client.gather(done)


# --- Dask's shuffle ----------------------------------------------------------------------------


def _frame(path: str, ranges: Ranges, rows: slice) -> Any:
    import pandas as pd

    data, indices, bounds = _rows(path).block(rows, Reading())
    cells = np.repeat(np.arange(rows.start, rows.stop, dtype=np.int32), np.diff(bounds))
    of_range = np.searchsorted(ranges.edges, indices, side="right") - 1
    return pd.DataFrame(
        {"part": of_range.astype(np.int32), "cell": cells, "gene": indices, "value": data}
    )


def _count(frame: Any) -> Any:
    import pandas as pd

    found = frame.astype({"value": "float64"}).groupby("part")["value"].agg(["size", "sum"])
    found.columns = ["n", "total"]
    return (
        found.astype({"n": "int64", "total": "float64"})
        if len(found)
        else pd.DataFrame({"n": pd.Series(dtype="int64"), "total": pd.Series(dtype="float64")})
    )


def through_shuffle(client: Any, path: str, width: int, blocks: int, folder: Path) -> Checks:
    """Entries are rows of a data frame that Dask's peer-to-peer shuffle sorts into partitions."""
    import dask.dataframe as dd
    from dask import delayed

    ranges, parts, rows = _cut(path, width, blocks)
    frames = [delayed(_frame)(path, ranges, part) for part in parts]
    meta = {"part": "int32", "cell": "int32", "gene": rows.index_dtype, "value": rows.dtype}
    frame = dd.from_delayed(frames, meta=meta, verify_meta=False)
    shuffled = frame.shuffle("part", npartitions=ranges.n, shuffle_method="p2p")
    counted = shuffled.map_partitions(_count, meta={"n": "int64", "total": "float64"})
    found = client.compute(counted).result().sort_index()
    return list(zip(found["n"].tolist(), found["total"].tolist(), strict=True))


WAYS = {"folder": through_folder, "tasks": through_tasks, "shuffle": through_shuffle}


def measure(client: Any, way: str, path: str, width: int, blocks: int, parent: Path) -> Any:
    """Seconds of one way, bytes of its files, and what came back."""
    folder = parent / uuid.uuid4().hex
    folder.mkdir()
    start = time.perf_counter()
    checks = WAYS[way](client, path, width, blocks, folder)
    seconds = time.perf_counter() - start
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return seconds, n_bytes, checks
