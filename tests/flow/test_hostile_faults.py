"""Calls that are killed or robbed of what they need: the same bytes or one error, nothing left.

``python -m hostile faults NUMBER`` (in tests/support) runs one case.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
if sys.platform == "linux":
    from hostile.faults import draw, problems
    from hostile.faults.check import _Done, _Judged
    from hostile.verdict import kind_of

QUICK = (2,)
ALL = int(os.environ.get("PDEX_GPU_HOSTILE_FAULTS", "30"))


def check(seed: int) -> None:
    found = problems(seed)
    assert not found, "\n    ".join([str(draw(seed)), *found])


def test_a_case_is_its_number() -> None:
    assert str(draw(3)) == str(draw(3)) != str(draw(4))


@pytest.mark.parametrize("seed", QUICK)
def test_a_fault(seed: int) -> None:
    check(seed)


@pytest.mark.hostile
@pytest.mark.parametrize("seed", [seed for seed in range(ALL) if seed not in QUICK])
def test_many_faults(seed: int) -> None:
    check(seed)


# --- what is found wrong ---------------------------------------------------------------------


class _Here:
    """In the place of the program: paths are the same for it."""

    def seen(self, path: Path) -> Path:
        return path


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """A judge of a call that is sent SIGTERM."""
    for name in ("out", "tmp"):
        (tmp_path / name).mkdir()
    case = replace(
        draw(0), fault="signal", number="SIGTERM", whom="parent", command=False, out=".csv"
    )
    return _Judged(case, tmp_path, _Here())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "answer", "kinds"),
    [
        (0, {"digest": "right"}, []),
        (0, {"digest": "other"}, ["wrong table"]),
        (-15, {}, []),
        (-11, {}, ["death"]),
        (-9, {}, ["death"]),
        (1, {}, ["death"]),
        (1, {"name": "OSError", "ours": False}, ["foreign exception"]),
        (1, {"name": "WorkerError", "ours": True}, ["needless refusal"]),
    ],
)
def test_how_a_call_may_end(judged: Any, code: int, answer: dict[str, Any], kinds: list[str]):
    done = _Done(0, code, 1.0, {"printed": "", **answer})
    assert [kind_of(line) for line in judged._wrong_end(done, {"right"})] == kinds


def test_what_a_call_may_leave(judged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hostile.faults.check.may_mount", lambda: False)
    done = _Done(-1, 0, 1.0, {"printed": "", "digest": "right"})
    out = tmp_path / "out"
    assert judged._may_stay(done) == ["de.csv"]
    assert list(judged._left(done, "then", out, ["de.csv"])) == []
    for path in (out / "de.csv", out / ".de.csv.checkpoint", tmp_path / "tmp" / "scratch"):
        path.touch()
    assert list(judged._left(done, "then", out, ["de.csv"])) == [
        "leak: then, the file .de.csv.checkpoint",
        "leak: then, scratch in tmp",
    ]
    assert [kind_of(line) for line in judged._wrong_file({"right"})] == ["wrong table"]
