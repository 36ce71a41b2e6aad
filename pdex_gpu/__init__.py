"""Differential expression for single-cell perturbation screens, on CPUs and GPUs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import pl
    from .aggregation.aggregate import pseudobulk
    from .aggregation.deseq2 import pseudobulk_dex
    from .api import differential_expression
    from .backends.options import Cpu, Cuda, Numpy
    from .backends.registry import backends
    from .calibration.result import Calibration
    from .calibration.run import calibrate
    from .compat.pdex_0_1 import parallel_differential_expression
    from .compat.pdex_0_3 import pdex
    from .compat.scanpy import rank_genes_groups
    from .estimation.estimate import Estimate, estimate
    from .request.engines import Dask
    from .results.file import ResultFile
    from .results.memory import DEResult
    from .results.opening import open_result
    from .stats.two_sample.anderson_darling import AndersonDarling
    from .stats.two_sample.kolmogorov_smirnov import KolmogorovSmirnov
    from .stats.two_sample.t_test import TTest
    from .stats.two_sample.wilcoxon import Wilcoxon
    from .utils.progress import Progress

# Public names and their modules. They are imported on first use: importing the package is quick.
_WHERE = {
    "AndersonDarling": "stats.two_sample.anderson_darling",
    "Calibration": "calibration.result",
    "Cpu": "backends.options",
    "Cuda": "backends.options",
    "DEResult": "results.memory",
    "Dask": "request.engines",
    "Estimate": "estimation.estimate",
    "KolmogorovSmirnov": "stats.two_sample.kolmogorov_smirnov",
    "Progress": "utils.progress",
    "Numpy": "backends.options",
    "ResultFile": "results.file",
    "TTest": "stats.two_sample.t_test",
    "Wilcoxon": "stats.two_sample.wilcoxon",
    "backends": "backends",
    "calibrate": "calibration.run",
    "differential_expression": "api",
    "estimate": "estimation.estimate",
    "open_result": "results.opening",
    "parallel_differential_expression": "compat.pdex_0_1",
    "pdex": "compat.pdex_0_3",
    "pl": "pl",
    "pseudobulk": "aggregation.aggregate",
    "pseudobulk_dex": "aggregation.deseq2",
    "rank_genes_groups": "compat.scanpy",
}

__all__ = [
    "AndersonDarling",
    "Calibration",
    "Cpu",
    "Cuda",
    "DEResult",
    "Dask",
    "Estimate",
    "KolmogorovSmirnov",
    "Numpy",
    "Progress",
    "ResultFile",
    "TTest",
    "Wilcoxon",
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
