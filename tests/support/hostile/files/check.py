"""A damaged file read, and what came of it judged."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np

import pdex_gpu
from pdex_gpu.errors import PdexGpuError
from pdex_gpu.estimation.model import MachineRates

from ..verdict import RIGHT, UNDETECTABLE, Verdict, foreign
from . import documents, made
from .change import FAILED, change
from .draw import Case, draw
from .made import CALL, GROUP
from .truth import UnusableError, read_screen

#: Columns by row and gene, both by their labels.
Table = dict[Any, Any]


class _CommandError(Exception):
    """A command ended with an exit code that says what is wrong."""


def problems(seed: int) -> list[str]:
    """What is wrong with what came of a case; nothing if all is right."""
    return list(verdict(seed).problems)


def verdict(seed: int) -> Verdict:
    """What came of a case."""
    case = draw(seed)
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _FAMILIES[case.family](case, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warm() -> None:
    """Make the files, and the calls of all kinds, so that none is compiled while a case runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for values in made.VALUES:
            for form in ("h5ad csr", "h5ad csc", "h5ad dense"):
                path = made.stored_screen(form, values, "text")
                for metric in dict.fromkeys(made.METRICS):
                    for entry in ("native", "calibrate"):
                        _ENTRIES[entry](str(path), "text", metric, None)
        for form in made.RESULTS:
            made.stored_result(form)
        for form in made.CHECKPOINTS:
            made.interrupted(form)


def _wrong(line: str, done: list[str]) -> Verdict:
    return Verdict(problems=(f"{line} [{'; '.join(done)}]",))


def _judged(
    case: Case,
    done: list[str],
    call: Callable[[], Any],
    right: Callable[[], Any],
    truth: Callable[[], Any] | None = None,
) -> Verdict:
    """Call, and hold the answer to the one for the file as it was, or else to the truth."""
    harmless = case.harmless and not any(FAILED in line for line in done)
    try:
        found = call()
    except PdexGpuError as error:
        if not str(error).strip():
            return _wrong(f"foreign exception: {type(error).__name__} without a word", done)
        if harmless:
            return _wrong(f"needless refusal: {type(error).__name__}: {error}", done)
        return Verdict(type(error).__name__)
    except _CommandError as error:
        if harmless:
            return _wrong(f"needless refusal: {error}", done)
        return Verdict("Exit")
    except Exception as error:
        return _wrong(foreign(error), done)
    if same(found, right()):
        return Verdict(RIGHT)
    if truth is None:
        return _wrong(f"wrong table: {_difference(found, right())}", done)
    try:
        held_to = truth()
    except (UnusableError, PdexGpuError) as error:
        return _wrong(f"wrong table: of a file that is refused elsewhere: {error}", done)
    if not same(found, held_to):
        return _wrong(f"wrong table: {_difference(found, held_to)}", done)
    return Verdict(UNDETECTABLE)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same, to the last bit."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


def _difference(found: Any, right: Any) -> str:
    if not isinstance(found, dict) or not isinstance(right, dict):
        return f"{found!r:.100}, right is {right!r:.100}"
    if found.keys() != right.keys():
        more, less = list(found.keys() - right.keys()), list(right.keys() - found.keys())
        return f"too much: {ascii(more)[:150]}, missing: {ascii(less)[:150]}"
    for key in found:
        if not same(found[key], right[key]):
            return f"{key!r}: {_difference(found[key], right[key])}"
    return "none"


# --- screens -----------------------------------------------------------------------------------


def _screen(case: Case, folder: Path) -> Verdict:
    source = made.stored_screen(case.form, case.values, case.labels)
    path = folder / f"screen{source.suffix}"
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    done = change(case, path)
    inner = "mod/rna" if case.form.startswith("h5mu") else ""
    matrix = made.matrix_of(case.form).removeprefix("mod/rna/")
    layer = "values" if case.form == "h5ad layer" else None
    names = (case.labels, case.metric, layer)
    given = f"{path}/{inner}" if inner else str(path)
    entry = "native" if case.entry == "command" else case.entry
    call = _command_run if case.entry == "command" else _ENTRIES[entry]

    def truth() -> Any:
        return _ENTRIES[entry](read_screen(path, inner, matrix), case.labels, case.metric, None)

    result = _judged(
        case, done, lambda: call(given, *names),
        lambda: _right(entry, case.values, case.labels, case.metric), truth,
    )  # fmt: skip
    left = sorted(p.name for p in folder.iterdir() if p.name.startswith((".out", "out")))
    if left and (result.outcome not in (RIGHT, UNDETECTABLE) or left != ["out.parquet"]):
        return Verdict(result.outcome, (*result.problems, f"leak: {left} beside the output"))
    return result


@cache
def _right(entry: str, values: str, labels: str, metric: str) -> Any:
    return _ENTRIES[entry](made.screen(values, labels), labels, metric, None)


def table_of(result: Any) -> Table:
    """A result in memory, by labels."""
    levels = [()] * len(result.targets) if result.within is None else result.within[1]
    names = [str(name) for name in result.features]
    rows = enumerate(zip(result.targets, result.references, levels, strict=True))
    kept = np.ones((len(result.targets), len(names)), bool) if result.kept is None else result.kept
    return {
        (str(target), str(reference), str(level)): {
            column: [
                *zip(names, np.where(kept[t], result[column][t], np.nan).tolist(), strict=True)
            ]
            for column in result.columns
        }
        for t, (target, reference, level) in rows
    } | {"features": names}


def _exact(table: Table) -> Table:
    """The same with numbers as their bits, so that NaN is NaN."""
    return {
        key: value
        if key == "features"
        else {c: [(n, float(x).hex()) for n, x in pairs] for c, pairs in value.items()}
        for key, value in table.items()
    }


def _native(data: Any, labels: str, metric: str, layer: str | None) -> Any:
    options = {"comparison": "rest", "metric": metric, "layer": layer} | CALL
    return _exact(table_of(pdex_gpu.differential_expression(data, GROUP, **options)))


def _calibrate(data: Any, labels: str, metric: str, layer: str | None) -> Any:
    found = pdex_gpu.calibrate(
        data, GROUP, reference=made.group_names(labels)[0], metric=metric, layer=layer,
        n_repeats=1, seed=1, backend="cpu", progress=False,
    )  # fmt: skip
    table = found.table().drop(columns=["seconds"], errors="ignore")
    return {name: [repr(x) for x in table[name].tolist()] for name in table}


def _pseudobulk(data: Any, labels: str, metric: str, layer: str | None) -> Any:
    found: ad.AnnData = pdex_gpu.pseudobulk(data, [GROUP], layer=layer)
    sums = np.asarray(found.X, np.float64)
    rows = zip(found.obs[GROUP].astype(str), sums, strict=True)
    return {label: [x.hex() for x in row.tolist()] for label, row in rows} | {
        "features": [str(x) for x in found.var_names]
    }


#: In place of those that are measured, which takes long.
_RATES = MachineRates(*(float(k + 1) for k in range(len(fields(MachineRates)))))


def _estimate(data: Any, labels: str, metric: str, layer: str | None) -> Any:
    if not isinstance(data, ad.AnnData):
        pdex_gpu.estimate(
            data, GROUP, comparison="rest", metric=metric, layer=layer, backend="cpu", rates=_RATES
        )
    return {}  # seconds depend on how it is stored


def _plan(data: Any, labels: str, metric: str, layer: str | None) -> Any:
    if isinstance(data, ad.AnnData):
        return {}
    with patch("pdex_gpu.estimation.benchmark.measure_rates", lambda *_, **__: _RATES):
        more = [] if layer is None else ["--layer", layer]
        command(
            "estimate", data, "--groupby", GROUP, "--comparison", "rest", "--metric", metric, *more
        )
    return {}


_ENTRIES: dict[str, Callable[..., Any]] = {
    "native": _native,
    "calibrate": _calibrate,
    "pseudobulk": _pseudobulk,
    "estimate": _estimate,
    "plan": _plan,
}


def command(*arguments: str) -> None:
    """A command of pdex-gpu; raises unless it does what is asked."""
    from pdex_gpu.cli import main

    code = main(list(arguments))
    if code == 1:
        raise RuntimeError(f"pdex-gpu {arguments[0]} ends with an unexpected error")
    if code:
        raise _CommandError(f"exit code {code}")


def _command_run(data: str, labels: str, metric: str, layer: str | None) -> Any:
    out = Path(data.removesuffix("/mod/rna")).parent / "out.parquet"
    more = [] if layer is None else ["--layer", layer]
    command(
        "run", data, "-o", str(out), "--quiet", "--backend", "cpu", "--memory", "100MB",
        "--groupby", GROUP, "--metric", metric, "--comparison", "rest", *more,
    )  # fmt: skip
    return _exact(table_of(pdex_gpu.open_result(out).load()))


# --- results -----------------------------------------------------------------------------------


def _parquet(case: Case, folder: Path) -> Verdict:
    path = folder / "out.parquet"
    shutil.copy(made.stored_result(case.form), path)
    done = change(case, path)
    result = made.result(case.form)
    call = _RESULT_ENTRIES[case.entry]
    if case.entry == "command top" and result.within is not None:  # one of two comparisons
        call = _of_command("top", "STAT1", "--within", str(result.within[1][0]), "--json")

    def right() -> Any:
        if case.entry in ("load", "rows", "blocks", "to_pandas"):
            return _exact(table_of(result))
        return _top(result) if case.entry == "top" else {}

    found = _judged(case, done, lambda: call(path), right)
    return _checked_outputs(found, folder)


def _checked_outputs(found: Verdict, folder: Path) -> Verdict:
    """What a command has written is there only if the command has succeeded."""
    left = sorted(p.name for p in folder.iterdir() if p.name.startswith("made"))
    if left and found.outcome not in (RIGHT, UNDETECTABLE):
        return Verdict(found.outcome, (*found.problems, f"leak: {left} after an error"))
    return found


def _load(path: Path) -> Any:
    return _exact(table_of(pdex_gpu.open_result(path).load()))


def _labelled(result: Any, values: dict[str, np.ndarray]) -> Table:
    """Columns of a result in a file, as :func:`table_of` gives them."""
    from types import SimpleNamespace

    made_of = SimpleNamespace(
        targets=result.targets, references=result.references, features=result.features,
        within=result.within, kept=result.kept, columns=tuple(values),
        __getitem__=values.__getitem__,
    )  # fmt: skip
    return _exact(table_of(_Indexed(made_of, values)))


class _Indexed:
    def __init__(self, facts: Any, values: dict[str, np.ndarray]) -> None:
        self.__dict__.update(vars(facts))
        self._values = values

    def __getitem__(self, name: str) -> np.ndarray:
        return self._values[name]


def _rows(path: Path) -> Any:
    result = pdex_gpu.open_result(path)
    rows = [result.row(t, result.columns) for t in range(len(result.targets))]
    return _labelled(result, {n: np.stack([row[n] for row in rows]) for n in result.columns})


def _blocks(path: Path) -> Any:
    result = pdex_gpu.open_result(path)
    parts = [block for _, block in result.blocks(result.columns)]
    return _labelled(result, {n: np.concatenate([p[n] for p in parts]) for n in result.columns})


def _to_pandas(path: Path) -> Any:
    loaded = pdex_gpu.open_result(path).load()
    loaded.to_pandas()
    return _exact(table_of(loaded))


def _top(result: Any) -> Any:
    target, level = result.targets[0], None if result.within is None else result.within[1][0]
    more = {} if level is None else {"within": level}
    rows = result.top(str(target), 5, **more)
    return {
        "top": [ascii((row["feature"], row["p_value"], row["fdr"])) for _, row in rows.iterrows()]
    }


def _report(path: Path) -> Any:
    pdex_gpu.open_result(path).report(path.with_name("made.html"))
    return {}


def _of_command(name: str, *more: str) -> Callable[[Path], Any]:
    def call(path: Path) -> Any:
        arguments = [a.replace("FOLDER", str(path.parent)) for a in more]
        command(*name.split(), str(path), *arguments)
        return {}

    return call


_RESULT_ENTRIES: dict[str, Callable[[Path], Any]] = {
    "load": _load,
    "rows": _rows,
    "blocks": _blocks,
    "to_pandas": _to_pandas,
    "report": _report,
    "top": lambda path: _top(pdex_gpu.open_result(path)),
    "command top": _of_command("top", "STAT1", "--json"),
    "command report": _of_command("report", "-o", "FOLDER/made.html", "--quiet"),
    "command plot": _of_command("plot p-values", "-o", "FOLDER/made.svg", "--quiet"),
    "command doctor": _of_command("doctor"),
}


# --- calibrations ------------------------------------------------------------------------------


def _json(case: Case, folder: Path) -> Verdict:
    path = folder / "calibration.json"
    shutil.copy(made.stored_calibration(), path)
    done = change(case, path)

    def right() -> Any:
        return _document(made.stored_calibration()) if case.entry == "from_json" else {}

    def call() -> Any:
        if case.entry == "from_json":
            again = folder / "again.json"
            pdex_gpu.Calibration.from_json(path).to_json(again)
            return _document(again)
        command(
            "report", str(made.stored_result("plain")), "--calibration", str(path), "-o",
            str(folder / "made.html"), "--quiet",
        )  # fmt: skip
        return {}

    def truth() -> Any:
        held_to = _document(path)
        return {key: held_to.get(key) for key in right()} if isinstance(held_to, dict) else held_to

    return _checked_outputs(_judged(case, done, call, right, truth), folder)


def _document(path: Path) -> Any:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UnusableError(str(error)) from error
    return _numbers(found)


def _numbers(value: Any) -> Any:
    """Numbers as what they are as float64: 1 is 1.0."""
    if isinstance(value, dict):
        return {key: _numbers(part) for key, part in value.items() if key != "pdex_gpu"}
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else value
    return value


# --- pairs -------------------------------------------------------------------------------------


def _csv(case: Case, folder: Path) -> Verdict:
    path, out = folder / "pairs.csv", folder / "out.parquet"
    path.write_text("target,reference\nSTAT1,ctrl\nβ,ctrl\nA+B,STAT1\n", encoding="utf-8")
    done = change(case, path)
    screen = made.stored_screen("h5ad csr", "log", "text")

    def call() -> Any:
        command(
            "run", str(screen), "-o", str(out), "--quiet", "--backend", "cpu", "--groupby", GROUP,
            "--comparison", "pairs", "--pairs", str(path),
        )  # fmt: skip
        found = pdex_gpu.open_result(out)
        return [*zip(map(str, found.targets), map(str, found.references), strict=True)]

    def right() -> Any:
        return [("STAT1", "ctrl"), ("β", "ctrl"), ("A+B", "STAT1")]

    def truth() -> Any:
        try:
            rows = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
            return [(row["target"], row["reference"]) for row in rows]
        except (UnicodeError, KeyError, csv.Error) as error:
            raise UnusableError(str(error)) from error

    found = _judged(case, done, call, right, truth)
    if found.outcome == "Exit" and set(done) <= documents.HARMLESS_CSV:
        return _wrong("needless refusal: of a table of pairs", done)
    return found


# --- interrupted runs --------------------------------------------------------------------------


#: How the names of what a checkpoint holds begin.
_OWN = ("a file", "genes-", "run.json", "finished.json", "split", "lock", "output")


def _checkpoint(case: Case, folder: Path) -> Verdict:
    left, whole = made.interrupted(case.form)
    checkpoint, out = folder / left.name, folder / "out.parquet"
    shutil.copytree(left, checkpoint)
    done = change(case, checkpoint)
    options = made.run_options(case.form)

    def call() -> Any:
        pdex_gpu.differential_expression(out=out, **options)
        return out.read_bytes()

    found = _judged(case, done, call, lambda: whole)
    if found.outcome == RIGHT and not found.problems and checkpoint.exists():
        names = sorted(p.name for p in checkpoint.iterdir()) if checkpoint.is_dir() else ["a file"]
        strangers = ("aside", "bak")  # what a change moved away is a stranger's
        if any(name.startswith(_OWN) and not name.endswith(strangers) for name in names):
            return _wrong(f"leak: the checkpoint is there after the run: {names}", done)
    return found


_FAMILIES: dict[str, Callable[[Case, Path], Verdict]] = {
    "h5ad": _screen,
    "zarr": _screen,
    "parquet": _parquet,
    "json": _json,
    "csv": _csv,
    "checkpoint": _checkpoint,
}
