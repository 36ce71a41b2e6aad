"""Directives that put generated tables into pages: ``{generated} name argument ...``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cluster_tables
import count_tables
import scaling_tables
import tables
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_MADE: dict[str, Callable[..., str]] = {
    "columns": tables.columns,
    "comparisons": tables.comparisons,
    "tests": tables.tests,
    "caveats": tables.caveats,
    "moving": tables.moving,
    "records": lambda: "\n\n".join(map(tables.record, tables.records())),
    "troubles": tables.troubles,
    "messages": tables.message_lists,
    "errors": tables.error_classes,
    "cluster": cluster_tables.table,
    "scaling": scaling_tables.table,
    "counts": count_tables.table,
}


class Generated(SphinxDirective):
    """Markdown that is made when the site is built."""

    required_arguments = 1
    optional_arguments = 3

    def run(self) -> list[nodes.Node]:
        name, *arguments = self.arguments
        text = _MADE[name](*arguments)
        for path in [*tables.DATA.rglob("*.toml"), *tables.RECORDS.glob("*.json")]:
            self.env.note_dependency(str(Path(path)))
        node = nodes.Element()
        node.document = self.state.document
        lines = StringList(text.splitlines(), source=f"generated {name}")
        self.state.nested_parse(lines, self.content_offset, node, match_titles=True)
        return node.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("generated", Generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
