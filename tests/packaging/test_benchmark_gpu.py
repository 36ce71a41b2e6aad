"""benchmarks/gpu.py from end to end, on the emulated device and a tiny screen.

Also imported by a subprocess in which numba, pandas and anndata cannot be: it must not need them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated.backend import EmulatedCuda
from emulated.build import needs_compiler
from emulated.meter import DeviceCsr, EmulatedMeter
from repository import ROOT, SUPPORT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_meter  # noqa: E402
import gpu_screen  # noqa: E402
import gpu_times  # noqa: E402
from gpu_record import RESULTS, TARGETS  # noqa: E402

from pdex_gpu.backends.base import Probed  # noqa: E402
from pdex_gpu.backends.cuda import kernel_set as cuda_kernels  # noqa: E402
from pdex_gpu.backends.cuda import probe  # noqa: E402

TINY = ["--cells", "400", "--genes", "24", "--perturbations", "4", "--slow-rounds", "2"]


def run_emulated(
    *argv: str, plant: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
) -> int:
    """Run the script on an emulated device."""
    with pytest.MonkeyPatch.context() as patch:
        EmulatedCuda().install(patch)
        patch.setattr(gpu_meter, "open_meter", lambda index: EmulatedMeter())
        plant(patch)
        return gpu.main([*TINY, *argv])


@dataclass
class _Run:
    code: int
    record: dict[str, Any]
    table: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> _Run:
    path = tmp_path_factory.mktemp("benchmark") / "record.json"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run_emulated("--rounds", "3", "--h5ad", "--cpu", "--record", str(path))
    return _Run(code, json.loads(path.read_text()), out.getvalue())


@needs_compiler
@pytest.mark.thorough
def test_the_record_says_what_was_run(run: _Run) -> None:
    record = run.record
    assert run.code == 0, record["errors"]
    assert record["errors"] == []
    assert record["emulated"] is True
    assert record["commit"].keys() == {"head", "modified"}
    assert record["device"]["name"] == "emulated device"
    assert {"cpu", "usable_cores", "python"} <= record["machine"].keys()
    assert {"numpy", "scipy", "python", "pdex_gpu"} <= record["versions"].keys()
    screen = record["screen"]
    assert (screen["cells"], screen["genes"], screen["perturbations"]) == (400, 24, 4)
    assert screen["csr_bytes"] == screen["nnz"] * 8 + 401 * 8
    assert record["check"]["passed"] is True
    assert record["check"]["pairs_against_scipy"] == 3 * 48
    forms = {form.split(", ", 1)[1] for form in record["check"]["storage_forms"]}
    assert forms == {"dense by cell", "dense by gene", "CSR", "CSC", "CSR on the device"}


@needs_compiler
def test_every_stage_leaves_its_times(run: _Run) -> None:
    times = run.record["times"]
    assert times.keys() == {
        "upload", "kernels", "phases", "end to end", "device memory", "t-test", "anderson", "cpu",
        "counts", "on the device", "FDR", "storage forms", "h5ad",
    }  # fmt: skip
    for stage, entries in times.items():
        rounds = 2 if stage in ("anderson", "cpu") else 3
        for label, entry in entries.items():
            assert len(entry["times"]) == rounds, (stage, label)
            assert entry["median"] == statistics.median(entry["times"])
    phases = times["phases"]
    parts = ["layout", "sort", "rank sums", "moments", "moments with m2", "Anderson-Darling"]
    for k, total in enumerate(phases["all phases, one by one"]["times"]):
        assert sum(phases[part]["times"][k] for part in parts) == pytest.approx(total)


@needs_compiler
@pytest.mark.parametrize("n_devices", [1, 2])
def test_all_devices_against_one(tmp_path: Path, n_devices: int) -> None:
    path = tmp_path / "record.json"

    def plant(patch: pytest.MonkeyPatch) -> None:
        EmulatedCuda(n_devices=n_devices).install(patch)

    argv = ["--rounds", "2", "--only", "devices", "--devices", "--record", str(path)]
    assert run_emulated(*argv, plant=plant) == 0
    record = json.loads(path.read_text())
    if n_devices == 1:
        assert "devices" not in record["times"]
        assert record["not_measured"]["devices"] == (
            "it takes two CUDA devices that can be used, and there is one"
        )
        return
    labels = set(record["times"]["devices"])
    assert labels == {gpu_times.E2E, f"{gpu_times.E2E}, 2 devices"}
    assert all(len(entry["times"]) == 2 for entry in record["times"]["devices"].values())


@needs_compiler
def test_figures_are_ratios_of_the_times(run: _Run) -> None:
    figures = run.record["figures"]
    assert figures.keys() == TARGETS.keys()
    for name, figure in figures.items():
        assert figure["met"] is None, "an emulated device meets no target"
        assert figure["target"] == TARGETS[name].text
        if name == "end_to_end_vs_rapids":
            assert figure["value"] is None
            assert figure["not_measured"] == "--rapids was not given"
            continue
        stage = run.record["times"][figure["stage"]]
        above, below = (stage[figure[side]]["times"] for side in ("numerator", "denominator"))
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        assert figure["ratios"] == ratios
        assert figure["value"] == statistics.median(ratios)


@needs_compiler
def test_the_table_has_every_target(run: _Run) -> None:
    assert "EMULATED" in run.table
    for target in TARGETS.values():
        assert target.of in run.table
    assert "not measured" in run.table


@needs_compiler
def test_a_spent_budget_leaves_targets_unmeasured(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert run_emulated("--budget", "0", "--record", str(path)) == 0
    record = json.loads(path.read_text())
    assert record["check"]["passed"] is True
    assert record["times"] == {}
    for figure in record["figures"].values():
        assert figure["value"] is None
        assert "budget" in figure["not_measured"] or "not given" in figure["not_measured"]


def _wrong_u(patch: pytest.MonkeyPatch) -> None:
    right = cuda_kernels.CudaKernels.rank_sums

    def rank_sums(self: Any, *args: Any, **options: Any) -> Any:
        found = right(self, *args, **options)
        found.u2[-1, 0] += 1
        return found

    patch.setattr(cuda_kernels.CudaKernels, "rank_sums", rank_sums)


def _wrong_mean(patch: pytest.MonkeyPatch) -> None:
    right = cuda_kernels.CudaKernels.moments

    def moments(self: Any, *args: Any, **options: Any) -> Any:
        found = right(self, *args, **options)
        return replace(found, mean=found.mean * (1 + 1e-9))

    patch.setattr(cuda_kernels.CudaKernels, "moments", moments)


def _wrong_fdr(patch: pytest.MonkeyPatch) -> None:
    right = cuda_kernels.CudaKernels.benjamini_hochberg

    def benjamini_hochberg(self: Any, *args: Any) -> Any:
        return np.nextafter(right(self, *args), 0)

    patch.setattr(cuda_kernels.CudaKernels, "benjamini_hochberg", benjamini_hochberg)


def _wrong_with_little_memory(patch: pytest.MonkeyPatch) -> None:
    right = gpu_times.Bench.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        found = right(self, *args, **options)
        if "device_memory" in options:
            found["p_value"][0, 0] += 1e-3
        return found

    patch.setattr(gpu_times.Bench, "call", call)


@needs_compiler
@pytest.mark.parametrize(
    ("plant", "text"),
    [
        (_wrong_u, "u2 is wrong"),
        (_wrong_mean, "mean is off"),
        (_wrong_fdr, "fdr is wrong"),
        (_wrong_with_little_memory, "device_memory=8GiB: p-value is wrong in 1 "),
    ],
)
def test_wrong_results_are_not_timed(
    plant: Callable[[pytest.MonkeyPatch], None],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "record.json"
    code = run_emulated("--rounds", "1", "--record", str(path), plant=plant)
    assert code == gpu.WRONG_RESULTS
    assert not path.exists()
    said = capsys.readouterr()
    assert text in said.err
    assert "targets" not in said.out


@needs_compiler
def test_a_stage_that_fails_is_recorded(tmp_path: Path) -> None:
    def plant(patch: pytest.MonkeyPatch) -> None:
        def fail(self: Any, matrix: Any) -> Any:
            if matrix.shape[1] == 24:  # the check has fewer genes
                raise RuntimeError("out of luck")
            return DeviceCsr(matrix)

        patch.setattr(EmulatedMeter, "on_device", fail)

    path = tmp_path / "record.json"
    options = ["--only", "on-device", "t-test", "--rounds", "1", "--record", str(path)]
    assert run_emulated(*options, plant=plant) == gpu.FAILED
    record = json.loads(path.read_text())
    assert [error["where"] for error in record["errors"]] == ["on-device"]
    assert "out of luck" in record["errors"][0]["error"]
    assert record["not_measured"]["on-device"] == "it failed; see the errors"
    assert record["figures"]["t_test_vs_wilcoxon"]["value"] is not None
    assert record["figures"]["kernels_vs_copy"]["not_measured"] == "--only left it out"


def test_emulated_times_are_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(gpu, "simulate", lambda sizes: pytest.fail("simulated for nothing"))

    for options in ([], ["--record", str(RESULTS / "gpu.json")]):
        assert run_emulated(*options, plant=plant) == gpu.WRONG_OPTIONS
        assert "emulated" in capsys.readouterr().err
    assert not (RESULTS / "gpu.json").exists()


def test_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "probe", lambda index: Probed(False, "the moon is in the way"))
    monkeypatch.setattr(gpu, "simulate", lambda sizes: pytest.fail("simulated for nothing"))
    assert gpu.main([]) == gpu.NO_DEVICE == 4
    assert "the moon is in the way" in capsys.readouterr().err


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | environment,
    )  # fmt: skip


def test_the_script_without_a_device() -> None:
    done = _python(str(BENCHMARKS / "gpu.py"), CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 4, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("no CUDA device can be used here: ")


_BARE = """
import sys
for name in ("numba", "pandas", "anndata", "pyarrow", "tqdm", "cupy"):
    sys.modules[name] = None  # cannot be imported
sys.path[:0] = {folders!r}
from test_benchmark_gpu import run_emulated
sys.exit(run_emulated("--rounds", "1", "--h5ad", "--cpu", "--record", {record!r}))
"""


@needs_compiler
@pytest.mark.thorough
def test_needs_neither_numba_nor_pandas_nor_anndata(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    folders = [str(Path(__file__).parent), str(SUPPORT)]
    done = _python("-c", _BARE.format(folders=folders, record=str(path)))
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())["figures"]
    assert figures["end_to_end_vs_pinned"]["value"] > 0
    assert figures["kernels_vs_cpu"]["not_measured"] == "numba cannot be imported here"


# --- the screen --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def screen() -> gpu_screen.Screen:
    return gpu_screen.simulate(gpu_screen.Sizes(3_000, 500, 40))


def test_the_screen_does_not_depend_on_threads(screen: gpu_screen.Screen) -> None:
    again = gpu_screen.simulate(screen.sizes, n_threads=1)
    for name in ("log1p", "counts", "indices", "indptr", "codes", "entries"):
        found, expected = getattr(again, name), getattr(screen, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, name)


def test_the_screen_is_what_it_says(screen: gpu_screen.Screen) -> None:
    sizes = screen.sizes
    assert (screen.log1p.dtype, screen.indices.dtype) == (np.float32, np.int32)
    assert screen.indptr.dtype == np.int64
    matrix = screen.matrix("counts")
    assert matrix.shape == (sizes.cells, sizes.genes)
    assert matrix.has_canonical_format
    assert matrix.data.min() >= 1
    assert (matrix.data == np.floor(matrix.data)).all()
    assert 0.38 < screen.nnz / (sizes.cells * sizes.genes) < 0.46
    np.testing.assert_array_equal(screen.entries, np.bincount(screen.indices, minlength=500))
    assert (screen.codes == 0).sum() == 300
    assert np.bincount(screen.codes)[1:].min() >= 67

    total = np.asarray(matrix.sum(axis=1)).ravel()
    row = np.repeat(np.arange(sizes.cells), np.diff(screen.indptr))
    expected = np.log1p(screen.counts * (1e4 / total)[row])
    np.testing.assert_allclose(screen.log1p, expected, rtol=1e-6)

    genes = np.array([499, 0, 7])
    for name, dense in screen.columns(genes).items():
        np.testing.assert_array_equal(dense, screen.matrix(name)[:, genes].toarray())


def test_counts_are_negative_binomial() -> None:
    for mean in (0.01, 0.7, 12.0, 500.0):
        whole, upper = gpu_screen._quantiles(mean).astype(np.float64)
        # The uppermost of the quantiles stands for all of the upper ones.
        values = np.append(whole[:-1], upper)
        weights = np.append(np.full(len(whole) - 1, 1.0), np.full(len(upper), 1.0 / len(upper)))
        found = np.average(values, weights=weights)
        variance = np.average((values - found) ** 2, weights=weights)
        assert found == pytest.approx(mean, rel=0.02)
        assert variance == pytest.approx(mean + 0.3 * mean**2, rel=0.03)


def test_sizes_that_make_no_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--cells", "10", "--genes", "30", "--perturbations", "20"]) == 2
    assert "too few" in capsys.readouterr().err
    assert gpu.main(["--cells", "100", "--genes", "3", "--perturbations", "20"]) == 2
    assert "20 perturbations need as many genes" in capsys.readouterr().err


# --- the peer ----------------------------------------------------------------------------------


def test_the_peer_is_compared(
    screen: gpu_screen.Screen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in for rapids-singlecell that gives scipy's p-values, sorted as it does."""
    pytest.importorskip("anndata")
    import rapids

    from pdex_gpu.api import differential_expression

    ours = differential_expression(
        screen.dataset(screen.matrix()), gpu_screen.GROUPBY, backend="numpy", progress=False
    )
    error = 0.0

    def rank(adata: Any, groupby: str, *, reference: str, **options: Any) -> None:
        assert options == {"method": "wilcoxon", "tie_correct": True, "use_continuity": True}
        assert (adata.obs[groupby] == reference).sum() == 300
        assert adata.X.nnz == screen.nnz
        names, p_values = {}, {}
        for t, target in enumerate(ours.targets):
            order = np.argsort(ours["statistic"][t])
            names[target] = ours.features[order]
            p_values[target] = ours["p_value"][t, order] * (1 + error)
        adata.uns["rank_genes_groups"] = {"names": names, "pvals": p_values}

    monkeypatch.setattr(rapids, "load", lambda folder: rank)
    info = tmp_path / "rapids_singlecell_cu12-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: x\nVersion: 9.9\n")
    peer = rapids.Peer(tmp_path, screen)
    assert peer.version == "9.9"
    peer.call()
    assert peer.agreement(ours)["agrees"] is True
    error = 0.01
    peer.call()
    agreement = peer.agreement(ours)
    assert agreement["agrees"] is False
    assert agreement["largest_relative_difference"] == pytest.approx(0.01)


def test_a_folder_without_the_peer(tmp_path: Path) -> None:
    import rapids

    with pytest.raises(FileNotFoundError, match="unpack its wheel"):
        rapids.load(tmp_path)
