"""How notebooks show a result: what it is, and its strongest hits."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ..design.naming import level_columns
from ..utils.formats import number_text
from .effect import effect_of
from .schema import HIT_FDR

if TYPE_CHECKING:
    from .base import Result

_SHOWN = 8  # rows


def html_of(result: Result) -> str:
    """Return a summary of a result as HTML: its test, sizes, number of hits, strongest hits."""
    effect = effect_of(result)
    reads = tuple(dict.fromkeys(("p_value", "fdr", *effect.reads)))
    targets = np.array(list(map(str, result.targets)), object)
    n_hits, with_hits = 0, set()
    best: list[tuple[float, float, int, int]] = []  # p, -|effect|, comparison, gene
    for part, columns in result.blocks(reads):
        with np.errstate(invalid="ignore"):
            hits = columns["fdr"] <= HIT_FDR
        n_hits += int(np.count_nonzero(hits))
        with_hits |= set(targets[part][hits.any(axis=1)])
        best = _strongest(best, part.start, columns["p_value"], effect.sizes(columns), hits)
    p = result.provenance
    references = "several references" if result.reference is None else str(result.reference)
    kind, n_targets = p.get("p_values"), len(set(targets))
    compared = f"{n_targets:,} target{'' if n_targets == 1 else 's'}"
    if len(targets) != n_targets:
        compared = f"{len(targets):,} comparisons of {compared}"
    facts = [
        ("test", f"{p.get('metric') or 'unknown'}{f', {kind} p-values' if kind else ''}"),
        ("compared", f"{compared} against {references}"),
        ("genes", f"{len(result.features):,} ({result.n_rows:,} rows)"),
        (f"hits, FDR ≤ {HIT_FDR:g}", f"{n_hits:,}, of {len(with_hits):,} targets"),
    ]
    rows = "".join(_line([("th", name), ("td", text)]) for name, text in facts)
    strongest = _table(result, best) if best else "<p>No hits.</p>"
    title = escape(type(result).__name__)
    return f"<div><strong>{title}</strong><table>{rows}</table>{strongest}</div>"


def _strongest(
    best: list[tuple[float, float, int, int]],
    first: int,
    p_value: np.ndarray,
    sizes: np.ndarray,
    hits: np.ndarray,
) -> list[tuple[float, float, int, int]]:
    """Return the strongest hits of those found before and those of a block."""
    flat = np.flatnonzero(hits)
    p, size = p_value.ravel()[flat], np.nan_to_num(np.abs(sizes.ravel()[flat]), nan=0.0)
    order = np.lexsort((-size, p))[:_SHOWN]
    n_genes = p_value.shape[1]
    found = [
        (float(p[k]), -float(size[k]), first + int(flat[k] // n_genes), int(flat[k] % n_genes))
        for k in order
    ]
    return sorted([*best, *found])[:_SHOWN]


def _table(result: Result, best: list[tuple[float, float, int, int]]) -> str:
    """Return the strongest hits as an HTML table."""
    effect = effect_of(result)
    labels = {"target": result.targets, **level_columns(result.within)}
    if result.reference is None:
        labels["reference"] = result.references
    reads = tuple(dict.fromkeys(("p_value", "fdr", *effect.reads)))
    texts = [*labels, "feature"]
    lines = [_line([("th", name) for name in (*texts, effect.scaled_column, "p_value", "fdr")])]
    for _, _, t, g in best:
        values = {name: column[g : g + 1] for name, column in result.row(t, reads).items()}
        numbers = (
            number_text(float(effect.sizes(values)[0]), ".2f"),
            number_text(float(values["p_value"][0]), ".2e"),
            number_text(float(values["fdr"][0]), ".2e"),
        )
        row = [*(of_row[t] for of_row in labels.values()), result.gene_names[g], *numbers]
        lines.append(_line([("td", str(cell)) for cell in row]))
    return f"<table><caption>strongest hits</caption>{''.join(lines)}</table>"


def _line(cells: list[tuple[str, str]]) -> str:
    """Return a row of a table; colours and fonts are those of the notebook."""
    style = 'style="text-align:left;padding:2px 10px"'
    inner = "".join(f"<{tag} {style}>{escape(text)}</{tag}>" for tag, text in cells)
    return f"<tr>{inner}</tr>"
