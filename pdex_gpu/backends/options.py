"""Backends as objects with their options, which may stand where ``backend=`` takes a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import OptionError, shown
from ..utils.keywords import known_keywords_of_init


@dataclass(frozen=True)
class BackendOptions:
    """A backend and its options; each backend has a class of its own."""

    name: ClassVar[str]

    @property
    def devices(self) -> Any:
        """Return the devices to use, as ``device=`` takes them."""
        return None

    @property
    def devices_memory(self) -> Any:
        """Return the most memory to use on each device, as ``device_memory=`` takes it."""
        return None


@known_keywords_of_init
@dataclass(frozen=True)
class Cuda(BackendOptions):
    """CUDA kernels.

    Parameters
    ----------
    device : int, list of int, or "all", optional
        Number of a CUDA device, numbers of several, or all that can be used; by default the first
        that can be used.
    memory : str, int or float, optional
        Most memory to use on each device: ``"40GB"``, bytes, or a fraction of the free memory; by
        default 90 % of it.
    """

    name: ClassVar[str] = "cuda"
    device: int | Sequence[int] | str | None = None
    memory: str | int | float | None = None

    @property
    def devices(self) -> int | Sequence[int] | str | None:
        return self.device

    @property
    def devices_memory(self) -> str | int | float | None:
        return self.memory


@known_keywords_of_init
@dataclass(frozen=True)
class Cpu(BackendOptions):
    """Kernels that numba compiles for the processors of this machine."""

    name: ClassVar[str] = "cpu"


@known_keywords_of_init
@dataclass(frozen=True)
class Numpy(BackendOptions):
    """numpy and scipy, one pair of samples at a time."""

    name: ClassVar[str] = "numpy"


def unpacked(backend: Any, device: Any = None, device_memory: Any = None) -> tuple[Any, Any, Any]:
    """Return the name of a backend, its devices and their memory, from an object or a name.

    Raises
    ------
    OptionError
        If an option is given twice, in the object and next to it.
    """
    if not isinstance(backend, BackendOptions):
        return backend, device, device_memory
    found = []
    for option, inside, outside in (
        ("device", backend.devices, device),
        ("device_memory", backend.devices_memory, device_memory),
    ):
        if inside is not None and outside is not None:
            raise OptionError(
                f"{option}={shown(outside)} is also set by backend={shown(backend)}. Pass only one "
                "of them."
            )
        found.append(outside if inside is None else inside)
    return backend.name, found[0], found[1]
