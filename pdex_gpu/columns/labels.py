"""The labels of a row."""

from __future__ import annotations

from .base import Column

COLUMNS = (
    Column("target", "label", "group that is tested", always=True),
    Column("reference", "label", "group or groups it is compared with", always=True),
    Column("feature", "label", "gene", always=True),
)
