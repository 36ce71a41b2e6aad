"""One tool in one process: loads data, runs calls, answers over a pipe.

Run by the project's own Python for pdex_gpu and by the peers' Python for every peer, so it uses
nothing but the standard library and numpy until a tool is loaded. A request is one line of JSON
on standard input, ``{"op": name, ...}``; the answer is one line on what was standard output,
``{"ok": true, ...}`` or ``{"ok": false, "error": text}``. What a tool prints goes to standard
error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
GROUPBY = "target_gene"
REFERENCE = "non-targeting"

ARRAYS = ("data", "indices", "indptr")

LIBRARIES = (
    "numpy", "scipy", "anndata", "pandas", "numba", "llvmlite", "h5py", "pyarrow", "polars",
)  # fmt: skip


# --------------------------------------------------------------------------------------
# Adapters: how each tool is called, and where it keeps its p-values
# --------------------------------------------------------------------------------------


class Tool:
    """A tool under test; a subclass says how one call looks."""

    distribution: str
    version: str | None = None  # where the tool is not an installed distribution

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def open(self, path: str) -> Any:
        """Return what the tool takes for an h5ad file that is not read whole before the call."""
        import anndata

        return anndata.read_h5ad(path, backed="r")

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        """The timed call; returns what the tool returns."""
        raise NotImplementedError

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        """`column` (``p_value`` or ``statistic``) of (target, gene) pairs of a result."""
        raise NotImplementedError

    def n_rows(self, result: Any) -> int:
        return len(result)


def _from_table(table: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
    """Values of a table with the columns ``target`` and ``feature``."""
    wanted = {target for target, _ in pairs}
    targets = table["target"].astype(str)
    part = table[targets.isin(wanted)]
    values = dict(
        zip(
            zip(part["target"].astype(str), part["feature"].astype(str), strict=True),
            part[column],
            strict=True,
        )
    )
    return [float(values[pair]) for pair in pairs]


class PdexGpu(Tool):
    distribution = "pdex-gpu"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        sys.path.insert(0, str(REPOSITORY))  # this checkout, whatever is installed
        import pdex_gpu

        self.version = getattr(pdex_gpu, "__version__", None)
        self.call = pdex_gpu.differential_expression

    def open(self, path: str) -> Any:
        return path

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        # The kind that peers compute: scipy's, and so pdex's, for Anderson-Darling.
        kind = "interpolated" if metric == "anderson" else "asymptotic"
        options = {"p_values": kind, **options}
        return self.call(
            adata,
            groupby=GROUPBY,
            reference=REFERENCE,
            metric=metric,
            backend="cpu",
            is_log1p=is_log1p,
            progress=False,
            **{"n_threads": self.threads, **options},
        )

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        row = {str(target): i for i, target in enumerate(result.targets)}
        place = {str(gene): i for i, gene in enumerate(result.features)}
        values = result[column]
        return [float(values[row[target], place[gene]]) for target, gene in pairs]

    def n_rows(self, result: Any) -> int:
        return int(result.n_rows)


class Illico(Tool):
    distribution = "illico"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        from illico import asymptotic_wilcoxon
        from loguru import logger

        logger.remove()
        self.call = asymptotic_wilcoxon

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        if metric != "wilcoxon":
            raise ValueError(f"illico has no {metric}")
        return self.call(
            adata,
            is_log1p=is_log1p,
            group_keys=GROUPBY,
            n_threads=self.threads,
            **{"reference": REFERENCE, **options},
        )

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        return [float(result.at[pair, column]) for pair in pairs]


class Hpdex(Tool):
    distribution = "hpdex"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import logging

        import hpdex

        logging.getLogger().setLevel(logging.ERROR)
        self.call = hpdex.parallel_differential_expression

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        # is_log1p is guessed by hpdex and touches the fold change only.
        return self.call(
            adata,
            groupby_key=GROUPBY,
            reference=REFERENCE,
            metric=metric,
            tie_correction=True,
            use_continuity=True,
            threads=self.threads,
            show_progress=False,
            **options,
        )

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        return _from_table(result, column, pairs)


class Scanpy(Tool):
    distribution = "scanpy"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import scanpy

        scanpy.settings.verbosity = 0
        if hasattr(scanpy.settings, "n_jobs"):
            scanpy.settings.n_jobs = threads
        self.call = scanpy.tl.rank_genes_groups

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        self.call(
            adata,
            GROUPBY,
            reference=REFERENCE,
            method=metric,
            use_raw=False,
            tie_correct=metric == "wilcoxon",
            **options,
        )
        return adata.uns.pop("rank_genes_groups")

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        field = {"p_value": "pvals", "statistic": "scores"}[column]
        places: dict[str, dict[str, int]] = {}
        out = []
        for target, gene in pairs:
            if target not in places:
                names = result["names"][target]
                places[target] = {str(name): i for i, name in enumerate(names)}
            out.append(float(result[field][target][places[target][gene]]))
        return out

    def n_rows(self, result: Any) -> int:
        names = result["names"]
        return len(names) * len(names.dtype.names)


class Pdex(Tool):
    distribution = "pdex"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import logging

        import pdex
        from scipy.stats import anderson_ksamp

        logging.getLogger().setLevel(logging.ERROR)
        self.call = pdex.parallel_differential_expression
        # Without it newer scipy warns once a pair, which would cost pdex time.
        has_variant = "variant" in inspect.signature(anderson_ksamp).parameters
        self.anderson = {"variant": "midrank"} if has_variant else {}

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        return self.call(
            adata,
            reference=REFERENCE,
            groupby_key=GROUPBY,
            num_workers=self.threads,
            metric=metric,
            is_log1p=is_log1p,
            show_progress=False,
            **(self.anderson if metric == "anderson" else {}),
            **options,
        )

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        return _from_table(result, column, pairs)


class NewPdex(Tool):
    """pdex since 0.3, which has nothing in common with 0.1 but its name."""

    distribution = "pdex"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import pdex

        self.call = pdex.pdex

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        if metric != "wilcoxon":
            raise ValueError(f"this pdex has no {metric}")
        return self.call(
            adata,
            groupby=GROUPBY,
            threads=self.threads,
            is_log1p=is_log1p,
            **(options or {"mode": "ref", "reference": REFERENCE}),
        )

    def lookup(self, result: Any, column: str, pairs: list[tuple[str, str]]) -> list[float]:
        return _from_table(result.to_pandas(), column, pairs)


class H5py(Tool):
    """No test at all: a file's matrix read whole, with h5py alone."""

    distribution = "h5py"

    def open(self, path: str) -> Any:
        import h5py

        return h5py.File(path, "r")

    def run(self, adata: Any, metric: str, *, is_log1p: bool, **options: Any) -> Any:
        with adata as file:
            x = file["X"]
            return [x[...]] if hasattr(x, "dtype") else [x[name][...] for name in ARRAYS]


TOOLS: dict[str, type[Tool]] = {
    "pdex_gpu": PdexGpu,
    "illico": Illico,
    "hpdex": Hpdex,
    "scanpy": Scanpy,
    "pdex": Pdex,
    "pdex-0.3": NewPdex,
    "h5py": H5py,
}


# --------------------------------------------------------------------------------------
# The worker
# --------------------------------------------------------------------------------------


class Worker:
    """Holds one tool, the data it was given and the result of its last call."""

    def __init__(self, tool: str, threads: int) -> None:
        self.tool = TOOLS[tool](threads)
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: dict[str, Any] = {}
        self.result: Any = None

    def hello(self) -> dict[str, Any]:
        """Versions of the tool, of Python and of what lies under it."""
        versions = {"python": platform.python_version()}
        if self.tool.version is not None:
            versions[self.tool.distribution] = self.tool.version
        for name in (self.tool.distribution, *LIBRARIES):
            if name in versions:
                continue
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return {"versions": versions}

    def _array(self, path: Path) -> np.ndarray:
        key = str(path)
        if key not in self.arrays:
            self.arrays[key] = np.load(path)
        return self.arrays[key]

    def load(
        self,
        name: str,
        folder: str,
        values: str,
        labels: str | None = None,
        genes: list[int] | None = None,
        dtype: str | None = None,
        form: str = "csr",
    ) -> dict[str, Any]:
        """Make the AnnData `name` from a screen's files; not timed.

        `values` is ``counts`` or ``log1p``; `labels` another file of labels; `genes` a subset;
        `dtype` another type for X; `form` is ``csr``, ``csc`` or ``dense``.
        """
        import anndata
        import pandas as pd
        import scipy.sparse as sp

        root = Path(folder)
        names = np.load(root / "genes.npy")
        x = sp.csr_matrix(
            (
                self._array(root / f"{values}.npy"),
                self._array(root / "indices.npy"),
                self._array(root / "indptr.npy"),
            ),
            shape=(len(self._array(root / "indptr.npy")) - 1, len(names)),
            copy=False,
        )
        if genes is not None:
            x = x[:, genes]
            x.sort_indices()
            names = names[genes]
        if dtype is not None:
            x = x.astype(dtype)
        nnz = int(x.nnz)
        if form != "csr":
            x = x.toarray() if form == "dense" else x.tocsc()
        group = np.load(labels if labels is not None else root / "labels.npy")
        obs = pd.DataFrame(
            {GROUPBY: pd.Categorical(group.tolist())},
            index=[f"cell_{i}" for i in range(len(group))],
        )
        var = pd.DataFrame(index=names.tolist())
        self.inputs[name] = anndata.AnnData(x, obs=obs, var=var)
        return {"shape": list(x.shape), "nnz": nnz}

    def drop(self, name: str | None = None) -> dict[str, Any]:
        """Forget one input, or everything."""
        self.result = None
        if name is None:
            self.inputs.clear()
            self.arrays.clear()
        else:
            self.inputs.pop(name, None)
        gc.collect()
        return {}

    def run(
        self, name: str, metric: str, is_log1p: bool, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One call of the tool; ``seconds`` is the call and nothing else."""
        adata = self.inputs[name]
        return self._run(lambda: adata, metric, is_log1p, options)

    def run_file(
        self, path: str, metric: str, is_log1p: bool, options: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One call on a file; ``seconds`` includes opening it."""
        return self._run(lambda: self.tool.open(path), metric, is_log1p, options)

    def _run(
        self,
        source: Callable[[], Any],
        metric: str,
        is_log1p: bool,
        options: dict[str, Any] | None,
    ) -> dict[str, Any]:
        self.result = None
        gc.collect()
        start = time.perf_counter()
        result = self.tool.run(source(), metric, is_log1p=is_log1p, **(options or {}))
        seconds = time.perf_counter() - start
        self.result = result
        return {"seconds": seconds, "rows": self.tool.n_rows(result)}

    def lookup(self, column: str, pairs: list[list[str]]) -> dict[str, Any]:
        """Values of the last result."""
        return {"values": self.tool.lookup(self.result, column, [(t, g) for t, g in pairs])}

    def digest(self) -> dict[str, Any]:
        """A digest of each column of values of the last result of pdex_gpu."""
        from pdex_gpu.results.schema import VALUES

        return {"columns": {
            name: hashlib.sha256(np.ascontiguousarray(self.result[name])).hexdigest()
            for name in VALUES
        }}  # fmt: skip

    def scipy_pairs(self, name: str, metric: str, pairs: list[list[str]]) -> dict[str, Any]:
        """Return scipy's answers for the pairs, from float64 values."""
        import warnings

        from scipy import stats

        adata = self.inputs[name]
        group = np.asarray(adata.obs[GROUPBY].astype(str))
        place = {gene: i for i, gene in enumerate(adata.var_names)}
        columns: dict[str, np.ndarray] = {}
        has_variant = "variant" in inspect.signature(stats.anderson_ksamp).parameters
        kwargs = {"variant": "midrank"} if has_variant else {"midrank": True}
        p_values, statistics = [], []
        for target, gene in pairs:
            if gene not in columns:
                column = adata.X[:, [place[gene]]].toarray().ravel()
                columns[gene] = np.asarray(column, dtype=np.float64)
            x = columns[gene][group == target]
            y = columns[gene][group == REFERENCE]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if metric == "wilcoxon":
                    answer = stats.mannwhitneyu(x, y)
                elif metric == "t-test":
                    answer = stats.ttest_ind(x, y)
                else:
                    answer = stats.anderson_ksamp([x, y], **kwargs)
            p_values.append(float(answer.pvalue))
            statistics.append(float(answer.statistic))
        return {"p_value": p_values, "statistic": statistics}

    def peak(self, name: str, metric: str, is_log1p: bool) -> dict[str, Any]:
        """Peak resident bytes of one call beyond what was resident before it.

        Meant for a process that has done nothing else: warms up on a tiny matrix, resets the
        kernel's peak, runs.
        """
        adata = self.inputs[name]
        tiny = self._tiny(adata)
        self.tool.run(tiny, metric, is_log1p=is_log1p)
        del tiny
        gc.collect()
        # Free memory that the allocator keeps would hide part of what the call uses.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        start = time.perf_counter()
        result = self.tool.run(adata, metric, is_log1p=is_log1p)
        seconds = time.perf_counter() - start
        peak, after = _status("VmHWM"), _status("VmRSS")
        self.result = result
        x = adata.X
        return {
            "input_bytes": int(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes),
            "before_bytes": before,
            "peak_bytes": peak,
            "after_bytes": after,
            "beyond_bytes": peak - before,
            "seconds": seconds,
        }

    @staticmethod
    def _tiny(adata: Any) -> Any:
        """A few genes and cells of three groups, the reference among them."""
        group = np.asarray(adata.obs[GROUPBY].astype(str))
        others = [name for name in np.unique(group) if name != REFERENCE][:2]
        rows = np.concatenate([np.flatnonzero(group == g)[:20] for g in [REFERENCE, *others]])
        return adata[np.sort(rows), :8].copy()

    def table(self, n_groups: int, n_genes: int, seed: int) -> dict[str, Any]:
        """FDR and ``to_parquet`` of a result of ``n_groups * n_genes`` rows."""
        from pdex_gpu import DEResult
        from pdex_gpu.backends.registry import choose_backend, load_kernels

        kernels = load_kernels(choose_backend("cpu").name)
        columns = _synthetic_columns(n_groups, n_genes, seed)
        targets = np.array([f"P{i:05d}" for i in range(n_groups)], dtype=object)
        genes = np.array([f"GENE{i:05d}" for i in range(n_genes)], dtype=object)
        gc.collect()
        start = time.perf_counter()
        with ThreadPoolExecutor(self.tool.threads) as pool:
            columns["fdr"] = kernels.benjamini_hochberg(columns["p_value"], pool.map)
        after_fdr = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            before_write = time.perf_counter()
            DEResult(targets, REFERENCE, genes, columns, {"metric": "wilcoxon"}).to_parquet(path)
            stop = time.perf_counter()
            size = path.stat().st_size
        fdr, write = after_fdr - start, stop - before_write
        return {
            "seconds": fdr + write,
            "fdr_seconds": fdr,
            "to_parquet_seconds": write,
            "rows": n_groups * n_genes,
            "file_bytes": size,
        }


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _synthetic_columns(n_groups: int, n_genes: int, seed: int) -> dict[str, np.ndarray]:
    """Every column but ``fdr``: random digits, which compress as badly as real results do."""
    rng = np.random.default_rng(seed)
    shape = (n_groups, n_genes)
    target_mean = rng.gamma(0.5, 2.0, shape)
    reference_mean = np.broadcast_to(rng.gamma(0.5, 2.0, n_genes), shape)
    p_value = rng.random(shape)
    p_value[:, ::20] **= 30.0  # some genes respond
    return {
        "target_mean": target_mean,
        "reference_mean": reference_mean,
        "percent_change": (target_mean - reference_mean) / reference_mean,
        "fold_change": target_mean / reference_mean,
        "p_value": p_value,
        "statistic": rng.integers(0, 400_000, shape) / 2.0,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    # The pipe gets a descriptor of its own; whatever prints to standard output goes to error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        worker = Worker(args.tool, args.threads)
        answer({"ok": True, **worker.hello()})
    except Exception as error:
        traceback.print_exc()
        answer({"ok": False, "error": f"{type(error).__name__}: {error}"})
        return 1
    operations: dict[str, Callable[..., dict[str, Any]]] = {
        name: getattr(worker, name)
        for name in (
            "load",
            "drop",
            "run",
            "run_file",
            "lookup",
            "digest",
            "scipy_pairs",
            "peak",
            "table",
        )
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            done = operations[request.pop("op")](**request)
            answer({"ok": True, **done})
        except Exception as error:
            traceback.print_exc()
            answer({"ok": False, "error": f"{type(error).__name__}: {error}"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
