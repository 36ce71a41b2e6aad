"""A backend of another distribution: defined here, and added without touching the package."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import pdex_gpu
from pdex_gpu.backends.base import CPU_ENGINES, AskedDevices, AskedMemory, Backend, Device, Probed
from pdex_gpu.backends.numpy import kernel_set
from pdex_gpu.backends.options import BackendOptions
from pdex_gpu.backends.registry import (
    ENVIRONMENT,
    GROUP,
    choose_backend,
    compile_kernels,
    load_kernels,
    names,
    on_host,
)
from pdex_gpu.cli import main
from pdex_gpu.doctor import backends as doctor_backends
from pdex_gpu.errors import BackendError, OptionError
from pdex_gpu.pipeline import into_file
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen

OPENED: list[tuple[AskedDevices, AskedMemory]] = []


def open_abacus(devices: AskedDevices, memory: AskedMemory) -> Any:
    OPENED.append((devices, memory))
    return types.SimpleNamespace(**vars(kernel_set) | {"name": "abacus"})


ABACUS = Backend(
    name="abacus",
    summary="beads on wires",
    engines=CPU_ENGINES,
    probe=lambda devices: Probed(True, "wood is always there", (Device(None, "an abacus"),)),
    open=open_abacus,
    compilers=("maker_of_abaci",),
    runs_pairs=True,
    caveat="Beads may stick.",
)

#: One that chooses among devices and compiles ahead of time.
RACK = replace(
    ABACUS,
    name="rack",
    has_devices=True,
    probe=lambda asked: Probed(True, f"asked for {asked}", (Device(0, "an abacus"),)),
    compile=lambda device, architectures: [("beads", str(device), True)],
)


@dataclass(frozen=True)
class Rack(BackendOptions):
    """A rack of abaci, as an object."""

    name: ClassVar[str] = "rack"
    wires: tuple[int, ...] = ()

    @property
    def devices(self) -> tuple[int, ...]:
        return self.wires


NOT_A_BACKEND = "beads"
MISNAMED = replace(ABACUS, name="slide rule")
WITHOUT_ENGINE = replace(ABACUS, name="without_engine", engines=("steam",))


def _fails(_: AskedDevices) -> Probed:
    raise RuntimeError("the beads fell off")


FALLEN = replace(ABACUS, name="fallen", probe=_fails)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    OPENED.clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a distribution whose entry points name objects of this module, or others."""

    def do(**entries: str) -> None:
        folder = tmp_path / "site"
        info = folder / "abaci-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abaci\nVersion: 1.5\n")
        lines = [f"{name} = {value.format(here=__name__)}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(folder)

    return do


@pytest.fixture
def abacus(install: Any) -> None:
    install(abacus="{here}:ABACUS")


@pytest.fixture(scope="module")
def screen() -> Any:
    return simulate_screen(200, 12, 3, mean_umi=300, seed=5).to_anndata()


def run(screen: Any, **options: Any) -> Any:
    given = {"reference": REFERENCE, "progress": False, "columns": "all"} | options
    return pdex_gpu.differential_expression(screen, GROUPBY, **given)


@pytest.mark.usefixtures("abacus")
def test_it_is_listed_after_those_of_the_package() -> None:
    assert names() == ["cuda", "cpu", "numpy", "abacus"]
    found = pdex_gpu.backends()[-1]
    assert (found.name, found.usable, found.reason) == ("abacus", True, "wood is always there")
    assert (found.device, found.devices) == ("an abacus", (Device(None, "an abacus"),))
    assert found.engines == CPU_ENGINES


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson", "ks"])
def test_it_gives_the_bits_of_the_kernels_that_it_wraps(screen: Any, metric: str) -> None:
    found, wanted = (run(screen, metric=metric, backend=name) for name in ("abacus", "numpy"))
    assert len(OPENED) == 1
    assert list(found.columns) == list(wanted.columns)
    for name in wanted.columns:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert found.provenance["backend"] == "abacus"
    assert found.provenance["backend_reason"] == "backend='abacus' was requested"
    assert found.provenance["device"] == "an abacus"
    assert found.provenance["engine"] == "threads"


@pytest.mark.usefixtures("abacus")
def test_options_that_other_kernels_lack_run_on_it(screen: Any) -> None:
    assert run(screen, backend="abacus", nan_policy="omit").provenance["backend"] == "abacus"


@pytest.mark.usefixtures("abacus")
def test_it_is_in_the_identity_and_in_the_report(
    screen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        sys.modules, "maker_of_abaci", types.SimpleNamespace(__name__="maker", __version__="3.1")
    )
    made = []
    real = into_file.run_identity
    monkeypatch.setattr(into_file, "run_identity", lambda *a: made.append(real(*a)) or made[-1])
    result = run(screen, backend="abacus", out=tmp_path / "de.parquet")
    (identity,) = made
    assert (identity["backend"], identity["device"]) == ("abacus", "an abacus")
    assert identity["version of maker"] == "3.1"
    assert result.provenance["versions"]["maker"] == "3.1"
    page = result.report(tmp_path / "report.html")
    assert ABACUS.caveat in page.read_text()


@pytest.mark.usefixtures("abacus")
def test_the_command_line_has_it(
    screen: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert names()[-1] == "abacus"
    assert main(["backends"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == ["abacus", "yes", "an", "abacus", "wood", "is", "always", "there"]
    assert main(["backends", "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["backends"][-1]
    assert (last["name"], last["device"]) == ("abacus", "an abacus")
    screen.write_h5ad(tmp_path / "screen.h5ad")
    out = tmp_path / "de.parquet"
    argv = ["run", str(tmp_path / "screen.h5ad"), "-o", str(out), "--groupby", GROUPBY]
    assert main([*argv, "--backend", "abacus"]) == 0
    assert pdex_gpu.open_result(out).provenance["backend"] == "abacus"


@pytest.mark.usefixtures("abacus")
def test_the_doctor_examines_it() -> None:
    (check,) = doctor_backends.checks()
    assert (check.name, check.status) == ("abacus", "ok")
    assert check.found == "an abacus: wood is always there"


def test_the_doctor_says_nothing_where_there_are_no_others() -> None:
    assert list(doctor_backends.checks()) == []


@pytest.mark.usefixtures("abacus")
def test_it_is_taken_by_name_or_variable_and_not_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend().name in ("cuda", "cpu")
    assert on_host().name == "cpu"
    with pytest.raises(OptionError, match=r"Unknown backend 'abacos'\. Did you mean 'abacus'\?"):
        choose_backend("abacos")
    with pytest.raises(OptionError, match="device=0 selects a CUDA device, but backend='aba"):
        choose_backend("abacus", 0)
    monkeypatch.setenv(ENVIRONMENT, "abacus")
    assert choose_backend().reason == f"{ENVIRONMENT}=abacus was requested"


def test_one_with_devices_and_options_of_its_own(install: Any) -> None:
    install(rack="{here}:RACK")
    assert choose_backend("rack", [0, 3]).devices == (Device(0, "an abacus"),)
    load_kernels("rack", [0, 3], "8GB")
    load_kernels(Rack((4, 5)))
    assert OPENED == [((0, 3), "8GB"), ((4, 5), None)]
    assert choose_backend("rack", "all").reason == "backend='rack' was requested; asked for all"


def test_one_that_compiles(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pdex_gpu.backends import cuda

    install(rack="{here}:RACK")
    monkeypatch.setattr(cuda, "BACKEND", replace(cuda.BACKEND, compile=None))
    assert compile_kernels(2) == [("beads", "2", True)]


def test_a_name_of_this_package_cannot_be_taken(install: Any) -> None:
    install(numpy="{here}:ABACUS")
    assert names() == ["cuda", "cpu", "numpy"]
    assert choose_backend("numpy").device.startswith("CPU")


WHERE = "The entry point {name} = '{value}' of abaci 1.5 "


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "gone",
            "no_such_module:BACKEND",
            "cannot be loaded (ModuleNotFoundError: No module named",
        ),
        ("empty", "{here}:NOTHING", "cannot be loaded (AttributeError: "),
        ("text", "{here}:NOT_A_BACKEND", "is 'beads', not a pdex_gpu.backends.base.Backend."),
        ("other", "{here}:MISNAMED", "describes a backend of another name, 'slide rule'."),
        ("without_engine", "{here}:WITHOUT_ENGINE", "names engines ('steam',); there are threads,"),
        ("fallen", "{here}:FALLEN", "its probe failed (RuntimeError: the beads fell off)"),
    ],
)
def test_a_broken_one_is_reported_and_stops_no_other(
    install: Any, screen: Any, name: str, value: str, says: str
) -> None:
    install(**{name: value})
    found = pdex_gpu.backends()[-1]
    assert (found.name, found.usable, found.device) == (name, False, "")
    assert says in found.reason
    where = WHERE.format(name=name, value=value.format(here=__name__))
    assert found.reason.startswith(where) == (name != "fallen")
    for asked in ({}, {"backend": "auto"}, {"backend": "numpy"}):
        assert run(screen, **asked).n_rows
    with pytest.raises(BackendError) as caught:
        run(screen, backend=name)
    assert str(caught.value) == (
        f"backend={name!r} was requested, but it cannot run here: {found.reason}"
    )
    assert main(["backends"]) == 0
    (check,) = doctor_backends.checks()
    assert (check.name, check.status, check.found) == (name, "problem", found.reason)
    assert not check.required
