"""The call of pdex 0.3.0, on top of this package's own."""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ..design.labels import Labels, sizes_of
from ..design.naming import of_one_type
from ..design.own_genes import genes_by_group, positions
from ..errors import (
    ColumnError,
    LabelError,
    MissingDependencyError,
    OptionError,
    SkippedWarning,
    close_matches,
    shown,
    unknown_label,
    warn,
)
from ..pipeline.execute import compare
from ..request.options import Entry, Settings
from ..results.memory import DEResult
from ..sources.base import Source
from ..sources.dataset import Dataset
from ..sources.open import open_dataset
from ..sources.pandas_frames import column_in_memory
from ..sources.peek import leading_values
from ..stats.fold_change import log2_ratio
from ..utils.checks import check_choice, check_flag, check_label, check_number, check_text, is_whole
from ..utils.install_hints import how_to_install
from ..utils.resources import cpu_count

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars

logger = logging.getLogger("pdex_gpu")

MODES = ("ref", "all", "on_target")

#: Columns of the table, in pdex's order.
COLUMNS = (
    "target", "feature", "target_mean", "ref_mean", "target_membership", "ref_membership",
    "log2_fold_change", "percent_change", "p_value", "statistic", "fdr",
)  # fmt: skip

# Options of pdex 0.1.28: not typos.
_OPTIONS_OF_OTHERS = ("groups", "groupby_key", "num_workers", "batch_size", "num_threads", "metric",
                      "tie_correct", "exp_post_agg", "clip_value", "as_polars")  # fmt: skip

_INTEGERS = ("target_membership", "ref_membership")
_DETECTED_ROWS, _LOG1P_BELOW = 500, 20.0  # pdex's rule: counts reach 20 within the first rows


def pdex(
    adata: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str,
    mode: str = "ref",
    threads: int = 0,
    is_log1p: bool | None = None,
    geometric_mean: bool = True,
    as_pandas: bool = False,
    epsilon: float = 1e-9,
    cpm_filter: float | None = None,
    *,
    backend: str = "auto",
    normalize: float | str | None = None,
    **kwargs: Any,
) -> polars.DataFrame | pandas.DataFrame:
    """Compare groups of cells with a reference or the rest, with pdex 0.3.0's call and columns.

    Parameters
    ----------
    adata : anndata.AnnData, str, os.PathLike or binary file
        In memory, backed, or a file; see :func:`pdex_gpu.differential_expression`.
    groupby : str
        Column of obs with the groups. Cells whose label is missing or ``""`` are left out.
    mode : {"ref", "all", "on_target"}
        Each group against the reference; against all other cells with a label; or against the
        reference, only at the gene that the group targets.
    threads : int
        Threads to use; 0 for all processors.
    is_log1p : bool, optional
        Whether values are ``log1p`` of counts. By default true if none of the first 500 cells
        has a value of 20 or more; a log line gives the outcome.
    geometric_mean : bool
        Means are ``expm1(mean(log1p(counts)))``; if false ``mean(counts)``. Both are in count
        space, whether values are logarithms or not.
    as_pandas : bool
        Return a pandas frame instead of a polars one.
    epsilon : float
        Added to means before ratios are taken.
    cpm_filter : float, optional
        Rows are left out before correction if the gene's pooled counts per million are at most
        this in both samples.
    backend, normalize : str
        See :func:`pdex_gpu.differential_expression`.
    **kwargs
        ``reference`` (modes ref and on_target): label of the reference, by default
        ``"non-targeting"``. ``gene_col`` (mode on_target): column of obs with the gene that each
        group targets. Other options are ignored with a warning.

    Returns
    -------
    polars.DataFrame or pandas.DataFrame
        Columns target, feature, target_mean, ref_mean, target_membership, ref_membership,
        log2_fold_change, percent_change, p_value, statistic, fdr. Targets are in the order of the
        categories of `groupby`. They are sorted if it is not categorical, if ``""`` is one of its
        unordered categories, or if a file is given by its path. Genes are in matrix order.
        p-values are those of the normal approximation with continuity and tie correction. fdr is
        corrected by Benjamini and Hochberg for each target (ref, all) or over all rows (on_target).

    Raises
    ------
    OptionError, LabelError
        ValueErrors, where pdex raises one.
    MissingDependencyError
        polars is not installed.

    Notes
    -----
    Where the results of pdex 0.3.0 depend on how numbers are stored, the exact answer is given:

    * pdex computes means of a sparse float32 matrix in float32, with about 7 digits. Here means
      are float64 for every dtype. Its means of logarithms need floats in a CSR matrix; here
      integers work as well.
    * In mode all, pdex subtracts a group's sum from that of all cells. If the rest hardly
      expresses a gene, few digits of its mean are left, and with ``epsilon=0`` an infinite fold
      change may come out as a large number. Here the other groups are added up.
    * pdex refuses explicit zeros and negative values in a sparse matrix, and categories without
      cells. Here zeros are zeros, negative values are ranked, and such categories are left out.
    * For negative values in a dense matrix, pdex's fold changes are meaningless: 0 for most genes.
      Here target_mean and ref_mean are then means of the values as they are, log2_fold_change and
      percent_change are NaN, cpm_filter is not applied, and a warning says so.
    * In pdex, mode on_target fails if `gene_col` has categories that are not genes, such as the
      control's.
    * If a gene name occurs more than once, mode on_target takes the first, pdex the last.

    Examples
    --------
    >>> from pdex_gpu import pdex
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> table = pdex(adata, "target_gene", is_log1p=False, as_pandas=True)
    >>> table[["target", "feature", "target_membership", "statistic"]].head(2)
          target    feature  target_membership  statistic
    0  GENE00031  GENE00000                270    16822.0
    1  GENE00031  GENE00001                270    16904.0
    """
    _check_options(mode, threads, geometric_mean, as_pandas, epsilon, cpm_filter)
    reference, gene_column = _mode_options(mode, kwargs)
    if kwargs:
        own = [*inspect.signature(pdex).parameters, "reference", "gene_col"]
        meant = {*own, *_OPTIONS_OF_OTHERS}
        close = [c for name in kwargs if name not in meant for c in close_matches(name, own, 1)]
        hint = f". Did you mean {' or '.join(map(repr, close))}?" if close else ""
        warn(
            f"Unexpected keyword arguments for mode={mode!r} (ignored): {', '.join(kwargs)}{hint}",
            UserWarning,
        )
    if not as_pandas:
        _import_polars()
    with _opened(adata, groupby) as dataset:
        targets = _groups(dataset.labels)
        if mode != "all":
            targets = _without(targets, reference, groupby, dataset.labels)
        if mode == "on_target":
            targets, absent = _testable(dataset, targets, str(gene_column))
            if absent:
                text = (
                    f"Found {len(absent)} groups with missing on-target genes in adata.var: "
                    f"{', '.join(absent)}"
                )
                logger.info("%s", text)
                warn(text, SkippedWarning)
            if not targets:
                return _frame(np.empty(0, object), {}, as_pandas)
        if is_log1p is None and normalize is None:
            is_log1p = _detect_log1p(dataset.source)
        mean = "geometric_mean" if geometric_mean else "count_mean"
        sides = ("target", "reference")
        result = compare(
            dataset,
            Settings.of(
                {
                    "groupby": groupby,
                    "reference": reference,
                    "groups": targets,
                    "comparison": "rest" if mode == "all" else "reference",
                    "on_target": gene_column,
                    "columns": [f"{side}_{name}" for side in sides for name in (mean, "n_cells")],
                    "fdr_scope": "all" if mode == "on_target" else "target",
                    "min_cpm": cpm_filter,
                    "backend": backend,
                    "n_threads": min(threads, cpu_count()) or None,
                    "is_log1p": is_log1p,
                    "normalize": normalize,
                },
                Entry("pdex", takes_nan_policy=False),
                default_columns=False,
                filter_sides="either",  # filters as pdex's, to give the same numbers
                test_options={"method": "asymptotic", "p_values": "asymptotic"},
            ),
        )
    return _as_pdex(cast(DEResult, result), mean, float(epsilon), as_pandas)


def _check_options(
    mode: object,
    threads: object,
    geometric_mean: object,
    as_pandas: object,
    epsilon: object,
    cpm_filter: object,
) -> None:
    check_choice("mode", mode, MODES)
    if not is_whole(threads) or threads < 0:
        raise OptionError(
            f"threads={shown(threads)} must be a number of threads, or 0 for all processors."
        )
    check_flag("geometric_mean", geometric_mean)
    check_flag("as_pandas", as_pandas)
    if cpm_filter is not None:
        check_number("cpm_filter", cpm_filter)
    nan = isinstance(epsilon, float) and math.isnan(epsilon)
    if nan or check_number("epsilon", epsilon) < 0:
        raise OptionError(f"epsilon must be non-negative, got {epsilon!r}. Pass 0 for none.")


def _mode_options(mode: str, kwargs: dict[str, Any]) -> tuple[str, str | None]:
    """Take the reference and the column of genes out of `kwargs`."""
    if mode == "all":
        return "", None
    gene_column = kwargs.pop("gene_col", None) if mode == "on_target" else None
    if mode == "on_target" and not isinstance(gene_column, str):
        raise OptionError(
            f"'gene_col' is required for mode='on_target', got {shown(gene_column)}. Pass the "
            "column of obs that holds the gene each group targets."
        )
    reference = kwargs.pop("reference", "non-targeting")
    if isinstance(reference, list | tuple | set | frozenset | np.ndarray):
        raise OptionError(
            f"reference={shown(reference)} must be one label. To pool several, use "
            "pdex_gpu.differential_expression."
        )
    check_label("reference", reference)
    return reference, gene_column


# --- labels ----------------------------------------------------------------------------------


def _opened(data: Any, groupby: str) -> Dataset:
    """Open the data, with groups in pdex's order and no labels for cells that pdex leaves out."""
    check_text("groupby", groupby)
    try:
        dataset = open_dataset(data, groupby)
    except ColumnError as error:  # a KeyError; pdex raises ValueError
        raise OptionError(str(error)) from error
    dtype: Any = column_in_memory(data.obs, groupby).dtype if hasattr(data, "obs") else None
    # pdex removes the category "", and pandas then sorts the others if they have no order.
    in_order = hasattr(dtype, "categories") and (
        dtype.ordered or "" not in dataset.labels.categories.tolist()
    )
    return replace(dataset, labels=_selected(dataset.labels, in_order))


def _selected(labels: Labels, in_order: bool) -> Labels:
    """Select the labels that cells have, except ``""``; sort them unless they are `in_order`."""
    categories = labels.categories.tolist()
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(categories))
    selected = [i for i, label in enumerate(categories) if counts[i] and label != ""]
    if not in_order:
        with suppress(TypeError):  # mixed types: keep the order of appearance
            selected = sorted(selected, key=lambda i: categories[i])
    place = np.full(len(categories) + 1, -1, np.int64)
    place[selected] = np.arange(len(selected))
    return Labels(place[labels.codes], labels.categories[selected])


def _groups(labels: Labels) -> list[Any]:
    return list(labels.categories)


def _without(groups: list[Any], reference: object, groupby: str, labels: Labels) -> list[Any]:
    """Return the targets: all groups except the reference, which must exist."""
    targets = [group for group in groups if group != reference]
    if len(targets) == len(groups):  # "3" also means the integer 3, as elsewhere
        targets = [group for group in groups if str(group) != str(reference)]
    if len(targets) == len(groups):
        what = f"reference in column {groupby!r}:"
        raise LabelError(unknown_label(what, reference, sizes_of(labels), control=True))
    return targets


def _testable(dataset: Dataset, targets: list[Any], column: str) -> tuple[list[Any], list[str]]:
    """List targets whose gene is in the matrix and, for a message, those whose gene is not.

    Targets with several genes are in the first list, and are refused later. Those without a gene
    are in neither, as in pdex.
    """
    try:
        genes = dataset.column(column)
    except ColumnError as error:
        raise OptionError(str(error)) from error
    named, known = genes_by_group(dataset.labels, genes), positions(dataset.genes)
    testable, absent = [], []
    for target in targets:
        own = named.get(target, [])
        if len(own) > 1 or (own and own[0] in known):
            testable.append(target)
        elif own:
            absent.append(f"{target} ({own[0]})")
    return testable, absent


# --- values ----------------------------------------------------------------------------------


def _detect_log1p(source: Source) -> bool:
    """Return whether no stored value of the first rows reaches 20."""
    values = leading_values(source, _DETECTED_ROWS)
    largest = float(values.max()) if values.size else -np.inf  # integers have no infinity
    found = largest < _LOG1P_BELOW
    logger.warning(  # as pdex does: the means depend on this guess
        "is_log1p not specified; auto-detected %s, because the largest value in the first %d cells "
        "is %g. Pass is_log1p to suppress this message.",
        found, min(_DETECTED_ROWS, source.n_cells), largest,
    )  # fmt: skip
    return found


# --- the table -------------------------------------------------------------------------------


def _as_pdex(
    result: DEResult, mean: str, epsilon: float, as_pandas: bool
) -> polars.DataFrame | pandas.DataFrame:
    negative = result.provenance["negative_values"]
    if negative:
        mean = "mean"  # only means of the values as they are exist
    target, reference = result.flat(f"target_{mean}"), result.flat(f"reference_{mean}")
    change = log2_ratio(target, reference, epsilon)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        percent = (target - reference) / (reference + epsilon)
    percent[(target == 0.0) & (reference == 0.0)] = 0.0  # no change
    for values in (change, percent):
        if negative:
            values.fill(np.nan)
    columns = {
        "target_mean": target,
        "ref_mean": reference,
        "target_membership": result.flat("target_n_cells"),
        "ref_membership": result.flat("reference_n_cells"),
        "log2_fold_change": change,
        "percent_change": percent,
    }
    columns |= {name: result.flat(name) for name in ("p_value", "statistic", "fdr")}
    kept = result.kept
    if kept is None:
        kept = np.broadcast_to(True, (len(result.targets), len(result.features)))
    columns["target"], columns["feature"] = np.nonzero(kept)
    return _frame(result.targets, columns, as_pandas, result.features)


def _frame(
    targets: Sequence[object] | np.ndarray,
    columns: dict[str, np.ndarray],
    as_pandas: bool,
    features: np.ndarray | None = None,
) -> polars.DataFrame | pandas.DataFrame:
    """Make the table in pdex's order from columns and label positions; `{}` makes an empty one."""
    labels = {"target": list(targets), "feature": [] if features is None else list(features)}
    kinds = {name: np.int64 if name in _INTEGERS else np.float64 for name in COLUMNS[2:]}
    values = {name: columns.get(name, np.empty(0, kind)) for name, kind in kinds.items()}
    places = {name: columns.get(name, np.empty(0, np.int64)) for name in labels}
    if as_pandas:
        import pandas as pd

        found: dict[str, Any] = {
            name: pd.Index(labels[name], dtype=None if labels[name] else object).take(places[name])
            for name in labels
        }
        return pd.DataFrame(found | values)
    pl = _import_polars()
    text = {name: pl.Series(name, of_one_type(found) or None, None if found else pl.String)
            for name, found in labels.items()}  # fmt: skip
    text = {name: series.gather(places[name]) for name, series in text.items()}
    return cast("polars.DataFrame", pl.DataFrame({**text, **values}))


def _import_polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise MissingDependencyError(
            "polars is not installed, but pdex returns a polars DataFrame. Run: "
            f"{how_to_install('polars')}, or pass as_pandas=True."
        ) from error
    return polars
