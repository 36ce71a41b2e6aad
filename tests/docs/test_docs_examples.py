"""Examples of docstrings and pages give what they say; every public name is documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

import pdex_gpu
from pdex_gpu import errors, pl, simulate
from pdex_gpu.backends.registry import BackendInfo
from pdex_gpu.calibration.distributions import Distribution, Quantiles
from pdex_gpu.cli import main
from pdex_gpu.estimation.model import MachineRates
from pdex_gpu.results import schema
from pdex_gpu.results.base import Result
from pdex_gpu.utils import progress
from pdex_gpu.utils.exit_codes import Exit

DOCS = ROOT / "docs"
FLAGS = doctest.NORMALIZE_WHITESPACE

FUNCTIONS: dict[str, Any] = {
    name: getattr(pdex_gpu, name)
    for name in pdex_gpu.__all__
    if inspect.isfunction(getattr(pdex_gpu, name))
}
FUNCTIONS |= {f"pl.{name}": getattr(pl, name) for name in pl.__all__}
FUNCTIONS["simulate.simulate_screen"] = simulate.simulate_screen
CLASSES = (
    pdex_gpu.DEResult, pdex_gpu.ResultFile, pdex_gpu.Calibration, Result, progress.Progress,
    schema.Column, simulate.Screen, Distribution, Quantiles, BackendInfo, pdex_gpu.Estimate,
    MachineRates, pdex_gpu.Dask,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No backend but the one that is chosen; what examples write goes to the test's folder."""
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


#: Modules with examples.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "pdex_gpu").rglob("*.py")
    if path.name != "__init__.py" and ">>> " in path.read_text("utf-8")
)


# --- examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, optionflags=FLAGS)
    assert failed == 0
    assert attempted


def test_modules_with_examples_are_those_of_public_functions():
    functions = [FUNCTIONS[name] for name in FUNCTIONS if not name.startswith("pl.")]
    assert {function.__module__ for function in functions} <= set(MODULES)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if not n.startswith("pl.")])
def test_every_function_has_an_example(name):
    text = inspect.getdoc(FUNCTIONS[name])
    run = [line for line in text.splitlines() if line.startswith(">>>") and "SKIP" not in line]
    assert len(run) > 1


_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [p for p in sorted(DOCS.rglob("*.md")) if _BLOCK.search(p.read_text("utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_examples_of_pages(page):
    """The blocks of a page, one after another, as one session."""
    text = "\n".join(_BLOCK.findall(page.read_text("utf-8")))
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
    assert len(example.examples) > 3


def test_pages_with_examples_were_found():
    assert {page.stem for page in PAGES} >= {"quickstart", "backends"}


def test_other_python_blocks_are_python():
    """What cannot run here, for want of a file, must still be code."""
    n_blocks = 0
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M):
            compile(block, str(page), "exec")
            n_blocks += 1
    assert n_blocks > 10


def test_the_list_of_backends_is_as_the_reference_says():
    text = (DOCS / "api" / "backends.md").read_text("utf-8")
    assert str([info.name for info in pdex_gpu.backends()]) in text


def test_commands_of_pages_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """``pdex-gpu COMMAND --option``: both are known."""
    found: dict[str, set[str]] = {}
    for page in DOCS.rglob("*.md"):
        for line in re.findall(r"pdex-gpu ([a-z]+[^`\n]*)", page.read_text("utf-8")):
            command = line.split()[0]
            options = set(re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", line.split("#")[0]))
            found.setdefault(command, set()).update(options)
    known = {"run", "estimate", "top", "report", "backends", "doctor", "demo"}
    assert known <= found.keys()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for command in known:
        assert main([command, "--help"]) == Exit.OK
        text = capsys.readouterr().out
        for option in found[command]:
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", text), (command, option)


# --- docstrings -----------------------------------------------------------------------------


def _parsed(thing: Any) -> Any:
    docscrape = pytest.importorskip("numpydoc.docscrape", reason="needs the extra docs")
    return docscrape.NumpyDocString(inspect.getdoc(thing))


def _names(fields: Any) -> list[str]:
    return [name.strip().lstrip("*") for field in fields for name in field.name.split(",")]


def _declared(function: Any) -> list[str]:
    """Names of parameters as written, where the signature lists the options behind `**`."""
    function = inspect.unwrap(function)
    made = function.__dict__.pop("__signature__", None)
    try:
        return list(inspect.signature(function).parameters)
    finally:
        if made is not None:
            function.__signature__ = made


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_say_what_they_take_and_give(name):
    text = _parsed(FUNCTIONS[name])
    assert text["Summary"]
    assert " ".join(text["Summary"]).endswith((".", ":"))
    named, declared = _names(text["Parameters"]), _declared(FUNCTIONS[name])
    shown = list(inspect.signature(FUNCTIONS[name]).parameters)
    if shown != declared and named != declared:  # options, which may be in groups of their own
        named, shown = sorted(named), sorted(shown)
    assert named in (declared, shown)
    for field in text["Parameters"]:
        assert field.desc or field.type, field.name
    assert text["Returns"]
    assert text["Returns"][0].desc or text["Returns"][0].type
    assert text["Raises"]
    for field in text["Raises"]:
        for kind in re.split(r",\s*", field.type or field.name):
            kind = kind.rsplit(".", 1)[-1]
            assert hasattr(errors, kind) or kind in ("FileNotFoundError", "ValueError"), kind


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_classes_say_what_they_hold(kind):
    text = _parsed(kind)
    assert text["Summary"]
    documented = set(_names(text["Attributes"]))
    fields = set(getattr(kind, "__dataclass_fields__", {}))
    if fields:
        assert documented == fields
    else:
        assert {"targets", "references", "features", "columns", "within", "kept"} <= documented
    for field in text["Attributes"]:
        if "numpy.ndarray" in field.type:
            assert "shape" in field.type + " ".join(field.desc), field.name


def _methods(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_") and callable(value)
    ]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_methods_are_documented(kind):
    for name, method in _methods(kind):
        text = _parsed(method)
        assert text["Summary"], name
        named = _names(text["Parameters"])
        if named:
            taken = [p for p in inspect.signature(method).parameters if p not in ("self", "cls")]
            assert named == taken, name
    for name, value in inspect.getmembers(kind, lambda v: isinstance(v, property)):
        assert name.startswith("_") or inspect.getdoc(value), name


def test_classes_of_errors_are_documented():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            assert kind.__doc__.strip().endswith("."), name


#: Checks of numpydoc for what would be rendered wrongly: tabs, unknown sections, sections out of
#: order, no docstring, parameters missing, unknown, out of order or malformed, no summary, no
#: Returns. Left out are matters of taste.
CHECKED = {"GL05", "GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "PR10", "SS01", "SS04", "RT01"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpydoc_finds_nothing(name):
    validate = pytest.importorskip("numpydoc.validate", reason="needs the extra docs")
    function = FUNCTIONS[name]
    found = validate.validate(f"{function.__module__}.{function.__name__}")["errors"]
    checked = CHECKED
    if _declared(function) != list(inspect.signature(function).parameters):
        checked = CHECKED - {"PR01", "PR02", "PR03"}  # the test above knows of options in groups
    assert [error for error in found if error[0] in checked] == []
