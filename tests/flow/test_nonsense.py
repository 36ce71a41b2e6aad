"""Whatever is given to whatever is public: it works, or one error of this package says why not.

``PDEX_GPU_NONSENSE=20000 pytest tests/flow/test_nonsense.py`` tries as many cases as that, of
another seed if ``PDEX_GPU_NONSENSE_SEED`` names one; ``python tests/support/nonsense.py`` does it
without pytest.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import nonsense
import numpy as np
import pytest

import pdex_gpu
from pdex_gpu import errors, pl

N_CASES = int(os.environ.get("PDEX_GPU_NONSENSE", "320"))
SEED = int(os.environ.get("PDEX_GPU_NONSENSE_SEED", "16"))
N_PARTS = 8  # tests, which may run beside each other


@pytest.fixture(scope="module")
def world() -> Iterator[nonsense.World]:
    with nonsense.world() as made:
        yield made


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("part", range(N_PARTS))
def test_nonsense_works_or_is_refused_in_words(part: int, world: nonsense.World):
    step = -(-N_CASES // N_PARTS)
    numbers = range(part * step, min(N_CASES, (part + 1) * step))
    found = list(nonsense.failures(SEED, numbers, world))
    assert not found, "\n".join(f"{SEED}:{n} {text}\n    {wrong}" for n, text, wrong in found)


def test_everything_public_is_called():
    names = {target.name.partition(".")[0] for target in nonsense.targets()}
    known = {name for name in pdex_gpu.__all__ if not name.startswith("_")}
    known.remove("Progress")  # the package alone makes it
    assert known <= names
    plots = {target.name for target in nonsense.targets() if target.name.startswith("pl.")}
    assert plots == {f"pl.{name}" for name in pl.__all__}
    methods = {name for name, _ in inspect.getmembers(pdex_gpu.DEResult, inspect.isfunction)}
    assert {f"DEResult.{name}" for name in methods if not name.startswith("_")} <= {
        target.name for target in nonsense.targets()
    }


def test_a_case_is_the_same_each_time(world: nonsense.World):
    first, again = (nonsense.draw(3, 5, world).text for _ in range(2))
    assert first == again


@pytest.mark.parametrize("kind", [KeyError, RuntimeError, ValueError, AssertionError])
def test_another_error_is_a_failure(kind: type[Exception]):
    def call():
        raise kind("something")

    assert nonsense.outcome(nonsense.Case("", call)) == f"{kind.__name__}: {kind('something')}"


@pytest.mark.parametrize("text", ["", "no"])
def test_an_error_that_says_nothing_is_a_failure(text: str):
    def call():
        raise errors.OptionError(text)

    assert "says nothing" in str(nonsense.outcome(nonsense.Case("", call)))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_matter_of_arguments_passes_through(kind, monkeypatch, world: nonsense.World):
    def stop(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr("pdex_gpu.engines.local.plan_run", stop)
    with pytest.raises(kind):
        pdex_gpu.differential_expression(world.adata(), "gene", backend="numpy", progress=False)


def test_data_that_raise_when_they_are_shown_are_refused_by_their_class():
    for method in ("__repr__", "__str__", "__bool__", "__eq__"):
        with pytest.raises(errors.UnsupportedDataError, match="Raising"):
            pdex_gpu.differential_expression(nonsense.Raising(method), "gene")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_whole_numbers_are_looked_at_by_pdex(dtype, world: nonsense.World):
    """The largest of none of them is no infinity."""
    adata = world.adata()
    adata.X = np.asarray(adata.X).astype(dtype)
    adata.layers.clear()
    table = pdex_gpu.pdex(adata, "gene", as_pandas=True, backend="numpy")
    assert len(table) == 24
