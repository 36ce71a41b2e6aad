"""Checks that the device computes what it should, on the matrix that is then timed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gpu_meter import Meter
from gpu_screen import REFERENCE, Screen
from scipy import sparse

from pdex_gpu.backends.numpy import kernel_set
from pdex_gpu.design.build import make_design
from pdex_gpu.design.contrasts import Design
from pdex_gpu.sources.base import Chunk, DenseChunk
from pdex_gpu.sources.memory.open import from_array
from pdex_gpu.utils.resources import cpu_count

METRICS = ("wilcoxon", "t-test", "anderson")

_N_GENES = 16
_N_TARGETS = 12
_N_PAIRS = 48  # compared with scipy, for each test
_EXACT = ("n_expressed", "u2", "ties")
_TOLERANCE = {"m2": 1e-12, "a2": 1e-10, "mean": 1e-12, "mean_expm1": 1e-12}  # as the contract
_OF_SCIPY = {"wilcoxon": 1e-12, "t-test": 1e-9, "anderson": 1e-9}

Outputs = dict[str, np.ndarray]


class CheckFailed(Exception):
    """The device computes something else."""


@dataclass
class Truth:
    """The right values for some genes and some targets.

    Attributes
    ----------
    genes : numpy.ndarray
        Among them those with most and with fewest nonzeros.
    design : Design
        Some of the targets; the cells of all others are left out.
    dense : dict
        Values of the genes by name, ``"log1p"`` and ``"counts"``, cells x genes.
    outputs : dict
        What the numpy kernel set says, by name of the values.
    """

    genes: np.ndarray
    design: Design
    dense: dict[str, np.ndarray]
    outputs: dict[str, Outputs]


@dataclass
class Findings:
    """Compares; keeps what was wrong, and the worst that was right."""

    wrong: list[str] = field(default_factory=list)
    worst: dict[str, float] = field(default_factory=dict)
    n_compared: int = 0

    def exact(self, what: str, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        self.n_compared += expected.size
        n_wrong = int((found != expected).sum()) if found.shape == expected.shape else -1
        if n_wrong:
            self.wrong.append(f"{what}: {name} is wrong in {n_wrong} of {expected.size} places")

    def close(
        self,
        what: str,
        name: str,
        found: np.ndarray,
        expected: np.ndarray,
        rtol: float,
        atol: Any = 0.0,
    ) -> None:
        self.n_compared += expected.size
        both_nan = np.isnan(found) & np.isnan(expected)
        with np.errstate(invalid="ignore", divide="ignore"):
            beyond = np.maximum(np.abs(found - expected) - atol, 0.0)
            off = np.where(beyond == 0, 0.0, beyond / np.abs(expected))
        off = np.where(both_nan, 0.0, np.where(np.isnan(off), np.inf, off))
        worst = float(off.max(initial=0.0))
        if worst > rtol:
            self.wrong.append(f"{what}: {name} is off by {worst:.2g} of its value, above {rtol:g}")
        self.worst[name] = max(worst, self.worst.get(name, 0.0))

    def end(self) -> None:
        """Raise CheckFailed if something was wrong."""
        if self.wrong:
            raise CheckFailed("\n".join(self.wrong))


def make_truth(screen: Screen) -> Truth:
    """Let the numpy kernel set compute genes from the densest to the sparsest."""
    by_entries = np.argsort(screen.entries, kind="stable")
    n_genes, n_targets = len(by_entries), screen.sizes.perturbations
    genes = by_entries[_spread(n_genes, _N_GENES)]
    names = screen.design.targets[_spread(n_targets, _N_TARGETS)]
    design = make_design(screen.codes, screen.names, reference=REFERENCE, groups=names)
    dense = screen.columns(genes)

    def compute(job: tuple[str, int]) -> Outputs:
        name, j = job
        chunk = DenseChunk(dense[name][:, j : j + 1], 0)
        return outputs(kernel_set, chunk, design, map)

    jobs = [(name, j) for name in dense for j in range(len(genes))]
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = dict(zip(jobs, pool.map(compute, jobs), strict=True))
    together = {
        name: {
            key: np.concatenate([found[name, j][key] for j in range(len(genes))], axis=1)
            for key in found[name, 0]
        }
        for name in dense
    }
    return Truth(genes, design, dense, together)


def _spread(n: int, wanted: int) -> np.ndarray:
    """At most so many of `n` places, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(np.int64))


def outputs(kernels: Any, chunk: Chunk, design: Design, run: Any) -> Outputs:
    """All that a kernel set says about a chunk."""
    block = kernels.pack(chunk, design, run)
    return _of_genes(kernels, block, slice(0, chunk.n_genes), design)


def _of_genes(kernels: Any, block: Any, genes: slice, design: Design) -> Outputs:
    with np.errstate(over="ignore"):  # expm1 of counts
        moments = kernels.moments(block, genes, design, centred=True, expm1=True)
    sums = kernels.rank_sums(block, genes, design.contrasts[0])
    return {
        "n_expressed": moments.n_expressed,
        "mean": moments.mean,
        "m2": moments.m2,
        "mean_expm1": moments.mean_expm1,
        "u2": sums.u2,
        "ties": sums.ties,
        "a2": kernels.anderson_darling(block, genes, design.contrasts[0]),
    }


def forms(dense: np.ndarray, meter: Meter) -> Iterator[tuple[str, Any]]:
    """The same values in every storage form."""
    yield "dense by cell", np.ascontiguousarray(dense)
    yield "dense by gene", np.asfortranarray(dense)
    yield "CSR", sparse.csr_matrix(dense)
    yield "CSC", sparse.csc_matrix(dense)
    yield "CSR on the device", meter.on_device(sparse.csr_matrix(dense))


def check_forms(
    kernels: Any, truth: Truth, meter: Meter, run: Any, findings: Findings
) -> list[str]:
    """Hold every storage form of the genes to the truth; their names."""
    names = []
    for values, dense in truth.dense.items():
        for form, matrix in forms(dense, meter):
            with from_array(matrix, what="X").open((0, dense.shape[1]), 1 << 62) as reader:
                found = outputs(kernels, reader.read(0), truth.design, run)
            _hold(found, truth, values, slice(None), f"{values}, {form}", findings)
            names.append(f"{values}, {form}")
    return names


def check_block(
    kernels: Any, block: Any, design: Design, truth: Truth, values: str, findings: Findings
) -> None:
    """Hold genes of the whole matrix, packed for all targets, to the truth."""
    place = {target: t for t, target in enumerate(design.targets)}
    targets = np.array([place[target] for target in truth.design.targets])
    for j, gene in enumerate(truth.genes.tolist()):
        with kernels.part(block, slice(gene, gene + 1), design) as part:
            found = _of_genes(kernels, part, slice(0, 1), design)
        for name, array in found.items():
            of_groups = array.shape[0] == design.n_groups
            found[name] = array[np.concatenate([[0], targets + 1]) if of_groups else targets]
        what = f"{values}, whole matrix, gene {gene}"
        _hold(found, truth, values, slice(j, j + 1), what, findings)


def _hold(
    found: Outputs, truth: Truth, values: str, genes: slice, what: str, findings: Findings
) -> None:
    x = np.abs(truth.dense[values][:, genes].astype(np.float64))
    with np.errstate(over="ignore"):
        sizes = {"mean": x.mean(axis=0), "mean_expm1": np.expm1(x).mean(axis=0)}
    for name, array in found.items():
        expected = truth.outputs[values][name][:, genes]
        if name in _EXACT:
            findings.exact(what, name, array, expected)
        elif name == "mean_expm1" and values == "counts":
            continue  # expm1 of counts: infinite, and nobody asks for it
        else:
            atol = 1e-14 * sizes[name] if name in sizes else 0.0
            findings.close(what, name, array, expected, _TOLERANCE[name], atol)


def check_result(result: Any, truth: Truth, metric: str, findings: Findings) -> int:
    """Hold a call on the log-normalised matrix to scipy; how many pairs."""
    place = {target: t for t, target in enumerate(result.targets)}
    n_targets, n_genes = len(truth.design.targets), len(truth.genes)
    pairs = [divmod(k, n_genes) for k in _spread(n_targets * n_genes, _N_PAIRS).tolist()]
    control, *samples = (
        truth.dense["log1p"][truth.design.codes == g].astype(np.float64)
        for g in range(truth.design.n_groups)
    )
    with ThreadPoolExecutor(cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # p-values beyond scipy's table
        expected = list(
            pool.map(lambda pair: _scipy(metric, samples[pair[0]][:, pair[1]], control[:, pair[1]]),
                     pairs)
        )  # fmt: skip
    rows = [place[truth.design.targets[t]] for t, _ in pairs]
    columns = [int(truth.genes[j]) for _, j in pairs]
    statistic, p_value = np.array(expected).T
    found = result["statistic"][rows, columns]
    what, rtol = f"{metric} against scipy", _OF_SCIPY[metric]
    if metric == "wilcoxon":
        findings.exact(what, "U", found, statistic)
    else:  # differences that may be near zero
        findings.close(what, f"statistic of {metric}", found, statistic, rtol, 1e-9)
    if metric != "anderson":  # whose p-value scipy interpolates in a table
        findings.close(
            what, f"p-value of {metric}", result["p_value"][rows, columns], p_value, rtol, 1e-300
        )
    return len(pairs)


def _scipy(metric: str, target: np.ndarray, control: np.ndarray) -> tuple[float, float]:
    """Statistic and p-value; NaN and 1 where scipy cannot judge."""
    from scipy import stats

    test: Callable[[], Any] = {
        "wilcoxon": lambda: stats.mannwhitneyu(target, control),
        "t-test": lambda: stats.ttest_ind(target, control),
        "anderson": lambda: stats.anderson_ksamp([target, control]),
    }[metric]
    if metric != "wilcoxon" and len(np.unique(np.concatenate([target, control]))) < 2:
        return np.nan, 1.0
    with np.errstate(all="ignore"):
        found = test()
    p_value = float(found.pvalue)
    return float(found.statistic), 1.0 if np.isnan(p_value) else p_value


def check_u(result: Any, truth: Truth, values: str) -> None:
    """Raise CheckFailed unless a Wilcoxon call gives the U of the truth."""
    place = {target: t for t, target in enumerate(result.targets)}
    rows = [place[target] for target in truth.design.targets]
    findings = Findings()
    expected = truth.outputs[values]["u2"] / 2
    findings.exact(
        f"{values}, end to end", "U", result["statistic"][rows][:, truth.genes], expected
    )
    findings.end()


def check_fdr(result: Any, findings: Findings) -> None:
    """Hold the adjusted p-values to scipy's."""
    expected = kernel_set.benjamini_hochberg(result["p_value"], map)
    findings.exact("FDR against scipy", "fdr", result["fdr"], expected)


def check_equal(what: str, found: np.ndarray, expected: np.ndarray, rtol: float = 0.0) -> None:
    """Raise CheckFailed unless two ways to compute p-values agree."""
    findings = Findings()
    if rtol:
        findings.close(what, "p-value", found, expected, rtol, 1e-300)
    else:
        findings.exact(what, "p-value", found, expected)
    findings.end()
