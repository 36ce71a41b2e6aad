"""An object may stand where the name of a backend does, and carries its options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pdex_gpu
from pdex_gpu import Cpu, Cuda, Numpy
from pdex_gpu.backends.base import Device, Probed
from pdex_gpu.backends.cuda import kernel_set, probe
from pdex_gpu.backends.registry import ENVIRONMENT, choose_backend, load_kernels
from pdex_gpu.errors import OptionError
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The devices and memory that CUDA kernel sets were opened with, on a made-up machine."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        probe, "probe", lambda index=None: Probed(True, "fine", (Device(index or 0, "GPU"),))
    )
    monkeypatch.setattr(kernel_set, "open_kernels", lambda *args: found.append(args))
    return found


@pytest.fixture(scope="module")
def screen() -> Any:
    return simulate_screen(200, 12, 3, mean_umi=300, seed=5).to_anndata()


def test_cuda_devices_and_memory(opened: list[tuple[Any, Any]]) -> None:
    assert choose_backend(Cuda()).devices == (Device(0, "GPU"),)
    assert choose_backend(Cuda(device=[0, 2])).devices == (Device(0, "GPU"), Device(2, "GPU"))
    assert choose_backend(Cuda(), 3).reason == "backend='cuda' was requested"
    load_kernels(Cuda(device=1, memory="40GB"))
    load_kernels(Cuda(), 2, 0.5)
    assert opened == [(1, "40GB"), (2, 0.5)]


@pytest.mark.parametrize(("given", "name"), [(Cpu(), "cpu"), (Numpy(), "numpy")])
def test_the_calls_take_an_object(screen: Any, given: Any, name: str) -> None:
    options = {"reference": REFERENCE, "progress": False}
    one, other = (
        pdex_gpu.differential_expression(screen, GROUPBY, backend=backend, **options)
        for backend in (given, name)
    )
    np.testing.assert_array_equal(one["p_value"], other["p_value"])
    del one.provenance["seconds"], other.provenance["seconds"]
    assert one.provenance == other.provenance
    made = pdex_gpu.calibrate(screen, GROUPBY, reference=REFERENCE, backend=given, progress=False)
    assert made.metric == "wilcoxon"
    assert pdex_gpu.estimate(screen, GROUPBY, backend=given, timing=False).backend == name


def test_an_option_is_given_once(screen: Any) -> None:
    for options, says in (
        ({"device": 0}, r"^device=0 is also set by backend=Cuda\(device=\[0, 1\], memory='40GB'\)"),
        ({"device_memory": 0.5}, r"^device_memory=0\.5 is also set by backend=Cuda\("),
    ):
        cuda = Cuda(device=[0, 1], memory="40GB")
        with pytest.raises(OptionError, match=says + r".*\. Pass only one of them\.$"):
            pdex_gpu.differential_expression(screen, GROUPBY, backend=cuda, **options)
    with pytest.raises(OptionError, match="device=0 selects a CUDA device, but backend='cpu'"):
        pdex_gpu.differential_expression(screen, GROUPBY, backend=Cpu(), device=0)


@pytest.mark.parametrize("bad", [{"device": -1}, {"device": []}, {"memory": "much"}])
def test_bad_values_in_an_object(screen: Any, bad: dict[str, Any]) -> None:
    (name,) = bad
    option = {"device": "device", "memory": "device_memory"}[name]
    with pytest.raises(OptionError, match=f"^{option}="):
        pdex_gpu.differential_expression(screen, GROUPBY, backend=Cuda(**bad))


def test_a_class_or_the_old_name_is_no_backend(screen: Any) -> None:
    with pytest.raises(OptionError, match=r"^backend=.* must be text"):
        pdex_gpu.differential_expression(screen, GROUPBY, backend=Cuda)
    with pytest.raises(OptionError, match=r"Unknown backend 'reference'\..*'auto', 'cuda', 'cpu',"):
        pdex_gpu.differential_expression(screen, GROUPBY, backend="reference")
