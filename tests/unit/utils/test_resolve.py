"""Objects that the package names instead of importing them are where it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pdex_gpu
from pdex_gpu.utils.resolve import resolve

PACKAGE = Path(pdex_gpu.__file__).parent
NAMED = sorted(
    {
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r'"(pdex_gpu[\w.]*:\w+)"', file.read_text(encoding="utf-8"))
    }
)


def test_some_are_named():
    assert "pdex_gpu.report:write_report" in NAMED


@pytest.mark.parametrize("name", NAMED)
def test_named_objects_exist(name: str):
    assert resolve(name) is not None
