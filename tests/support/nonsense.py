"""Calls with nonsense, drawn from a seed: every public callable, every parameter, odd data.

A call may succeed, or raise a PdexGpuError that says something; anything else is a failure. What
is called, and with which parameters, is read from signatures, so that what is added to the
package is tried, too. By hand, any number of cases::

    python tests/support/nonsense.py 20000 --seed 7
    python tests/support/nonsense.py --case 7:123        # one of them, with its traceback
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import logging
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import pdex_gpu
from pdex_gpu import pl
from pdex_gpu.errors import PdexGpuError
from pdex_gpu.utils.exit_codes import Exit

GROUPBY, REFERENCE = "gene", "non-targeting"
METRICS = ("wilcoxon", "t-test", "anderson", "ks")


class Raising:
    """An object of which one method raises."""

    def __init__(self, method: str) -> None:
        self.method = method

    def _or_raise(self, method: str, answer: Any) -> Any:
        if self.method == method:
            raise RuntimeError(f"{method} raises")
        return answer

    def __repr__(self) -> str:
        return self._or_raise("__repr__", "Raising()")

    def __str__(self) -> str:
        return self._or_raise("__str__", "raising")

    def __eq__(self, other: object) -> Any:
        return self._or_raise("__eq__", self is other)

    def __hash__(self) -> int:
        return self._or_raise("__hash__", 7)

    def __bool__(self) -> bool:
        return self._or_raise("__bool__", True)


class RaisingSequence(Raising):
    """A sequence of which one method raises."""

    def __len__(self) -> int:
        return self._or_raise("__len__", 2)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._or_raise("__iter__", ["A", "B"]))

    def __getitem__(self, key: Any) -> Any:
        return self._or_raise("__getitem__", ["A", "B"][key])

    __hash__ = Raising.__hash__


class RaisingPath(Raising):
    """A path that cannot tell what it is."""

    def __fspath__(self) -> str:
        return self._or_raise("__fspath__", "somewhere")


class RaisingNumber(Raising):
    """A number that is none."""

    def __float__(self) -> float:
        return self._or_raise("__float__", 1.0)

    def __index__(self) -> int:
        return self._or_raise("__index__", 1)

    def __lt__(self, other: object) -> bool:
        return self._or_raise("__lt__", True)

    __le__ = __gt__ = __ge__ = __lt__


def _generator() -> Iterator[str]:
    yield "A"
    yield "B"


_PLAIN: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: False, lambda: 0, lambda: 1, lambda: -1, lambda: 2,
    lambda: 10**30, lambda: -(10**30), lambda: 2**63, lambda: 0.5, lambda: -0.5, lambda: 1.5,
    lambda: float("nan"), lambda: float("inf"), lambda: -float("inf"), lambda: 1e308,
    lambda: 5e-324, lambda: 1 + 2j, lambda: np.float64("nan"), lambda: np.int8(-3),
    lambda: np.bool_(True), lambda: np.datetime64("2020-01-01"), lambda: np.timedelta64(3, "D"),
    lambda: "", lambda: " ", lambda: "x", lambda: "all", lambda: "auto", lambda: "A",
    lambda: "\0", lambda: "a\0b", lambda: "é\u2028\U0001f9ec", lambda: "\ud800", lambda: "x" * 5000,
    lambda: "../" * 40, lambda: "%s{}", lambda: b"", lambda: b"A", lambda: b"\xff\xfe",
    lambda: bytearray(b"A"), lambda: memoryview(b"A"),
    lambda: (), lambda: [], lambda: {}, lambda: set(), lambda: frozenset("AB"),
    lambda: ["A"], lambda: ["A", "B"], lambda: ("A", "A"), lambda: [["A"], ["B"]],
    lambda: [("A", "B")], lambda: [("A", "B", "C")], lambda: [[]], lambda: [None],
    lambda: [float("nan")], lambda: [1, "A", None], lambda: [b"A"], lambda: [{}], lambda: {"A": 1},
    lambda: [["gene", "batch"]], lambda: {"target": ["A"], "reference": ["B"]}, lambda: [True],
    lambda: range(3), lambda: range(10**12), lambda: slice(None), lambda: ...,
    lambda: NotImplemented,
    lambda: int, lambda: object, lambda: ValueError, lambda: ValueError("x"), lambda: lambda: None,
    lambda: len, lambda: print, lambda: os, lambda: object(), _generator,
    lambda: iter([]), lambda: (x for x in [1, []]),
    lambda: np.array(3), lambda: np.array([]), lambda: np.array(["A", "B"]), lambda: np.array("A"),
    lambda: np.zeros((2, 2)), lambda: np.array([None, "A"]), lambda: np.ones(8, bool),
    lambda: np.array([np.nan]), lambda: np.ma.masked, lambda: np.zeros((0, 3)),
    lambda: np.zeros(2, [("a", int)]), lambda: sparse.eye_array(3).tocsr(),
    lambda: pd.DataFrame(), lambda: pd.DataFrame({"target": ["A"], "reference": ["B"]}),
    lambda: pd.DataFrame({"target": [["A"]], "reference": [None]}),
    lambda: pd.DataFrame([["A", "B"]], columns=["target", "target"]),
    lambda: pd.Series(["A", "B"]), lambda: pd.Series([1.5]), lambda: pd.Index(["A"]),
    lambda: pd.Series(["A"], dtype="category"), lambda: pd.NA, lambda: pd.NaT,
    lambda: pd.Timestamp("2020-01-01"), lambda: pd.Interval(0, 1), lambda: pd.Period("2020"),
    lambda: io.BytesIO(b"no file"), lambda: io.StringIO("text"), lambda: threading.Lock(),
    lambda: Path("missing.h5ad"), lambda: Path("/"), lambda: Path("."), lambda: Path(""),
    lambda: "missing.parquet", lambda: "missing.json", lambda: "no/such/folder/x.parquet",
    lambda: "/proc/x.parquet", lambda: "/dev/null", lambda: "/dev/null/x.csv",
    lambda: "x" * 300 + ".parquet", lambda: "a\0.parquet", lambda: "https://example.invalid/a.h5ad",
    lambda: "s3://bucket/x.zarr", lambda: ".parquet", lambda: "x.html", lambda: "/x/y.html",
    lambda: "out.txt", lambda: "4GB", lambda: "-4GB", lambda: "nanGB", lambda: "1e400",
    lambda: os.environ.get("NONSENSE", b"/"),
)  # fmt: skip

_METHODS = ("__repr__", "__str__", "__eq__", "__hash__", "__bool__")
_RAISING = tuple(
    (kind, method)
    for kind, more in (
        (Raising, ()),
        (RaisingSequence, ("__len__", "__iter__", "__getitem__")),
        (RaisingPath, ("__fspath__",)),
        (RaisingNumber, ("__float__", "__index__", "__lt__")),
    )
    for method in (*_METHODS, *more)
)


def nonsense(rng: np.random.Generator, world: World) -> Any:
    """A value that hardly any parameter can take."""
    kind = rng.random()
    if kind < 0.2:
        made, method = _RAISING[rng.integers(len(_RAISING))]
        value: Any = made(method)
    elif kind < 0.3:
        value = world.path(rng)
    elif kind < 0.35:
        value = world.adata()
    else:
        value = _PLAIN[rng.integers(len(_PLAIN))]()
    wrapped = rng.random()
    if wrapped < 0.06:
        return [value]
    if wrapped < 0.1:
        return (value, value)
    return value


class World:
    """Valid things to call with, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "folder").mkdir()
        (folder / "empty").write_bytes(b"")
        (folder / "text.h5ad").write_text("no HDF5")
        (folder / "text.parquet").write_text("no Parquet")
        (folder / "text.json").write_text('{"format": 3}')
        (folder / "bytes.json").write_bytes(b"\xff")
        (folder / "cut.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
        (folder / "folder.parquet").mkdir()
        (folder / "folder.h5ad").mkdir()
        self.adata().write_h5ad(folder / "screen.h5ad")
        whole = (folder / "screen.h5ad").read_bytes()
        (folder / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
        pd.DataFrame({"target": ["A"]}).to_parquet(folder / "foreign.parquet")
        self.result.to_parquet(folder / "result.parquet")
        self.calibration.to_json(folder / "calibration.json")
        self.paths = sorted(folder.iterdir())

    def path(self, rng: np.random.Generator) -> Any:
        """One of the files and folders, or what lies in or below one, as text or path."""
        path = self.paths[rng.integers(len(self.paths))]
        below = rng.random()
        if below < 0.15:
            path = path / "below.parquet"
        elif below < 0.25:
            path = path / ("x" * 300)
        as_what = rng.random()
        if as_what < 0.1:
            return os.fsencode(path)
        return str(path) if as_what < 0.6 else path

    def adata(self) -> ad.AnnData:
        """A small screen, of which all calls can be made."""
        values = np.random.default_rng(0).poisson(2.0, (48, 8)).astype(np.float32)
        labels = np.repeat([REFERENCE, "A", "B", "C"], [18, 12, 10, 8])
        obs = pd.DataFrame(
            {
                GROUPBY: pd.Categorical(labels),
                "batch": np.tile(["x", "y"], 24),
                "number": np.arange(48) % 3,
                "own": np.where(labels == REFERENCE, None, "g1"),
                "unit": np.arange(48) % 6,
            },
            index=[f"cell{i}" for i in range(48)],
        )
        var = pd.DataFrame({"mask": np.arange(8) < 5}, index=[f"g{j}" for j in range(8)])
        guides = pd.DataFrame({g: labels == g for g in ("A", "B", REFERENCE)}, index=obs.index)
        adata = ad.AnnData(values, obs=obs, var=var, layers={"counts": values.copy()})
        adata.obsm["guides"] = guides
        return adata

    @cached_property
    def result(self) -> pdex_gpu.DEResult:
        return pdex_gpu.differential_expression(
            self.adata(), GROUPBY, backend="numpy", columns="all", progress=False
        )

    @cached_property
    def file(self) -> pdex_gpu.ResultFile:
        return pdex_gpu.open_result(self.folder / "result.parquet")

    @cached_property
    def calibration(self) -> pdex_gpu.Calibration:
        return pdex_gpu.calibrate(self.adata(), GROUPBY, backend="numpy", progress=False)

    @cached_property
    def estimate(self) -> pdex_gpu.Estimate:
        return pdex_gpu.estimate(self.adata(), GROUPBY, backend="numpy", timing=False)


# --- odd data --------------------------------------------------------------------------------


def _x(change: Callable[[np.ndarray], Any]) -> Callable[[ad.AnnData, np.random.Generator], Any]:
    def make(adata: ad.AnnData, rng: np.random.Generator) -> Any:
        adata.X = change(np.asarray(adata.X))
        return adata

    return make


def _column(values: Callable[[int], Any]) -> Callable[[ad.AnnData, np.random.Generator], Any]:
    def make(adata: ad.AnnData, rng: np.random.Generator) -> Any:
        name = rng.choice([GROUPBY, "batch", "own", "unit"])
        adata.obs[name] = values(adata.n_obs)
        return adata

    return make


def _objects(*cycle: Any) -> Callable[[int], pd.Series]:
    def make(n: int) -> Any:
        values = np.empty(n, object)
        for i in range(n):
            values[i] = cycle[i % len(cycle)]
        return values

    return make


def _corrupt(adata: ad.AnnData, rng: np.random.Generator) -> Any:
    matrix = sparse.csr_matrix(adata.X)
    part = (matrix.indices, matrix.indptr, matrix.data)[rng.integers(3)]
    part[rng.integers(len(part))] = rng.choice([-1, 99, 0])
    adata.X = matrix
    return adata


def _renamed(adata: ad.AnnData, rng: np.random.Generator) -> Any:
    name = rng.choice(["var_names", "obs_names"])
    n = len(getattr(adata, name))
    setattr(adata, name, [["same"] * n, [""] * n, [f"{i}\0" for i in range(n)]][rng.integers(3)])
    return adata


#: Screens with something odd in them.
_ODD: tuple[Callable[[ad.AnnData, np.random.Generator], Any], ...] = (
    _x(lambda x: np.where(x > 4, np.nan, x)),
    _x(lambda x: np.where(x > 4, np.inf, x)),
    _x(lambda x: -x),
    _x(lambda x: x * 1e38),
    _x(lambda x: x.astype(np.float64) * 1e307),
    _x(lambda x: x.astype(complex)),
    _x(lambda x: x.astype(bool)),
    _x(lambda x: x.astype(np.uint64) + np.uint64(2**63)),
    _x(lambda x: x.astype(np.float16)),
    _x(lambda x: np.zeros_like(x)),
    _x(lambda x: sparse.coo_matrix(x)),
    _x(lambda x: sparse.csc_matrix(x)),
    _x(lambda x: np.ma.masked_greater(x, 3)),
    _x(lambda x: np.asfortranarray(x)),
    lambda adata, rng: adata[:0],
    lambda adata, rng: adata[:, :0],
    lambda adata, rng: adata[:1],
    lambda adata, rng: adata[:, :1],
    lambda adata, rng: adata[::-2, [3, 3, 1]],
    lambda adata, rng: ad.AnnData(obs=adata.obs, var=adata.var),
    lambda adata, rng: ad.AnnData(np.ones((48, 8), np.float32)),
    lambda adata, rng: adata[adata.obs[GROUPBY] == REFERENCE],
    lambda adata, rng: adata[adata.obs[GROUPBY] != REFERENCE],
    _corrupt,
    _renamed,
    _column(lambda n: np.full(n, np.nan)),
    _column(lambda n: np.arange(n) * (1 + 1j)),
    _column(lambda n: pd.date_range("2020-01-01", periods=4).repeat(n // 4)),
    _column(lambda n: pd.timedelta_range("1D", periods=4).repeat(n // 4)),
    _column(lambda n: pd.period_range("2020-01", periods=4, freq="M").repeat(n // 4)),
    _column(lambda n: pd.interval_range(0, 4).repeat(n // 4)),
    _column(lambda n: pd.Categorical(pd.cut(np.arange(n), 4))),
    _column(lambda n: pd.Categorical([None] * n)),
    _column(lambda n: pd.array(np.arange(n) % 4, "Int64")),
    _column(lambda n: pd.array([True, None] * (n // 2), "boolean")),
    _column(lambda n: pd.array(["A", None] * (n // 2), "string")),
    _column(_objects(["A"], ["B", "C"])),
    _column(_objects({"a": 1}, {"b": 2})),
    _column(_objects({"A"}, {"B"})),
    _column(_objects(np.array([1]), np.array([2, 3]))),
    _column(_objects(("A", 1), ("B", 2), ())),
    _column(_objects(b"A", b"B", None)),
    _column(_objects("A", 1, 2.5, None, True)),
    _column(_objects(int, str, None)),
    _column(_objects(frozenset("A"), frozenset("B"))),
    _column(_objects(pd.Timestamp("2020"), "A")),
    _column(_objects(pd.NA, pd.NaT, float("nan"))),
    _column(_objects("", " ", "\0", "\ud800")),
    _column(_objects(Raising("__str__"), Raising("__repr__"))),
    _column(_objects(Raising("__eq__"), "A")),
    _column(_objects(Raising("__hash__"), "A")),
    _column(_objects(Raising("__bool__"), "A")),
    _column(lambda n: np.arange(n)),
    _column(lambda n: np.repeat(["A", REFERENCE], [1, n - 1])),
)


def odd_data(rng: np.random.Generator, world: World) -> Any:
    """A screen with something odd, in memory or, where that can be written, in a file."""
    adata = world.adata()
    for _ in range(rng.integers(1, 3)):
        with contextlib.suppress(Exception):  # of anndata and pandas: two oddities may not go
            adata = _ODD[rng.integers(len(_ODD))](adata.copy(), rng)
    if rng.random() < 0.4:
        path = world.folder / f"odd{rng.integers(10**9)}.h5ad"
        try:
            adata.write_h5ad(path)
        except Exception:
            path.unlink(missing_ok=True)
            return adata
        return path if rng.random() < 0.7 else ad.read_h5ad(path, backed="r")
    return adata


# --- what is called --------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A callable and arguments it can be called with.

    `find` gives it, `valid` its arguments in a world; `more` are names of options that `**options`
    takes. `skip` tells values that are valid, but take long or start processes.
    """

    name: str
    find: Callable[[World], Callable[..., Any]]
    valid: Callable[[World, np.random.Generator], dict[str, Any]]
    more: tuple[str, ...] = ()
    weight: float = 1.0
    skip: Callable[[str, Any], bool] = field(default=lambda name, value: False)


def _data_of(world: World, rng: np.random.Generator) -> Any:
    return world.adata() if rng.random() < 0.8 else world.folder / "screen.h5ad"


_TEST_OPTIONS = (
    "continuity", "tie_correction", "alternative", "method", "use_continuity", "variance",
    "equal_var", "variant", "p_values", "nan_policy", "axis", "keepdims", "n_resamples", "grops",
    "usevar", "trim", "midrank", "permutations", "random_state", "__class__", "é",
)  # fmt: skip


def _starts_processes(name: str, value: Any) -> bool:
    """Worker processes, a cluster, or a function of the user's own, which may raise anything."""
    if name in ("num_workers", "n_workers", "n_processes") and isinstance(value, int):
        return value > 1
    return name == "progress" and callable(value)


def _compare(world: World, rng: np.random.Generator) -> dict[str, Any]:
    found = {"data": _data_of(world, rng), "groupby": GROUPBY, "progress": False}
    found["backend"] = "numpy" if rng.random() < 0.8 else "auto"
    if rng.random() < 0.5:
        found["metric"] = str(rng.choice(METRICS))
    for name, value in (
        ("comparison", "rest"), ("strata", "batch"), ("on_target", "own"), ("columns", "all"),
        ("out", world.folder / f"out{rng.integers(10**9)}.parquet"), ("min_cpm", 1.0),
        ("min_fraction", 0.1), ("guides", "guides"),
    ):  # fmt: skip
        if rng.random() < 0.12:
            found[name] = value
    if "guides" in found:
        found["groupby"] = None
    return found


def _estimated(world: World, rng: np.random.Generator) -> dict[str, Any]:
    return {"data": _data_of(world, rng), "groupby": GROUPBY, "timing": False}


def _calibrated(world: World, rng: np.random.Generator) -> dict[str, Any]:
    found: dict[str, Any] = {"data": _data_of(world, rng), "groupby": GROUPBY, "progress": False}
    return found | {"backend": "numpy"} | ({"units": "unit"} if rng.random() < 0.3 else {})


def _samples(name: str) -> Callable[[World, np.random.Generator], dict[str, Any]]:
    return lambda world, rng: {name: _data_of(world, rng), "groupby": [GROUPBY, "batch"]}


def _own(name: str) -> Callable[[World], Callable[..., Any]]:
    return lambda world: getattr(pdex_gpu, name)


def _on_cuda(world: World) -> Callable[..., Any]:
    def call(device: Any = None, memory: Any = None) -> Any:
        cuda = pdex_gpu.Cuda(device=device, memory=memory)
        return pdex_gpu.estimate(world.adata(), GROUPBY, backend=cuda, timing=False)

    return call


_CALLS = (
    Target("differential_expression", _own("differential_expression"), _compare, _TEST_OPTIONS, 8.0,
           _starts_processes),
    Target("estimate", _own("estimate"), _estimated, _TEST_OPTIONS, 3.0,
           lambda name, value: name == "timing"),
    Target("calibrate", _own("calibrate"), _calibrated,
           (*_TEST_OPTIONS, "metric", "groups", "strata", "comparison", "memory", "min_cells"), 3.0,
           _starts_processes),
    Target("pseudobulk", _own("pseudobulk"), _samples("data"), (), 2.0),
    Target("pseudobulk_dex", _own("pseudobulk_dex"),
           lambda world, rng: _samples("adata")(world, rng) | {"test_col": GROUPBY}, (), 1.0,
           _starts_processes),
    Target("parallel_differential_expression", _own("parallel_differential_expression"),
           lambda world, rng: {"adata": world.adata(), "groupby_key": GROUPBY,
                               "backend": "numpy", "show_progress": False},
           _TEST_OPTIONS, 3.0,
           lambda name, value: _starts_processes(name, value)
           or (name == "show_progress" and callable(value))),
    Target("pdex", _own("pdex"),
           lambda world, rng: {"adata": _data_of(world, rng), "groupby": GROUPBY,
                               "backend": "numpy", "as_pandas": True,
                               "mode": str(rng.choice(["ref", "all"]))},
           ("reference", "gene_col", "grops"), 3.0),
    Target("rank_genes_groups", _own("rank_genes_groups"),
           lambda world, rng: {"adata": world.adata(), "groupby": GROUPBY,
                               "backend": "numpy"}, (), 3.0),
    Target("open_result", _own("open_result"),
           lambda world, rng: {"path": world.folder / "result.parquet"}),
    Target("backends", _own("backends"), lambda world, rng: {}, (), 0.1),
    Target("Cuda", _on_cuda, lambda world, rng: {"device": 0, "memory": "1GB"}, (), 0.3),
    Target("Cpu", _own("Cpu"), lambda world, rng: {}, (), 0.1),
    Target("Numpy", _own("Numpy"), lambda world, rng: {}, (), 0.1),
    *(Target(name, _own(name), lambda world, rng: {}, (), 0.5)
      for name in ("Wilcoxon", "AndersonDarling", "TTest", "KolmogorovSmirnov")),
    Target("Dask", _own("Dask"), lambda world, rng: {}, (), 0.1),
)  # fmt: skip

#: Public classes, and which attribute of a world is one.
_CLASSES = (
    ("DEResult", "result"),
    ("ResultFile", "file"),
    ("Calibration", "calibration"),
    ("Estimate", "estimate"),
)

#: Arguments of methods and plots that have no default.
_ARGUMENTS: dict[str, Any] = {
    "target": "A", "name": "p_value", "column": "p_value", "t": 0, "names": ["fdr"],
}  # fmt: skip


def _methods(owner: type, of: str) -> Iterator[Target]:
    for name, function in inspect.getmembers(owner, callable):
        own = any(name in vars(base) for base in owner.__mro__ if "pdex_gpu" in base.__module__)
        if not own or (name.startswith("_") and name != "__getitem__"):
            continue

        def valid(world: World, rng: np.random.Generator, function=function) -> dict[str, Any]:
            found = {}
            for given, parameter in inspect.signature(function).parameters.items():
                if given == "path":
                    end = {"to_csv": "csv", "report": "html"}.get(function.__name__, "parquet")
                    found[given] = world.folder / f"w{rng.integers(10**9)}.{end}"
                elif parameter.default is inspect.Parameter.empty and given != "self":
                    found[given] = _ARGUMENTS[given]
            if function.__name__ == "find_feature":
                found["name"] = "g1"
            if function.__name__ == "find_features":
                found["names"] = ["g1"]
            if function.__name__ == "from_json":
                found["path"] = world.folder / "calibration.json"
            return found

        def find(world: World, name=name) -> Callable[..., Any]:
            function = getattr(getattr(world, of), name)
            if not inspect.isgeneratorfunction(inspect.unwrap(function)):
                return function
            return lambda **given: list(function(**given))

        yield Target(f"{owner.__name__}.{name}", find, valid, (), 0.6)


def _plots() -> Iterator[Target]:
    for name in pl.__all__:
        parameters = inspect.signature(getattr(pl, name)).parameters
        first = next(iter(parameters))

        def valid(world: World, rng: np.random.Generator, first=first, parameters=parameters):
            found = {"result": world.result, "calibration": world.calibration}
            return {first: found[first]} | ({"target": "A"} if "target" in parameters else {})

        yield Target(f"pl.{name}", lambda world, name=name: getattr(pl, name), valid, (), 0.7)


def _constructors() -> Iterator[Target]:
    """Classes that are public: made of nonsense they are refused, or there without a word."""
    for name, of in _CLASSES:

        def valid(world: World, rng: np.random.Generator, name=name, of=of) -> dict[str, Any]:
            known = getattr(world, of)
            found = {}
            for given in inspect.signature(getattr(pdex_gpu, name)).parameters:
                found[given] = getattr(known, given)
            if name == "DEResult":
                found["columns"] = {column: known[column] for column in known.columns}
            if name == "ResultFile":
                found["columns"] = known.columns[7:]
            return found

        yield Target(name, _own(name), valid, (), 0.5)


def targets() -> list[Target]:
    """Everything public that can be called."""
    methods = [target for name, of in _CLASSES for target in _methods(getattr(pdex_gpu, name), of)]
    return [*_CALLS, *_constructors(), *_plots(), *methods]


@dataclass
class Case:
    """A call: how it reads, and what makes it."""

    text: str
    call: Callable[[], Any]


def draw(seed: int, number: int, world: World) -> Case:
    """Case `number` of a seed."""
    rng = np.random.default_rng([seed, number])
    every = targets()
    weights = np.array([target.weight for target in every])
    target = every[rng.choice(len(every), p=weights / weights.sum())]
    function = target.find(world)
    arguments = target.valid(world, rng)
    parameters = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ] or list(arguments)
    names = [*parameters, *target.more]
    data = next((name for name in ("data", "adata") if name in arguments), None)
    odd = data is not None and rng.random() < 0.4
    if odd:
        arguments[data] = odd_data(rng, world)
    for _ in range(int(rng.integers(0 if odd else 1, 3))):
        if not names:
            break
        # Options of the test are many: parameters come first.
        own = target.more and rng.random() < 0.25
        name = str(rng.choice(target.more if own or not parameters else parameters))
        value = nonsense(rng, world)
        if not target.skip(name, value):
            arguments[name] = value
    text = f"{target.name}({', '.join(f'{k}={shown(v)}' for k, v in arguments.items())})"
    return Case(text, lambda: function(**arguments))


def shown(value: Any) -> str:
    """A value in words, also where it has none."""
    if isinstance(value, ad.AnnData):
        return f"AnnData {value.shape}"
    if isinstance(value, Raising):
        return f"{type(value).__name__}({value.method!r})"
    try:
        return " ".join(repr(value).split())[:120]
    except Exception:
        return f"<{type(value).__name__}>"


# --- the command line ------------------------------------------------------------------------

_TEXTS = (
    "", " ", "x", "0", "-1", "1", "2", "nan", "inf", "1e999", "1e-999", "all", "auto", "none",
    "A", "A:B", "A:A", "A:", ":", "a,b", ",", "4GB", "-4GB", "0.5", "1.5", "999999999999999999999",
    "é", "\udcff", "x" * 5000, "--", "-", "/", ".", "..", "/dev/null", "/proc/x.parquet",
    "no/such/x.parquet", "missing.csv", "x.html", "x.json", "x.png", "http://x.invalid/a.h5ad",
    "%s", "{}", "yes", "dask", "cuda", "shared_memory", "\u2028", "[", "tcp://127.0.0.1:1",
)  # fmt: skip

#: What a command needs, with what is short to compute.
_COMMANDS: dict[str, Callable[[World, np.random.Generator], list[str]]] = {
    "run": lambda w, rng: [
        str(w.folder / "screen.h5ad"), "--groupby", GROUPBY, "--backend", "numpy",
        "-o", str(w.folder / f"c{rng.integers(10**9)}.parquet"),
    ],
    "estimate": lambda w, rng: [str(w.folder / "screen.h5ad"), "--groupby", GROUPBY, "--no-timing"],
    "top": lambda w, rng: [str(w.folder / "result.parquet"), "A"],
    "plot": lambda w, rng: [
        str(w.folder / "result.parquet"), "A", "-o", str(w.folder / f"p{rng.integers(10**9)}.png"),
    ],
    "report": lambda w, rng: [
        str(w.folder / "result.parquet"), "-o", str(w.folder / f"r{rng.integers(10**9)}.html"),
    ],
    "calibrate": lambda w, rng: [
        str(w.folder / "screen.h5ad"), "--groupby", GROUPBY, "--backend", "numpy",
    ],
    "backends": lambda w, rng: [],
}  # fmt: skip

#: Options that take long, or reach for what is not there to be found.
_NOT_TRIED = ("debug", "help", "n_workers", "workers", "compile", "client")


def draw_command(seed: int, number: int, world: World) -> list[str]:
    """A command line with nonsense in it."""
    from pdex_gpu.cli.app import make_app

    rng = np.random.default_rng([seed, number, 1])
    name = list(_COMMANDS)[rng.integers(len(_COMMANDS))]
    words = _COMMANDS[name](world, rng)
    if rng.random() < 0.3 and words:
        words[rng.integers(len(words))] = _text(rng, world)
    params = [p for p in make_app().commands[name].params if p.name not in _NOT_TRIED]
    options = [p for p in params if p.param_type_name == "option"]
    for _ in range(int(rng.integers(0, 3))):
        option = options[rng.integers(len(options))]
        words.append(str(rng.choice(option.opts)))
        if not option.is_flag:
            words.append(_text(rng, world))
    if rng.random() < 0.1:
        words.append(_text(rng, world))
    if rng.random() < 0.1:
        words.append(str(rng.choice(["--grops", "--n-workers", "--groupby=", "--fdr=", "-z"])))
    return [name, *words]


def _text(rng: np.random.Generator, world: World) -> str:
    if rng.random() < 0.3:
        return os.fsdecode(world.path(rng))
    return _TEXTS[rng.integers(len(_TEXTS))]


# --- what comes of it ------------------------------------------------------------------------


def outcome(case: Case) -> str | None:
    """None if the call succeeds or is refused in words; else what is wrong."""
    try:
        with quiet():
            case.call()
    except PdexGpuError as error:
        text = str(error)
        if len(text) < 15 or "Raising object" in text:
            return f"{type(error).__name__} says nothing: {text!r}"
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def outcome_of_command(words: list[str]) -> str | None:
    """None if the command ends with a code that its help lists, and without a traceback."""
    from pdex_gpu.cli import main

    err = io.StringIO()
    try:
        with quiet(), contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = main(words)
    except BaseException as error:
        return f"{type(error).__name__} came out: {error}"
    said = err.getvalue()
    if "Traceback" in said:
        return f"a traceback: {said[-300:]}"
    if code not in set(Exit) - {Exit.UNEXPECTED, Exit.INTERRUPTED, Exit.TERMINATED}:
        return f"exit code {code}: {said[-300:]}"
    # --json says it on stdout.
    return None if code == 0 or said.strip() or "--json" in words else f"code {code}, no word"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Warnings and log lines are no matter here; figures are closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")


@contextlib.contextmanager
def world() -> Iterator[World]:
    """A world in a temporary folder, which is the current one meanwhile."""
    import matplotlib

    matplotlib.use("Agg")
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="nonsense-") as name:
        os.chdir(name)
        (Path(name) / "world").mkdir()
        try:
            with quiet():
                made = World(Path(name) / "world")
            yield made
        finally:
            os.chdir(before)


def failures(seed: int, numbers: range, here: World) -> Iterator[tuple[int, str, str]]:
    """Cases that fail: their number, the call, and what came of it."""
    for number in numbers:
        with quiet():
            if number % 5 == 4:
                words = draw_command(seed, number, here)
                text, wrong = "pdex-gpu " + repr(words), outcome_of_command(words)
            else:
                case = draw(seed, number, here)
                text, wrong = case.text, outcome(case)
        if wrong is not None:
            yield number, text, wrong


def main() -> int:
    """Try as many cases as are asked for, and list those that fail."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", nargs="?", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--case", help="SEED:NUMBER: one case, with its traceback")
    asked = parser.parse_args()
    found = 0
    with world() as here:
        if asked.case:
            seed, number = map(int, asked.case.split(":"))
            case = draw(seed, number, here)
            sys.stdout.write(f"{case.text}\n")
            try:
                sys.stdout.write(f"{case.call()}\n")
            except Exception:
                traceback.print_exc()
            return 0
        for number, text, wrong in failures(
            asked.seed, range(asked.start, asked.start + asked.n), here
        ):
            found += 1
            sys.stdout.write(f"{asked.seed}:{number} {text[:600]}\n    {wrong}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{found} of {asked.n} cases fail\n")
    return int(found > 0)


if __name__ == "__main__":
    raise SystemExit(main())
