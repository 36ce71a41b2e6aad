"""Backends and engines by name: the list with reasons, the choice, and that neither costs."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import types

import pytest
from repository import ROOT

import pdex_gpu
from pdex_gpu.backends import cuda, registry
from pdex_gpu.backends.base import Probed
from pdex_gpu.backends.registry import BackendInfo, choose_backend, load_engine, load_kernels
from pdex_gpu.errors import BackendError, OptionError
from pdex_gpu.simulate import GROUPBY, simulate_screen


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make it look as if these packages were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in packages else real(name, *a)
    )


def test_the_list():
    gpu, cpu, numpy = pdex_gpu.backends()
    assert [b.name for b in (gpu, cpu, numpy)] == ["cuda", "cpu", "numpy"]
    assert all(isinstance(b, BackendInfo) for b in (gpu, cpu, numpy))
    for backend in (cpu, numpy):
        assert backend.usable
        assert backend.device.startswith("CPU")
        assert backend.engines == ("threads", "shared_memory", "serial")
    assert gpu.engines == ("streams",)
    assert gpu.reason
    assert gpu.usable == bool(gpu.device) == bool(gpu.devices)
    assert "numba" in cpu.reason
    assert "scipy" in numpy.reason
    assert pdex_gpu.backends() == registry.backends()


def test_pdex_gpu_backends_can_be_called_whatever_was_imported_before():
    """It is also the name of a package, which importing binds to the same name."""
    for before in (
        "pass", "import pdex_gpu.backends.contract", "import pdex_gpu.backends.registry",
        "import pdex_gpu.api", "pdex_gpu.differential_expression", "from pdex_gpu import backends",
    ):  # fmt: skip
        after = "import pdex_gpu.backends.registry as r; assert pdex_gpu.backends() == r.backends()"
        fresh(f"import pdex_gpu; {before}; assert pdex_gpu.backends(); {after}")


def test_cuda_lists_every_cause(monkeypatch):
    """Each cause has its test in test_cuda_probe.py."""
    without(monkeypatch, "cupy")
    monkeypatch.setattr("pdex_gpu.backends.cuda.probe._usable", {})
    gpu = pdex_gpu.backends()[0]
    assert not gpu.usable
    assert gpu.device == ""
    assert "CuPy is not installed" in gpu.reason
    with pytest.raises(BackendError) as caught:
        choose_backend("cuda")
    assert str(caught.value) == (
        f"backend='cuda' was requested, but it cannot run here: {gpu.reason}"
    )


def test_auto_takes_the_first_that_can_run_and_says_why_not_the_others():
    listed = {b.name: b for b in pdex_gpu.backends()}
    chosen = choose_backend()
    if listed["cuda"].usable:
        pytest.skip("CUDA is usable here")
    assert (chosen.name, chosen.usable) == ("cpu", True)
    assert chosen.reason.startswith("auto: compiled with numba; cuda not usable: ")
    assert listed["cuda"].reason.rstrip(".") in chosen.reason
    assert (chosen.device, chosen.engines) == (listed["cpu"].device, listed["cpu"].engines)


def test_auto_without_numba(monkeypatch):
    without(monkeypatch, "numba", "cupy")
    monkeypatch.setattr("pdex_gpu.backends.cuda.probe._usable", {})
    cpu = pdex_gpu.backends()[1]
    assert not cpu.usable
    assert "numba is not installed. Run: pip install numba" in cpu.reason
    chosen = choose_backend("auto")
    assert chosen.name == "numpy"
    assert "cuda not usable" in chosen.reason
    assert "cpu not usable: numba is not installed" in chosen.reason
    with pytest.raises(BackendError, match="pip install numba"):
        choose_backend("cpu")


@pytest.mark.parametrize("name", ["cpu", "numpy"])
def test_a_backend_by_name(name):
    chosen = choose_backend(name)
    assert chosen.name == name
    assert chosen.reason == f"backend='{name}' was requested"


def test_the_environment_overrides_auto_alone(monkeypatch):
    monkeypatch.setenv("PDEX_GPU_BACKEND", "numpy")
    chosen = choose_backend()
    assert chosen.name == "numpy"
    assert chosen.reason == "PDEX_GPU_BACKEND=numpy was requested"
    assert choose_backend("cpu").name == "cpu"
    monkeypatch.setenv("PDEX_GPU_BACKEND", "")
    assert choose_backend().reason.startswith("auto: ")
    monkeypatch.setenv("PDEX_GPU_BACKEND", "auto")
    assert choose_backend().reason.startswith("auto: ")
    monkeypatch.setenv("PDEX_GPU_BACKEND", "fpga")
    with pytest.raises(OptionError, match="'fpga'"):
        choose_backend()


def test_one_line_says_why_not_cuda(monkeypatch, caplog):
    why = "there is no device"
    backend = dataclasses.replace(cuda.BACKEND, probe=lambda _: Probed(False, why))
    monkeypatch.setattr(cuda, "BACKEND", backend)
    screen = simulate_screen(60, 5, 2, seed=1).to_anndata()
    with caplog.at_level("INFO", "pdex_gpu"):
        result = pdex_gpu.differential_expression(screen, GROUPBY, progress=False)
    lines = [r for r in caplog.records if "cuda" in r.getMessage()]
    assert [r.levelname for r in lines] == ["INFO"]
    assert lines[0].getMessage().endswith(f"compiled with numba; cuda not usable: {why}")
    assert result.provenance["backend_reason"].endswith(why)


@pytest.mark.parametrize("name", ["cpu", "numpy"])
def test_a_device_of_a_backend_without_devices(name):
    with pytest.raises(OptionError, match=rf"device=0 .* but backend='{name}' was requested"):
        choose_backend(name, 0)
    with pytest.raises(OptionError, match=r"device=0 .* Leave device= out, or pass backend='cuda'"):
        pdex_gpu.differential_expression("none.h5ad", "group", backend=name, device=0)


def test_device_and_its_memory_are_checked_before_data_are_read():
    with pytest.raises(OptionError, match="device=-1 must be the number of a CUDA device"):
        pdex_gpu.differential_expression("none.h5ad", "group", device=-1)
    for size in ("much", 0, -1.0, True, [1]):
        with pytest.raises(OptionError, match=r"^device_memory=.* is not a size"):
            pdex_gpu.differential_expression("none.h5ad", "group", device_memory=size)


def test_cuda_kernels_are_opened_on_the_device_that_was_found(monkeypatch):
    opened = []
    module = types.SimpleNamespace(open_kernels=lambda *args: opened.append(args))
    monkeypatch.setitem(sys.modules, "pdex_gpu.backends.cuda.kernel_set", module)
    monkeypatch.setattr(
        "pdex_gpu.backends.cuda.probe.usable_device", lambda device: 3 if device is None else device
    )
    load_kernels("cuda", None, "8GB")
    load_kernels("cuda", 1)
    assert opened == [(3, "8GB"), (1, None)]


def test_unknown_backend():
    with pytest.raises(OptionError, match=r"Unknown backend 'cdua'\. Did you mean 'cuda'\?"):
        choose_backend("cdua")


def test_kernels_and_engines_are_where_the_registry_says():
    for backend in pdex_gpu.backends():
        if backend.usable:
            kernels = load_kernels(backend.name)
            assert kernels.name == backend.name
            for engine in backend.engines:
                assert engine in registry.ENGINES
    for name in registry.ENGINES:
        engine = load_engine(name)
        assert callable(engine.open_cluster if name == "dask" else engine.run)


def test_the_documentation_says_what_each_is():
    page = (ROOT / "docs" / "backends.md").read_text()
    for name in registry.BACKENDS:
        assert f"| `{name}` | {registry.describe(name).summary} |" in page


# --- nothing is imported for nothing --------------------------------------------------------

HEAVY = {"numba", "llvmlite", "cupy", "scipy", "h5py", "anndata", "pandas", "pyarrow"}


def fresh(script: str) -> set[str]:
    """Names of the modules that are loaded once `script` has run in a process of its own.

    It sees no CUDA device: where there is one, CuPy has to be imported to see whether it runs.
    """
    code = f"import sys\n{script}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "script",
    [
        "import pdex_gpu; pdex_gpu.backends()",
        "from pdex_gpu.backends.registry import choose_backend; choose_backend()",
        "from pdex_gpu.backends.registry import choose_backend; choose_backend('cpu')",
    ],
)
def test_listing_and_choosing_import_nothing_heavy(script):
    loaded = fresh(script)
    assert "pdex_gpu.backends.registry" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert not any(name.startswith("pdex_gpu.backends.cpu.kernel_set") for name in loaded)


def test_the_numpy_kernel_set_needs_no_numba():
    loaded = fresh("from pdex_gpu.backends.registry import load_kernels; load_kernels('numpy')")
    assert "pdex_gpu.backends.numpy.kernel_set" in loaded
    assert loaded.isdisjoint({"numba", "cupy", "anndata", "pandas"})


def test_loading_a_kernel_set_imports_it():
    """What the tests above look for can be found."""
    loaded = fresh("from pdex_gpu.backends.registry import load_kernels; load_kernels('cpu')")
    assert {"numba", "pdex_gpu.backends.cpu.kernel_set"} <= loaded
