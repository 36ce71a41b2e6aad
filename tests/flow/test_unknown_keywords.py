"""Every public call answers an unknown keyword with the closest of its parameters."""

from __future__ import annotations

import inspect
import warnings

import pytest

import pdex_gpu
import pdex_gpu.simulate
from pdex_gpu.design.comparisons import Pairs
from pdex_gpu.errors import OptionError, PdexGpuError, SkippedWarning, UnknownOptionError, warn
from pdex_gpu.estimation.model import MachineRates
from pdex_gpu.report import write_report
from pdex_gpu.utils.keywords import known_keywords, known_keywords_of_init

CLASSES = [
    pdex_gpu.Calibration,
    pdex_gpu.DEResult,
    pdex_gpu.Estimate,
    pdex_gpu.Progress,
    pdex_gpu.ResultFile,
    pdex_gpu.simulate.Screen,
]

#: The calls with ``**kwargs``, which the options of the test may be, and what they need.
OPEN = {
    "calibrate": {"progress": False},
    "differential_expression": {"progress": False},
    "estimate": {"timing": False},
    "parallel_differential_expression": {"show_progress": False},
    "pdex": {"as_pandas": True, "is_log1p": False},
}


def _public():
    """Return all public callables by name: functions, constructors and methods."""
    found = {name: getattr(pdex_gpu, name) for name in pdex_gpu.__all__ if name != "__version__"}
    del found["pl"]
    found |= {f"pl.{name}": getattr(pdex_gpu.pl, name) for name in pdex_gpu.pl.__all__}
    found |= {one.__name__: one for one in (MachineRates, Pairs)}
    found["simulate_screen"] = pdex_gpu.simulate.simulate_screen
    found["write_report"] = write_report
    for cls in CLASSES:
        found[cls.__name__] = cls
        for name in dir(cls):
            if not name.startswith("_") and callable(getattr(cls, name)):
                found[f"{cls.__name__}.{name}"] = getattr(cls, name)
    return found


PUBLIC = _public()
CLOSED = {name: function for name, function in PUBLIC.items() if name not in OPEN}


@pytest.fixture(scope="module")
def adata():
    return pdex_gpu.simulate.simulate_screen(300, 20, 3, seed=1).to_anndata()


def _parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _refused(function, **keywords):
    with pytest.raises(UnknownOptionError) as caught:
        function(**keywords)
    return str(caught.value)


def test_all_public_calls_are_covered():
    assert {"pl.volcano", "DEResult.top", "ResultFile.load", "Calibration.to_json"} <= set(CLOSED)
    for name, function in PUBLIC.items():
        takes_any = any(
            parameter.kind is parameter.VAR_KEYWORD
            for parameter in inspect.signature(function).parameters.values()
        )
        assert takes_any == (name in OPEN), name


@pytest.mark.parametrize("name", CLOSED)
def test_typos_are_answered_with_the_parameter(name):
    function = CLOSED[name]
    for parameter in _parameters(function):
        typo = f"{parameter}_"
        text = _refused(function, **{typo: None})
        assert text.startswith(f"Unknown option '{typo}' of {name.rpartition('.')[2]}().")
        assert f"Did you mean '{parameter}'" in text


@pytest.mark.parametrize("name", CLOSED)
def test_other_keywords_are_answered_with_all_parameters(name):
    text = _refused(CLOSED[name], zzzzzz=1)
    assert "Did you mean" not in text
    parameters = _parameters(CLOSED[name])
    assert all(repr(parameter) in text for parameter in parameters[:20])
    assert parameters or text.endswith("Its options are: none.")


@pytest.mark.parametrize("name", sorted(set(OPEN) - {"pdex"}))
def test_calls_with_options_of_the_test_name_the_closest_parameter(name, adata):
    groupby = "groupby_key" if name.startswith("parallel") else "groupby"
    with pytest.raises(OptionError, match="Did you mean 'reference'"):
        PUBLIC[name](adata, refrence="x", **{groupby: "target_gene"}, **OPEN[name])


def test_pdex_warns_as_pdex_does_and_names_the_closest_parameter(adata):
    with pytest.warns(UserWarning, match="Did you mean 'epsilon'"):
        pdex_gpu.pdex(adata, "target_gene", epsilom=1e-9, **OPEN["pdex"])


@pytest.mark.parametrize("kind", [UnknownOptionError, OptionError, TypeError, ValueError])
def test_the_error_is_caught_as(kind):
    with pytest.raises(kind):
        pdex_gpu.open_result(file="results.parquet")
    assert issubclass(UnknownOptionError, PdexGpuError)


@pytest.mark.parametrize("name", CLOSED)
def test_signatures_and_docs_are_those_of_the_function(name):
    function = CLOSED[name]
    assert inspect.getdoc(function)
    if not inspect.isclass(function) and name != "backends":
        assert function.__name__ == name.rpartition(".")[2]
        plain = inspect.unwrap(function)
        assert plain is not function
        if not inspect.ismethod(function):  # a class method, bound to its class
            assert inspect.signature(function) == inspect.signature(plain)


def test_wrong_numbers_of_arguments_are_python_errors():
    for call in (pdex_gpu.open_result, pdex_gpu.simulate.Screen):
        with pytest.raises(TypeError, match="missing") as caught:
            call()
        assert not isinstance(caught.value, PdexGpuError)
    with pytest.raises(TypeError, match="multiple values"):
        pdex_gpu.pl.volcano("a", "b", target="c")


def test_methods_and_constructors_of_any_class():
    @known_keywords_of_init
    class Thing:
        def __init__(self, size, *, weight=1):
            self.size, self.weight = size, weight

        @known_keywords
        def grow(self, by=1):
            return self.size + by

    assert Thing(2, weight=3).weight == 3
    assert Thing(2).grow(by=2) == 4
    assert _refused(Thing, wieght=1) == (
        "Unknown option 'wieght' of Thing(). Did you mean 'weight'? "
        "Its options are: 'size', 'weight'."
    )
    assert "Unknown option 'bye' of grow(). Did you mean 'by'?" in _refused(Thing(2).grow, bye=1)


def test_warnings_point_to_the_line_of_the_call(adata):
    result = pdex_gpu.differential_expression(adata, "target_gene", progress=False)

    @known_keywords
    def warning(n=1):
        warn(str(n), SkippedWarning)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warning(n=2)
        assert len(result.top(result.targets[0], n=1)) == 1
    assert [(str(w.message), w.filename) for w in caught] == [("2", __file__)]
