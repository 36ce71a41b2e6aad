"""The measurements. Each task takes a `Run` and leaves times, figures and agreement in its record.

Only one tool computes at a time. Within a task the tools take turns, round after round, so that a
machine that slows down or speeds up does so for all of them; a ratio is taken within each round.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from data import REFERENCE, ScreenFiles
from pool import LOGS, Client, Pool, WorkerError, environment
from record import REPOSITORY, Record, paired_ratio, summary

OURS = "pdex_gpu"
GROUPS = (20, 300, 2_000)
TABLE = (2_000, 8_000)


@dataclass
class Settings:
    """The amount of measuring."""

    rounds: int = 5
    slow_rounds: int = 2
    first_calls: int = 5
    pdex_genes: int = 100
    full_pdex: bool = False
    table: tuple[int, int] = TABLE
    papalexi: Path | None = None


@dataclass
class Run:
    """Everything a task needs."""

    pool: Pool
    record: Record
    files: ScreenFiles
    settings: Settings

    @property
    def subset(self) -> list[int]:
        """Evenly spaced genes for the tools that take minutes on all of them."""
        n_genes = self.files.parameters.n_genes
        wanted = min(self.settings.pdex_genes, n_genes)
        return np.unique(np.linspace(0, n_genes - 1, wanted).round().astype(int)).tolist()


@dataclass
class Entry:
    """One tool on one input, with a line of its own in the report."""

    label: str
    tool: str
    values: str
    genes: list[int] | None = None
    labels: Path | None = None
    warm_genes: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def input(self, files: ScreenFiles, *, warm: bool = False) -> dict[str, Any]:
        """Arguments of the worker's ``load``."""
        genes = self.warm_genes if warm and self.warm_genes is not None else self.genes
        parts = [self.values]
        if genes is not None:
            parts.append(f"{len(genes)} genes")
        if self.labels is not None:
            parts.append(self.labels.stem)
        return {
            "name": ", ".join(parts),
            "folder": str(files.folder),
            "values": self.values,
            "genes": genes,
            "labels": None if self.labels is None else str(self.labels),
        }

    def prepare(self, run: Run, metric: str) -> None:
        """Load the data and make one call, on fewer genes where a call takes minutes."""
        client = run.pool.get(self.tool)
        warm = self.input(run.files, warm=True)
        client.load(**warm)
        self._call(client, warm["name"], metric)
        timed = self.input(run.files)
        if timed["name"] != warm["name"]:
            client.drop(warm["name"])
            client.load(**timed)

    def measure(self, run: Run, metric: str) -> dict[str, Any]:
        return self._call(run.pool.get(self.tool), self.input(run.files)["name"], metric)

    def _call(self, client: Client, name: str, metric: str) -> dict[str, Any]:
        return client.ask(
            "run",
            name=name,
            metric=metric,
            is_log1p=self.values == "log1p",
            options=self.options,
        )


def interleave(
    run: Run, task: str, metric: str, entries: list[Entry], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each entry, round by round; an entry that fails is recorded and left out."""
    entries = [entry for entry in entries if run.pool.has(entry.tool)]
    rows: dict[str, int] = {}
    times: dict[str, list[float]] = {entry.label: [] for entry in entries}

    def attempt(entry: Entry, what: Callable[[Run, str], dict[str, Any] | None]) -> Any:
        try:
            return what(run, metric)
        except WorkerError as error:
            run.record.error(f"{task}, {entry.label}", str(error))
            times.pop(entry.label)
            return None

    for entry in entries:
        say(f"{task}: warming up {entry.label}")
        attempt(entry, entry.prepare)
    for number in range(rounds):
        for entry in entries:
            if entry.label not in times:
                continue
            done = attempt(entry, entry.measure)
            if done is not None:
                times[entry.label].append(done["seconds"])
                rows[entry.label] = done["rows"]
                turn = f"round {number + 1} of {rounds}"
                say(f"{task}: {turn}, {entry.label} {done['seconds']:.3f} s")
    run.record.task(
        task,
        {
            "metric": metric,
            "seconds": {label: summary(values) for label, values in times.items()},
            "rows": rows,
        },
    )
    return times


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------
# Agreement
# --------------------------------------------------------------------------------------


def sample_pairs(run: Run, *, within_subset: bool) -> list[tuple[str, str]]:
    """(target, gene) pairs drawn with a fixed seed: 20 targets by 25 genes of the subset.

    Each target's own gene, silenced and so with a tiny p-value, is added where all genes are
    tested.
    """
    rng = np.random.default_rng(run.files.parameters.seed)
    labels = np.unique(run.files.labels)
    names = run.files.genes
    targets = [str(t) for t in labels if t != REFERENCE]
    targets = sorted(rng.choice(targets, min(20, len(targets)), replace=False).tolist())
    subset = names[run.subset]
    genes = sorted(rng.choice(subset, min(25, len(subset)), replace=False).tolist())
    pairs = [(target, gene) for target in targets for gene in genes]
    if not within_subset:
        known = set(pairs)
        every = set(names.tolist())
        pairs += [(t, t) for t in targets if t in every and (t, t) not in known]
    return pairs


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Largest relative difference; `theirs` is the truth.

    Values that the other tool gives as 0 or below the normal float64 range have lost their
    digits there; they are counted, not compared. So are those it gives as NaN.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    tiny = np.finfo(np.float64).tiny
    lost = np.isfinite(b) & (np.abs(b) < tiny) & (a != b)
    missing = np.isnan(b) & ~np.isnan(a)
    used = ~(lost | missing) & ~(np.isnan(a) & np.isnan(b))
    a, b = a[used], b[used]
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b) / np.abs(b))
    difference = np.where(np.isnan(difference), 1e300, difference)  # NaN against a number
    return {
        "pairs": int(used.sum()),
        "max_relative_difference": float(difference.max(initial=0.0)),
        "smallest_compared": float(np.abs(b).min(initial=np.inf)) if len(b) else None,
        "lost_in_the_other_tool": int(lost.sum()),
        "nan_in_the_other_tool": int(missing.sum()),
    }


def agree(
    run: Run,
    name: str,
    ours: Callable[[], list[float]],
    theirs: Callable[[], list[float]],
) -> float | None:
    """Record one comparison; None where it cannot be made."""
    try:
        outcome = compare(ours(), theirs())
    except WorkerError as error:
        run.record.error(f"agreement, {name}", str(error))
        return None
    run.record.agreement(name, outcome)
    return float(outcome["max_relative_difference"])


def agree_with_last(
    run: Run, name: str, peer: str, pairs: list[tuple[str, str]], column: str = "p_value"
) -> float | None:
    """Compare the last results of pdex_gpu and a peer."""

    def of(tool: str) -> Callable[[], list[float]]:
        return lambda: run.pool.get(tool).ask("lookup", column=column, pairs=pairs)["values"]

    return agree(run, name, of(OURS), of(peer))


def agree_with_scipy(
    run: Run, metric: str, values: str, pairs: list[tuple[str, str]]
) -> dict[str, float | None]:
    """Compare pdex_gpu's last result with scipy, called pair by pair on float64 values."""
    client = run.pool.get(OURS)
    entry = Entry(OURS, OURS, values)
    try:
        client.load(**entry.input(run.files))
        truth = client.ask(
            "scipy_pairs", name=entry.input(run.files)["name"], metric=metric, pairs=pairs
        )
    except WorkerError as error:
        run.record.error(f"agreement, {metric} on {values}, scipy", str(error))
        return {}
    return {
        column: agree(
            run,
            f"{metric} on {values}, {column}: scipy",
            lambda column=column: client.ask("lookup", column=column, pairs=pairs)["values"],
            lambda column=column: truth[column],
        )
        for column in ("p_value", "statistic")
    }


def judge_scipy(run: Run, figure: str, differences: list[dict[str, float | None]]) -> None:
    """The worst p-value difference to scipy as a figure."""
    worst = [d["p_value"] for d in differences if d.get("p_value") is not None]
    if worst:
        run.record.figure(figure, max(w for w in worst if w is not None), sized=False)


def ratio(run: Run, figure: str, times: dict[str, list[float]], peer: str, **more: Any) -> None:
    """The paired ratio peer / pdex_gpu as a figure, where both were measured."""
    if times.get(peer) and times.get(OURS):
        pairs = paired_ratio(times[peer], times[OURS])
        run.record.figure(figure, pairs["median"], ratios=pairs["ratios"], **more)


# --------------------------------------------------------------------------------------
# The tasks
# --------------------------------------------------------------------------------------


def wilcoxon(run: Run) -> None:
    """Wilcoxon against illico and hpdex on counts and log1p, against scanpy and pdex on log1p."""
    pairs = sample_pairs(run, within_subset=False)
    against_scipy = []
    for values in ("counts", "log1p"):
        entries = [Entry(tool, tool, values) for tool in (OURS, "illico", "hpdex")]
        times = interleave(run, f"wilcoxon-{values}", "wilcoxon", entries, run.settings.rounds)
        for peer in ("illico", "hpdex"):
            ratio(run, f"wilcoxon_{values}_vs_{peer}", times, peer)
            if times.get(OURS) and times.get(peer):
                agree_with_last(run, f"wilcoxon on {values}, p_value: {peer}", peer, pairs)
        if times.get(OURS):
            against_scipy.append(agree_with_scipy(run, "wilcoxon", values, pairs))
        run.pool.release()
    judge_scipy(run, "wilcoxon_p_vs_scipy", against_scipy)

    warm = run.subset[:20]
    entries = [Entry(OURS, OURS, "log1p"), Entry("scanpy", "scanpy", "log1p", warm_genes=warm)]
    if run.pool.has("scanpy"):
        rounds = run.settings.slow_rounds
        times = interleave(run, "wilcoxon-log1p-scanpy", "wilcoxon", entries, rounds)
        ratio(run, "wilcoxon_log1p_vs_scanpy", times, "scanpy")
        if times.get(OURS) and times.get("scanpy"):
            # scanpy's normal approximation has no continuity correction.
            _agree_with_options(run, "wilcoxon", "scanpy", {"use_continuity": False}, pairs)
        run.pool.release()

    _against_pdex(run, "wilcoxon", "wilcoxon_log1p_vs_pdex")


def t_test(run: Run) -> None:
    """The t-test on log1p against scanpy's."""
    pairs = sample_pairs(run, within_subset=False)
    entries = [Entry(tool, tool, "log1p") for tool in (OURS, "scanpy")]
    times = interleave(run, "t-test-log1p", "t-test", entries, run.settings.rounds)
    ratio(run, "t_test_log1p_vs_scanpy", times, "scanpy")
    if times.get(OURS):
        judge_scipy(run, "t_test_p_vs_scipy", [agree_with_scipy(run, "t-test", "log1p", pairs)])
    if times.get(OURS) and times.get("scanpy"):
        # scanpy's t-test is Welch's.
        _agree_with_options(run, "t-test", "scanpy", {"equal_var": False}, pairs)
    run.pool.release()


def anderson(run: Run) -> None:
    """Anderson-Darling on log1p against pdex."""
    _against_pdex(run, "anderson", "anderson_log1p_vs_pdex")
    if run.pool.has(OURS):
        pairs = sample_pairs(run, within_subset=False)
        try:
            Entry(OURS, OURS, "log1p").prepare(run, "anderson")
        except WorkerError as error:
            run.record.error("anderson, agreement with scipy", str(error))
        else:
            difference = agree_with_scipy(run, "anderson", "log1p", pairs)
            judge_scipy(run, "anderson_p_vs_scipy", [difference])
        run.pool.release()


def _agree_with_options(
    run: Run, metric: str, peer: str, options: dict[str, Any], pairs: list[tuple[str, str]]
) -> None:
    """Compare with a peer whose test is another one of ours; the peer's last result stands."""
    entry = Entry(OURS, OURS, "log1p", options=options)
    told = ", ".join(f"{key}={value}" for key, value in options.items())
    name = f"{metric} ({told}) on log1p, p_value: {peer}"
    try:
        entry.measure(run, metric)
    except WorkerError as error:
        run.record.error(f"agreement, {name}", str(error))
        return
    agree_with_last(run, name, peer, pairs)


def _against_pdex(run: Run, metric: str, figure: str) -> None:
    """Against pdex 0.1.28: minutes on the whole matrix, so measured on evenly spaced genes.

    The ratio on the subset is measured. The one for the whole matrix takes pdex's seconds times
    (all genes / genes of the subset) over pdex_gpu's seconds on all genes in the same round, and
    says that it is extrapolated. With ``full_pdex`` all genes are measured.
    """
    if not run.pool.has("pdex"):
        return
    rounds, subset = run.settings.slow_rounds, run.subset
    task = f"{metric}-log1p-pdex"
    if run.settings.full_pdex or len(subset) == run.files.parameters.n_genes:
        entries = [
            Entry(OURS, OURS, "log1p"),
            Entry("pdex", "pdex", "log1p", warm_genes=subset[:5]),
        ]
        times = interleave(run, task, metric, entries, rounds)
        ratio(run, figure, times, "pdex")
    else:
        few = f"{len(subset)} genes"
        entries = [
            Entry(f"{OURS}, {few}", OURS, "log1p", genes=subset),
            Entry(f"pdex, {few}", "pdex", "log1p", genes=subset, warm_genes=subset[:5]),
            Entry(OURS, OURS, "log1p"),
        ]
        times = interleave(run, task, metric, entries, rounds)
        peer, small, whole = (times.get(k) for k in (f"pdex, {few}", f"{OURS}, {few}", OURS))
        if peer and small:
            measured = paired_ratio(peer, small)
            run.record.figure(
                f"{figure}_on_{len(subset)}_genes", measured["median"], ratios=measured["ratios"]
            )
        if peer and whole:
            scale = run.files.parameters.n_genes / len(subset)
            estimate = [seconds * scale for seconds in peer]
            scaled = paired_ratio(estimate, whole)
            run.record.figure(
                figure,
                scaled["median"],
                extrapolated=True,
                ratios=scaled["ratios"],
                subset_genes=len(subset),
                all_genes=run.files.parameters.n_genes,
                pdex_subset_seconds=statistics.median(peer),
                pdex_all_genes_seconds_estimate=statistics.median(estimate),
                pdex_gpu_all_genes_seconds=statistics.median(whole),
            )
    run.pool.release()
    if run.pool.has(OURS):
        _agree_with_pdex(run, metric)
        run.pool.release()


def _agree_with_pdex(run: Run, metric: str) -> None:
    """Compare with pdex on float64 values of a few groups and genes.

    On float32 input pdex lets scipy compute in float32, which loses digits and small p-values.
    """
    pairs = sample_pairs(run, within_subset=True)
    place = {gene: i for i, gene in enumerate(run.files.genes.tolist())}
    genes = sorted({place[gene] for _, gene in pairs})
    groups = sorted({target for target, _ in pairs})

    def of(tool: str, column: str) -> Callable[[], list[float]]:
        def values() -> list[float]:
            client = run.pool.get(tool)
            client.load(
                "float64 sample",
                folder=str(run.files.folder),
                values="log1p",
                genes=genes,
                dtype="float64",
            )
            client.ask(
                "run",
                name="float64 sample",
                metric=metric,
                is_log1p=True,
                options={"groups": groups},
            )
            found: list[float] = client.ask("lookup", column=column, pairs=pairs)["values"]
            return found

        return values

    for column in ("p_value", "statistic"):
        agree(
            run,
            f"{metric} on log1p, {column}: pdex",
            of(OURS, column),
            of("pdex", column),
        )


def groups(run: Run) -> None:
    """pdex_gpu alone, the same cells in 20, 300 and 2,000 perturbations."""
    if not run.pool.has(OURS):
        return
    n_treated = int(np.count_nonzero(run.files.labels != REFERENCE))
    sizes = [n for n in GROUPS if n_treated >= 3 * n]
    if len(sizes) < 2:
        run.record.note("groups: left out, the screen has too few cells")
        return
    for values in ("counts", "log1p"):
        entries = [Entry(f"{n} groups", OURS, values, labels=run.files.regrouped(n)) for n in sizes]
        times = interleave(run, f"groups-{values}", "wilcoxon", entries, run.settings.rounds)
        most, least = times.get(f"{sizes[-1]} groups"), times.get(f"{sizes[0]} groups")
        if most and least:
            grown = paired_ratio(most, least)
            run.record.figure(
                f"groups_{values}", grown["median"], ratios=grown["ratios"], sizes=sizes
            )
        run.pool.release()


def memory(run: Run) -> None:
    """Peak resident memory of one Wilcoxon call beyond the input, in a fresh process."""
    if not Path("/proc/self/clear_refs").exists():
        run.record.note("memory: left out, this system has no /proc/self/clear_refs")
        return
    run.pool.release()
    for values in ("counts", "log1p"):
        outcomes = {}
        for tool in (OURS, "illico"):
            if not run.pool.has(tool):
                continue
            try:
                client = run.pool.fresh(tool, label=f"{tool}-memory")
                try:
                    arguments = Entry(tool, tool, values).input(run.files)
                    client.load(**arguments)
                    outcome = client.ask(
                        "peak",
                        name=arguments["name"],
                        metric="wilcoxon",
                        is_log1p=values == "log1p",
                    )
                finally:
                    client.close()
            except WorkerError as error:
                run.record.error(f"memory-{values}, {tool}", str(error))
                continue
            outcome["ratio_to_input"] = outcome["beyond_bytes"] / outcome["input_bytes"]
            outcomes[tool] = outcome
            say(f"memory-{values}: {tool} {outcome['ratio_to_input']:.2f} x the input")
            name = f"memory_{values}" if tool == OURS else f"memory_{values}_{tool}"
            run.record.figure(name, outcome["ratio_to_input"], bytes=outcome["beyond_bytes"])
        run.record.task(f"memory-{values}", {"metric": "wilcoxon", "peaks": outcomes})


FROM_PYTHON = """
import sys, time
start = time.perf_counter()
import anndata
anndata_done = time.perf_counter()
import pdex_gpu
adata = anndata.read_h5ad(sys.argv[1])
read_done = time.perf_counter()
result = pdex_gpu.differential_expression(
    adata, groupby="perturbation", reference="non-targeting", progress=False
)
stop = time.perf_counter()
print(anndata_done - start, read_done - anndata_done, stop - read_done)
"""

ILLICO_FROM_PYTHON = """
import sys
import anndata
from illico import asymptotic_wilcoxon
adata = anndata.read_h5ad(sys.argv[1])
asymptotic_wilcoxon(
    adata, is_log1p=False, group_keys="perturbation", reference="non-targeting", n_threads=2
)
"""


def first_call(run: Run) -> None:
    """Process start to finished table on a real screen, and the first call from Python."""
    path = run.settings.papalexi
    if not run.pool.has(OURS):
        return
    if path is None or not path.exists():
        run.record.note(
            f"first_call: left out, there is no {path.name if path else 'file'}; "
            "--data-dir names the folder it lies in"
        )
        return
    path = path.resolve()
    env = environment(run.pool.threads)
    ours = {**env, "PYTHONPATH": str(REPOSITORY)}  # this checkout, whatever is installed
    script = Path(sys.executable).parent / "pdex-gpu"
    program = [str(script)] if script.exists() else [sys.executable, "-m", "pdex_gpu"]

    def timed(command: list[str], environ: dict[str, str]) -> tuple[float, str]:
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / "first_call.log").open("w+") as log:
            start = time.perf_counter()
            done = subprocess.run(
                command, env=environ, cwd=tempfile.gettempdir(), stdout=subprocess.PIPE,
                stderr=log, text=True,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            if done.returncode != 0:
                log.seek(0)
                tail = " | ".join(log.read().strip().splitlines()[-3:])
                raise WorkerError(f"exit code {done.returncode}: {tail}")
        return seconds, done.stdout

    def command_line(folder: str, environ: dict[str, str]) -> float:
        out = Path(folder) / "table.parquet"
        out.unlink(missing_ok=True)
        seconds, _ = timed(
            [*program, "run", str(path), "--groupby", "perturbation",
             "--reference", REFERENCE, "-o", str(out)],
            environ,
        )  # fmt: skip
        if not out.exists():
            raise WorkerError("the command line ended well but wrote no table")
        return seconds

    with tempfile.TemporaryDirectory() as folder:

        def warm_command_line() -> dict[str, float]:
            return {"command line": command_line(folder, ours)}

        def from_python() -> dict[str, float]:
            total, text = timed([sys.executable, "-c", FROM_PYTHON, str(path)], ours)
            imported, read, called = (float(word) for word in text.split()[-3:])
            return {
                "python: import anndata": imported,
                "python: import and read": read,
                "python: first call": called,
                "python: beyond anndata": read + called,
                "python: whole process": total,
            }

        def illico() -> dict[str, float]:
            python = str(run.pool.python("illico"))
            total, _ = timed([python, "-c", ILLICO_FROM_PYTHON, str(path)], env)
            return {"illico: whole process": total}

        measures: dict[str, Callable[[], dict[str, float]]] = {
            "command line": warm_command_line,
            "python": from_python,
        }
        if run.pool.has("illico"):
            measures["illico"] = illico
        times: dict[str, list[float]] = {}
        for number in range(-1, run.settings.first_calls):  # round -1 warms the caches
            say(f"first_call: {'warming up' if number < 0 else f'round {number + 1}'}")
            for name in list(measures):
                try:
                    found = measures[name]()
                except WorkerError as error:
                    run.record.error(f"first_call, {name}", str(error))
                    del measures[name]
                    continue
                if number >= 0:
                    for label, seconds in found.items():
                        times.setdefault(label, []).append(seconds)
        try:
            with tempfile.TemporaryDirectory() as cache:
                cold = {**ours, "NUMBA_CACHE_DIR": cache}
                times["command line, cold cache"] = [command_line(folder, cold)]
                if not any(files for _, _, files in os.walk(cache)):
                    run.record.note(
                        "first_call: NUMBA_CACHE_DIR was left empty, so the cold figure may be warm"
                    )
        except WorkerError as error:
            run.record.error("first_call, command line with a cold cache", str(error))

    summaries = {label: summary(values) for label, values in times.items()}
    run.record.task("first_call", {"file": path.name, "seconds": summaries})
    for figure, label in (
        ("first_call_cli_warm", "command line"),
        ("first_call_cli_cold", "command line, cold cache"),
        ("first_call_python", "python: beyond anndata"),
    ):
        if label in summaries:
            run.record.figure(figure, summaries[label]["median"], sized=False)


def table(run: Run) -> None:
    """FDR and Parquet of 16 million rows, in a fresh process."""
    if not run.pool.has(OURS):
        return
    n_groups, n_genes = run.settings.table
    need = 40 * n_groups * n_genes * 8
    if shutil.disk_usage(tempfile.gettempdir()).free < need // 2:
        run.record.note("table: left out, the folder for temporary files is too full")
        return
    run.pool.release()
    client = run.pool.fresh(OURS, label="table")
    try:
        found = [
            client.ask("table", n_groups=n_groups, n_genes=n_genes, seed=number)
            for number in range(min(3, run.settings.rounds))
        ]
    except WorkerError as error:
        run.record.error("table", str(error))
        return
    finally:
        client.close()
    seconds = {
        label: summary([outcome[key] for outcome in found])
        for label, key in (
            ("fdr", "fdr_seconds"),
            ("to_parquet", "to_parquet_seconds"),
            ("both", "seconds"),
        )
    }
    size = {"rows": n_groups * n_genes, "file_bytes": found[0]["file_bytes"]}
    run.record.task("table", {**size, "seconds": seconds})
    if (n_groups, n_genes) == TABLE:
        run.record.figure("table_16m", seconds["both"]["median"], sized=False)


TASKS: dict[str, Callable[[Run], None]] = {
    "wilcoxon": wilcoxon,
    "t-test": t_test,
    "anderson": anderson,
    "groups": groups,
    "memory": memory,
    "first_call": first_call,
    "table": table,
}
