"""engine="dask" on clusters in this process: the same bits, whatever the storage and workers."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from stored_screens import (
    GENES,
    GROUPBY,
    LABELS,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    logged,
    screen,
)

import pdex_gpu
from pdex_gpu.engines.dask import cluster as cluster_run
from pdex_gpu.engines.dask import split_files, survey, tasks, worker_state
from pdex_gpu.engines.dask.split_files import SplitFiles, SplitFolder
from pdex_gpu.errors import (
    CheckpointError,
    ClusterError,
    DamagedCheckpointWarning,
    DataError,
    FileFormatError,
    MemoryBudgetError,
    MissingDependencyError,
    OptionError,
    ScratchError,
    UnsupportedDataError,
)
from pdex_gpu.sinks.checkpoint import checkpoint_folder, open_checkpoint, write_range
from pdex_gpu.sources.rechunk.ranges import Ranges, rechunk_block
from pdex_gpu.utils.value_summary import ValueSummary

distributed = pytest.importorskip("distributed")
import dask  # noqa: E402
import dask.array as da  # noqa: E402
from dask_clusters import STORAGE, cluster  # noqa: E402

N_WORKERS = (1, 2, 5)


@pytest.fixture(scope="module", params=N_WORKERS, ids=lambda n: f"{n} workers")
def each_client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with cluster(request.param) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers in this process."""
    with cluster(2) as client:
        yield client


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folder = tmp_path_factory.mktemp("screens")
    made: dict[str, Any] = {}

    def data(storage: str) -> Any:
        if storage not in made:
            made[storage] = STORAGE[storage](logged(), folder)
        return made[storage]

    return data


def run(data: Any, client: Any = None, **options: Any) -> Any:
    more = {} if client is None else {"engine": "dask", "client": client}
    options = {"reference": REFERENCE, "progress": False} | more | options
    data = os.fspath(data) if isinstance(data, Path) else data
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


@pytest.fixture(scope="module")
def expected() -> Callable[..., Any]:
    """What one machine answers."""
    known: dict[str, Any] = {}

    def result(**options: Any) -> Any:
        key = repr(options)
        if key not in known:
            known[key] = run(screen(sparse.csr_matrix(logged())), **options)
        return known[key]

    return result


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("storage", STORAGE)
def test_every_storage(each_client: Any, storage: str, files: Any, expected: Any):
    found = run(files(storage), each_client)
    assert_same_bits(found, expected())
    assert found.provenance["engine"] == "dask"
    assert found.provenance["backend"] == "cpu"


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "dask grid", "memory csr"])
@pytest.mark.parametrize("metric", ["anderson", "t-test", "ks"])
def test_every_test(client: Any, storage: str, metric: str, files: Any, expected: Any):
    assert_same_bits(run(files(storage), client, metric=metric), expected(metric=metric))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("chunk", [1, 2, 9])
@pytest.mark.parametrize(
    "storage", ["h5ad csr", "h5ad dense rows", "zarr csc", "zarr dense", "dask grid"]
)
def test_every_range(client: Any, storage: str, chunk: int, files: Any, expected: Any):
    assert_same_bits(run(files(storage), client, gene_chunk_size=chunk), expected())


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_same_file_from_any_cluster(files: Any, expected: Any, tmp_path: Path, suffix: str):
    found = set()
    for n_workers in N_WORKERS:
        with cluster(n_workers) as client:
            out = tmp_path / f"{n_workers}{suffix}"
            run(files("h5ad csr"), client, out=out, gene_chunk_size=n_workers)
            found.add(out.read_bytes())
    assert len(found) == 1
    if suffix == ".parquet":
        assert_same_bits(pd.read_parquet(tmp_path / "1.parquet"), expected().to_pandas())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}{suffix}" for n in N_WORKERS]


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize(
    "options",
    [
        {"comparison": "rest"},
        {"comparison": "each_reference", "reference": ["ctl", "A"]},
        {"comparison": "pairs", "pairs": [("A", "B"), ("C", "ctl")]},
        {"groups": ["B", "A"], "columns": ["auroc", "target_n_cells"]},
        {"strata": "batch"},
        pytest.param({"min_cells": 6}, marks=pytest.mark.filterwarnings("ignore")),
        {"columns": "all", "metric": "t-test"},
        {"min_fraction": 0.6},
        {"method": "permutation", "groups": ["C"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("storage", ["h5ad csr", "memory csc", "dask rows csr"])
def test_what_a_call_asks_for(client: Any, files: Any, storage: str, options: dict[str, Any]):
    if options.get("method") == "permutation":
        from scipy.stats import PermutationMethod

        options |= {"method": PermutationMethod(n_resamples=99, rng=1)}
        pytest.importorskip("scipy", "1.15")
    one, other = (
        run(data, *at, **options).to_pandas()
        for data, at in ((files("h5ad csr"), ()), (files(storage), (client,)))
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("options", [{}, {"groups": ["C", "A"]}, {"gene_chunk_size": 2}], ids=str)
@pytest.mark.parametrize(
    "storage",
    ["h5ad csr", "h5ad csc", "h5ad dense rows", "zarr dense", "memory csc", "backed csr",
     "dask rows csr", "dask grid"],
)  # fmt: skip
def test_mock_groups(
    client: Any, files: Any, storage: str, options: dict[str, Any], tmp_path: Path
):
    """Workers compare them without knowing their labels; rechunked rows serve both readings."""
    asked = {"fdr_method": "empirical"} | options
    expected = run(screen(sparse.csr_matrix(logged())), **asked)
    found = run(files(storage), client, **asked)
    assert_same_bits(found, expected)
    assert found.provenance["empirical_null"] == expected.provenance["empirical_null"]
    out = tmp_path / "de.parquet"
    run(files(storage), client, **asked, out=out)
    assert_same_bits(pd.read_parquet(out), expected.to_pandas())
    assert [path.name for path in tmp_path.iterdir()] == ["de.parquet"]


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_mock_groups_of_some_cells(client: Any, kind: str, tmp_path: Path):
    adata = screen(MEMORY[kind](logged()))
    adata.obs["kept"] = np.arange(adata.n_obs) % 9 != 4
    adata.write_h5ad(tmp_path / "screen.h5ad")
    found, expected = (
        run(tmp_path / "screen.h5ad", *at, cells="kept", fdr_method="empirical")
        for at in ((client,), ())
    )
    assert found.provenance["n_cells"] < adata.n_obs
    assert_same_bits(found, expected)


def test_groups_from_an_iterator(client: Any, files: Any):
    found = run(files("h5ad csr"), client, groups=iter(["B", "A"]))
    assert list(found.targets) == ["B", "A"]


def test_guides(client: Any, tmp_path: Path):
    adata = screen(sparse.csr_matrix(logged()))
    carried = pd.get_dummies(adata.obs[GROUPBY]).astype(bool)
    carried.iloc[:10, 0] = True  # several guides in a cell
    adata.obsm["guides"] = carried
    adata.write_h5ad(tmp_path / "guides.h5ad")
    ask = partial(
        pdex_gpu.differential_expression, tmp_path / "guides.h5ad", guides="guides",
        reference=REFERENCE, progress=False,
    )  # fmt: skip
    assert_same_bits(ask(engine="dask", client=client), ask())
    ask = partial(ask, fdr_method="empirical")
    assert_same_bits(ask(engine="dask", client=client), ask())


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_labels_that_are_in_no_file(client: Any, kind: str, tmp_path: Path):
    screen(MEMORY[kind](logged())).write_h5ad(tmp_path / "screen.h5ad")
    adata = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    adata.obs["mine"] = adata.obs[GROUPBY].to_numpy()[::-1]
    ask = partial(
        pdex_gpu.differential_expression, adata, "mine", reference=REFERENCE, progress=False
    )
    assert_same_bits(ask(engine="dask", client=client), ask())


def test_the_current_client_and_an_address(files: Any, expected: Any):
    with cluster(1) as client:
        with client.as_current():
            assert_same_bits(run(files("h5ad csr"), engine="dask"), expected())
        address = client.scheduler.address
        assert_same_bits(run(files("dask grid"), address), expected())
        assert client.status == "running"


def test_several_tasks_on_one_worker_at_once(files: Any, expected: Any):
    with cluster(1, threads_per_worker=4) as client:
        assert_same_bits(run(files("h5ad csr"), client, gene_chunk_size=1), expected())
        assert_same_bits(run(files("zarr dense"), client, n_threads=2), expected())


def test_ranges_larger_than_estimated_are_planned_anew(
    client: Any, files: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
):
    plans = []
    real = cluster_run.make_plan

    def tight(*args: Any, **options: Any) -> Any:
        plan = real(*args, **options)
        plans.append(plan)
        return plan if len(plans) > 1 else cluster_run.replace(plan, most_entries=1.0)

    monkeypatch.setattr(cluster_run, "make_plan", tight)
    source_counted = []
    split = SplitFiles.seen

    def seen(self: Any, n_genes: int) -> Any:
        source_counted.append(split(self, n_genes))
        return source_counted[-1]

    monkeypatch.setattr(SplitFiles, "seen", seen)
    assert_same_bits(run(files("h5ad csr"), client, gene_chunk_size=2), expected())
    assert len(plans) == 2
    np.testing.assert_array_equal(source_counted[0], np.count_nonzero(logged(), axis=0))


# --- what travels -----------------------------------------------------------------------------


BLOCKS_SEEN: list[str] = []


def seen_block(values: np.ndarray) -> Any:
    BLOCKS_SEEN.append(distributed.get_worker().address)  # raises where there is no worker
    return sparse.csr_matrix(values)


def test_blocks_of_a_dask_array_are_computed_by_workers_once(client: Any, expected: Any):
    BLOCKS_SEEN.clear()
    array = da.from_array(logged(), chunks=(10, len(GENES)))
    meta = sparse.csr_matrix(np.zeros((0, 0), np.float32))
    adata = screen(array.map_blocks(seen_block, meta=meta))
    assert_same_bits(run(adata, client.scheduler.address), expected())
    # Once to split, and a few are looked at before.
    assert array.numblocks[0] <= len(BLOCKS_SEEN) <= array.numblocks[0] + 4


def test_tasks_are_small(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    real = cluster_run._Futures.submit

    def submit(self: Any, name: str, function: Any, items: Any) -> Any:
        sizes.append(len(pickle.dumps((self._work, list(items)[:1]))))
        return real(self, name, function, items)

    monkeypatch.setattr(cluster_run._Futures, "submit", submit)
    for n in (60, 6000):
        labels = [LABELS[i % len(LABELS)] for i in range(n)]
        values = np.random.default_rng(0).poisson(1.0, (n, 9)).astype(np.float32)
        path = tmp_path / f"{n}.h5ad"
        screen(sparse.csr_matrix(values), labels).write_h5ad(path)
        run(path, client)
    assert len(sizes) == 4  # rows and genes, of both
    assert max(sizes) - min(sizes) < 100
    assert max(sizes) < 5000


def test_long_lists_are_sent_once(client: Any, files: Any, monkeypatch: pytest.MonkeyPatch):
    sizes, sent = [], []
    submit, send = cluster_run._Futures.submit, cluster_run._Futures.send

    def look(self: Any, name: str, function: Any, items: Any) -> Any:
        sizes.append(len(pickle.dumps((self._work, list(items)[:1]))))
        return submit(self, name, function, items)

    def look_sent(self: Any, given: Any) -> None:
        sent.append(given)
        send(self, given)

    monkeypatch.setattr(cluster_run._Futures, "submit", look)
    monkeypatch.setattr(cluster_run._Futures, "send", look_sent)
    pairs = [("A", "B"), ("C", "ctl"), ("B", "A")]
    options = {"comparison": "pairs", "pairs": pairs}
    want = run(files("h5ad csr"), **options)
    assert_same_bits(run(files("h5ad csr"), client, **options), want)
    assert not sent
    monkeypatch.setattr(cluster_run, "_MOST_SETTINGS", 100)
    assert_same_bits(run(files("h5ad csr"), client, **options), want)
    assert len(sent) == 1
    assert sizes[-1] < sizes[0]


def test_tasks_tell_what_they_do(files: Any):
    with cluster(1) as client:
        run(files("h5ad csr"), client)
        run(files("memory csr"), client)
        names = set(client.cluster.scheduler.task_prefixes)
    assert {"pdex_gpu-rechunk-rows", "pdex_gpu-test-genes", "pdex_gpu-labels"} <= names


def is_any_open() -> bool:
    return any(entry.run is not None for entry in worker_state._entries.values())


def test_nothing_is_left_on_workers(files: Any, monkeypatch: pytest.MonkeyPatch):
    with cluster(2) as client:
        run(files("h5ad csr"), client)
        with pytest.raises(DataError):
            run(screen(sparse.csr_matrix(np.full((len(LABELS), 9), np.nan, np.float32))), client)
        until = time.monotonic() + 600
        while is_any_open() and time.monotonic() < until:  # tasks that were under way
            time.sleep(0.01)
        assert not is_any_open()
        scheduler = client.cluster.scheduler
        while scheduler.tasks and time.monotonic() < until:
            time.sleep(0.01)
        assert not scheduler.tasks


def test_progress(client: Any, files: Any):
    reports = []
    run(files("h5ad csr"), client, progress=reports.append, gene_chunk_size=1)
    assert reports[-1].fraction == 1.0
    assert reports[-1].n_genes == len(GENES)
    assert 0 < reports[-1].n_bytes <= reports[-1].total_bytes


def test_cancelling(client: Any, files: Any, tmp_path: Path):
    class Enough(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.n_genes:
            raise Enough

    given = []
    real = cluster_run._Futures.cancel

    def cancel(self: Any) -> None:
        given.extend(self._given)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_run._Futures, "cancel", cancel)
        with pytest.raises(Enough):
            run(files("h5ad csr"), client, progress=stop, gene_chunk_size=1)
    assert given
    assert all(future.status in ("cancelled", "finished") for future in given)
    assert any(future.status == "cancelled" for future in given)


# --- checkpoints ------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told at every step, however fast."""
    monkeypatch.setattr("pdex_gpu.utils.progress._INTERVAL", 0.0)


def stopped(n_genes: int) -> Callable[[Any], None]:
    def stop(progress: Any) -> None:
        if progress.n_genes >= n_genes:
            raise Stop

    return stop


@pytest.mark.parametrize("storage", ["h5ad csr", "zarr csc", "dask rows csr"])
def test_a_stopped_run_is_carried_on(client: Any, files: Any, storage: str, tmp_path: Path):
    out, whole = tmp_path / "de.parquet", tmp_path / "whole.parquet"
    data = files(storage)
    run(data, client, out=whole)
    with pytest.raises(Stop) as caught:
        run(data, client, out=out, gene_chunk_size=1, progress=stopped(3))
    assert "the same call resumes" in caught.value.__notes__[0]
    kept = list(checkpoint_folder(out).glob("genes-*.npy"))
    assert kept
    reports = []
    run(data, client, out=out, progress=reports.append)
    assert reports[0].n_genes >= 3
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["de.parquet", "whole.parquet"]


def test_split_rows_are_taken_up(client: Any, files: Any, tmp_path: Path):
    out = tmp_path / "de.parquet"
    with pytest.raises(Stop):
        run(files("h5ad csr"), client, out=out, progress=stopped(1), gene_chunk_size=1)
    (folder,) = (checkpoint_folder(out) / "split").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("rows-*")}
    assert before
    later: dict[str, int] = {}

    def look(progress: Any) -> None:
        if progress.n_genes:
            later.update({p.name: p.stat().st_mtime_ns for p in folder.glob("rows-*")})

    run(files("h5ad csr"), client, out=out, progress=look, gene_chunk_size=1)
    assert later == before
    assert not checkpoint_folder(out).exists()


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("damage", ["a byte", "cut", "zeros", "a link"])
def test_split_rows_that_were_damaged(client: Any, files: Any, tmp_path: Path, damage: str):
    """They are read again, with one warning; the table is that of an undisturbed run."""
    out, whole = tmp_path / "de.parquet", tmp_path / "whole.parquet"
    run(files("h5ad csr"), client, out=whole, gene_chunk_size=1)
    with pytest.raises(Stop):
        run(files("h5ad csr"), client, out=out, progress=stopped(1), gene_chunk_size=1)
    (folder,) = (checkpoint_folder(out) / "split").iterdir()
    for path in checkpoint_folder(out).glob("genes-*.npy"):  # all may be done by then
        path.unlink(missing_ok=True)  # a worker may still be writing
    one, *rest = sorted(folder.glob("rows-*"))
    content = one.read_bytes()
    if damage == "a byte":
        one.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        os.truncate(one, len(content) - 1)
    elif damage == "zeros":
        one.write_bytes(bytes(len(content)))
    else:
        one.rename(tmp_path / "precious")
        one.symlink_to(tmp_path / "precious")
    with pytest.warns(DamagedCheckpointWarning) as caught:
        run(files("h5ad csr"), client, out=out, gene_chunk_size=1)
    (message,) = [str(w.message) for w in caught]
    assert message.startswith(
        f"This checkpoint was damaged: 1 of {1 + len(rest)} blocks of cells were read"
    )
    assert out.read_bytes() == whole.read_bytes()
    if damage == "a link":
        assert (tmp_path / "precious").read_bytes() == content


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1)])
def test_a_run_is_carried_on_by_a_cluster_of_another_size(
    first: int, second: int, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_run, "_SMALLEST_BLOCK", 1)  # as many blocks as tasks at once ask
    out, whole = tmp_path / "de.parquet", tmp_path / "whole.parquet"
    folder = checkpoint_folder(out) / "split"
    names: list[set[str]] = []

    def look(progress: Any) -> None:
        names.append({path.name for path in folder.glob("*/rows-*")})

    def stop(progress: Any) -> None:
        look(progress)
        stopped(1)(progress)

    with cluster(first) as client:
        run(files("h5ad csr"), client, out=whole)
        with pytest.raises(Stop):
            run(files("h5ad csr"), client, out=out, progress=stop, gene_chunk_size=1)
    before = names[-1]
    names.clear()
    with cluster(second) as client:
        run(files("h5ad csr"), client, out=out, progress=look, gene_chunk_size=1)
    assert out.read_bytes() == whole.read_bytes()
    assert before
    assert set.union(*names) == before  # no rows were split otherwise again


def test_larger_blocks_than_there_is_memory_for_are_split_again(tmp_path: Path):
    folder = SplitFolder(tmp_path / "split", {"metric": "a"})
    at = folder.begin([0, 9])
    first = folder.rows(at, 100, lambda: [slice(0, 9)])
    (at / "rows-000000000000-000000000009.split").touch()
    assert folder.rows(at, 200, lambda: []) == first == [slice(0, 9)]
    assert list(at.glob("*.split"))
    assert folder.rows(at, 50, lambda: [slice(0, 4), slice(4, 9)]) == [slice(0, 4), slice(4, 9)]
    assert not list(at.glob("*.split"))


def test_a_run_is_carried_on_by_another_engine(client: Any, files: Any, tmp_path: Path):
    for first, second in (({}, {"client": client}), ({"client": client}, {})):
        out = tmp_path / f"{len(first)}.parquet"
        with pytest.raises(Stop):
            run(files("h5ad csr"), out=out, gene_chunk_size=1, progress=stopped(3), **first)
        reports = []
        run(files("h5ad csr"), out=out, progress=reports.append, **second)
        assert reports[0].n_genes >= 3
    one, other = (pd.read_parquet(tmp_path / f"{n}.parquet") for n in (0, 1))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("out", [True, False])
def test_a_scratch_folder_is_left_empty(client: Any, files: Any, tmp_path: Path, out: bool):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = {"out": tmp_path / "de.parquet"} if out else {}
    seen = []

    def look(progress: Any) -> None:
        seen.extend(path.name for path in scratch.rglob("rows-*"))

    run(files("h5ad csr"), client, scratch=scratch, progress=look, gene_chunk_size=1, **options)
    assert seen
    assert not list(scratch.iterdir())


def test_results_of_a_run_that_was_given_up_are_not_taken(tmp_path: Path):
    out, values = tmp_path / "de.parquet", np.zeros((2, 3))
    fields = {"p_value": 1, "statistic": 1}
    with open_checkpoint(out, {"metric": "a"}, fields, 3, restart=False) as first:
        old = first.run, first.note
        write_range(first.folder, slice(0, 3), ValueSummary(), values, *old)
    with open_checkpoint(out, {"metric": "b"}, fields, 3, restart=True) as second:
        assert second.note != old[1]
        with pytest.raises(CheckpointError, match="now belongs to another run"):
            write_range(second.folder, slice(0, 3), ValueSummary(), values, *old)
        assert not list(second.folder.glob("genes-*"))


def test_folders_of_other_ranges_are_not_taken(tmp_path: Path):
    first = SplitFolder(tmp_path / "split", {"metric": "a"})
    one = first.begin([0, 4, 9])
    (one / "rows-000000000000-000000000009.split").touch()
    assert SplitFolder(tmp_path / "split", {"metric": "b"}).edges() is None
    assert SplitFolder(tmp_path / "split", {"metric": "a"}).edges() == (0, 4, 9)
    assert first.begin([0, 4, 9]) == one
    assert list(one.glob("rows-*"))
    other = first.begin([0, 5, 9])
    assert other != one
    assert not one.exists()
    first.remove()
    assert not (tmp_path / "split").exists()


# --- split files ------------------------------------------------------------------------------


@pytest.fixture
def split(tmp_path: Path) -> SplitFiles:
    """Two blocks of rows in files."""
    matrix = sparse.csr_matrix(logged())
    files = SplitFiles(
        tmp_path, Ranges.of((0, 4, 9), 9, np.dtype(np.uint16)), len(LABELS),
        matrix.dtype, np.dtype(np.uint16),
    )  # fmt: skip
    for rows in (slice(0, 20), slice(20, len(LABELS))):
        some, seen = matrix[rows], np.zeros(9, np.int64)
        arrays = some.data, some.indices.astype(np.uint16), some.indptr.astype(np.int64)
        block = rechunk_block(files.ranges, rows, arrays, range(2), seen)
        files.write(block, seen)
    return files


def test_split_files_give_the_matrix_back(split: SplitFiles):
    values = logged()
    for k, genes in enumerate((slice(0, 4), slice(4, 9))):
        chunk = split.join(k, split.blocks(), map)
        found = np.zeros((len(LABELS), 9), np.float32)
        for cell, (a, b) in enumerate(zip(chunk.starts, chunk.stops, strict=True)):
            found[cell, chunk.indices[a:b]] = chunk.data[a:b]
        np.testing.assert_array_equal(found[:, genes], values[:, genes])
    np.testing.assert_array_equal(split.seen(9), np.count_nonzero(values, axis=0))
    entries = split.entries(slice(0, 20))
    assert entries is not None
    np.testing.assert_array_equal(
        entries, [np.count_nonzero(values[:20, :4]), np.count_nonzero(values[:20, 4:])]
    )
    assert split.entries(slice(0, 21)) is None


def test_a_missing_split_file(split: SplitFiles):
    split.path(slice(20, len(LABELS))).unlink()
    with pytest.raises(ScratchError, match="lacks the rows from 20"):
        split.blocks()
    split.path(slice(0, 20)).unlink()
    with pytest.raises(ScratchError, match="lacks the rows from 0"):
        split.blocks()


@pytest.mark.parametrize("size", [0, 10, 100, -1])
def test_a_cut_split_file(split: SplitFiles, size: int):
    path = split.path(slice(0, 20))
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with pytest.raises(ScratchError, match=r"rows-0.*cannot be read back"):
        split.blocks()


def test_every_byte_of_a_split_file_counts(split: SplitFiles):
    path, rows = split.path(slice(0, 20)), slice(0, 20)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ScratchError, match=r"cannot be read back.*Call again"):
            split.entries(rows)
    path.write_bytes(content)
    assert split.entries(rows) is not None


def test_a_split_file_changed_while_it_is_needed(split: SplitFiles):
    blocks = split.blocks()
    one, other = (split.path(rows) for rows in (slice(0, 20), slice(20, len(LABELS))))
    content = bytearray(one.read_bytes())
    content[-1] ^= 1  # of the genes of the last range, or of what all ranges need
    one.write_bytes(content)
    with pytest.raises(ScratchError, match="cannot be read back: its contents have changed"):
        split.join(1, blocks, map)
    one.write_bytes(other.read_bytes())
    with pytest.raises(ScratchError, match="cannot be read back"):
        split.join(0, blocks, map)


@pytest.mark.parametrize("name", ["split.json", "rows.json"])
@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[]", b"\xff", b'{"most": "x", "rows": 3}', b"[" * 9999]
)
def test_junk_in_the_notes_of_split_rows(tmp_path: Path, name: str, junk: bytes):
    folder = SplitFolder(tmp_path / "split", {"metric": "a"})
    at = folder.begin([0, 4, 9])
    parts = folder.rows(at, 100, lambda: [slice(0, 4), slice(4, 9)])
    (at / name).write_bytes(junk)
    again = SplitFolder(tmp_path / "split", {"metric": "a"})
    assert again.edges() == (None if name == "split.json" else (0, 4, 9))
    assert again.begin([0, 4, 9]) == at
    assert again.rows(at, 100, lambda: [slice(0, 9)]) == [slice(0, 9)] != parts


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
def test_folders_of_split_rows_are_private_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = os.umask(0)
    try:
        folder = SplitFolder(tmp_path / "split", {})
        at = folder.begin([0, 9])
        folder.rows(at, 100, lambda: [slice(0, 9)])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (folder.parent, at)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in at.iterdir()} == {0o600}
    tmp_path.chmod(0o1777)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
        with pytest.raises(ScratchError, match="that this run did not create"):
            folder.begin([0, 9])
    (tmp_path / "link").symlink_to(at)
    with pytest.raises(ScratchError, match="is a link that this run did not create"):
        SplitFolder(tmp_path / "link", {}).begin([0, 9])


def test_a_split_file_cut_while_it_is_needed(split: SplitFiles):
    blocks = split.blocks()
    os.truncate(split.path(slice(0, 20)), 700)
    with pytest.raises(ScratchError, match=r"cannot be read back: it ends early"):
        split.join(1, blocks, map)


def test_a_full_scratch_folder(split: SplitFiles, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(split_files, "_parts", full)
    before = sorted(split.folder.iterdir())
    block = split.blocks()[0]
    with pytest.raises(ScratchError, match=r"could not be written to: No space left"):
        split.write(block, np.zeros(9, np.int64))
    assert sorted(split.folder.iterdir()) == before


# --- bad input --------------------------------------------------------------------------------


def test_no_client(files: Any):
    with pytest.raises(ClusterError, match=r"there is no client in this process.*client = Client"):
        run(files("h5ad csr"), engine="dask")


def test_what_is_no_client(files: Any):
    with pytest.raises(OptionError, match=r"client=3 must be a distributed\.Client, the address"):
        run(files("h5ad csr"), 3)


def test_a_client_without_the_engine(files: Any):
    with pytest.raises(OptionError, match=r"is only valid with engine='dask', but engine='au"):
        run(files("h5ad csr"), client="tcp://127.0.0.1:1", engine="auto")


def test_workers_without_a_say(client: Any, files: Any):
    with pytest.raises(OptionError, match=r"n_workers=2 is not valid with engine='dask'"):
        run(files("h5ad csr"), client, n_workers=2)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_an_address_that_nothing_answers_at(
    address: str, files: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pdex_gpu.engines.dask.connect._TIMEOUT", 0.5)
    with pytest.raises(ClusterError, match=rf"No Dask scheduler answers at client='{address}'"):
        run(files("h5ad csr"), address)


def test_no_workers(files: Any):
    with (
        cluster(0, processes=True) as client,
        pytest.raises(ClusterError, match="has no workers"),
    ):
        run(files("h5ad csr"), client)


def test_a_closed_client(files: Any):
    with cluster(1) as client:
        pass
    with pytest.raises(ClusterError, match=r"not connected \(it is closed\)"):
        run(files("h5ad csr"), client)


def test_an_asynchronous_client(files: Any):
    async def call() -> None:
        async with distributed.Client(
            asynchronous=True, processes=False, dashboard_address=":0", n_workers=1
        ) as client:
            run(files("h5ad csr"), client)

    import asyncio

    with pytest.raises(OptionError, match="asynchronous=False"):
        asyncio.run(call())


def test_no_package(files: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dask\[array\]" dist'):
        run(files("h5ad csr"), engine="dask")


def test_a_path_that_a_worker_cannot_see(client: Any, files: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey, "_exists", lambda path: False)
    path = str(files("h5ad csr"))
    with pytest.raises(ClusterError) as caught:
        run(path, client)
    text = str(caught.value)
    assert text.startswith("Dask worker inproc://")
    assert f"cannot see the data: there is no {path!r} there" in text


def test_another_file_at_the_same_path(client: Any, files: Any, monkeypatch: pytest.MonkeyPatch):
    real = tasks.using

    def elsewhere(asked: Any, sent: Any) -> Any:
        return real(cluster_run.replace(asked, identity={**asked.identity, "nonzeros": 3}), sent)

    monkeypatch.setattr(tasks, "using", elsewhere)
    with pytest.raises(FileFormatError, match=r"csr\.h5ad is not the same for a Dask worker on"):
        run(files("h5ad csr"), client)


def test_a_scratch_folder_that_a_worker_cannot_see(
    client: Any, files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(survey, "_exists", lambda path: "pdex_gpu-" not in str(path))
    with pytest.raises(ClusterError, match=r"cannot see the shared folder .*choose a folder there"):
        run(files("h5ad csr"), client, scratch=tmp_path)


@pytest.mark.parametrize("who", ["client", "worker"])
def test_a_scratch_folder_that_cannot_be_written_to(
    who: str, client: Any, files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    real = Path.touch

    def touch(self: Path, *args: Any, **options: Any) -> None:
        # The client's mark has no second part.
        if self.parent == tmp_path and ("-" in self.name.split("pdex_gpu-")[1]) == (
            who == "worker"
        ):
            raise OSError(30, "Read-only file system")
        real(self, *args, **options)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(ClusterError, match=r"Read-only file system") as caught:
        run(files("h5ad csr"), client, scratch=tmp_path)
    assert ("Dask worker inproc://" in str(caught.value)) == (who == "worker")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [True, False])
def test_too_little_memory_for_a_gene(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: bool
):
    monkeypatch.setattr("pdex_gpu.engines.plan.SPARE", 0)
    path = tmp_path / "screen.h5ad"
    screen(sparse.csr_matrix(logged())).write_h5ad(path)
    options = {"out": tmp_path / "de.parquet"} if out else {}
    monkeypatch.setattr("pdex_gpu.engines.memory_model.ResultSize.check", lambda *_: None)
    with pytest.raises(MemoryBudgetError) as caught:
        run(path, client, memory=2000, **options)
    assert str(caught.value).startswith("Dask worker inproc://")
    assert "has too little memory for one range of genes" in str(caught.value)


def test_what_dask_allows_a_worker_counts(files: Any):
    with cluster(2, memory_limit="100MB") as client:
        seen = survey.survey(client, _settings(memory="50GB"), _test(), None, ())
    assert [facts.budget for facts in seen.facts] == [60_000_000] * 2


def _settings(**options: Any) -> Any:
    from pdex_gpu.request.options import Settings

    return Settings.of({"groupby": GROUPBY, "reference": REFERENCE} | options)


def _test() -> Any:
    from pdex_gpu.stats.registry import make_test

    return make_test("wilcoxon", {})


def test_unknown_chunk_sizes(client: Any):
    array = da.from_array(logged(), chunks=(10, 9))
    adata = screen(array)
    adata._X = array[array[:, 0] >= 0]
    with pytest.raises(DataError, match=r"compute_chunk_sizes\(\)"):
        run(adata, client)


def test_blocks_of_mixed_kinds(client: Any, expected: Any):
    def mixed(values: np.ndarray, block_id: Any = None) -> Any:
        return values if block_id[0] % 2 else sparse.csc_matrix(values)

    array = da.from_array(logged(), chunks=(10, 9)).map_blocks(mixed, dtype=np.float32)
    assert_same_bits(run(screen(array), client), expected())


def test_blocks_of_a_kind_that_is_not_read(client: Any):
    array = da.from_array(logged(), chunks=(10, 9)).map_blocks(sparse.csr_matrix)

    def lists(block: Any, block_id: Any = None) -> Any:
        return block.toarray().tolist() if block_id == (2, 0) else block

    with pytest.raises(UnsupportedDataError, match=r"block \(2, 0\) of X.* is a builtins\.list"):
        run(screen(array.map_blocks(lists, dtype=np.float32)), client)


def test_blocks_of_mixed_types(client: Any):
    def wide(block: Any, block_id: Any = None) -> Any:
        return block.astype(np.float64) if block_id == (3, 0) else block

    array = da.from_array(logged(), chunks=(10, 9)).map_blocks(wide, dtype=np.float32)
    with pytest.raises(DataError, match=r"block \(3, 0\) of X has dtype float64"):
        run(screen(array), client)


def test_a_matrix_too_large_to_send(client: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster_run, "MOST_SENT", 100)
    with pytest.raises(UnsupportedDataError) as caught:
        run(screen(sparse.csr_matrix(logged())), client)
    assert "cannot send a matrix of" in str(caught.value)
    assert "adata.write_h5ad), and pass its path" in str(caught.value)


def test_what_only_this_process_has_open(client: Any, files: Any):
    backed = files("backed csr")
    with pytest.raises(UnsupportedDataError, match=r"cannot send its workers a view of CSR"):
        run(backed[:40], client)
    with (
        open(files("h5ad csr"), "rb") as file,
        pytest.raises(UnsupportedDataError, match=r"Pass the path of the file or store"),
    ):
        run(file, client)


def test_other_versions(client: Any, files: Any, monkeypatch: pytest.MonkeyPatch):
    own = worker_state.own_versions()
    monkeypatch.setattr(survey, "own_versions", lambda: own | {"numpy": "1.0", "python": "2.7"})
    with pytest.raises(ClusterError) as caught:
        run(files("h5ad csr"), client)
    text = str(caught.value)
    assert f"numpy {np.__version__} (the client has 1.0)" in text
    assert f"python {own['python']} (the client has 2.7)" in text
    assert "inproc://" in text


def test_a_missing_package(client: Any, files: Any, monkeypatch: pytest.MonkeyPatch):
    own = worker_state.own_versions()
    monkeypatch.setattr(survey, "own_versions", lambda: own | {"no_such_package": "1.0"})
    with pytest.raises(MissingDependencyError, match=r"lack packages: no_such_package on 'inproc:"):
        run(files("h5ad csr"), client)


def test_a_worker_that_came_later_with_other_versions():
    with pytest.raises(ClusterError, match=r"numpy .* \(the client has 1\.0\).*same versions"):
        worker_state.check_versions(worker_state.own_versions() | {"numpy": "1.0"})


def test_a_backend_that_a_worker_has_not(client: Any, files: Any):
    with pytest.raises(pdex_gpu.errors.BackendError, match=r"^Dask worker inproc.*backend='cuda'"):
        run(files("h5ad csr"), client, backend="cuda")


def test_nan_is_told_with_names(client: Any, tmp_path: Path):
    values = logged()
    values[5, 3] = np.nan
    path = tmp_path / "nan.h5ad"
    screen(sparse.csr_matrix(values)).write_h5ad(path)
    with pytest.raises(DataError, match=r"X is nan in cell 'cell5' \(row 5\), gene 'gene3'"):
        run(path, client, out=tmp_path / "de.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["nan.h5ad"]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_unsorted_indices(client: Any, tmp_path: Path, kind: Any):
    """Sorted by the client and sent again, or by the workers as they read."""
    matrix = kind(logged())
    row = slice(*matrix.indptr[:2])
    matrix.indices[row] = matrix.indices[row][::-1].copy()
    matrix.data[row] = matrix.data[row][::-1].copy()
    matrix.has_sorted_indices = False
    want = run(screen(matrix.copy()))
    assert_same_bits(run(screen(matrix.copy()), client), want)
    path = tmp_path / "unsorted.h5ad"
    screen(matrix).write_h5ad(path)
    assert_same_bits(run(path, client), want)


def test_an_unknown_column(client: Any, files: Any):
    with pytest.raises(pdex_gpu.errors.ColumnError, match="Unknown column"):
        pdex_gpu.differential_expression(
            str(files("h5ad csr")), "none", engine="dask", client=client, progress=False
        )


@pytest.mark.thorough
def test_dask_is_not_imported_otherwise():
    import subprocess
    import sys

    code = (
        "import sys, pdex_gpu; from pdex_gpu.simulate import simulate_screen as s;"
        "a = s(60, 9, 2, seed=0).to_anndata(); a.write_h5ad = None;"
        "pdex_gpu.differential_expression(a, 'target_gene', progress=False);"
        "assert 'distributed' not in sys.modules and 'pdex_gpu.engines.dask' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_dask_engine_has_no_scheduler_of_dask_behind_it(client: Any, files: Any):
    """Nothing is computed by dask's threads in this process while workers are there."""
    with dask.config.set(scheduler="synchronous"):
        found = run(files("dask rows csr"), client)
    assert isinstance(found, pdex_gpu.DEResult)
    assert isinstance(files("dask rows csr"), ad.AnnData)
