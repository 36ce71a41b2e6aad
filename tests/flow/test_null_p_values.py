"""Without effects p-values are uniform, and with some the false discovery rate is what is asked."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pdex_gpu import differential_expression

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning"),  # normal deviates
]

N_TESTS = 1_000_000
_GENES_AT_ONCE = 50_000


def compared(values: np.ndarray, groups: np.ndarray, **options: Any) -> Any:
    """The comparison of all groups with ``"ref"``, cells x genes."""
    names = pd.Index([str(i) for i in range(len(groups))])
    obs = pd.DataFrame({"group": groups, "batch": np.arange(len(groups)) % 3}, index=names)
    genes = pd.DataFrame(index=[str(j) for j in range(values.shape[1])])
    return differential_expression(
        anndata.AnnData(values, obs, genes), "group", reference="ref", backend="cpu",
        progress=False, is_log1p=False, **options
    )  # fmt: skip


def null_p_values(n_target: int, n_reference: int, seed: int, **options: Any) -> np.ndarray:
    """P-values of genes that are standard normal in both samples, one independent test a gene."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(["a", "ref"], [n_target, n_reference])
    found = np.full(N_TESTS, np.nan)
    for start in range(0, N_TESTS, _GENES_AT_ONCE):
        shape = len(groups), _GENES_AT_ONCE
        values = rng.standard_normal(shape, dtype=np.float32)
        if options.get("strata"):  # means that differ between strata
            values += np.arange(len(groups), dtype=np.float32)[:, None] % 3
        found[start : start + _GENES_AT_ONCE] = compared(
            values, groups, p_values="asymptotic", **options
        )["p_value"][0]
    return found


@pytest.mark.parametrize(
    ("options", "n_target", "n_reference", "slack"),
    [
        ({"metric": "t-test"}, 6, 11, 0.0),
        ({"metric": "t-test", "variance": "welch"}, 40, 60, 0.0),
        ({"metric": "t-test", "alternative": "less"}, 6, 11, 0.0),
        ({"metric": "t-test", "strata": "batch"}, 9, 15, 0.0),
        ({"metric": "wilcoxon"}, 300, 301, 0.0),
        ({"metric": "wilcoxon", "continuity": False, "alternative": "greater"}, 300, 301, 0.0),
        ({"metric": "wilcoxon", "strata": "batch"}, 300, 301, 0.0),
        # Of the limiting distribution; 0.014, 0.0056 and 0.0020 were seen with 30, 100 and 300
        # cells a side, 0.0027 with three strata of 100.
        ({"metric": "anderson"}, 300, 301, 0.0015),
        ({"metric": "anderson", "strata": "batch"}, 300, 301, 0.0025),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else str(x),
)
def test_p_values_are_uniform(
    options: dict[str, Any], n_target: int, n_reference: int, slack: float
):
    """A million independent tests: their distance from uniform is what chance makes of it.

    0.0016 is exceeded once in 100 times; `slack` is the error of the approximation.
    """
    p_values = null_p_values(n_target, n_reference, seed=1, **options)
    distance = stats.kstest(p_values, "uniform").statistic
    assert distance < stats.kstwobign.isf(0.01) / np.sqrt(N_TESTS) + slack


def test_kolmogorov_smirnov_is_conservative():
    """D has few values, and the limiting distribution is of a continuous one."""
    p_values = null_p_values(300, 301, seed=1, metric="ks")
    assert stats.kstest(p_values, "uniform", alternative="greater").pvalue > 0.01
    # P-values are too large; 0.039 was seen.
    assert 0.03 < stats.kstest(p_values, "uniform", alternative="less").statistic < 0.05


# --- false discovery rates -------------------------------------------------------------------

N_SCREENS, N_TARGETS, N_GENES = 400, 4, 200
EFFECTS = 0.2  # share of (target, gene) pairs
ALPHA = 0.1


def false_and_true(seed: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """False and true discoveries of each screen, shape (N_SCREENS, N_TARGETS, N_GENES)."""
    rng = np.random.default_rng(seed)
    n_cells = [60, *[30] * N_TARGETS]
    code = np.repeat(np.arange(N_TARGETS + 1), n_cells)
    names = np.array(["ref", *(f"t{k}" for k in range(N_TARGETS))])
    found = np.zeros((2, N_SCREENS, N_TARGETS, N_GENES), bool)
    for screen in range(N_SCREENS):
        effect = np.zeros((N_TARGETS + 1, N_GENES))
        hit = rng.random((N_TARGETS, N_GENES)) < EFFECTS
        effect[1:][hit] = rng.choice([-1.0, 1.0], np.count_nonzero(hit))
        values = rng.standard_normal((len(code), N_GENES)) + effect[code]
        discovered = compared(values, names[code], **options)["fdr"] <= ALPHA
        found[0, screen], found[1, screen] = discovered & ~hit, discovered & hit
    return found[0], found[1]


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson", "ks"])
@pytest.mark.parametrize(
    ("scope", "axes"), [("all", (1, 2)), ("target", 2), ("gene", 1)], ids=["all", "target", "gene"]
)
def test_false_discovery_rate(metric: str, scope: str, axes: Any):
    """Benjamini and Hochberg (1995): the mean share of false discoveries is (1 - EFFECTS) alpha."""
    false, true = (x.sum(axis=axes) for x in false_and_true(seed=2, metric=metric, fdr_scope=scope))
    share = false / np.maximum(false + true, 1)
    by_screen = share.reshape(N_SCREENS, -1).mean(axis=1)
    error = by_screen.std() / np.sqrt(N_SCREENS)  # 0.0012 at most
    expected = (1 - EFFECTS) * ALPHA
    assert by_screen.mean() < expected + 3 * error  # 1.001 of `expected` at most
    # Less where p-values are too large (0.66 of it with ks, 0.94 with the continuity correction)
    # or depend on each other, as those of a gene do, which share the reference (0.96).
    assert by_screen.mean() > (0.6 if metric == "ks" else 0.9) * expected
    n_effects = EFFECTS * N_GENES * N_TARGETS / np.prod(true.shape[1:])
    assert true.mean() > 0.85 * n_effects  # 0.91 to 0.99


def test_benjamini_yekutieli():
    """Of independent tests, Benjamini-Hochberg at alpha over a harmonic number: 0.011."""
    false, true = false_and_true(seed=3, metric="t-test", fdr_method="benjamini-yekutieli")
    false, true = false.sum(axis=(1, 2)), true.sum(axis=(1, 2))
    share = false / np.maximum(false + true, 1)
    expected = (1 - EFFECTS) * ALPHA / np.sum(1.0 / np.arange(1, N_TARGETS * N_GENES + 1))
    # 0.0118 was seen, 1.8 standard errors above.
    assert abs(share.mean() - expected) < 3 * share.std() / np.sqrt(N_SCREENS)
    assert true.mean() > 0.85 * EFFECTS * N_TARGETS * N_GENES


def test_bonferroni():
    """The probability of any false discovery is (1 - EFFECTS) alpha, less a little."""
    false, true = false_and_true(seed=3, metric="t-test", fdr_method="bonferroni")
    any_false = false.any(axis=(1, 2)).mean()
    expected = (1 - EFFECTS) * ALPHA
    # 0.0775 was seen.
    assert abs(any_false - expected) < 3 * np.sqrt(expected * (1 - expected) / N_SCREENS)
    assert true.sum(axis=(1, 2)).mean() > 0.6 * EFFECTS * N_TARGETS * N_GENES
