"""Differential expression for single-cell perturbation screens, on CPUs and GPUs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import pl
    from .aggregate import pseudobulk
    from .api import differential_expression
    from .backends.registry import backends
    from .calibration import calibrate
    from .calibration_result import Calibration
    from .compat import parallel_differential_expression
    from .compat_modes import pdex
    from .compat_scanpy import rank_genes_groups
    from .deseq import pseudobulk_dex
    from .estimation import Estimate, estimate
    from .result import DEResult
    from .result_file import ResultFile, open_result

# Public names and their modules. They are imported on first use: importing the package is quick.
_WHERE = {
    "Calibration": "calibration_result",
    "DEResult": "result",
    "Estimate": "estimation",
    "ResultFile": "result_file",
    "backends": "backends",
    "calibrate": "calibration",
    "differential_expression": "api",
    "estimate": "estimation",
    "open_result": "result_file",
    "parallel_differential_expression": "compat",
    "pdex": "compat_modes",
    "pl": "pl",
    "pseudobulk": "aggregate",
    "pseudobulk_dex": "deseq",
    "rank_genes_groups": "compat_scanpy",
}

__all__ = [
    "Calibration",
    "DEResult",
    "Estimate",
    "ResultFile",
    "__version__",
    "backends",
    "calibrate",
    "differential_expression",
    "estimate",
    "open_result",
    "parallel_differential_expression",
    "pdex",
    "pl",
    "pseudobulk",
    "pseudobulk_dex",
    "rank_genes_groups",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: Any = importlib.import_module(f".{_WHERE[name]}", __name__)
    if name != _WHERE[name]:  # `pl` and `backends` are packages themselves (the latter callable)
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
