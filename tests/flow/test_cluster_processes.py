"""engine="dask" on worker processes: killed, mixed, on other kernels, without their scheduler."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from scipy import sparse
from stored_screens import GROUPBY, REFERENCE, assert_same_bits, counts, logged, screen

import pdex_gpu
from pdex_gpu.errors import ClusterError, DeviceLostError, FileFormatError, WorkerError
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.sinks.checkpoint import checkpoint_folder

distributed = pytest.importorskip("distributed")
from dask_clusters import STORAGE, cluster  # noqa: E402

# Each starts schedulers and workers; tests/flow/test_cluster.py has them in this process.
pytestmark = pytest.mark.thorough

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes."""
    with cluster(2, processes=True) as client:
        yield client


@pytest.fixture(autouse=True)
def every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told at every step, however fast."""
    monkeypatch.setattr("pdex_gpu.utils.progress._INTERVAL", 0.0)


def run(data: Any, client: Any = None, **options: Any) -> Any:
    more = {} if client is None else {"engine": "dask", "client": client}
    options = {"reference": REFERENCE, "progress": False} | more | options
    data = os.fspath(data) if isinstance(data, Path) else data
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


@pytest.mark.parametrize("storage", STORAGE)
def test_every_storage(client: Any, storage: str, tmp_path: Path):
    data = STORAGE[storage](logged(), tmp_path)
    assert_same_bits(run(data, client), run(screen(sparse.csr_matrix(logged()))))


@pytest.mark.parametrize("metric", ["wilcoxon", "anderson", "t-test", "ks"])
def test_results_in_a_file(client: Any, metric: str, tmp_path: Path):
    data = STORAGE["h5ad csr"](counts(), tmp_path)
    run(data, client, metric=metric, out=tmp_path / "de.csv", gene_chunk_size=2)
    run(data, metric=metric, out=tmp_path / "one.csv")
    assert (tmp_path / "de.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


# --- CPU and GPU workers ----------------------------------------------------------------------


def _emulate() -> None:
    """On a worker: from now on it has a CUDA device, emulated."""
    from emulated.backend import EmulatedCuda

    EmulatedCuda().install(pytest.MonkeyPatch())


def _used() -> int:
    """On a worker: how many devices were opened, which a run does once."""
    from pdex_gpu.backends.cuda import kernel_set

    module = sys.modules.get("pdex_gpu.backends.cuda.cupy_device")
    owner = getattr(getattr(module, "open_device", None), "__self__", None)
    assert kernel_set is not None
    return len(owner.opened) if owner is not None else 0


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three CPU workers and two with an emulated device."""
    from emulated.build import compiler

    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    with cluster(5, processes=True) as client:
        some = sorted(client.nthreads())[:2]
        client.run(_emulate, workers=some)
        yield client


@pytest.mark.parametrize("metric", ["wilcoxon", "ks", "anderson", "t-test"])
@pytest.mark.parametrize("storage", ["h5ad csr", "zarr csc", "h5ad dense", "dask rows csr"])
def test_cpu_and_emulated_gpu_workers(mixed: Any, storage: str, metric: str, tmp_path: Path):
    values = logged()
    data = STORAGE[storage](values, tmp_path)
    found = run(data, mixed, metric=metric, gene_chunk_size=1)
    wanted = run(screen(sparse.csr_matrix(values)), metric=metric)
    assert found.provenance["backend"] == "cpu + cuda"
    assert found.provenance["device"].endswith("emulated device")
    assert_same_bits(found, wanted)


def test_both_kinds_of_workers_had_work(mixed: Any, tmp_path: Path):
    before = sum(mixed.run(_used).values())
    data = STORAGE["h5ad csr"](logged(), tmp_path)
    for _ in range(3):
        run(data, mixed, gene_chunk_size=1)
    assert sum(mixed.run(_used).values()) > before


def _emulate_one_that_is_lost() -> None:
    """On a worker: it has a CUDA device, emulated, that is lost when it is used."""
    from emulated.backend import EmulatedCuda

    EmulatedCuda(prepare=lambda device: device.lose(after=3)).install(pytest.MonkeyPatch())


@posix
def test_a_worker_loses_its_device(tmp_path: Path):
    from emulated.build import compiler

    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    data = STORAGE["h5ad csr"](logged(), tmp_path)
    with cluster(2, processes=True) as client:
        before = client.run(os.getpid)
        lost = min(before)
        client.run(_emulate_one_that_is_lost, workers=[lost])
        assert_same_bits(run(data, client, gene_chunk_size=1), run(data))
        wait_for_another(client, before[lost])  # by the nanny, with no device in the test
        assert set(client.run(os.getpid).values()) & set(before.values())


def test_a_worker_without_a_nanny_loses_its_device(
    emulated_cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    emulated_cuda.prepare = lambda device: device.lose(after=3)
    data = STORAGE["h5ad csr"](logged(), tmp_path)
    with cluster(1) as client, pytest.raises(DeviceLostError, match="lost"):
        run(data, client, backend="cuda")


# --- workers that die -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screen that keeps two workers busy for a while."""
    folder = tmp_path_factory.mktemp("larger")
    adata = simulate_screen(6000, 1200, 60, seed=3).to_anndata()
    adata.X = sparse.csr_matrix(adata.X)
    adata.write_h5ad(folder / "screen.h5ad", compression="gzip")
    return folder / "screen.h5ad"


def compare(data: Path, client: Any, out: Path, **options: Any) -> bytes:
    pdex_gpu.differential_expression(
        str(data), "target_gene", engine="dask", client=client, out=out, gene_chunk_size=40,
        **({"progress": False} | options),
    )  # fmt: skip
    return out.read_bytes()


@pytest.fixture(scope="module")
def whole(larger: Path, client: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compare(larger, client, tmp_path_factory.mktemp("whole") / "de.parquet")


def kill_a_worker(client: Any, rng: random.Random, killed: list[int]) -> None:
    """Kill a worker process as the kernel would; the nanny starts another."""
    pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if pid != os.getpid()]
    pid = rng.choice(sorted(pids))
    os.kill(pid, signal.SIGKILL)
    killed.append(pid)


def wait_for_another(client: Any, killed: int) -> None:
    """Wait until two workers run, none of them the one that was killed."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        pids = list(client.run(os.getpid, on_error="ignore").values())
        if len(pids) == 2 and killed not in pids:
            return
        time.sleep(0.05)
    pytest.fail("the nanny started no other worker")


def killed_in(stage: str, larger: Path, whole: bytes, folder: Path, times: int) -> None:
    """Kill a worker at a random moment of a stage, and see that the bytes are the same."""
    import dask

    rng = random.Random(stage)
    # A LocalCluster gives a worker up that it misses twice, so many seconds apart.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    with patient, cluster(2, processes=True) as client:
        for i in range(times):
            killed: list[int] = []
            delay = rng.uniform(0, 0.15)

            def report(progress: Any, killed: list[int] = killed, delay: float = delay) -> None:
                reached = progress.n_bytes if stage == "split" else progress.n_genes
                if reached and not killed and not progress.n_rows:
                    killed.append(0)
                    kill = partial(kill_a_worker, client, rng, killed)
                    threading.Timer(delay, kill).start()

            assert compare(larger, client, folder / f"{i}.parquet", progress=report) == whole
            until = time.monotonic() + 600
            while len(killed) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            assert len(killed) == 2
            wait_for_another(client, killed[1])
        assert sorted(p.name for p in folder.iterdir()) == sorted(
            f"{i}.parquet" for i in range(times)
        )


@posix
@pytest.mark.parametrize("stage", ["split", "test"])
def test_a_worker_is_killed(stage: str, larger: Path, whole: bytes, tmp_path: Path):
    killed_in(stage, larger, whole, tmp_path, times=2)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["split", "test"])
def test_a_worker_is_killed_20_times(stage: str, larger: Path, whole: bytes, tmp_path: Path):
    killed_in(stage, larger, whole, tmp_path, times=20)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _deadly() -> None:
    """On a worker: testing genes ends it."""
    from pdex_gpu.engines.dask import tasks

    tasks.test_genes = _die  # type: ignore[assignment]


@posix
def test_a_task_that_kills_its_workers(larger: Path, tmp_path: Path):
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster(2, processes=True) as client,
    ):
        client.run(_deadly)
        with pytest.raises(WorkerError, match=r"died repeatedly on one task.*memory="):
            compare(larger, client, tmp_path / "de.parquet")
        assert checkpoint_folder(tmp_path / "de.parquet").exists()


# --- the scheduler ----------------------------------------------------------------------------


@contextmanager
def own_scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and two workers, each a process of its own."""
    file = folder / "scheduler.json"
    start = partial(subprocess.Popen, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0",
               "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    processes = [start(command, cwd=folder)]
    try:
        until = time.monotonic() + 600
        address = ""
        while not address and time.monotonic() < until:
            time.sleep(0.05)
            with suppress(OSError, ValueError):
                address = json.loads(file.read_text())["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
                  "--no-dashboard", "--no-nanny", "--local-directory", str(folder)]  # fmt: skip
        processes += [start(worker, cwd=folder) for _ in range(2)]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=600)
        yield address, processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        file.unlink(missing_ok=True)


@posix
@pytest.mark.parametrize("stage", ["split", "test"])
def test_the_scheduler_is_lost(
    stage: str, larger: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pdex_gpu.engines.dask.connect._TIMEOUT", 15.0)
    out = tmp_path / "de.parquet"
    folder = tmp_path / "cluster"
    folder.mkdir()
    with own_scheduler(folder) as (address, scheduler):

        def report(progress: Any) -> None:
            if progress.n_bytes if stage == "split" else progress.n_genes:
                scheduler.kill()

        with pytest.raises(
            ClusterError, match=r"scheduler at tcp://.* was lost.*is kept"
        ) as caught:
            compare(larger, address, out, progress=report)
    assert "the same call resumes" in caught.value.__notes__[0]
    kept = checkpoint_folder(out)
    assert list(kept.glob("split/*/rows-*"))
    assert not out.exists()
    with own_scheduler(folder) as (address, _):
        reports: list[Any] = []
        assert compare(larger, address, out, progress=reports.append) == whole
    if stage == "test":
        assert reports[0].n_genes > 0
    assert not kept.exists()


# --- object storage ---------------------------------------------------------------------------


class _Storage(SimpleHTTPRequestHandler):
    """Files over HTTP that fail from some request on."""

    left: list[int]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "/X/" in self.path and not self.path.endswith(("json", ".zarray")):
            if not self.left[0]:
                self.send_error(503, "Slow Down")
                return
            self.left[0] -= 1
        super().do_GET()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Callable[[str, int], str]]:
    """The URL of a zarr store that answers so many requests for values."""
    pytest.importorskip("aiohttp")
    zarr = pytest.importorskip("zarr", "3")
    servers = []

    def serve(kind: str, requests: int) -> str:
        path = STORAGE[kind](logged(), tmp_path)
        zarr.consolidate_metadata(path)
        made = type("Storage", (_Storage,), {"left": [requests]})
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(made, directory=str(tmp_path)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/{path.name}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("kind", ["zarr csr", "zarr csc", "zarr dense"])
def test_a_store_behind_a_url(client: Any, storage: Any, kind: str):
    url = storage(kind, 10**6)
    wanted = run(screen(sparse.csr_matrix(logged())))
    assert_same_bits(run(url), wanted)
    assert_same_bits(run(url, client), wanted)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("kind", ["zarr csc", "zarr dense"])
def test_storage_that_fails_half_way(client: Any, storage: Any, kind: str, tmp_path: Path):
    out = tmp_path / "de.parquet"
    with pytest.raises(FileFormatError) as caught:
        run(storage(kind, 4), client, gene_chunk_size=2, out=out)
    assert "storage failed" in str(caught.value)
    assert "503" in str(caught.value)
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_chunk_that_is_not_there(storage: Any, tmp_path: Path):
    url = storage("zarr csr", 10**6)
    (chunk,) = [p for p in (tmp_path / "csr.zarr" / "X" / "data").rglob("0") if p.is_file()]
    chunk.unlink()
    with pytest.raises(FileFormatError, match=r"X/data of http://.*chunk 0 .* is missing"):
        run(url)


def test_an_h5ad_file_behind_a_url():
    with pytest.raises(FileFormatError, match=r"at a URL, but only zarr stores can be read"):
        run("https://example.org/screen.h5ad")


def test_a_url_of_an_unknown_kind():
    with pytest.raises((FileFormatError, pdex_gpu.errors.MissingDependencyError)):
        run("nosuch://bucket/screen.zarr")
