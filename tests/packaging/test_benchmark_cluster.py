"""benchmarks/cluster.py: what it compares moves the same entries, and its tables can be made."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
pytest.importorskip("distributed")
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "docs" / "_ext")]

import big_screen  # noqa: E402
import cluster as benchmark  # noqa: E402
import cluster_shuffle  # noqa: E402
import cluster_tables  # noqa: E402
import gpu_screen  # noqa: E402
from dask_clusters import cluster  # noqa: E402

WIDTH = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("cluster") / "screen.h5ad"
    big_screen.write(gpu_screen.Sizes(2_000, 200, 10), made, n_threads=1)
    return str(made)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster(2, processes=True) as client:
        client.run(sys.path.insert, 0, str(BENCHMARKS))
        yield client


@pytest.mark.thorough
@pytest.mark.parametrize("way", cluster_shuffle.WAYS)
def test_every_way_moves_the_same_entries(client: Any, path: str, way: str, tmp_path: Path):
    _, n_bytes, found = cluster_shuffle.measure(client, way, path, WIDTH, 4, tmp_path)
    with h5py.File(path) as file:
        genes, values = file["X/indices"][:], file["X/data"][:].astype(np.float64)
    for k, (n, total) in enumerate(found):
        inside = genes // WIDTH == k
        assert n == np.count_nonzero(inside)
        assert total == pytest.approx(values[inside].sum(), rel=1e-12)
    assert len(found) == 4
    assert (n_bytes > 0) == (way == "folder")
    assert not list(tmp_path.iterdir())


_PEAKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import cluster as benchmark
before = benchmark.forget_peak(os.getpid())
block = bytearray(b"1") * 40_000_000
assert benchmark.peak(os.getpid()) > before + 0.9 * len(block)
"""


def test_peaks():
    """In a process of its own, where nothing was larger before."""
    subprocess.run([sys.executable, "-c", _PEAKS, str(BENCHMARKS)], check=True)


def test_tables_that_differ_are_seen(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"p": np.array([1.0, np.nan, 0.5]), "gene": ["a", "b", "c"]}
    other = table | {"p": np.nextafter(table["p"], 2.0)}
    for name, content in (("a", table), ("b", table), ("c", other)):
        pq.write_table(pa.table(content), tmp_path / name)
    assert benchmark._same_table(tmp_path / "a", tmp_path / "b")
    assert not benchmark._same_table(tmp_path / "a", tmp_path / "c")


@pytest.mark.thorough
def test_the_record_makes_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = cluster_tables.overhead() + cluster_tables.shuffle()
    name, record = cluster_tables.newest() or pytest.fail("there is no record")
    assert name in text
    ratio = record["figures"]["dask_vs_threads"]["value"]
    assert f"Median of the rounds' ratios: {ratio:.2f}" in text
    for way in cluster_shuffle.WAYS:
        times = record["tasks"]["shuffle"]["seconds"][way]["times"]
        assert ", ".join(f"{value:.1f}" for value in times) in text
    del record["tasks"]["shuffle"], record["tasks"]["growth"]
    (tmp_path / name).write_text(json.dumps(record))
    monkeypatch.setattr(cluster_tables.tables, "RECORDS", tmp_path)
    assert cluster_tables.shuffle() == cluster_tables.NONE_YET
    assert "nonzeros in the same cells" not in cluster_tables.overhead()
