"""pdex's call: its signature, its columns, its options, its answers."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse, stats
from stored_screens import (
    BACKED,
    GENES,
    GROUPBY,
    LABELS,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    counts,
    logged,
    screen,
    stored,
)

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.compat.pdex_0_1 import parallel_differential_expression
from pdex_gpu.engines import shared_memory, streams, threads
from pdex_gpu.stats.registry import METRICS

COLUMNS = [
    "target", "reference", "feature", "target_mean", "reference_mean", "percent_change",
    "fold_change", "p_value", "statistic", "fdr",
]  # fmt: skip

# pdex 0.1.28, then what this package adds.
SIGNATURE = [
    ("adata", inspect.Parameter.empty),
    ("groups", None),
    ("reference", "non-targeting"),
    ("groupby_key", "target_gene"),
    ("num_workers", None),
    ("batch_size", 100),
    ("num_threads", None),
    ("metric", "wilcoxon"),
    ("tie_correct", True),
    ("is_log1p", None),
    ("exp_post_agg", True),
    ("clip_value", 20.0),
    ("as_polars", False),
    ("low_memory", None),
    ("gene_chunk_size", 1000),
    ("show_progress", True),
]
ADDED = [("backend", "auto"), ("engine", "auto"), ("normalize", None)]


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


def run(adata=None, **options):
    return parallel_differential_expression(
        screen() if adata is None else adata,
        reference=REFERENCE, groupby_key=GROUPBY, show_progress=False, **options,
    )  # fmt: skip


def pairs(values: np.ndarray, adata, function, **options) -> tuple[np.ndarray, np.ndarray]:
    """Statistic and p-value of a scipy test on every (target, gene); 1 where it is undefined."""
    labels = adata.obs[GROUPBY].to_numpy().astype(str)
    x = {name: values[labels == name].astype(np.float64) for name in ("A", "B", "C", REFERENCE)}
    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for target in ("A", "B", "C"):
            for g in range(values.shape[1]):
                samples = x[target][:, g], x[REFERENCE][:, g]
                try:
                    if function is stats.anderson_ksamp:
                        result = function(list(samples), **options)
                    else:
                        result = function(*samples, **options)
                    found.append((result.statistic, result.pvalue))
                except ValueError:
                    found.append((np.nan, np.nan))
    statistic, p_value = np.array(found, dtype=np.float64).T
    return statistic, np.where(np.isnan(p_value), 1.0, p_value)


def assert_pairs(frame: pd.DataFrame, expected: tuple[np.ndarray, np.ndarray], rtol=1e-10) -> None:
    np.testing.assert_allclose(frame["statistic"], expected[0], rtol=rtol, atol=0)
    np.testing.assert_allclose(frame["p_value"], expected[1], rtol=rtol, atol=0)


# --- signature, columns ---------------------------------------------------------------------


def test_the_signature_is_pdexs():
    *parameters, kwargs = inspect.signature(parallel_differential_expression).parameters.values()
    assert [(p.name, p.default) for p in parameters] == SIGNATURE + ADDED
    own = parameters[: len(SIGNATURE)]
    assert {p.kind for p in own} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {p.kind for p in parameters[len(SIGNATURE) :]} == {inspect.Parameter.KEYWORD_ONLY}
    assert (kwargs.name, kwargs.kind) == ("kwargs", inspect.Parameter.VAR_KEYWORD)


def test_everything_may_be_given_by_position():
    positional = [None, REFERENCE, GROUPBY, None, 100, None, "t-test", True, None, True, 20.0,
                  False, None, 1000, False]  # fmt: skip
    adata = screen()
    frame = parallel_differential_expression(adata, *positional)
    assert_same_bits(frame, run(adata, metric="t-test"))


def test_the_defaults_are_pdexs():
    """Reference and column need not be named if they are called as pdex expects."""
    adata = screen(labels=["non-targeting" if x == REFERENCE else x for x in LABELS])
    adata.obs["target_gene"] = adata.obs[GROUPBY]
    frame = parallel_differential_expression(adata, show_progress=False)
    assert set(frame["reference"]) == {"non-targeting"}


@pytest.mark.parametrize("metric", METRICS)
def test_the_frame(metric):
    frame = run(metric=metric)
    assert type(frame) is pd.DataFrame
    assert list(frame.columns) == COLUMNS
    assert frame.index.equals(pd.RangeIndex(27))
    assert frame["target"].tolist() == np.repeat(["A", "B", "C"], 9).tolist()
    assert frame["feature"].tolist() == GENES * 3
    assert set(frame["reference"]) == {REFERENCE}
    for name in COLUMNS[:3]:
        assert not isinstance(frame[name].dtype, pd.CategoricalDtype)
        assert all(type(x) is str for x in frame[name])
    assert (frame.dtypes[COLUMNS[3:]] == np.float64).all()
    frame.loc[0, "p_value"] = 0.5  # it can be written to
    assert frame.loc[0, "p_value"] == 0.5


def test_as_polars():
    adata = screen()
    frame = run(adata, as_polars=True)
    assert isinstance(frame, pl.DataFrame)
    assert frame.columns == COLUMNS
    assert frame.dtypes == [pl.String] * 3 + [pl.Float64] * 7
    expected = run(adata)
    for name in COLUMNS[:3]:
        assert frame[name].to_list() == expected[name].tolist()
    assert_same_bits({n: frame[n].to_numpy() for n in COLUMNS[3:]}, expected)


def test_the_native_call_gives_the_same():
    adata = screen(logged())
    native = pdex_gpu.differential_expression(
        adata, GROUPBY, reference=REFERENCE, p_values="asymptotic", progress=False
    ).to_pandas()
    frame = run(adata)
    assert_same_bits(frame, native)
    for name in COLUMNS[:3]:
        assert frame[name].tolist() == native[name].tolist()


README = '''
import anndata as ad
import numpy as np
import pandas as pd

from pdex_gpu import parallel_differential_expression

PERT_COL = "perturbation"
CONTROL_VAR = "control"

N_CELLS = 1000
N_GENES = 100
N_PERTS = 10
MAX_UMI = 1e6


def build_random_anndata(
    n_cells: int = N_CELLS,
    n_genes: int = N_GENES,
    n_perts: int = N_PERTS,
    pert_col: str = PERT_COL,
    control_var: str = CONTROL_VAR,
) -> ad.AnnData:
    """Sample a random AnnData object."""
    return ad.AnnData(
        X=np.random.randint(0, MAX_UMI, size=(n_cells, n_genes)),
        obs=pd.DataFrame(
            {
                pert_col: np.random.choice(
                    [f"pert_{i}" for i in range(n_perts)] + [control_var],
                    size=n_cells,
                    replace=True,
                ),
            }
        ),
    )


def main():
    adata = build_random_anndata()

    # Run pdex with default metric (wilcoxon)
    results = parallel_differential_expression(
        adata,
        reference=CONTROL_VAR,
        groupby_key=PERT_COL,
    )
    assert results.shape[0] == N_GENES * N_PERTS

    # Run pdex with alt metric (anderson)
    results = parallel_differential_expression(
        adata,
        reference=CONTROL_VAR,
        groupby_key=PERT_COL,
        metric="anderson"
    )
    assert results.shape[0] == N_GENES * N_PERTS
'''


@pytest.mark.thorough
def test_the_usage_example_of_pdexs_readme_runs_with_only_the_import_changed(tmp_path):
    path = tmp_path / "usage.py"
    path.write_text(
        README + "\n\nmain()\nprint('done')\n"
    )  # pdex leaves calling main to the reader
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True, text=True, check=False, cwd=Path(pdex_gpu.__file__).parents[1],
        timeout=600, env=os.environ | {"PYTHONPATH": str(Path(pdex_gpu.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


# --- modes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected():
    return {metric: run(screen(logged()), metric=metric) for metric in METRICS}


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low_memory": True},
        {"low_memory": True, "gene_chunk_size": 2},
        {"low_memory": False},
        {"num_workers": 1},
        {"num_threads": 1},
        {"num_workers": 1, "num_threads": 3},
        {"low_memory": True, "num_workers": 3, "num_threads": 2, "gene_chunk_size": 2},
        {"low_memory": True, "num_workers": 1, "num_threads": 1, "gene_chunk_size": 4},
        {"batch_size": 1},
        {"engine": "serial"},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["F", "csr"])
def test_every_mode_in_memory_gives_the_same_bits(how, options, metric, expected, tmp_path):
    assert_same_bits(
        run(stored(how, logged(), tmp_path), metric=metric, **options), expected[metric]
    )


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low_memory": True, "gene_chunk_size": 2},
        {"num_workers": 1, "num_threads": 1, "gene_chunk_size": 1},
        {"num_workers": 2, "gene_chunk_size": 2},
        {"num_threads": 2, "gene_chunk_size": 4},
        {"num_workers": 2, "num_threads": 2, "gene_chunk_size": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", BACKED)
def test_every_mode_backed_gives_the_same_bits(how, options, expected, tmp_path):
    adata = stored(how, logged(), tmp_path)
    assert_same_bits(run(adata, **options), expected["wilcoxon"])
    assert_same_bits(run(adata, metric="t-test", **options), expected["t-test"])
    adata.file.close()


def test_backed_with_low_memory_false(tmp_path):
    adata = stored("backed csr", counts(), tmp_path)
    with pytest.raises(TypeError) as caught:
        run(adata, low_memory=False)
    assert type(caught.value) is errors.LowMemoryError
    text = str(caught.value)
    for part in ("adata is backed", "low_memory=False", "None or True", "adata.to_memory()"):
        assert part in text
    adata.file.close()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Every plan that is run, with the engine, instead of running it on worker processes."""
    made: list[tuple[str, object]] = []
    in_threads, on_device = threads.run, streams.run

    def recorder(name, real=in_threads):
        def record(job):
            made.append((name, job.plan))
            real(job)

        return record

    monkeypatch.setattr(threads, "run", recorder("threads"))
    monkeypatch.setattr(shared_memory, "run", recorder("shared_memory"))
    monkeypatch.setattr(streams, "run", recorder("streams", on_device))
    monkeypatch.setattr("pdex_gpu.engines.schedule.cpu_count", lambda: 6)
    return made


def work(options, plans, adata=None) -> tuple[str, int, int]:
    run(adata, **options)
    (engine, plan) = plans.pop()
    return engine, plan.n_workers, plan.n_threads


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("threads", 1, 6)),
        ({"num_workers": 1}, ("threads", 1, 6)),
        ({"num_threads": 1}, ("threads", 1, 1)),
        ({"num_threads": 4}, ("threads", 1, 4)),
        ({"num_workers": 2}, ("shared_memory", 2, 1)),
        ({"num_workers": 2, "num_threads": 3}, ("shared_memory", 2, 3)),
        ({"num_workers": 2, "engine": "threads"}, ("threads", 1, 6)),
        ({"low_memory": True, "num_workers": 2, "gene_chunk_size": 1}, ("threads", 2, 3)),
        ({"low_memory": True, "num_workers": 2, "num_threads": 1, "gene_chunk_size": 1},
         ("threads", 2, 1)),
    ],
    ids=str,
)  # fmt: skip
def test_workers_and_threads_in_memory(options, expected, plans):
    assert work(options, plans) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("threads", 2, 3)),
        ({"num_workers": 1}, ("threads", 1, 6)),
        ({"num_threads": 1}, ("threads", 2, 1)),
        ({"num_workers": 1, "num_threads": 1}, ("threads", 1, 1)),
        ({"num_workers": 3, "num_threads": 2}, ("threads", 3, 2)),
    ],
    ids=str,
)
def test_workers_and_threads_backed(options, expected, plans, tmp_path):
    adata = stored("backed csr", counts(), tmp_path)
    assert work({"gene_chunk_size": 1} | options, plans, adata) == expected
    adata.file.close()


def test_chunks_are_as_large_as_asked_for_and_not_larger(plans, tmp_path):
    adata = stored("backed csr", counts(), tmp_path)
    for options, data, n_ranges in (
        ({"gene_chunk_size": 2}, adata, 5),
        ({"gene_chunk_size": 2, "low_memory": True}, screen(), 5),
        ({"gene_chunk_size": 2}, screen(), 1),  # in memory at once: no chunks
        ({}, adata, 1),
    ):
        run(data, **options)
        _, plan = plans.pop()
        assert plan.n_ranges == n_ranges, options
        assert max(np.diff(plan.edges)) <= (2 if n_ranges == 5 else 9)
    adata.file.close()


@pytest.mark.thorough
def test_worker_processes_are_real():
    adata = screen(sparse.csr_matrix(logged()))
    assert_same_bits(run(adata, num_workers=2), run(adata))


@pytest.mark.parametrize("num_workers", [1, 2, None])
def test_workers_on_a_device_are_no_processes(emulated_cuda, plans, num_workers):
    adata = screen(sparse.csr_matrix(logged()))
    options = {"num_workers": num_workers, "backend": "cuda"}
    assert work(options, plans, adata) == ("streams", 1, 6)
    assert_same_bits(run(adata, **options), run(adata))


@pytest.mark.parametrize("low_memory", [None, True])
@pytest.mark.parametrize("name", ["num_workers", "num_threads"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "2"], ids=repr)
def test_bad_worker_counts_are_named_as_pdex_names_them(name, value, low_memory):
    with pytest.raises(errors.OptionError, match=f"^{name}={value!r} must be a whole number"):
        run(low_memory=low_memory, **{name: value})


# --- groups ---------------------------------------------------------------------------------


def test_a_subset_of_the_groups():
    whole, part = run(), run(groups=["C", "A"])
    assert part["target"].unique().tolist() == ["C", "A"]
    for name in ("p_value", "statistic", "target_mean", "fold_change"):
        for target in ("A", "C"):
            np.testing.assert_array_equal(
                part.loc[part["target"] == target, name], whole.loc[whole["target"] == target, name]
            )
    fdr = stats.false_discovery_control(part["p_value"])
    np.testing.assert_allclose(part["fdr"], fdr, rtol=1e-12)


def test_groups_that_are_not_there_and_the_reference_among_them():
    with pytest.warns(errors.UnknownGroupWarning, match="'D'") as caught:
        frame = run(groups=["B", "D", REFERENCE])
    assert caught[0].filename == __file__
    assert frame["target"].unique().tolist() == ["B"]


# --- tests and their options ----------------------------------------------------------------

FAST = [
    ("wilcoxon", {}, {}),
    ("wilcoxon", {"tie_correct": False}, {"use_continuity": False}),
    ("wilcoxon", {"alternative": "less"}, {"alternative": "less"}),
    ("wilcoxon", {"alternative": "greater", "tie_correct": False},
     {"alternative": "greater", "use_continuity": False}),
    ("wilcoxon", {"method": "asymptotic"}, {"method": "asymptotic"}),
    ("wilcoxon", {"method": "exact"}, {"method": "exact"}),
    ("t-test", {}, {}),
    ("t-test", {"tie_correct": False}, {}),  # says nothing to a t-test
    ("t-test", {"equal_var": False}, {"equal_var": False}),
    ("t-test", {"equal_var": False, "alternative": "greater"},
     {"equal_var": False, "alternative": "greater"}),
    ("t-test", {"nan_policy": "raise"}, {}),
    ("anderson", {}, {}),
    ("anderson", {"midrank": True}, {}),
    ("anderson", {"variant": "midrank"}, {}),
    ("anderson", {"midrank": False}, {"midrank": False}),
    ("anderson", {"variant": "right"}, {"variant": "right"}),
    ("anderson", {"variant": "continuous"}, {"variant": "continuous"}),
]  # fmt: skip

RNG = 5  # a seed: each call starts over from it
SLOW = [
    ("wilcoxon", {"nan_policy": "propagate"}),
    ("wilcoxon", {"method": stats.PermutationMethod(n_resamples=49, rng=RNG)}),
    ("t-test", {"trim": 0.1}),
    ("t-test", {"trim": 0.2, "equal_var": False, "alternative": "less"}),
    ("t-test", {"method": stats.PermutationMethod(n_resamples=49, rng=RNG)}),
    ("anderson", {"method": stats.PermutationMethod(n_resamples=19, rng=RNG)}),
]

SCIPY = {
    "wilcoxon": stats.mannwhitneyu,
    "t-test": stats.ttest_ind,
    "anderson": stats.anderson_ksamp,
}


def supported(metric: str, options: dict) -> None:
    """Skip where the installed scipy has no such option."""
    unknown = set(options) - set(inspect.signature(SCIPY[metric]).parameters) - {"tie_correct"}
    if unknown:
        pytest.skip(f"this scipy has no {unknown}")


def lines(caplog) -> list[logging.LogRecord]:
    return [r for r in caplog.records if r.name == "pdex_gpu" and r.levelno >= logging.WARNING]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("matrix", ["counts", "log"])
@pytest.mark.parametrize(("metric", "options", "scipy_options"), FAST, ids=str)
def test_options_of_the_compiled_kernels(metric, options, scipy_options, matrix, caplog):
    values = (counts() if matrix == "counts" else logged()).astype(np.float64)
    adata = screen(values)
    with caplog.at_level("INFO", logger="pdex_gpu"):
        frame = run(adata, metric=metric, **options)
    assert lines(caplog) == []
    expected = pairs(values, adata, SCIPY[metric], **scipy_options)
    assert_pairs(frame, expected, rtol=1e-9 if metric != "wilcoxon" else 1e-12)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("metric", "options"), SLOW, ids=str)
def test_other_options_run_through_scipy_and_one_line_says_so(metric, options, caplog):
    supported(metric, options)
    values = logged().astype(np.float64)
    adata = screen(values)
    with caplog.at_level("INFO", logger="pdex_gpu"):
        frame = run(adata, metric=metric, **options)
    (line,) = lines(caplog)
    text = line.getMessage()
    assert "numpy backend" in text
    assert metric in text
    for name in options:
        assert f"{name}=" in text
    assert_pairs(frame, pairs(values, adata, SCIPY[metric], **options), rtol=1e-12)


def test_options_matter():
    """The comparisons above would see an option that is ignored."""
    adata = screen(np.random.default_rng(2).exponential(size=counts().shape))  # no ties
    for metric, table in (("wilcoxon", FAST + SLOW), ("t-test", FAST + SLOW)):
        plain = run(adata, metric=metric)
        for name, options, *_ in table:
            if name != metric or not options or options in (
                {"tie_correct": False}, {"nan_policy": "propagate"}, {"nan_policy": "raise"},
            ):  # fmt: skip
                continue
            frame = run(adata, metric=metric, **options)
            assert not np.array_equal(frame["p_value"], plain["p_value"]), options
    without = run(adata, tie_correct=False)
    assert not np.array_equal(without["p_value"], run(adata)["p_value"])


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
@pytest.mark.parametrize("how", ["C", "csr", "backed csc"])
def test_nan_policy_omit(metric, how, tmp_path, caplog):
    values = logged().astype(np.float64)
    values[::7, 3] = np.nan
    values[4, :] = np.nan
    adata = stored(how, values, tmp_path)
    with caplog.at_level("INFO", logger="pdex_gpu"):
        frame = run(adata, metric=metric, nan_policy="omit")
    assert len(lines(caplog)) == 1
    expected = pairs(values, adata, SCIPY[metric], nan_policy="omit")
    assert_pairs(frame, expected, rtol=1e-12)
    assert np.isfinite(frame.loc[frame["feature"] == "gene3", "statistic"]).all()
    if adata.isbacked:
        adata.file.close()


def test_nan_policy_propagate_cannot_judge_a_gene_with_nan():
    values = logged()
    values[:, 3] = np.where(np.arange(len(values)) % 5 == 0, np.nan, values[:, 3])
    frame = run(screen(values), metric="t-test", nan_policy="propagate")
    gene = frame[frame["feature"] == "gene3"]
    assert gene["statistic"].isna().all()
    assert (gene["p_value"] == 1.0).all()
    assert (frame.loc[frame["feature"] == "gene1", "statistic"].notna()).all()


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_the_log_line_names_a_backend_that_was_replaced(backend, caplog):
    run(metric="t-test", trim=0.1, backend=backend)
    assert len(lines(caplog)) == (1 if backend == "cpu" else 0)


def test_the_number_of_threads_does_not_change_what_scipy_says():
    adata = screen(logged())
    options = {"metric": "t-test", "method": stats.PermutationMethod(n_resamples=49, rng=RNG)}
    assert_same_bits(run(adata, num_threads=1, **options), run(adata, num_threads=4, **options))


def test_use_continuity_is_what_tie_correct_is_for():
    with pytest.raises(errors.OptionError, match="tie_correct also sets use_continuity"):
        run(use_continuity=False)


def test_unknown_options_are_refused():
    with pytest.raises(errors.OptionError, match="metric 'wilcoxon' has no option 'num_threds'"):
        run(num_threds=2)


def test_unknown_metric_is_a_value_error():
    with pytest.raises(ValueError, match="Unknown metric 'wilcox'"):
        run(metric="wilcox")


@pytest.mark.parametrize("how", MEMORY)
def test_a_small_group_is_tested_exactly(how, tmp_path):
    """At most 8 cells on a side and no ties: the exact distribution of U, as scipy has it."""
    values = np.random.default_rng(2).exponential(size=counts().shape)
    adata = stored(how, values, tmp_path)
    expected = pairs(values, adata, stats.mannwhitneyu)
    asymptotic = pairs(values, adata, stats.mannwhitneyu, method="asymptotic")
    assert_pairs(run(adata, is_log1p=False), expected, rtol=1e-12)
    small = slice(18, 27)  # target C, 5 cells
    assert not np.allclose(expected[1][small], asymptotic[1][small], rtol=1e-6)
