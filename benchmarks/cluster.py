"""engine="dask" on this machine: against threads, its memory, and ways to shuffle.

    python benchmarks/cluster.py            all, as the record in results/ is made
    python benchmarks/cluster.py --quick    small screens, to see that everything runs

The scheduler and two workers of one thread each are processes of their own, started before
anything is timed. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout, whatever is installed

import big_screen  # noqa: E402
import cluster_shuffle  # noqa: E402
from files_stored import warm  # noqa: E402
from gpu_screen import Sizes  # noqa: E402
from record import Record, Target, at_most, paired_ratio, summary  # noqa: E402

TASKS = ("overhead", "growth", "shuffle")
MEMORY = "2GB"
N_WORKERS = 2
# The same cells, genes and perturbations, with few entries and with many.
GROWTH = Sizes(60_000, 2_000, 100)
GROWTH_QUICK = Sizes(4_000, 300, 20)
SHUFFLED, SHUFFLED_QUICK = Sizes(60_000, 4_000, 200), Sizes(4_000, 300, 20)
_TARGETS = [
    at_most("dask_vs_threads", 1.25, " x", "big, 2 GB: engine dask / engine threads"),
    at_most("worker_peak", 2.5, " GB", "big, 2 GB: peak of a worker, Python and packages too"),
]


class ClusterRecord(Record):
    """A record of this benchmark."""

    targets: ClassVar[dict[str, Target]] = {target.figure: target for target in _TARGETS}


def peak(pid: int) -> int:
    """Most memory that a process had since :func:`forget_peak`, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM")


def forget_peak(pid: int) -> int:
    """Start measuring a new peak; return the memory now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


class LocalDask:
    """A scheduler, two workers and their processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "scheduler.json"
        path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        self._options: dict[str, Any] = {
            "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder,
            "env": {**os.environ, "PYTHONPATH": path},
        }  # fmt: skip
        self.scheduler = self._start(
            "dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--scheduler-file",
            str(self._file),
        )  # fmt: skip
        self.address = self._address()
        self.workers = [
            self._start("dask_worker", self.address, "--nthreads", "1", "--no-nanny",
                        "--local-directory", str(folder), "--memory-limit", "8GB")
            for _ in range(N_WORKERS)
        ]  # fmt: skip

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *words, "--no-dashboard"]
        return subprocess.Popen(command, **self._options)

    def _address(self) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError, ValueError):
                return str(json.loads(self._file.read_text())["address"])
            time.sleep(0.05)
        raise RuntimeError("the scheduler did not start")

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def dask_here(parent: Path) -> Iterator[tuple[LocalDask, Any]]:
    from distributed import Client

    with tempfile.TemporaryDirectory(dir=parent) as folder:
        made = LocalDask(Path(folder))
        try:
            with Client(made.address, set_as_default=False) as client:
                client.wait_for_workers(N_WORKERS, timeout=60)
                yield made, client
        finally:
            made.stop()


def call(path: Path, out: Path, *, address: str | None, memory: str) -> dict[str, Any]:
    """A whole call in a process of its own: seconds and peak."""
    options: dict[str, Any] = {"out": str(out), "memory": memory, "force": True}
    if address is not None:
        options |= {"engine": "dask", "client": address}
    job = {"path": str(path), "threads": 1 if address else N_WORKERS, **options}
    done = subprocess.run(
        [sys.executable, str(HERE / "files_child.py"), "run", json.dumps(job)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def overhead(record: ClusterRecord, sizes: Sizes, rounds: int, parent: Path) -> None:
    """Whole calls by turns, each in a new process; the workers stay."""
    screen = big_screen.ensure(sizes)
    warm(screen.path)
    small = big_screen.ensure(GROWTH_QUICK)
    seconds: dict[str, list[float]] = {"threads": [], "dask": []}
    peaks: dict[str, list[int]] = {"worker": [], "scheduler": [], "client": [], "threads": []}
    with dask_here(parent) as (made, _):
        pids = [process.pid for process in made.workers]
        outs = {name: parent / f"{name}.parquet" for name in seconds}
        for i in range(-1, rounds):  # the first warms workers and caches up, on a small screen
            path = small.path if i < 0 else screen.path
            for name in seconds:
                for pid in (*pids, made.scheduler.pid):
                    forget_peak(pid)
                address = made.address if name == "dask" else None
                done = call(path, outs[name], address=address, memory=MEMORY)
                print(f"  {name} {done['seconds']:.2f} s", file=sys.stderr)
                if i < 0:
                    continue
                seconds[name].append(done["seconds"])
                if name == "dask":
                    peaks["worker"].append(max(peak(pid) for pid in pids))
                    peaks["scheduler"].append(peak(made.scheduler.pid))
                    peaks["client"].append(done["peak_bytes"])
                else:
                    peaks["threads"].append(done["peak_bytes"])
        same = _same_table(outs["threads"], outs["dask"])
    record.task(
        "overhead",
        {
            "nonzeros": screen.nnz,
            "seconds": {name: summary(times) for name, times in seconds.items()},
            "peak_bytes": peaks,
            "same_bits": same,
        },
    )
    if not same:
        record.error("overhead", "the two engines gave different tables")
    record.figure("dask_vs_threads", paired_ratio(seconds["dask"], seconds["threads"])["median"])
    record.figure("worker_peak", max(peaks["worker"]) / 1e9)


def _same_table(one: Path, other: Path) -> bool:
    import pyarrow.parquet as pq

    first, second = pq.ParquetFile(one), pq.ParquetFile(other)
    if first.metadata.num_row_groups != second.metadata.num_row_groups:
        return False
    for i in range(first.metadata.num_row_groups):
        a, b = (file.read_row_group(i).to_pandas() for file in (first, second))
        for name in a.columns:
            x, y = a[name].to_numpy(), b[name].to_numpy()
            equal = x.view("i8") == y.view("i8") if x.dtype == "f8" else x == y
            if not equal.all():
                return False
    return True


def growth(record: ClusterRecord, sizes: Sizes, parent: Path) -> None:
    """Memory of client and scheduler with few entries and with twenty times as many."""
    import anndata
    import numpy as np
    from gpu_screen import GROUPBY
    from scipy import sparse

    rng = np.random.default_rng(0)
    labels = np.array(["non-targeting", *(f"g{i}" for i in range(sizes.perturbations))])
    column = labels[rng.integers(0, len(labels), sizes.cells)]
    found: dict[str, Any] = {}
    for name, density in (("few", 0.02), ("many", 0.4)):
        matrix = sparse.random(
            sizes.cells, sizes.genes, density, "csr", np.float32, random_state=rng,
            data_rvs=lambda n: rng.integers(1, 20, n).astype(np.float32),
        )  # fmt: skip
        adata = anndata.AnnData(matrix)
        adata.obs[GROUPBY] = column
        path = parent / f"{name}.h5ad"
        adata.write_h5ad(path)
        n_entries = int(matrix.nnz)
        del adata, matrix
        with dask_here(parent) as (made, _):
            call(path, parent / "growth.parquet", address=made.address, memory="500MB")
            before = forget_peak(made.scheduler.pid)
            done = call(path, parent / "growth.parquet", address=made.address, memory="500MB")
            found[name] = {
                "nonzeros": n_entries,
                "client_peak_bytes": done["peak_bytes"],
                "scheduler_bytes_before": before,
                "scheduler_peak_bytes": peak(made.scheduler.pid),
            }
        path.unlink()
    record.task("growth", found)
    for who in ("client", "scheduler"):
        few, many = (found[name][f"{who}_peak_bytes"] for name in ("few", "many"))
        record.figure(f"{who}_peak_many_vs_few", many / few)


def shuffle(record: ClusterRecord, sizes: Sizes, rounds: int, parent: Path) -> None:
    """Rows to ranges in three ways, by turns."""
    screen = big_screen.ensure(sizes)
    warm(screen.path)
    width, blocks = min(256, sizes.genes // 4), 16
    seconds: dict[str, list[float]] = {name: [] for name in cluster_shuffle.WAYS}
    peaks: dict[str, list[int]] = {name: [] for name in seconds}
    written: dict[str, int] = {}
    answers: dict[str, Any] = {}
    for i in range(-1, rounds):
        for name in seconds:
            # New workers: what one way leaves in their memory is not the next one's.
            with dask_here(parent) as (made, client):
                tiny = str(big_screen.ensure(GROWTH_QUICK).path)
                cluster_shuffle.measure(client, name, tiny, 64, 4, parent)
                if i < 0:
                    continue
                pids = [process.pid for process in made.workers]
                for pid in pids:
                    forget_peak(pid)
                done = cluster_shuffle.measure(
                    client, name, str(screen.path), width, blocks, parent
                )
                print(f"  {name} {done[0]:.2f} s", file=sys.stderr)
                seconds[name].append(done[0])
                peaks[name].append(max(peak(pid) for pid in pids))
                written[name] = done[1]
                answers[name] = [n for n, _ in done[2]]
    if len({tuple(answer) for answer in answers.values()}) > 1:
        record.error("shuffle", "the ways moved different entries")
    record.task(
        "shuffle",
        {
            "nonzeros": screen.nnz,
            "seconds": {name: summary(times) for name, times in seconds.items()},
            "worker_peak_bytes": peaks,
            "bytes_written": written,
        },
    )
    for name in ("tasks", "shuffle"):
        ratio = paired_ratio(seconds[name], seconds["folder"])["median"]
        record.figure(f"{name}_vs_folder", ratio)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small screens and one round; nothing is judged")
    add("--only", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help="of them")
    add("--rounds", type=int, default=3, help="rounds of each")
    add("--record", type=Path, help="the JSON (default benchmarks/results/cluster-DATE.json)")
    args = parser.parse_args(argv)
    quick = args.quick
    rounds = 1 if quick else args.rounds
    big = big_screen.BIG_QUICK if quick else big_screen.BIG
    record = ClusterRecord(
        {"big": asdict(big), "memory": MEMORY, "workers": N_WORKERS, "threads a worker": 1,
         "rounds": rounds, "quick": quick, "tasks": list(args.only)},
        full_size=not quick,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pdex_gpu-cluster-") as folder:
        parent = Path(folder)
        if "overhead" in args.only:
            overhead(record, big, rounds, parent)
        if "growth" in args.only:
            growth(record, GROWTH_QUICK if quick else GROWTH, parent)
        if "shuffle" in args.only:
            shuffle(record, SHUFFLED_QUICK if quick else SHUFFLED, rounds, parent)
    names = ("dask", "distributed", "numpy", "numba", "h5py", "pandas", "pyarrow")
    record.finish({"pdex_gpu": {name: metadata.version(name) for name in names}})
    suffix = "-quick" if quick else ""
    path = args.record or HERE / "results" / f"cluster-{date.today().isoformat()}{suffix}.json"
    record.write(path)
    print(record.table())
    return 1 if record.content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
