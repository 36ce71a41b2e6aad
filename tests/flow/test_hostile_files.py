"""Hostile files from a generator: a right table, that of the changed values, or a PdexGpuError.

``PDEX_GPU_HOSTILE_FILES=5000 make test-hostile`` tries more of them, and ``python -m hostile files
NUMBER`` (in the folder tests) one.
"""

from __future__ import annotations

import os

import pytest
from hostile import files
from hostile.campaign import campaign
from hostile.verdict import RIGHT

pytest.importorskip("zarr", "3")

#: Cases of `make test`; they come before those of `make test-all`.
QUICK = 5
ALL = int(os.environ.get("PDEX_GPU_HOSTILE_FILES", "400"))


def check(seeds: range) -> list[str]:
    """Run cases; gives what came of them."""
    done = list(campaign("files", seeds))
    wrong = [
        "\n    ".join([str(files.draw(one.seed)), *one.verdict.problems])
        for one in done
        if one.verdict.problems
    ]
    assert not wrong, "\n".join([f"{len(wrong)} cases:", *wrong])
    assert [one.seed for one in done] == list(seeds)
    return [one.verdict.outcome for one in done]


def test_a_case_is_its_number() -> None:
    assert str(files.draw(3)) == str(files.draw(3)) != str(files.draw(4))


def test_a_right_table_or_one_error() -> None:
    outcomes = check(range(QUICK))
    assert {RIGHT, "FileFormatError", "CheckpointError"} <= set(outcomes)


@pytest.mark.hostile
def test_many_right_tables_or_errors() -> None:
    check(range(QUICK, ALL))
