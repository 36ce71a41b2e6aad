"""What the groups that were compared are called in a report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Noun:
    """A noun in singular and plural."""

    one: str
    many: str


PERTURBATION = Noun("perturbation", "perturbations")

# The first whose words are in the name of the column.
_NAMED = (
    (
        re.compile("cell ?(type|class|ontology|identity)|annotation"),
        Noun("cell type", "cell types"),
    ),
    (re.compile("cell ?line"), Noun("cell line", "cell lines")),
    (re.compile("cluster|leiden|louvain"), Noun("cluster", "clusters")),
)


def noun_of(provenance: Mapping[str, Any]) -> Noun:
    """Return what groups are called, by the name of their column: cell types, or perturbations."""
    columns = provenance.get("groupby")
    if isinstance(columns, list | tuple):
        columns = columns[0] if columns else None
    name = re.sub(r"[\W_]+", " ", str(columns or "")).lower()
    return next((noun for words, noun in _NAMED if words.search(name)), PERTURBATION)
