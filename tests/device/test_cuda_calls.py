"""The CUDA backend through the package's own call, on an emulated device.

Truth is ``backend="cpu"``; among themselves, runs of the CUDA backend must agree to the last bit,
whatever the memory, the chunks, the threads and the storage.
"""

from __future__ import annotations

import gc
import itertools
import logging
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from device_arrays import DeviceArray, DeviceSparse
from emulated import build
from emulated.backend import EmulatedCuda
from emulated.device import EmulatedDevice, on_device
from scipy import sparse
from screens import SMALL, as_anndata

from pdex_gpu import DEResult, differential_expression
from pdex_gpu.backends.cuda import sources
from pdex_gpu.backends.cuda.launch_config import Shapes
from pdex_gpu.cli import main
from pdex_gpu.errors import (
    DataError,
    DeviceLostError,
    DeviceMemoryError,
    OptionError,
    UnsupportedDataError,
)
from pdex_gpu.results.schema import VALUES
from pdex_gpu.utils.exit_codes import Exit
from pdex_gpu.utils.progress import Tracker

# Some values are of every sign and size, to be sorted as they are.
pytestmark = pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")

METRICS = ["wilcoxon", "t-test", "anderson"]
N_CELLS, N_GENES = 700, 29
GROUPS = ["t00", "t01", "t02", "t03"]  # t04 is left out


def make_counts() -> np.ndarray:
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.lognormal(-0.5, 1.5, N_GENES), (N_CELLS, N_GENES))
    counts[:, 4] = 0
    counts[:, 9] += 1  # no zero
    counts[3, 11] = 255  # the largest uint8
    return counts


def make_codes() -> np.ndarray:
    codes = np.random.default_rng(2).choice(6, N_CELLS, p=[0.1, 0.24, 0.1, 0.0, 0.06, 0.5])
    codes[17] = 3  # one cell
    return codes


COUNTS, CODES = make_counts(), make_codes()
SHARES = COUNTS / (1 + COUNTS.sum(axis=1, keepdims=True))
#: By name; 32-bit keys, and 64-bit ones of every kind.
MATRICES = {
    "counts": COUNTS.astype(np.float32),
    "log": np.log1p(50 * SHARES).astype(np.float32),
    "log float64": np.log1p(50 * SHARES) * np.where(np.arange(N_GENES) % 3, 1, -1),
    "int64": (COUNTS * 2**45 + COUNTS.T.ravel()[:, None].reshape(N_CELLS, -1) % 3 - 1),
    "uint64": COUNTS.astype(np.uint64) + np.uint64(2**63),
}


def screen(matrix: Any, codes: np.ndarray = CODES) -> anndata.AnnData:
    return as_anndata(matrix, codes, reference=5)


def run(data: Any, metric: str = "wilcoxon", **options: Any) -> DEResult:
    given = {"groups": GROUPS, "backend": "cuda", "n_threads": 2, "exp_post_agg": False}
    if not isinstance(data, anndata.AnnData | str | Path):
        data = screen(data)
    return differential_expression(
        data, "group", reference="ref", metric=metric, progress=False, **(given | options)
    )


def assert_same(found: DEResult, expected: DEResult) -> None:
    assert found.targets.tolist() == expected.targets.tolist()
    for column in VALUES:
        assert found[column].tobytes() == expected[column].tobytes(), column


def assert_memory_is_free(cuda: EmulatedCuda) -> None:
    gc.collect()
    assert [device.bytes_in_use for device in cuda.opened] == [0] * len(cuda.opened)


Plain = Callable[[str, str], DEResult]


@pytest.fixture(scope="module")
def plain() -> Plain:
    """Results of CSR in memory, on a device with plenty of it, as they were found first."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    found: dict[tuple[str, str], DEResult] = {}

    def get(values: str, metric: str) -> DEResult:
        if (values, metric) not in found:
            with pytest.MonkeyPatch.context() as patch:
                EmulatedCuda().install(patch)
                matrix = sparse.csr_matrix(MATRICES[values])
                found[values, metric] = run(matrix, metric, n_workers=1)
        return found[values, metric]

    return get


# --- against the CPU -------------------------------------------------------------------------


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("values", MATRICES)
def test_gives_the_bits_of_the_cpu(plain: Plain, values: str, metric: str) -> None:
    found = plain(values, metric)
    expected = run(sparse.csr_matrix(MATRICES[values]), metric, backend="cpu")
    assert found.targets.tolist() == expected.targets.tolist() == GROUPS
    assert np.isfinite(expected["p_value"]).all()
    assert_same(found, expected)


@pytest.mark.parametrize("values", ["counts", "log"])
def test_mock_groups_are_compared_on_the_device(emulated_cuda: EmulatedCuda, values: str) -> None:
    matrix, asked = sparse.csr_matrix(MATRICES[values]), {"fdr_method": "empirical"}
    found, expected = (run(matrix, **asked, backend=name) for name in ("cuda", "cpu"))
    assert_same(found, expected)
    assert found.provenance["backend"] == "cuda"
    assert found.provenance["empirical_null"] == expected.provenance["empirical_null"]
    assert_memory_is_free(emulated_cuda)


# --- the same bits ---------------------------------------------------------------------------


def with_index_dtype(matrix: Any, dtype: str) -> Any:
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    return matrix


def strided(values: np.ndarray) -> np.ndarray:
    wide = np.zeros((2 * N_CELLS, 3 * N_GENES), values.dtype)
    wide[::-2, 1::3] = values
    return wide[::-2, 1::3]


def unsorted(matrix: Any) -> Any:
    """The same matrix, entries of each row or column from the last to the first."""
    matrix = matrix.copy()
    for start, stop in itertools.pairwise(matrix.indptr):
        for part in (matrix.indices, matrix.data):
            part[start:stop] = part[start:stop][::-1].copy()
    matrix.has_sorted_indices = False
    assert not matrix.has_canonical_format
    return matrix


STORAGE = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": strided,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "CSR array": sparse.csr_array,
    "CSR int64": lambda x: with_index_dtype(sparse.csr_matrix(x), "int64"),
    "CSC": sparse.csc_matrix,
    "CSC int64": lambda x: with_index_dtype(sparse.csc_matrix(x), "int64"),
    "CSR not canonical": lambda x: unsorted(sparse.csr_matrix(x)),
    "CSC not canonical": lambda x: unsorted(sparse.csc_matrix(x)),
}


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("values", ["counts", "log", "int64"])
@pytest.mark.parametrize("storage", STORAGE)
def test_storage_in_memory(
    plain: Plain, emulated_cuda: EmulatedCuda, storage: str, values: str
) -> None:
    matrix = STORAGE[storage](MATRICES[values])
    for metric, options in zip(METRICS, ({}, {"gene_chunk_size": 9}, {}), strict=True):
        assert_same(run(matrix, metric, **options), plain(values, metric))
    assert_memory_is_free(emulated_cuda)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64",
                                   "uint64", "float64"])  # fmt: skip
def test_counts_of_any_dtype(plain: Plain, emulated_cuda: EmulatedCuda, dtype: str) -> None:
    for metric in METRICS:
        found = run(sparse.csr_matrix(COUNTS.astype(dtype)), metric)
        assert_same(found, plain("counts", metric))


def test_truth_values(emulated_cuda: EmulatedCuda) -> None:
    for matrix in (sparse.csr_matrix(COUNTS > 1), COUNTS > 1):
        assert_same(run(matrix), run(np.float32(COUNTS > 1)))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("opened", ["path", "backed"])
@pytest.mark.parametrize("storage", ["CSR", "CSC", "dense"])
def test_storage_in_a_file(
    plain: Plain, emulated_cuda: EmulatedCuda, storage: str, opened: str, tmp_path: Path
) -> None:
    matrix = {"CSR": sparse.csr_matrix, "CSC": sparse.csc_matrix, "dense": np.asarray}[storage]
    path = tmp_path / "screen.h5ad"
    screen(matrix(MATRICES["log"])).write_h5ad(path)
    data = path if opened == "path" else anndata.read_h5ad(path, backed="r")
    for options in ({}, {"gene_chunk_size": 4, "memory": 20_000}, {"device_memory": 60_000}):
        for metric in METRICS:
            assert_same(run(data, metric, **options), plain("log", metric))
    if opened == "backed":
        data.file.close()


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize(
    "options",
    [
        {"gene_chunk_size": 1},
        {"gene_chunk_size": 7, "n_workers": 1},
        {"gene_chunk_size": 3, "n_workers": 3, "n_threads": 1},
        {"n_workers": 4, "n_threads": 4},
        {"n_workers": 1, "n_threads": 1},
        {"device_memory": 60_000},
        {"device_memory": 60_000, "n_workers": 3},
        {"memory": 1},
        {"engine": "streams"},
    ],
    ids=str,
)
@pytest.mark.parametrize("metric", METRICS)
def test_the_way_work_is_spread(
    plain: Plain, emulated_cuda: EmulatedCuda, metric: str, options: dict[str, Any]
) -> None:
    for values, storage in (("log", sparse.csr_matrix), ("int64", np.asarray)):
        found = run(storage(MATRICES[values]), metric, **options)
        assert_same(found, plain(values, metric))
    assert_memory_is_free(emulated_cuda)


SHAPES = {
    "small": SMALL,
    "one warp": Shapes(n_threads=32, shared_bytes=8 << 10, n_slots=1, n_buffers=1, buffer_bytes=40),
    "192 threads": Shapes(n_threads=192, shared_bytes=16 << 10),
    "slices of a gene": Shapes(slice_bytes=1, n_slots=3),
    "slices of a few genes": Shapes(slice_bytes=30_000, buffer_bytes=333),
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("shapes", SHAPES)
def test_shapes(plain: Plain, emulated_cuda: EmulatedCuda, shapes: str) -> None:
    emulated_cuda.shapes = SHAPES[shapes]
    for values, metric in itertools.product(("log", "int64"), METRICS):
        found = run(sparse.csr_matrix(MATRICES[values]), metric)
        assert_same(found, plain(values, metric))
    assert_memory_is_free(emulated_cuda)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_in_which_threads_run(
    plain: Plain, emulated_cuda: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Scattering leaves the order of the keys to chance: here it is another one."""

    def reseed(device: EmulatedDevice) -> None:
        device._seed = seed

    emulated_cuda.prepare = reseed
    for values, metric in itertools.product(("log", "int64"), METRICS):
        found = run(sparse.csr_matrix(MATRICES[values]), metric)
        assert_same(found, plain(values, metric))


def test_calls_from_several_threads(plain: Plain, emulated_cuda: EmulatedCuda) -> None:
    jobs = list(itertools.product(["log", "counts", "uint64"], METRICS))
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda job: run(sparse.csc_matrix(MATRICES[job[0]]), job[1]), jobs)
        for job, result in zip(jobs, found, strict=True):
            assert_same(result, plain(*job))
    assert_memory_is_free(emulated_cuda)


# --- little memory ---------------------------------------------------------------------------


@pytest.mark.sampled(every=13)
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("metric", METRICS)
def test_memory_down_to_the_least_that_works(
    plain: Plain,
    emulated_cuda: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    metric: str,
    storage: str,
    n_workers: int,
) -> None:
    caplog.set_level(logging.INFO, "pdex_gpu")
    matrix = MATRICES["log float64"]
    if storage != "dense":
        matrix = sparse.csr_matrix(matrix).asformat(storage)
    expected = plain("log float64", metric)
    n_ranges, memory, works = [], 800_000.0, True
    while works:
        caplog.clear()
        memory *= 0.85
        try:
            found = run(matrix, metric, device_memory=int(memory), n_workers=n_workers)
        except DeviceMemoryError:
            works = False
        else:
            assert_same(found, expected)
            assert emulated_cuda.opened[-1].heap.total == int(memory)
            assert emulated_cuda.opened[-1].peak_bytes <= memory
            (line,) = [m for m in caplog.messages if " ranges, engine streams" in m]
            n_ranges.append(int(line.split(" ranges, engine")[0].split()[-1]))
    least = memory / 0.85
    if storage == "dense":
        assert least < MATRICES["log float64"].nbytes / 2, "the matrix must not fit"
    assert n_ranges[-1] > 2 * n_ranges[0]
    assert least < 100_000
    assert_memory_is_free(emulated_cuda)


def test_a_matrix_larger_than_the_device(plain: Plain, emulated_cuda: EmulatedCuda) -> None:
    matrix = MATRICES["log float64"]
    emulated_cuda.memory = matrix.nbytes // 2
    assert_same(run(matrix), plain("log float64", "wilcoxon"))


def halved(caplog: pytest.LogCaptureFixture, what: str) -> int:
    return sum(m.startswith(f"halving a {what} of ") for m in caplog.messages)


def uneven() -> np.ndarray:
    """A few full genes among nearly empty ones: a plan, which goes by averages, is too hopeful."""
    values = np.random.default_rng(3).exponential(size=(N_CELLS, 64))
    values[:, 8:] *= np.random.default_rng(4).random((N_CELLS, 56)) < 0.01
    return values


@pytest.mark.thorough
@pytest.mark.parametrize("storage", ["csr", "csc"])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_ranges_are_halved_where_memory_is_little(
    emulated_cuda: EmulatedCuda, caplog: pytest.LogCaptureFixture, storage: str, n_workers: int
) -> None:
    """Those that are too large, and those that leave too little for a slice of one gene."""
    caplog.set_level(logging.INFO, "pdex_gpu")
    matrix = sparse.csr_matrix(uneven()).asformat(storage)
    expected = run(matrix)
    caplog.clear()
    for memory in range(62_000, 150_000, 4_000):
        assert_same(run(matrix, device_memory=memory, n_workers=n_workers), expected)
    assert halved(caplog, "range") >= 3 or n_workers > 1  # then they come at times that vary
    assert_memory_is_free(emulated_cuda)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_ranges_are_halved_by_faults(
    plain: Plain,
    emulated_cuda: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    storage: str,
    n_workers: int,
) -> None:
    matrix = MATRICES["log"]
    if storage != "dense":
        matrix = sparse.csr_matrix(matrix).asformat(storage)
    expected = plain("log", "anderson")
    caplog.set_level(logging.INFO, "pdex_gpu")
    emulated_cuda.prepare = lambda device: device.fail_allocation(after=0, times=2)
    found = run(matrix, "anderson", n_workers=n_workers)
    assert 1 <= halved(caplog, "range") <= 2  # a range of one gene is not halved, but tried again
    assert_same(found, expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("metric", METRICS)
def test_slices_are_halved(
    plain: Plain,
    emulated_cuda: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    metric: str,
    times: int,
) -> None:
    expected, n_halved, n_failed = plain("log", metric), [], 0
    caplog.set_level(logging.INFO, "pdex_gpu")
    for after in range(0, 60, 4):
        caplog.clear()
        emulated_cuda.prepare = lambda device, n=after: device.fail_allocation(after=n, times=times)
        try:
            found = run(sparse.csr_matrix(MATRICES["log"]), metric, n_workers=1, n_threads=1)
        except DeviceMemoryError:
            n_failed += 1
        else:
            assert_same(found, expected)
        n_halved.append(halved(caplog, "slice"))
    assert max(n_halved) == times
    assert sum(n > 0 for n in n_halved) > 4
    assert n_failed == 0 or times == 2
    assert_memory_is_free(emulated_cuda)


# A small one, as it is run hundreds of times.
SOME = np.flatnonzero(CODES != 4)[:160]
FEW_GENES = 11


def run_small(metric: str, **options: Any) -> DEResult:
    matrix = sparse.csr_matrix(MATRICES["log"][SOME, :FEW_GENES])
    return run(screen(matrix, CODES[SOME]), metric, groups=None, **options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("metric", "n_workers", "times", "step"),
    [("wilcoxon", 1, 1, 1), ("anderson", 2, 2, 2), ("t-test", 2, 3, 3)],
)
def test_every_allocation_may_fail(
    emulated_cuda: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    metric: str,
    n_workers: int,
    times: int,
    step: int,
) -> None:
    """Allocation `n` and some that follow it: there is a result or an error, and no memory lost."""
    caplog.set_level(logging.INFO, "pdex_gpu")
    emulated_cuda.shapes = Shapes(slice_bytes=20_000, n_slots=2)
    expected = run_small(metric)
    n_good = n_bad = 0
    for n in itertools.count(0, step):
        emulated_cuda.prepare = lambda device, n=n: device.fail_allocation(after=n, times=times)
        emulated_cuda.opened.clear()
        try:
            found = run_small(metric, n_workers=n_workers, gene_chunk_size=6)
        except DeviceMemoryError:
            n_bad += 1
        else:
            assert_same(found, expected)
            n_good += 1
        assert_memory_is_free(emulated_cuda)
        if emulated_cuda.opened[-1].heap._fail == times:
            break  # there was no such allocation
    assert n > 100
    assert n_good > 3
    assert n_bad == 0 or times > 1, "one failure can be made good every time"
    assert halved(caplog, "range") >= 4
    assert any(m.startswith("FDR of 44 p-values on the host: asked for") for m in caplog.messages)


@pytest.mark.parametrize("after", [0, 3, 11, 40])
def test_memory_that_never_comes_back(emulated_cuda: EmulatedCuda, after: int) -> None:
    emulated_cuda.prepare = lambda device: device.fail_allocation(after=after, times=10**9)
    with pytest.raises(DeviceMemoryError, match="The work cannot be split further"):
        run_small("wilcoxon")
    assert_memory_is_free(emulated_cuda)


@pytest.mark.parametrize(
    ("memory", "what"), [(2_000, "for 1 gene"), (13_000, "for 1 gene"), (20_000, "for work on")]
)
def test_too_little_memory_for_one_gene(
    emulated_cuda: EmulatedCuda, memory: int, what: str
) -> None:
    with pytest.raises(DeviceMemoryError) as caught:
        run(sparse.csr_matrix(MATRICES["log"]), device_memory=memory)
    text = str(caught.value)
    assert text.startswith("The device has too little memory ")
    assert what in text, text
    sizes = rf"asked for [\d,]+ bytes of device memory, [\d,]+ of {memory:,} are free"
    assert re.search(sizes, text), text
    assert "Raise device_memory=" in text
    assert text.endswith("or use backend='cpu'.")
    assert isinstance(caught.value.__cause__, DeviceMemoryError)
    del caught
    assert_memory_is_free(emulated_cuda)


def test_a_failed_slot_holds_nothing(emulated_cuda: EmulatedCuda) -> None:
    """What was queued when memory ran out is done with before the slot is given back."""
    from screens import as_chunk, make_case

    from pdex_gpu.backends.registry import load_kernels

    kernels, device = load_kernels("cuda"), emulated_cuda.opened[-1]
    case = make_case([40, 30], ["normal"] * 3, "float32", seed=1)
    block = kernels.pack(as_chunk(case.values, "csr-int32"), case.design, map)
    of_the_block = device.bytes_in_use
    for after in range(6):
        device.fail_allocation(after=after)
        with pytest.raises(DeviceMemoryError):
            kernels.rank_sums(block, case.genes, case.design.contrasts[0])
        assert device.bytes_in_use == of_the_block, after
    del block
    assert device.bytes_in_use == 0


def test_a_run_that_starts_over_finds_the_device_empty(emulated_cuda: EmulatedCuda) -> None:
    gc.collect()
    gc.disable()
    try:
        run(unsorted(sparse.csr_matrix(MATRICES["log"])))
        assert emulated_cuda.opened[-1].bytes_in_use == 0
    finally:
        gc.enable()


# --- a device that is lost -------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", METRICS)
def test_a_lost_device_raises(emulated_cuda: EmulatedCuda, metric: str) -> None:
    options = {"n_workers": 2, "gene_chunk_size": 6}
    run_small(metric, **options)
    n_launches = sum(emulated_cuda.opened[-1].launches.values())
    for n in [*range(1, n_launches, 7), n_launches - 1, n_launches]:
        emulated_cuda.prepare = lambda device, n=n: device.lose(after=n)
        emulated_cuda.opened.clear()
        with pytest.raises(DeviceLostError, match=r"^emulated device 0 was lost$"):
            run_small(metric, **options)
        assert_memory_is_free(emulated_cuda)
    launches = emulated_cuda.opened[-1].launches
    assert (launches["adjust"], launches["gather"]) == (1, 0), "the FDR must be reached"


def test_a_device_lost_before_it_is_opened(emulated_cuda: EmulatedCuda) -> None:
    emulated_cuda.prepare = lambda device: device.lose()
    with pytest.raises(DeviceLostError):
        run_small("wilcoxon")


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (lambda device: device.lose(after=1), Exit.BACKEND, "was lost"),
        (lambda device: device.lose(after=30), Exit.BACKEND, "was lost"),
        (lambda device: device.lose(after=-1), Exit.BACKEND, "was lost"),  # the last one
        (lambda device: device.fail_allocation(after=5, times=10**9), Exit.MEMORY, "too little"),
        (lambda device: device.fail_allocation(after=60, times=10**9), Exit.MEMORY, "too little"),
    ],
)
def test_nothing_half_written(
    emulated_cuda: EmulatedCuda,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[EmulatedDevice], None],
    code: Exit,
    says: str,
    suffix: str,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    libraries = build.library("probe", sources.text("probe")).parents[1]
    monkeypatch.setenv(build.FOLDER, str(libraries))  # not in the scratch folder
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path, output = tmp_path / "screen.h5ad", tmp_path / f"de.{suffix}"
    screen(sparse.csr_matrix(MATRICES["log"])).write_h5ad(path)
    argv = ["run", str(path), "--groupby", "group", "--reference", "ref", "--backend", "cuda",
            "--output", str(output), "--memory", "20000"]  # fmt: skip
    assert main(argv) == Exit.OK
    expected = output.read_bytes()
    output.unlink()
    n_launches = sum(emulated_cuda.opened[-1].launches.values())

    def planted(device: EmulatedDevice) -> None:
        fault(device)
        if device._lose_at == -1:
            device.lose(after=n_launches)

    emulated_cuda.prepare = planted
    capfd.readouterr()
    assert main(argv) == code
    err = capfd.readouterr().err
    assert err.startswith("pdex-gpu: error: ")
    assert says in err
    kept = [".de." + suffix + ".checkpoint"] if "Finished results are kept in" in err else []
    assert sorted(p.name for p in tmp_path.iterdir()) == [*kept, "scratch", "screen.h5ad"]
    assert list(scratch.iterdir()) == []
    emulated_cuda.prepare = lambda device: None
    assert main(argv) == Exit.OK
    assert output.read_bytes() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == [output.name, "scratch", "screen.h5ad"]


# --- what travels ----------------------------------------------------------------------------


def uploaded(cuda: EmulatedCuda, matrix: Any, **options: Any) -> int:
    run(matrix, n_workers=1, **options)
    return cuda.opened[-1].uploaded_bytes


def test_counts_and_indices_travel_narrow(emulated_cuda: EmulatedCuda) -> None:
    counts, logged = (sparse.csr_matrix(MATRICES[name]) for name in ("counts", "log"))
    assert counts.nnz == logged.nnz
    of_counts = uploaded(emulated_cuda, counts)
    # Values as uint8, indices as uint16; pointers, groups and order of the cells besides, and
    # p-values for the FDR. Less than 2,000 bytes are small things.
    parts = 3 * counts.nnz + 8 * (N_CELLS + 1) + 8 * N_CELLS + 8 * len(GROUPS) * N_GENES
    assert parts - 4 * (CODES == 4).sum() <= of_counts < parts + 2000
    assert uploaded(emulated_cuda, with_index_dtype(counts, "int64")) == of_counts
    assert uploaded(emulated_cuda, logged) == of_counts + 3 * counts.nnz
    assert uploaded(emulated_cuda, counts * 257) == of_counts + counts.nnz  # uint16
    assert uploaded(emulated_cuda, counts.astype("int64") * 65_537) == of_counts + 3 * counts.nnz
    dense = uploaded(emulated_cuda, MATRICES["counts"])
    assert COUNTS.size <= dense < COUNTS.size + 8 * N_CELLS + 3000


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("dtype", "late"),
    [("float64", 256), ("float64", 65_536), ("float64", 0.5), ("float64", -1), ("int64", 256),
     ("int64", 65_536), ("int64", 2**32), ("int64", -1), ("int16", -1), ("uint32", 65_536)],
)  # fmt: skip
def test_counts_that_turn_out_wider_travel_twice(
    emulated_cuda: EmulatedCuda, dtype: str, late: float
) -> None:
    """The first values of a range say uint8, its last one says otherwise."""
    values = np.tile(COUNTS, (4, 1)).astype(dtype)
    assert values.size > 65_536 + N_GENES
    codes = np.tile(CODES, 4)
    codes[-1] = 1
    values[-1, -1] = late
    found = run(screen(values, codes), "t-test", n_workers=1)
    assert_same(found, run(screen(values, codes), "t-test", backend="cpu"))


# --- input on the device ---------------------------------------------------------------------


def as_if_cupy(matrix: Any) -> Any:
    """The matrix on the device, with the attributes that CuPy's own would have."""
    return DeviceSparse(matrix) if sparse.issparse(matrix) else DeviceArray(matrix)


@pytest.fixture
def with_x(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], anndata.AnnData]:
    """The screen with any object for X: without CuPy, anndata takes no matrix on a device."""

    def with_x(matrix: Any) -> anndata.AnnData:
        def read(self: anndata.AnnData) -> Any:
            return matrix if self is adata else real.fget(self)

        monkeypatch.setattr(anndata.AnnData, "X", property(read, real.fset))
        return adata

    real = anndata.AnnData.X
    adata = screen(sparse.csr_matrix(COUNTS.shape, dtype=np.float32))
    return with_x


IN_PLACE = {name: STORAGE[name] for name in ("C", "F", "CSC", "CSC int64", "CSR int64")} | {
    "CSR": sparse.csr_matrix,
    "every other gene": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("storage", IN_PLACE)
@pytest.mark.parametrize("values", ["log", "int64"])
def test_input_on_the_device_is_used_in_place(
    plain: Plain,
    emulated_cuda: EmulatedCuda,
    with_x: Callable[[Any], anndata.AnnData],
    values: str,
    storage: str,
) -> None:
    matrix = IN_PLACE[storage](MATRICES[values])
    adata = with_x(as_if_cupy(matrix))
    for metric in METRICS:
        found = run(adata, metric)
        device = emulated_cuda.opened[-1]
        small = 8 * (N_CELLS + 1) + 8 * N_CELLS + 8 * len(GROUPS) * N_GENES + 4000
        assert device.uploaded_bytes < small < MATRICES[values].nbytes / 3
        assert_same(found, plain(values, metric))
        assert found.provenance["matrix"].endswith(" on the device")
    assert_memory_is_free(emulated_cuda)


def test_arrays_of_the_very_device(
    plain: Plain, emulated_cuda: EmulatedCuda, with_x: Callable[[Any], anndata.AnnData]
) -> None:
    """In memory of an emulated device, and not of the host: any other access would raise."""
    home = EmulatedDevice()
    adata = with_x(on_device(home, np.asfortranarray(MATRICES["log"])))
    assert home.bytes_in_use == MATRICES["log"].nbytes
    assert_same(run(adata), plain("log", "wilcoxon"))


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_unsorted_indices_on_the_device(
    plain: Plain,
    emulated_cuda: EmulatedCuda,
    with_x: Callable[[Any], anndata.AnnData],
    form: str,
) -> None:
    matrix = unsorted(sparse.csr_matrix(MATRICES["log"]).asformat(form))
    before = matrix.indices.copy()
    assert_same(run(with_x(as_if_cupy(matrix)), "t-test"), plain("log", "t-test"))
    np.testing.assert_array_equal(matrix.indices, before)
    assert_memory_is_free(emulated_cuda)


@pytest.mark.parametrize("storage", ["C", "CSC", "CSR"])
def test_nan_on_the_device_is_named(
    emulated_cuda: EmulatedCuda, with_x: Callable[[Any], anndata.AnnData], storage: str
) -> None:
    values = MATRICES["log"].copy()
    cell = int(np.flatnonzero(CODES == 1)[30])
    values[cell, 12] = np.nan
    texts = []
    for matrix in (as_if_cupy(IN_PLACE[storage](values)), IN_PLACE[storage](values)):
        with pytest.raises(DataError) as caught:
            run(with_x(matrix))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"X is nan in cell 'cell{cell}' (row {cell}), gene 'gene12'")


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_other_backends_do_not_read_a_device(
    emulated_cuda: EmulatedCuda, with_x: Callable[[Any], anndata.AnnData], backend: str
) -> None:
    adata = with_x(as_if_cupy(MATRICES["log"]))
    with pytest.raises(UnsupportedDataError, match=r"^X is on a CUDA device .*backend='cuda'"):
        run(adata, backend=backend)
    with pytest.raises(UnsupportedDataError, match=r"Leave that option out and use backend='cuda'"):
        run(adata, "t-test", trim=0.1)


def test_a_matrix_on_the_device_and_no_room_beside_it(
    emulated_cuda: EmulatedCuda, with_x: Callable[[Any], anndata.AnnData]
) -> None:
    adata = with_x(as_if_cupy(sparse.csc_matrix(MATRICES["log"])))
    with pytest.raises(DeviceMemoryError, match=r"too little memory for the matrix: asked for"):
        run(adata, device_memory=4_000)
    with pytest.raises(DeviceMemoryError, match=r"too little memory for work on 1 gene"):
        run(adata, device_memory=8_000)


# --- around it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "options"),
    [("t-test", {"trim": 0.1}), ("wilcoxon", {"nan_policy": "omit"})],
)  # fmt: skip
def test_options_that_only_scipy_has(
    emulated_cuda: EmulatedCuda,
    caplog: pytest.LogCaptureFixture,
    metric: str,
    options: dict[str, Any],
) -> None:
    found = run_small(metric, **options)
    assert found.provenance["backend"] == "numpy"
    assert found.provenance["engine"] == "threads"
    assert next(iter(options)) in found.provenance["backend_reason"]
    assert any("using the numpy backend" in m for m in caplog.messages)
    assert emulated_cuda.opened == []
    assert_same(found, run_small(metric, backend="cpu", **options))


@pytest.mark.parametrize("faults", [0, 1])
def test_progress_counts_every_gene_once(
    emulated_cuda: EmulatedCuda, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    counted = []

    class Counting(Tracker):
        def tested(self, n_genes: int) -> None:
            counted.append(n_genes)

    monkeypatch.setattr("pdex_gpu.pipeline.call.Tracker", Counting)
    emulated_cuda.prepare = lambda device: device.fail_allocation(after=25, times=faults)
    run(sparse.csr_matrix(MATRICES["log"]), gene_chunk_size=10)
    assert sum(counted) == N_GENES
    assert min(counted) > 0


@pytest.mark.parametrize("backend", ["cuda", "auto"])
def test_provenance(emulated_cuda: EmulatedCuda, backend: str) -> None:
    provenance = run_small("wilcoxon", backend=backend).provenance
    assert provenance["backend"] == "cuda"
    assert provenance["device"] == "emulated device"
    assert provenance["engine"] == "streams"
    asked = {"cuda": "backend='cuda' was requested", "auto": "auto: emulated"}
    assert provenance["backend_reason"] == asked[backend]
    assert provenance["matrix"] == "CSR float32 in memory"
    assert "numba" not in provenance["versions"]


def test_cupy_is_imported_by_the_device_alone(
    emulated_cuda: EmulatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cupy", "cupyx"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises
    run_small("wilcoxon")


@pytest.mark.parametrize(
    ("device_memory", "expected"),
    [(None, 900_000), (300_000, 300_000), ("400KB", 400_000), (0.5, 500_000), (10**12, None)],
)
def test_device_memory_is_a_limit(
    emulated_cuda: EmulatedCuda, device_memory: Any, expected: int | None
) -> None:
    emulated_cuda.memory = 1_000_000
    run_small("wilcoxon", device_memory=device_memory)
    total = emulated_cuda.opened[-1].heap.total
    assert total == (expected or device_memory)


def test_device_is_the_one_that_is_opened(emulated_cuda: EmulatedCuda) -> None:
    run_small("wilcoxon")
    assert {device.index for device in emulated_cuda.opened} == {0}
    emulated_cuda.opened.clear()
    run_small("wilcoxon", device=2, backend="auto")
    assert {device.index for device in emulated_cuda.opened} == {2}
    assert emulated_cuda.opened[-1].launches["rank_sums_32"] > 0


@pytest.mark.parametrize("options", [{"device": -1}, {"device": "0"}, {"device_memory": "much"},
                                     {"engine": "threads"}], ids=str)  # fmt: skip
def test_options_that_make_no_sense(emulated_cuda: EmulatedCuda, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        run_small("wilcoxon", **options)
    assert emulated_cuda.opened == []


def test_conditional_t_tests_have_the_bits_of_the_cpu(emulated_cuda: EmulatedCuda) -> None:
    """Small ones are computed from pooled values, whose order differs."""
    groups = np.repeat(np.array(["ref", *GROUPS], object), [500, 5, 8, 20, 167])
    shifted = np.isin(groups, GROUPS[:3])[:, None] & (np.arange(N_GENES) % 2 == 0)
    counts = make_counts() * np.where(shifted, 4, 1)
    for values in (counts, np.log1p(counts / 1.7)):
        data = screen(values.astype(np.float32))
        data.obs["group"] = groups
        asked = {"p_values": "conditional", "columns": ["log10_p"]}
        found = run(data, "t-test", **asked)
        expected = run(data, "t-test", backend="cpu", **asked)
        assert (expected["p_value"] < 1e-3).sum() > 10
        assert_same(found, expected)
