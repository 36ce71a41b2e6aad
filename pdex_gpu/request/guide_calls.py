"""Labels of cells from the guides that Cell Ranger called, or counted, in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..design.labels import Labels, object_array
from ..design.options import GUIDE_CALLS, NON_TARGETING, ComparisonOptions
from ..errors import DataError, LabelError, MissingLabelWarning, listing, warn
from ..sources.dataset import Dataset, GuideCounts
from ..utils.checks import check_path

_SUFFIX = re.compile(r"-\d+$")
_SHOWN = 3


def with_guide_calls(dataset: Dataset, options: ComparisonOptions) -> Dataset:
    """Return the data with the guides of each cell, or their targets.

    With low multiplicity they are labels: a cell with guides of one target has that target, and
    others have none; a warning counts them. With high multiplicity they are a boolean matrix, as
    those of obsm are.

    Raises
    ------
    DataError
        The data count no guides, or no barcode of the table of calls is one of the data.
    FileFormatError, MissingFileError
        A table cannot be read.
    LabelError
        No cell has a guide, or a guide has no target.
    """
    counts = _counts(dataset, options)
    called = np.ones(len(counts.cells), bool)
    if options.min_umis is not None:
        counts = _added_up(counts)
        called = counts.umis >= options.min_umis
    cells, guides = counts.cells[called], counts.guides[called]
    names, label_of = _labels(counts, np.unique(guides), options)
    n_cells = dataset.source.n_cells
    keys = np.unique(cells * max(1, len(names)) + label_of[guides])
    if not len(keys):
        raise LabelError(
            f"No cell has a guide in {counts.place}"
            + (f" with at least min_umis={options.min_umis} UMIs." if options.min_umis else ".")
        )
    cells, codes = np.divmod(keys, len(names))
    if options.multiplicity == "high":
        return replace(dataset, matrix=_with_matrix(dataset, cells, codes, names))
    n_labels = np.bincount(cells, minlength=n_cells)
    _warn_of_left_out(n_labels, options)
    found = np.full(n_cells, -1, np.int64)
    found[cells] = codes
    found[n_labels > 1] = -1
    return replace(dataset, labels=Labels(found, object_array(names)))


def _counts(dataset: Dataset, options: ComparisonOptions) -> GuideCounts:
    """Return the guides of each cell: those of the table, or those that the data count."""
    if options.guide_calls is not None:
        return _of_table(dataset, options)
    counts = dataset.guide_counts and dataset.guide_counts()
    if counts is None or not len(counts.ids):
        raise DataError(
            f"min_umis={options.min_umis} calls guides by their UMIs, but {dataset.description} "
            "has no features of the type 'CRISPR Guide Capture'. Pass guide_calls= "
            "(--guide-calls) with protospacer_calls_per_cell.csv, or groupby=."
        )
    return counts


def _of_table(dataset: Dataset, options: ComparisonOptions) -> GuideCounts:
    """Return the calls of a table, found in the data by their barcodes."""
    from ..sources.cell_ranger.guide_tables import read_calls

    path = check_path("guide_calls", options.guide_calls)
    table = read_calls(path, with_umis=options.min_umis is not None)
    if not len(table.barcodes):
        raise LabelError(f"{path} has no calls: it ends after its header. Copy it again.")
    names = dataset.all_cell_names()
    row = {name: i for i, name in enumerate(names.tolist())}
    rows = np.fromiter(
        (row.get(barcode, -1) for barcode in table.barcodes.tolist()), np.int64,
        len(table.barcodes),
    )  # fmt: skip
    if len(row) < len(names):
        _check_unique(names, rows)
    _check_matched(table.barcodes, names, rows, str(path))
    there = rows[table.cells] >= 0
    return GuideCounts(
        table.guides, table.guides, rows[table.cells[there]], table.which[there],
        table.umis[there], str(path),
    )  # fmt: skip


def _check_unique(names: np.ndarray, rows: np.ndarray) -> None:
    """Raise DataError if a barcode could be that of several cells."""
    found = np.unique(names[rows[rows >= 0]])
    wanted = set(found.tolist())
    n = sum(name in wanted for name in names.tolist())
    if n > len(wanted):
        raise DataError(
            f"{n - len(wanted):,} cells have the same name as others, so guide_calls= cannot tell "
            "whose guides are whose: barcodes of different runs are often equal. Make the names "
            "of the cells unique, in the data and in the table, or call guides by their UMIs in "
            "the files of Cell Ranger with min_umis= in its place."
        )


def _check_matched(barcodes: np.ndarray, names: np.ndarray, rows: np.ndarray, path: str) -> None:
    """Raise DataError if no barcode is that of a cell, and warn if some are not."""
    n, n_found = len(rows), int(np.count_nonzero(rows >= 0))
    if n_found == n:
        return
    missing = barcodes[rows < 0]
    text = f"{n_found:,} of the {n:,} barcodes of {path} are cells of the data"
    if not n_found:
        raise DataError(
            f"{text}: it has {listing(barcodes[:_SHOWN])}, and the data have "
            f"{listing(names[:_SHOWN])}.{_suffix_hint(missing, names)}"
        )
    warn(
        f"{text}; the others, such as {listing(missing[:_SHOWN])}, are not used."
        f"{_suffix_hint(missing, names)}",
        MissingLabelWarning,
    )


def _suffix_hint(missing: np.ndarray, names: np.ndarray) -> str:
    """Say how many barcodes would be found if a suffix such as ``-1`` were written alike.

    The text is empty if these are not the most; otherwise it begins with a space.
    """
    barcodes = missing.tolist()
    plain = {_SUFFIX.sub("", name): name for name in names.tolist()}
    whole = set(names.tolist())

    def as_is(name: str) -> str:
        return name

    def without(name: str) -> str:
        return _SUFFIX.sub("", name)

    ways: tuple[tuple[str, Callable[[str], str], Any], ...] = (
        ("The barcodes of the table end in a suffix such as {0!r}, which the names of the cells "
         "lack: add it to these (adata.obs_names = adata.obs_names + {0!r}).", without, whole),
        ("The names of the cells end in a suffix such as {0!r}, which the barcodes of the table "
         "lack: add it to these, or remove it from the names of the cells.", as_is, plain),
        ("The names of the cells end in another suffix, such as {0!r}, than the barcodes of the "
         "table: write both alike.", without, plain),
    )  # fmt: skip
    best, words = 0, ""
    for text, change, among in ways:
        found = [name for name in barcodes if change(name) in among]
        if len(found) > best:
            best = len(found)
            suffixed = plain[change(found[0])] if among is plain else found[0]
            words = text.format(suffixed[len(without(suffixed)) :])
    if 2 * best <= len(barcodes):  # a few may be alike by chance
        return ""
    return f" Without its suffix, {best:,} more would be found, the usual cause. {words}"


def _added_up(counts: GuideCounts) -> GuideCounts:
    """Return the counts with every pair of cell and guide once."""
    keys, places = np.unique(counts.cells * len(counts.ids) + counts.guides, return_inverse=True)
    umis = np.zeros(len(keys))
    np.add.at(umis, places, counts.umis)
    cells, guides = np.divmod(keys, len(counts.ids))
    return replace(counts, cells=cells, guides=guides, umis=umis)


def _labels(
    counts: GuideCounts, used: np.ndarray, options: ComparisonOptions
) -> tuple[list[str], np.ndarray]:
    """Return the labels, sorted, and that of each guide; unused guides have none."""
    texts = dict.fromkeys(used.tolist(), "")
    if options.guide_targets is None:
        texts = {guide: counts.ids[guide] for guide in texts}
    else:
        texts = _targets(counts, list(texts), options)
    names = sorted(set(texts.values()))
    place = {name: i for i, name in enumerate(names)}
    label_of = np.full(len(counts.ids), -1, np.int64)
    label_of[used] = [place[texts[guide]] for guide in used.tolist()]
    return names, label_of


def _targets(counts: GuideCounts, used: list[int], options: ComparisonOptions) -> dict[int, str]:
    """Return the target of each guide that is used."""
    from ..sources.cell_ranger.guide_tables import read_targets

    path = check_path("guide_targets", options.guide_targets)
    targets = read_targets(path)
    found = {g: targets.get(counts.ids[g], targets.get(counts.names[g])) for g in used}
    absent = [counts.ids[g] for g, target in found.items() if target is None]
    if absent:
        raise LabelError(
            f"{path} has no target for {len(absent):,} of the {len(used):,} guides in "
            f"{counts.place}: {listing(absent)}. Pass the feature reference of the same library."
        )
    empty = [counts.ids[g] for g, target in found.items() if not target]
    if empty:
        raise LabelError(
            f"The target_gene_name of {len(empty):,} guides in {path} is empty, or their names are "
            f"not unique: {listing(empty)}. Fill it in; Non-Targeting marks controls."
        )
    return {g: _target(str(target)) for g, target in found.items()}


def _target(name: str) -> str:
    """Return the label of a target; that of controls is written in several ways."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return NON_TARGETING if plain == "nontargeting" else name


def _warn_of_left_out(n_labels: np.ndarray, options: ComparisonOptions) -> None:
    """Warn of cells without a guide, and of those with several labels."""
    none, several = int(np.count_nonzero(n_labels == 0)), int(np.count_nonzero(n_labels > 1))
    if not none and not several:
        return
    of = "several guides" if options.guide_targets is None else "guides of several targets"
    warn(
        f"{none + several:,} of {len(n_labels):,} cells are left out: {none:,} have no guide, and "
        f"{several:,} have {of}. With multiplicity='high' (--multiplicity high), a cell counts for "
        "each of them.",
        MissingLabelWarning,
    )


def _with_matrix(
    dataset: Dataset, cells: np.ndarray, codes: np.ndarray, names: list[str]
) -> Callable[[str], tuple[Any, Any]]:
    """Return a function that finds the guide matrix, and those of the data."""
    from scipy import sparse

    shape = dataset.source.n_cells, len(names)
    guides = sparse.csr_matrix((np.ones(len(cells), bool), (cells, codes)), shape=shape)

    def matrix(name: str) -> tuple[Any, Any]:
        return (guides, names) if name == GUIDE_CALLS else dataset.matrix(name)

    return matrix
