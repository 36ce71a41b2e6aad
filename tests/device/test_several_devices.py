"""Runs on several devices, emulated or real: the same bits as on one, and what goes wrong.

Those under the marker `gpu` need two CUDA devices; everything else is on emulated ones.
"""

from __future__ import annotations

import gc
import inspect
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from device_arrays import DeviceArray, DeviceSparse
from device_runs import (
    BATCH,
    CODES,
    METRICS,
    N_GENES,
    STORAGE,
    TARGETS,
    dataset,
    make_values,
    run,
    same_bits,
    stored,
)
from emulated.backend import EmulatedCuda
from emulated.build import needs_compiler
from emulated.device import EmulatedDevice
from scipy import sparse

from pdex_gpu import differential_expression, open_result
from pdex_gpu.backends import registry
from pdex_gpu.backends.base import Device, Probed
from pdex_gpu.backends.cuda import driver, probe
from pdex_gpu.backends.cuda.launch_config import Shapes
from pdex_gpu.backends.cuda.multi_device import SeveralDevices
from pdex_gpu.backends.registry import BackendInfo, choose_backend, load_kernels
from pdex_gpu.cli import main
from pdex_gpu.engines import streams
from pdex_gpu.errors import (
    BackendError,
    DataError,
    DeviceLostError,
    DeviceMemoryError,
    KernelError,
    OptionError,
    UnsupportedDataError,
)
from pdex_gpu.results.schema import VALUES
from pdex_gpu.utils.exit_codes import Exit

BOTH = [0, 1]
LONG = 600  # seconds that a test waits for what comes at once if all is right


@pytest.fixture
def two(emulated_cuda: EmulatedCuda) -> EmulatedCuda:
    """Two emulated devices."""
    emulated_cuda.n_devices = 2
    return emulated_cuda


@pytest.fixture(params=[pytest.param("emulated", marks=needs_compiler),
                        pytest.param("cuda", marks=pytest.mark.gpu)])  # fmt: skip
def several(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda | None:
    """Two devices at least; None if they are real."""
    if request.param == "emulated":
        cuda = EmulatedCuda(n_devices=2)
        cuda.install(monkeypatch)
        return cuda
    if len(probe.probe_asked("all").devices) < 2:
        pytest.skip("fewer than two CUDA devices; `pdex-gpu backends` says why")
    return None


def last_opened(cuda: EmulatedCuda) -> dict[int, EmulatedDevice]:
    """The devices that the last call computed on, by number."""
    return {device.index: device for device in cuda.opened}


def packs(device: EmulatedDevice) -> int:
    """How many ranges of genes a device took."""
    return sum(device.launches[f"check_{what}"] for what in ("rows", "columns", "dense"))


def meet(
    cuda: EmulatedCuda, also: Callable[[EmulatedDevice], object] = lambda device: None
) -> None:
    """No device works before all have something to do, however busy the machine is."""
    begun = [threading.Event() for _ in range(cuda.n_devices)]

    def prepare(device: EmulatedDevice) -> None:
        also(device)

        def wait() -> None:
            begun[device.index].set()
            assert all(event.wait(LONG) for event in begun)

        device.before_work = wait

    cuda.opened.clear()
    cuda.prepare = prepare


def n_ranges(caplog: pytest.LogCaptureFixture) -> int:
    """How many ranges the last run had, as its log says."""
    lines = [m for m in caplog.messages if " ranges, engine streams" in m]
    return int(lines[-1].split(" ranges, engine")[0].split()[-1])


def lost_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def assert_memory_is_free(cuda: EmulatedCuda) -> None:
    gc.collect()
    assert [device.bytes_in_use for device in cuda.opened] == [0] * len(cuda.opened)


def lose_in(device: EmulatedDevice, kernel: str, after: int = 0) -> None:
    """Lose a device when it runs that kernel, after so many times."""
    plain, seen = device.run, Counter[str]()

    def run_kernel(found: Any, *args: Any) -> None:
        seen[found.name] += 1
        if found.name.startswith(kernel) and seen[found.name] > after:
            device.lose()
        plain(found, *args)

    device.run = run_kernel  # type: ignore[method-assign]


LOGGED = make_values("float32")


# --- the same bits ---------------------------------------------------------------------------


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGE)
def test_the_same_bits_as_on_one(several: EmulatedCuda | None, storage: str, metric: str) -> None:
    matrix = stored(LOGGED, storage)
    expected = run(matrix, metric, device=0)
    for options in (
        {"device": BOTH},
        {"device": "all", "gene_chunk_size": 2},
        {"device": (1, 0), "device_memory": 10**6, "n_threads": 3, "n_workers": 2},
        {"device": BOTH, "memory": 1, "n_threads": 1},
    ):
        if several is not None:
            meet(several)
        same_bits(run(matrix, metric, **options), expected)
        if several is not None:
            used = last_opened(several)
            assert set(used) == {0, 1}
            assert all(sum(device.launches.values()) > 0 for device in used.values())
            assert_memory_is_free(several)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("dtype", ["counts", "float64", "int64"])
def test_every_dtype(several: EmulatedCuda | None, dtype: str) -> None:
    matrix = stored(make_values(dtype), "csr")
    for metric in METRICS:
        same_bits(run(matrix, metric, device=BOTH), run(matrix, metric, device=0))


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize(
    "options",
    [{"comparison": "rest"}, {"strata": "batch"}, {"columns": ["auroc", "target_n_cells"]},
     {"comparison": "each_reference", "reference": ["g0", "g2"]}],
    ids=str,
)  # fmt: skip
def test_designs(several: EmulatedCuda | None, options: dict[str, Any]) -> None:
    given = {"reference": "g0", "groups": TARGETS, "backend": "cuda", "progress": False} | options
    found, expected = (
        differential_expression(dataset(stored(LOGGED, "csc")), "group", device=device, **given)
        for device in (BOTH, 0)
    )
    assert set(found.columns) == set(expected.columns)
    for name in found.columns:
        assert found[name].tobytes() == expected[name].tobytes(), name


def write_screen(path: Path, storage: str, values: np.ndarray = LOGGED) -> Path:
    obs = pd.DataFrame(
        {"group": [f"g{k}" for k in CODES], "batch": [f"b{k}" for k in BATCH]},
        index=[f"cell{i}" for i in range(len(CODES))],
    )
    var = pd.DataFrame(index=[f"gene{j}" for j in range(values.shape[1])])
    anndata.AnnData(stored(values, storage), obs, var).write_h5ad(path)
    return path


def run_file(path: Path, metric: str = "wilcoxon", **options: Any) -> Any:
    given = {"backend": "cuda", "progress": False, "reference": "g0", "groups": TARGETS} | options
    return differential_expression(path, "group", metric=metric, **given)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("storage", ["csr", "csc", "C"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_file(several: EmulatedCuda | None, storage: str, metric: str, tmp_path: Path) -> None:
    path = write_screen(tmp_path / "screen.h5ad", storage)
    expected = run_file(path, metric, device=0)
    for options in ({}, {"gene_chunk_size": 3, "memory": 40_000}):
        same_bits(run_file(path, metric, device=BOTH, **options), expected)
    for name, device in (("one", 0), ("two", "all")):
        run_file(path, metric, device=device, out=tmp_path / f"{name}.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.csv", "screen.h5ad", "two.csv"]


def test_one_of_a_list_is_that_one(two: EmulatedCuda) -> None:
    found = run(stored(LOGGED, "csr"), "wilcoxon", device=[1])
    assert set(last_opened(two)) == {1}
    assert found.provenance["device"] == "emulated device, device 1"
    assert not isinstance(load_kernels("cuda", [np.int64(1)]), SeveralDevices)


def test_all_of_one(emulated_cuda: EmulatedCuda) -> None:
    found = run(stored(LOGGED, "csr"), "wilcoxon", device="all")
    assert set(last_opened(emulated_cuda)) == {0}
    assert found.provenance["device"] == "emulated device"


def test_provenance_names_all(two: EmulatedCuda) -> None:
    for device in (BOTH, "all"):
        provenance = run(stored(LOGGED, "csr"), "wilcoxon", device=device).provenance
        assert provenance["device"] == "emulated device, device 0; emulated device, device 1"
        assert provenance["engine"] == "streams"
    found = run(stored(LOGGED, "csr"), "wilcoxon", device="all", backend="auto")
    assert found.provenance["backend_reason"] == "device='all' was requested"


# --- how work is dealt -----------------------------------------------------------------------


@pytest.mark.parametrize(("storage", "n_workers", "on_each"),
                         [("csr", None, 1), ("csc", None, 2), ("csr", 3, 3)])  # fmt: skip
def test_the_plan_has_ranges_for_all(
    two: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    storage: str,
    n_workers: int | None,
    on_each: int,
) -> None:
    caplog.set_level(logging.INFO, "pdex_gpu")
    run(stored(LOGGED, storage), "wilcoxon", device=BOTH, n_threads=4, n_workers=n_workers)
    (line,) = [m for m in caplog.messages if " ranges, engine streams" in m]
    assert 16 <= n_ranges(caplog) <= N_GENES
    assert f"with {2 * on_each} workers x 4 threads" in line


@pytest.mark.parametrize("where", ["computing", "uploading"])
def test_a_slow_device_does_not_hold_the_rest(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, tmp_path: Path, where: str
) -> None:
    """Device 1 waits in its first range until all others are computed by device 0."""
    caplog.set_level(logging.INFO, "pdex_gpu")
    path = write_screen(tmp_path / "screen.h5ad", "csr", np.tile(LOGGED, (1, 5)))
    expected = run_file(path, device=0)
    # More slices of a range, and pieces of an upload, than there are threads.
    two.shapes = Shapes(slice_bytes=1, buffer_bytes=100)
    rest_done, held = threading.Event(), []

    def plant(device: EmulatedDevice) -> None:
        plain = device.run

        def run_kernel(kernel: Any, *args: Any) -> None:
            if device.index == 1 and where == "computing" and packs(device):
                held.append(rest_done.wait(LONG))
            elif device.index == 0 and packs(device) == n_ranges(caplog) - 1:
                rest_done.set()
            plain(kernel, *args)

        device.run = run_kernel  # type: ignore[method-assign]

    meet(two, plant)
    met = two.prepare

    def prepare(device: EmulatedDevice) -> None:
        met(device)
        meeting = device.before_work

        def wait() -> None:
            meeting()
            held.append(rest_done.wait(LONG))

        if device.index == 1 and where == "uploading":
            device.before_work = wait

    two.prepare = prepare
    caplog.clear()
    found = run_file(path, device=BOTH, n_threads=2)
    assert held
    assert all(held), "a free device must take the next range"
    same_bits(found, expected)
    used = last_opened(two)
    assert (packs(used[0]), packs(used[1])) == (n_ranges(caplog) - 1, 1)
    assert lost_lines(caplog) == []


def test_few_ranges_are_out_where_host_memory_is_little() -> None:
    first, second = object(), object()
    ranges = streams._Ranges([3, 5, 8], most=1)
    assert ranges.take(first) == (3, None)  # type: ignore[arg-type]
    other: list[Any] = []
    thread = threading.Thread(target=lambda: other.append(ranges.take(second)))  # type: ignore[arg-type]
    thread.start()
    thread.join(0.05)
    assert other == []
    chunk = object()
    ranges.give_back(3, chunk, first)  # type: ignore[arg-type]
    thread.join(LONG)
    assert other == [(3, chunk)], "what came back comes first, and is not read again"
    assert ranges.take(first) is None, "a lost device gets no more"  # type: ignore[arg-type]
    ranges.done()
    assert ranges.take(second) == (5, None)  # type: ignore[arg-type]
    ranges.end()
    assert ranges.take(second) is None  # type: ignore[arg-type]


def test_who_has_nothing_to_do_waits_for_what_may_come_back() -> None:
    first, second = object(), object()
    ranges = streams._Ranges([3], most=2)
    assert ranges.take(first) == (3, None)  # type: ignore[arg-type]
    other: list[Any] = []

    def take() -> None:
        other.append(ranges.take(second))  # type: ignore[arg-type]

    for expected in ([(3, None)], [(3, None), None]):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive(), "a range is still out"
        if expected[-1] is None:
            ranges.done()
        else:
            ranges.give_back(3, None, first)  # type: ignore[arg-type]
        thread.join(LONG)
        assert other == expected
    ranges.check()


def test_the_first_range_that_failed_says_why() -> None:
    ranges = streams._Ranges(range(9), most=9)
    for k in (7, 2, 4):
        ranges.fail(k, DataError(f"range {k}"))
    assert ranges.take(object()) is None  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^range 2$"):
        ranges.check()


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("small", [0, 1])
@pytest.mark.parametrize("storage", ["csr", "csc", "C"])
def test_little_memory_beside_much(two: EmulatedCuda, storage: str, small: int) -> None:
    matrix = stored(LOGGED, storage)
    expected = run(matrix, "anderson", device=0)
    two.memory = {small: 130_000, 1 - small: 1 << 30}
    meet(two)
    same_bits(run(matrix, "anderson", device=BOTH), expected)
    used = last_opened(two)
    assert used[small].peak_bytes <= used[small].heap.total == 117_000
    assert all(packs(device) > 0 for device in used.values())
    assert_memory_is_free(two)


def test_device_memory_is_that_of_each(two: EmulatedCuda) -> None:
    two.memory = {0: 1_000_000, 1: 3_000_000}
    for given, expected in ((400_000, (400_000, 400_000)), (0.5, (500_000, 1_500_000))):
        run(stored(LOGGED, "csr"), "t-test", device=BOTH, device_memory=given)
        used = last_opened(two)
        assert (used[0].heap.total, used[1].heap.total) == expected


def test_too_little_memory_on_one_is_as_on_one_alone(two: EmulatedCuda) -> None:
    def prepare(device: EmulatedDevice) -> None:
        if device.index == 1:
            device.fail_allocation(after=3, times=10**9)

    two.prepare = prepare
    with pytest.raises(DeviceMemoryError, match="The work cannot be split further"):
        run(stored(LOGGED, "csr"), "wilcoxon", device=BOTH)
    assert_memory_is_free(two)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("which", [0, 1])
def test_halved_on_the_device_that_has_too_little(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, which: int
) -> None:
    caplog.set_level(logging.INFO, "pdex_gpu")
    matrix = stored(LOGGED, "csc")
    expected = run(matrix, "wilcoxon", device=0)

    def prepare(device: EmulatedDevice) -> None:
        if device.index == which:
            device.fail_allocation(times=1)

    two.prepare = prepare
    same_bits(run(matrix, "wilcoxon", device=BOTH, gene_chunk_size=2), expected)
    assert lost_lines(caplog) == []


# --- a device that is lost -------------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("storage", "metric"), [("csr", "wilcoxon"), ("csc", "anderson"),
                                                 ("C", "t-test"), ("csc", "ks")])  # fmt: skip
def test_one_is_lost(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, storage: str, metric: str, which: int
) -> None:
    two.shapes = Shapes(slice_bytes=20_000, n_slots=2)
    matrix = stored(LOGGED, storage)
    expected = run(matrix, metric, device=0)
    n_lost = 0
    for after in (1, 4, 9, 23):
        caplog.clear()
        meet(two, lambda device, n=after: device.index == which and device.lose(after=n))
        same_bits(run(matrix, metric, device=BOTH, gene_chunk_size=4), expected)
        lost = last_opened(two)[which]
        if not lost._lost:  # the other left it too little to do
            assert lost_lines(caplog) == []
            continue
        n_lost += 1
        assert lost_lines(caplog) == [
            f"lost emulated device {which} (emulated device {which} was lost); the run continues "
            f"with emulated device {1 - which}"
        ]
        assert sum(lost.launches.values()) == after - 1
        assert_memory_is_free(two)
    assert n_lost >= 2


def test_one_of_three_is_lost_and_another(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = stored(LOGGED, "csr")
    expected = run(matrix, "wilcoxon", device=0)
    two.n_devices = 3
    meet(two, lambda device: device.index and device.lose(after=2 + device.index))
    same_bits(run(matrix, "wilcoxon", device="all", gene_chunk_size=1), expected)
    texts = lost_lines(caplog)
    assert len(texts) == 2
    assert texts[0].count("emulated device") == 4, "two are left"
    assert texts[1].endswith("the run continues with emulated device 0")


def test_what_is_stored_of_a_lost_range_stays(
    two: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A slice that device 1 had computed is still being stored when another one fails."""
    two.shapes = Shapes(slice_bytes=1)  # slices of a gene
    path = write_screen(tmp_path / "screen.h5ad", "C", np.tile(LOGGED, (1, 5)))
    expected = run_file(path, device=0)
    meet(two)
    measure, store = streams._Run._measure, streams._Run._store
    storing, lost = threading.Event(), threading.Event()
    genes, late = [], []

    def slow_measure(self: streams._Run, block: Any, some: slice) -> Any:
        device = self.kernels.device  # type: ignore[attr-defined]
        if device.index == 1 and some.start == 0:
            assert storing.wait(LONG)
            device.lose()
            lost.set()
        return measure(self, block, some)

    def slow_store(self: streams._Run, moments: Any, measured: Any, start: int) -> None:
        if self.kernels.device.index == 1:  # type: ignore[attr-defined]
            storing.set()
            assert lost.wait(LONG)
            time.sleep(0.3)  # in which the range would be given to the other device
            late.append(start)
        genes.append(start)
        store(self, moments, measured, start)

    monkeypatch.setattr(streams._Run, "_measure", slow_measure)
    monkeypatch.setattr(streams._Run, "_store", slow_store)
    found = run_file(path, device=BOTH, n_threads=8, n_workers=1)
    same_bits(found, expected)
    assert late
    assert sorted(genes) == list(range(5 * N_GENES)), "no gene is computed twice"


def test_lost_while_p_values_are_adjusted(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture
) -> None:
    matrix = stored(LOGGED, "csr")
    expected = run(matrix, "wilcoxon", device=0)
    two.prepare = lambda device: device.index == 0 and lose_in(device, "adjust")
    two.opened.clear()
    same_bits(run(matrix, "wilcoxon", device=BOTH), expected)
    assert last_opened(two)[0]._lost
    assert len(lost_lines(caplog)) == 1
    assert last_opened(two)[1].launches["gather"] == 1


@pytest.mark.parametrize("when", ["opened", "planned"])
def test_lost_before_anything_is_computed(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    matrix = stored(LOGGED, "csr")
    expected = run(matrix, "wilcoxon", device=0)
    if when == "opened":
        two.prepare = lambda device: device.index == 1 and device.lose()
    else:
        plain = SeveralDevices.most_genes

        def most_genes(self: SeveralDevices, *args: Any) -> int:
            last_opened(two)[1].lose()
            return plain(self, *args)

        monkeypatch.setattr(SeveralDevices, "most_genes", most_genes)
    same_bits(run(matrix, "wilcoxon", device=BOTH), expected)
    (text,) = lost_lines(caplog)
    assert "emulated device 1 was lost" in text
    assert text.endswith("the run continues with emulated device 0")


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_all_are_lost(two: EmulatedCuda, after: int) -> None:
    two.prepare = lambda device: device.lose(after=after)
    with pytest.raises(DeviceLostError, match=r"^emulated device [01] was lost$"):
        run(stored(LOGGED, "csc"), "wilcoxon", device=BOTH, gene_chunk_size=2)
    assert_memory_is_free(two)


def test_all_are_lost_while_p_values_are_adjusted(two: EmulatedCuda) -> None:
    two.prepare = lambda device: lose_in(device, "least_above")
    with pytest.raises(DeviceLostError, match=r"^emulated device 1 was lost$"):
        run(stored(LOGGED, "csc"), "wilcoxon", device=BOTH)
    assert all(device._lost for device in last_opened(two).values())


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("storage", ["csr", "csc", "C"])
def test_all_are_lost_and_nothing_is_half_written(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, tmp_path: Path, storage: str
) -> None:
    path = write_screen(tmp_path / "screen.h5ad", storage)
    out, options = tmp_path / "de.csv", {"gene_chunk_size": 1, "device": BOTH}
    run_file(path, out=out, **options)
    expected = out.read_bytes()
    out.unlink()
    # By its seventh range, one of a device's two workers has finished its first.
    two.prepare = lambda device: lose_in(device, "rank_sums", after=6)
    with pytest.raises(DeviceLostError) as caught:
        run_file(path, out=out, **options)
    assert any("Finished results are kept in" in note for note in caught.value.__notes__)
    assert not out.exists()
    assert len(lost_lines(caplog)) == 1
    # With one of them lost again, the rest is made by the other, and by one device alone.
    two.prepare = lambda device: device.index == 0 and lose_in(device, "rank_sums", after=1)
    run_file(path, out=out, **options)
    assert out.read_bytes() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["de.csv", "screen.h5ad"]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("first", "then"), [(BOTH, 1), (0, "all"), (BOTH, BOTH)])
def test_a_checkpoint_of_another_number_of_devices(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, tmp_path: Path, first: Any, then: Any
) -> None:
    caplog.set_level(logging.INFO, "pdex_gpu")
    path, out = write_screen(tmp_path / "screen.h5ad", "csc"), tmp_path / "de.csv"
    run_file(path, out=tmp_path / "one.csv")
    two.prepare = lambda device: lose_in(device, "rank_sums", after=6)  # as above
    with pytest.raises(DeviceLostError):
        run_file(path, out=out, device=first, gene_chunk_size=1)
    two.prepare = lambda device: None
    caplog.clear()
    run_file(path, out=out, device=then)
    assert any(m.startswith("resuming: ") for m in caplog.messages)
    assert out.read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("after", [0, 3, 40])
def test_a_fault_of_the_program_is_no_lost_device(
    two: EmulatedCuda, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    """The other device would go wrong likewise, and results must not hide that one did."""

    def prepare(device: EmulatedDevice) -> None:
        def fail() -> None:
            nonlocal n
            n += 1
            if n > after:
                raise KernelError(f"rank_sums cannot be started on {device.description}")

        n = 0
        if device.index == 1:
            device.before_work = fail

    two.prepare = prepare
    with pytest.raises(KernelError, match="rank_sums cannot be started on emulated device 1"):
        run(stored(LOGGED, "csc"), "wilcoxon", device=BOTH, gene_chunk_size=2)
    assert lost_lines(caplog) == []


def test_models_of_devices() -> None:
    one, same, other = Device(0, "NVIDIA H200"), Device(12, "NVIDIA H200"), Device(1, "NVIDIA A100")

    def models(*devices: Device) -> str:
        return BackendInfo("cuda", True, "", "", ("streams",), devices).models

    assert models(one) == models(one, same) == "NVIDIA H200"
    assert models(one, other) == "NVIDIA A100; NVIDIA H200"
    assert models(Device(None, "CPU (x86_64)")) == "CPU (x86_64)"
    assert models() == ""


# --- what the kernel sets of several devices do together --------------------------------------


class Kernels:
    """As much of a kernel set as several are asked for."""

    def __init__(self, name: str, n_genes: int = 5, lost: bool = False) -> None:
        self.description, self.n_genes, self.lost = name, n_genes, lost

    def most_genes(self, source: Any, n_ranges: int) -> int:
        if self.lost:
            raise DeviceLostError(f"{self.description} is gone.") from RuntimeError("fell off.")
        return self.n_genes // n_ranges

    def benjamini_hochberg(self, p_value: Any, run: Any, **options: Any) -> Any:
        if self.lost:
            raise DeviceLostError(f"{self.description} is gone.")
        return self.description, p_value, options


def together(*kernels: Kernels) -> SeveralDevices:
    return SeveralDevices(kernels)  # type: ignore[arg-type]


def test_the_smallest_says_how_many_genes(caplog: pytest.LogCaptureFixture) -> None:
    assert together(Kernels("a", 9), Kernels("b", 4), Kernels("c", 7)).most_genes(None, 2) == 2  # type: ignore[arg-type]
    several = together(Kernels("a", 9), Kernels("b", 1, lost=True), Kernels("c", 7))
    assert several.most_genes(None, 1) == 7  # type: ignore[arg-type]
    assert [k.description for k in several.devices] == ["a", "c"]
    assert lost_lines(caplog) == ["lost b (fell off); the run continues with a; c"]
    assert several.packed_bytes(10, 5.0, np.dtype("f4")) == 0.0


def test_the_first_that_is_left_adjusts_p_values(caplog: pytest.LogCaptureFixture) -> None:
    several = together(Kernels("a", lost=True), Kernels("b"), Kernels("c", lost=True))
    found = several.benjamini_hochberg("p", map, n_tests=9, n_smaller=2, ceiling=0.5)  # type: ignore[arg-type]
    assert found == ("b", "p", {"n_tests": 9, "n_smaller": 2, "ceiling": 0.5})  # type: ignore[comparison-overlap]
    assert len(lost_lines(caplog)) == 1
    several = together(Kernels("a", lost=True), Kernels("b", lost=True))
    with pytest.raises(DeviceLostError, match="b is gone"):
        several.benjamini_hochberg("p", map)  # type: ignore[arg-type]


def test_a_device_is_given_up_once(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Kernels("a"), Kernels("b")
    several, error = together(first, second), DeviceLostError("oh")
    assert several.give_up(first, error)  # type: ignore[arg-type]
    assert several.give_up(first, error)  # type: ignore[arg-type]
    assert not several.give_up(second, error)  # type: ignore[arg-type]
    assert several.devices == (second,)
    assert lost_lines(caplog) == ["lost a (oh); the run continues with b"]


# --- errors that are not a device's ------------------------------------------------------------


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("storage", STORAGE)
def test_nan_is_named(two: EmulatedCuda, storage: str) -> None:
    values = LOGGED.copy()
    values[20, 3] = values[7, 15] = np.nan
    with pytest.raises(DataError, match=r"X is nan in cell 'cell20' \(row 20\), gene 'gene3'"):
        run(stored(values, storage), "wilcoxon", device=BOTH)
    assert_memory_is_free(two)


def test_unsorted_indices(two: EmulatedCuda) -> None:
    matrix = sparse.csc_matrix(LOGGED)
    expected = run(matrix.copy(), "wilcoxon", device=0)
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        for part in (matrix.indices, matrix.data):
            part[start:stop] = part[start:stop][::-1].copy()
    matrix.has_sorted_indices = False
    same_bits(run(matrix, "wilcoxon", device=BOTH), expected)


@pytest.mark.parametrize("form", ["csr", "C"])
@pytest.mark.parametrize("device", [BOTH, "all"])
def test_a_matrix_on_one_device(two: EmulatedCuda, form: str, device: Any) -> None:
    matrix = stored(LOGGED, form)
    there: Any = DeviceSparse(matrix) if sparse.issparse(matrix) else DeviceArray(matrix)
    with pytest.raises(UnsupportedDataError) as caught:
        run(there, "wilcoxon", device=device)
    text = re.sub(r"\(.*?\)", "(...)", str(caught.value), count=1)
    assert text == (
        f"X is on one CUDA device (...) and is used there, but device={device!r} asks for 2 "
        "devices. Pass the number of that device as device=, or move the matrix: adata.X = "
        "adata.X.get()."
    )
    same_bits(run(there, "wilcoxon", device=[1]), run(matrix, "wilcoxon", device=0))


# --- what may be asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (
            "al",
            r"device='al' must be the number of a CUDA device .*, a list of such numbers, 'all'",
        ),
        ([0, "1"], r"device=\[0, '1'\] must be the number of a CUDA device"),
        ([0, -1], r"device=\[0, -1\] must be"),
        ([True, 0], r"device=\[True, 0\] must be"),
        ({0, 1}, r"device=\{0, 1\} must be"),
        ([[0], 1], r"device=\[\[0\], 1\] must be"),
        ([], r"device=\[\] names no CUDA device\. Pass device numbers, 'all', or None"),
        ((), r"device=\(\) names no CUDA device"),
        ([0, 0], r"device=\[0, 0\] names device 0 more than once\. List each device once\."),
        ([1, 2, np.int32(1)], r"names device 1 more than once"),
    ],
    ids=str,
)
def test_devices_that_make_no_sense(two: EmulatedCuda, device: Any, says: str) -> None:
    with pytest.raises(OptionError, match=f"^{says}" if says.startswith("device") else says):
        run(stored(LOGGED, "csr"), "wilcoxon", device=device)
    assert two.opened == []


def test_a_device_that_does_not_exist(two: EmulatedCuda) -> None:
    with pytest.raises(BackendError) as caught:
        run(stored(LOGGED, "csr"), "wilcoxon", device=[0, 7], backend="auto")
    assert str(caught.value) == (
        "device=[0, 7] was requested, but it cannot run here: there is no device 7; available: 2."
    )
    with pytest.raises(BackendError, match=r"^The CUDA backend cannot run here: there is no dev"):
        load_kernels("cuda", [0, 7])
    assert two.opened == []


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("device", ["all", [0, 1]])
def test_a_backend_without_devices(backend: str, device: Any) -> None:
    with pytest.raises(OptionError) as caught:
        differential_expression("none.h5ad", "group", backend=backend, device=device)
    assert str(caught.value) == (
        f"device={device!r} selects a CUDA device, but backend='{backend}' was requested, "
        "which has none. Leave device= out, or pass backend='cuda'."
    )


def probing(monkeypatch: pytest.MonkeyPatch, *found: tuple[bool, str]) -> None:
    """Make it look as if the driver saw these devices: usable or not, and why."""
    monkeypatch.setattr(probe, "device_numbers", lambda: tuple(range(len(found))))

    def look(index: int | None = None) -> Probed:
        if not found:
            return Probed(False, "no NVIDIA driver: install one.")
        usable, reason = found[index or 0]
        return Probed(usable, reason, (Device(index or 0, "GPU"),) if usable else ())

    monkeypatch.setattr(probe, "probe", look)


def test_all_where_none_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch)
    with pytest.raises(BackendError) as caught:
        choose_backend("auto", "all")
    assert str(caught.value) == (
        "device='all' was requested, but it cannot run here: no NVIDIA driver: install one."
    )
    probing(monkeypatch, (False, "CuPy is missing."), (False, "CuPy is missing."))
    with pytest.raises(BackendError, match=r"cannot run here: CuPy is missing\.$"):
        choose_backend("cuda", "all")
    with pytest.raises(BackendError, match=r"^The CUDA backend cannot run here: CuPy is missing\."):
        load_kernels("cuda", "all")


def test_all_leaves_out_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, (True, "fine"), (False, "K80, device 1 is too old."), (True, "fine"))
    chosen = choose_backend("cuda", "all")
    assert chosen.device == "GPU, device 0; GPU, device 2"
    assert chosen.devices == (Device(0, "GPU"), Device(2, "GPU"))
    assert chosen.models == "GPU"
    assert chosen.reason == ("backend='cuda' was requested; left out: K80, device 1 is too old")
    with pytest.raises(BackendError, match=r"device=\[0, 1\] was .*: K80, device 1 is too old\.$"):
        choose_backend("auto", [0, 1])
    assert choose_backend("auto", [0, 2]).reason == "device=[0, 2] was requested"
    assert choose_backend("auto", (2,)).device == "GPU, device 2"


def test_all_are_those_that_the_driver_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tuple(driver.DriverDevice(k, f"GPU {k}", (3, 7)) for k in range(3))
    monkeypatch.setattr(driver, "ask", lambda: driver.Driver((13, 0), seen, ""))
    monkeypatch.setattr(probe, "_usable", {2: Probed(True, "fine", (Device(2, "GPU 2"),))})
    assert probe.device_numbers() == (0, 1, 2)
    found = probe.probe_asked("all")
    assert (found.usable, found.devices) == (True, (Device(2, "GPU 2"),))
    assert "GPU 0, device 0 has compute capability 3.7, but 7.0 or later is needed" in found.reason
    assert "GPU 1, device 1 has" in found.reason
    assert not probe.probe_asked((1, 2)).usable
    found = probe.probe_asked((2, 7))
    assert not found.usable
    assert "there is no device 7; available: 0 (GPU 0), 1 (GPU 1), 2 (GPU 2)." in found.reason
    monkeypatch.setattr(driver, "ask", lambda: driver.Driver(None, (), "no NVIDIA driver"))
    monkeypatch.setattr(probe, "_usable", {})
    found = probe.probe_asked("all")
    assert (found.usable, found.devices) == (False, ())
    assert found.reason.startswith("no NVIDIA driver")


def test_compiling_is_for_one_device() -> None:
    for device in ("all", [0, 1]):
        with pytest.raises(OptionError, match=r"is not a single device.* Pass its number\.$"):
            registry.compile_kernels(device)  # type: ignore[arg-type]


# --- the command line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("1", {1}), ("0,1", {0, 1}), ("1, 0", {0, 1}), ("all", {0, 1})],
)
def test_the_command_line(two: EmulatedCuda, tmp_path: Path, text: str, numbers: set[int]) -> None:
    path, out = write_screen(tmp_path / "screen.h5ad", "csr"), tmp_path / "de.parquet"
    argv = ["run", str(path), "--groupby", "group", "--reference", "g0", "--device", text]
    assert main([*argv, "-o", str(out)]) == Exit.OK
    assert set(last_opened(two)) == numbers
    found = open_result(out).provenance["device"]
    order = [1, 0] if text == "1, 0" else sorted(numbers)
    assert found == "; ".join(f"emulated device, device {k}" for k in order)


@pytest.mark.parametrize("text", ["al", "0,", ",", "0,x", "-1", "1.0", "0;1", ""])
def test_no_devices(
    two: EmulatedCuda, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    argv = ["run", str(tmp_path / "s.h5ad"), "--groupby", "g", "-o", str(tmp_path / "de.csv")]
    assert main([*argv, f"--device={text}"]) == Exit.USAGE
    err = " ".join(capsys.readouterr().err.split())
    assert "is not a device number, a comma-separated list of them, or all" in err


def test_the_default_is_the_first_alone(two: EmulatedCuda) -> None:
    assert inspect.signature(differential_expression).parameters["device"].default is None
    found = run(stored(LOGGED, "csr"), "wilcoxon")
    assert set(last_opened(two)) == {0}
    assert found.provenance["device"] == "emulated device, device 0"
    assert set(VALUES) <= set(found.columns)
