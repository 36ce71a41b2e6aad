"""Hostile calls from a generator: a right answer or a PdexGpuError, the same of every kernel set.

``PDEX_GPU_HOSTILE_CASES=20000 make test-hostile`` tries more of it, and
``python -m hostile calls NUMBER`` (in tests/support) one case. Of the cases of `make test-all`
the worst relative difference to the truth was 3e-8 (t, where means of 1e9 differ by 1), and
between kernel sets 1e-12.
"""

from __future__ import annotations

import os

import pytest
from emulated.build import needs_compiler
from hostile.calls import draw, problems
from screens import backend_of

#: Of each test; cases of `make test` come before those of `make test-all`.
QUICK = 8
EMULATED = 10
ALL = int(os.environ.get("PDEX_GPU_HOSTILE_CASES", "2000"))
STEP = 100


def check(seeds: range, *backends: str) -> None:
    wrong = []
    for seed in seeds:
        found = problems(seed, backends or ("numpy", "cpu"))
        if found:
            wrong.append("\n    ".join([str(draw(seed)), *found]))
    assert not wrong, "\n".join([f"{len(wrong)} cases:", *wrong])


def test_a_case_is_its_number() -> None:
    assert str(draw(3)) == str(draw(3)) != str(draw(4))


def test_a_right_answer_or_one_error() -> None:
    check(range(QUICK))


@needs_compiler
def test_a_device_answers_as_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    backend_of("emulated-small", monkeypatch)
    check(range(EMULATED), "cpu", "cuda")


@pytest.mark.hostile
@pytest.mark.parametrize("start", range(QUICK, ALL, STEP))
def test_many_right_answers_or_errors(start: int) -> None:
    check(range(start, min(start + STEP, ALL)))


@pytest.mark.hostile
@needs_compiler
@pytest.mark.parametrize("start", range(EMULATED, ALL // 5, STEP))
def test_a_device_answers_as_the_cpu_to_many(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backend_of("emulated-small", monkeypatch)
    check(range(start, min(start + STEP, ALL // 5)), "cpu", "cuda")
