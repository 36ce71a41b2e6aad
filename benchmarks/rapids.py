"""rapids-singlecell's GPU `rank_genes_groups`, measured next to pdex_gpu.

Its wheel imports cuml, cuvs, scanpy and more at the top, none of which differential expression
needs. :func:`load` replaces those by stand-ins that raise when touched. Needed for real: Python
3.12 or later, cupy, numpy, scipy, pandas, anndata, dask, scverse-misc, pydantic-settings, and
libcudart.so.12 on the loader's path (set LD_LIBRARY_PATH before Python starts). Of the wheel
(rapids-singlecell-cu12 0.18.1) are needed `rapids_singlecell/**/*.py` and, under `_cuda/`,
`_aggr_cuda`, `_mean_var_cuda`, `_rank_stats_cuda`, `_rank_stream_cuda`, `_sparse2dense_cuda`,
`_wilcoxon_cuda` and `_wilcoxon_sparse_cuda`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu_screen import GROUPBY, REFERENCE, Screen

_PACKAGE = "rapids_singlecell"
_STAND_INS = (
    "cuml", "cugraph", "cuvs", "cudf", "pylibraft", "raft_dask", "dask_cudf", "dask_cuda", "rmm",
    "scanpy", "sklearn", "numba", "matplotlib", "statsmodels", "skimage",
    f"{_PACKAGE}.preprocessing",
)  # fmt: skip
_N_TARGETS = 20
_TOLERANCE = 1e-3  # relative, of p-values: its z-scores may be of float32
_SMALLEST = 1e-280  # p-values below it are of few digits


class Disagreement(Exception):
    """The peer computes something else."""


class _StandIn(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012 (an import hook reads it as every package has it)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        where = f"{self.__name__}.{name}"

        class Missing:
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                raise RuntimeError(f"{where} is a stand-in: the real package is not installed")

        return Missing


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if any(name == s or name.startswith(s + ".") for s in _STAND_INS):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def load(folder: Path) -> Callable[..., None]:
    """`rank_genes_groups` of the wheel that was unpacked in `folder`."""
    if not (folder / _PACKAGE).is_dir():
        raise FileNotFoundError(f"there is no {_PACKAGE} in {folder}: unpack its wheel there")
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, _Finder())
    for name in (_PACKAGE, f"{_PACKAGE}.tools"):
        package = _StandIn(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    module = importlib.import_module(f"{_PACKAGE}.tools._rank_genes_groups")
    return module.rank_genes_groups  # type: ignore[no-any-return]


class Peer:
    """The peer with the screen as an AnnData.

    Attributes
    ----------
    version : str
    """

    def __init__(self, folder: Path, screen: Screen) -> None:
        import anndata
        import pandas as pd
        from scipy import sparse

        self.version = _version(folder)
        self._rank = load(folder)
        self._sizes = screen.sizes
        labels = pd.Categorical.from_codes(screen.codes, categories=pd.Index(screen.names))
        cells = pd.RangeIndex(screen.sizes.cells).astype(str)
        matrix = sparse.csr_matrix(screen.arrays, shape=(screen.sizes.cells, screen.sizes.genes))
        self._adata = anndata.AnnData(
            matrix,
            obs=pd.DataFrame({GROUPBY: labels}, index=cells),
            var=pd.DataFrame(index=pd.Index(screen.genes)),
            uns={"log1p": {"base": None}},
        )

    def call(self) -> None:
        """The exact Wilcoxon test of all groups against the reference."""
        self._rank(
            self._adata, GROUPBY, reference=REFERENCE, method="wilcoxon", tie_correct=True,
            use_continuity=True,
        )  # fmt: skip

    def agreement(self, ours: Any) -> dict[str, Any]:
        """Return how far the p-values of its last call are from those of a `DEResult`."""
        found = self._adata.uns["rank_genes_groups"]
        column = {gene: j for j, gene in enumerate(ours.features)}
        rows = np.unique(np.linspace(0, len(ours.targets) - 1, _N_TARGETS).round().astype(int))
        worst, n_compared = 0.0, 0
        for t in rows.tolist():
            target = str(ours.targets[t])
            theirs = np.asarray(found["pvals"][target], np.float64)
            mine = ours["p_value"][t, [column[gene] for gene in found["names"][target]]]
            used = mine > _SMALLEST
            off = np.abs(theirs[used] - mine[used]) / mine[used]
            worst = max(worst, float(np.nan_to_num(off, nan=np.inf).max(initial=0.0)))
            n_compared += int(used.sum())
        return {
            "p_values_compared": n_compared,
            "largest_relative_difference": worst,
            "tolerance": _TOLERANCE,
            "agrees": worst <= _TOLERANCE and n_compared > 0,
        }


def _version(folder: Path) -> str:
    for file in folder.glob(f"{_PACKAGE}*.dist-info/METADATA"):
        found = re.search(r"^Version: (\S+)", file.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return "of unknown version"
