"""scanpy's ``tl.rank_genes_groups``, on top of this package's own call."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..design.labels import Labels, object_array
from ..errors import (
    LabelError,
    OptionError,
    UnsupportedDataError,
    listing,
    shown,
    unknown,
    unknown_label,
)
from ..pipeline.execute import compare
from ..request.choosing import keep_genes
from ..request.normalize import normalised
from ..request.options import SCANPY_ENTRY, Entry, Settings
from ..results.memory import DEResult
from ..sources.anndata_files.multimodal import is_multimodal, many_modalities
from ..sources.anndata_files.nodes import is_stored
from ..sources.base import Source
from ..sources.choice import MatrixChoice
from ..sources.dataset import Dataset
from ..sources.detect import is_backed
from ..sources.formats import source_of
from ..sources.open import open_dataset
from ..sources.pandas_frames import column_in_memory, is_frame, names_of, obs_labels, other_matrices
from ..sources.peek import leading_values
from ..sources.views.view import select
from ..utils.checks import (
    check_choice,
    check_count,
    check_flag,
    check_label,
    check_text,
    kind,
    labels_of,
)
from ..utils.keywords import known_keywords

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger("pdex_gpu")

METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
CORRECTIONS = ("benjamini-hochberg", "bonferroni")

#: Label of cells without a label: they belong to the rest of every group.
_UNLABELLED = "\0unlabelled"
_EPSILON = 1e-9  # scanpy's, in fold changes
_CHECKED_ROWS = 500  # in the check for whole numbers

#: The record arrays of the result, with one column per group, and their dtypes.
_KINDS = {
    "names": "O",
    "scores": "float32",
    "pvals": "float64",
    "pvals_adj": "float64",
    "logfoldchanges": "float32",
}


@known_keywords
def rank_genes_groups(
    adata: anndata.AnnData,
    groupby: str,
    *,
    mask_var: Any = None,
    use_raw: bool | None = None,
    groups: str | Iterable[object] = "all",
    reference: str = "rest",
    n_genes: int | None = None,
    rankby_abs: bool = False,
    pts: bool = False,
    key_added: str | None = None,
    copy: bool = False,
    method: str | None = None,
    corr_method: str = "benjamini-hochberg",
    tie_correct: bool = False,
    layer: str | None = None,
    backend: str = "auto",
    normalize: float | str | None = None,
) -> anndata.AnnData | None:
    """Rank the genes that characterize each group, like scanpy 1.12's ``tl.rank_genes_groups``.

    Parameters
    ----------
    adata : anndata.AnnData
        Logarithmized values, in memory or in a file (backed), which is read in ranges of genes.
    groupby : str
        Column of obs with the groups: categories, or text, which is converted to categories.
    mask_var : str or numpy.ndarray of bool, shape (n_vars,), optional
        Genes to test, or the column of var with this mask. Totals of `normalize` are over all.
    use_raw : bool, optional
        Test ``adata.raw``; by default if it exists.
    groups : "all" or iterable of str
        Groups to compare.
    reference : str
        Group to compare with; ``"rest"`` for all other cells, including those of groups that are
        not in `groups` and those without a label.
    n_genes : int, optional
        Number of genes to return per group; all by default.
    rankby_abs : bool
        Order genes by the absolute value of their score.
    pts : bool
        Also return the fractions of cells that express each gene.
    key_added : str, optional
        Key of uns for the result, by default ``"rank_genes_groups"``.
    copy : bool
        Return a copy of `adata` with the result instead of adding the result to `adata`.
    method : {"t-test", "t-test_overestim_var", "wilcoxon"}, optional
        Welch's t-test (the default); the same, as if the reference had as many cells as the
        group; or the rank-sum test by the normal approximation without continuity correction.
    corr_method : {"benjamini-hochberg", "bonferroni"}
        Correction of the p-values of each group.
    tie_correct : bool
        Correct the variance of rank sums for ties.
    layer : str, optional
        Layer to test instead of X.
    backend, normalize : str
        See :func:`pdex_gpu.differential_expression`. With `normalize`, the values are raw counts.

    Returns
    -------
    anndata.AnnData or None
        None unless `copy`. ``adata.uns[key_added]`` has the layout of scanpy: ``params``; the
        records ``names``, ``scores`` (float32), ``logfoldchanges`` (float32), ``pvals`` and
        ``pvals_adj`` (float64), with one field per group and genes in descending order of score;
        and with `pts` the frames ``pts`` and, against the rest, ``pts_rest``.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, a ValueError or KeyError where scanpy raises one.

    Notes
    -----
    Genes of equal score are in matrix order; scanpy leaves their order to chance. This also decides
    which of them are among the first `n_genes`. Means and variances are float64 and are summed in a
    different order than in scanpy, so scores agree to about 12 digits before they are rounded to
    float32. If a gene has the same value in all cells of both samples, the score is 0; scanpy's
    rounding may give such a gene a variance, and a large score.

    scanpy drops explicit zeros from the matrix in `adata`; here it stays unchanged. NaN is refused.

    Examples
    --------
    >>> from pdex_gpu import rank_genes_groups
    >>> from pdex_gpu.simulate import simulate_screen
    >>> screen = simulate_screen(1200, 60, 4, seed=1)
    >>> adata = screen.to_anndata()
    >>> adata.X = screen.log_normalised()
    >>> rank_genes_groups(adata, "target_gene", reference="non-targeting", method="wilcoxon")
    >>> adata.uns["rank_genes_groups"]["names"]["GENE00031"][:2].tolist()
    ['GENE00044', 'GENE00036']
    """
    method = _check_options(method, corr_method, tie_correct, rankby_abs, pts, n_genes)
    for name, value in (("groupby", groupby), ("layer", layer), ("key_added", key_added)):
        check_text(name, value, may_be_none=name != "groupby")
    check_flag("copy", copy)
    _check_data(adata, copy)
    mask = _mask(adata, mask_var)
    use_raw = _check_raw(adata, use_raw, layer)
    if copy:
        adata = adata.copy()
    adata.strings_to_categoricals()
    chosen = _groups(adata, groupby, groups, reference)
    sliced = mask if normalize is None else None  # totals are over all genes
    dataset, var_names = _dataset(adata, groupby, layer, use_raw, sliced)
    if mask is not None and sliced is None:
        _check_mask_of(var_names, mask)
        var_names = var_names[mask]
    with dataset:
        if normalize is None:
            _hint_at_counts(dataset.source)
        sides = ("target", "reference")
        means = [f"{side}_log_mean" for side in sides]
        fractions = [f"{side}_fraction" for side in sides] if pts else []
        settings = Settings.of(
            {
                "groupby": groupby,
                "reference": reference,
                "groups": chosen.targets,
                "comparison": "rest" if str(reference) == "rest" else "reference",
                "columns": [*means, *fractions, *(["z"] if method == "wilcoxon" else [])],
                "fdr_method": corr_method,
                "fdr_scope": "target",
                "metric": "wilcoxon" if method == "wilcoxon" else "t-test",
                "layer": layer,
                "backend": backend,
                "normalize": normalize,
                "is_log1p": True,  # scanpy's fold changes assume this
            },
            Entry(SCANPY_ENTRY, takes_nan_policy=False),
            default_columns=False,
            test_options=_test_options(method, tie_correct),
        )
        dataset = replace(dataset, labels=_labels(column_in_memory(adata.obs, groupby)))
        if mask is not None and sliced is None:
            dataset = keep_genes(normalised(dataset, settings.data), np.flatnonzero(mask))
            dataset = replace(dataset, ready=True)
        result = compare(dataset, settings)
    found: dict[str, Any] = {
        "params": {
            "groupby": groupby,
            "reference": reference,
            "method": method,
            "use_raw": use_raw,
            "layer": layer,
            "corr_method": corr_method,
        }
    }
    result = cast(DEResult, result)
    if pts:
        found |= _fractions(result, chosen, var_names)
    base = adata.uns.get("log1p", {}).get("base")
    found |= _records(result, method, base, n_genes, rankby_abs)
    adata.uns["rank_genes_groups" if key_added is None else key_added] = found
    return adata if copy else None


def _check_options(
    method: str | None,
    corr_method: object,
    tie_correct: object,
    rankby_abs: object,
    pts: object,
    n_genes: object,
) -> str:
    method = "t-test" if method is None else method
    if isinstance(method, str) and method == "logreg":
        raise OptionError(
            "method='logreg' is not supported: logistic regression does not test single genes. "
            f"Use scanpy for it, or one of {listing(METHODS)}."
        )
    check_choice("method", method, METHODS)
    check_choice("corr_method", corr_method, CORRECTIONS)
    for name, value in (("tie_correct", tie_correct), ("rankby_abs", rankby_abs), ("pts", pts)):
        check_flag(name, value)
    check_count("n_genes", n_genes)
    return method


def _check_data(adata: Any, copy: bool) -> None:
    if is_multimodal(adata):
        raise many_modalities(adata)
    anndata = sys.modules.get("anndata")
    if anndata is None or not isinstance(adata, anndata.AnnData):
        raise UnsupportedDataError(
            f"rank_genes_groups writes into adata.uns, so it needs an AnnData, not a "
            f"{kind(adata)}. Open a file with anndata.read_h5ad(path, backed='r'), or use "
            "pdex_gpu.differential_expression."
        )
    if not is_backed(adata):
        return
    if copy or adata.is_view:
        what = "copy=True would copy" if copy else "Writing a result would make a copy of"
        raise OptionError(
            f"{what} {'a file: adata' if copy else 'this view: adata'} is backed by "
            f"{str(adata.filename)!r}. Pass the whole backed AnnData and copy=False, or load it: "
            "adata.to_memory()."
        )


def _mask(adata: Any, mask_var: Any) -> np.ndarray | None:
    """Return which genes are tested, shape (n_vars,), bool; None for all."""
    if mask_var is None:
        return None
    if isinstance(mask_var, str):
        if mask_var not in adata.var.columns:
            text = unknown("column of var", mask_var, list(adata.var.columns))
            raise OptionError(f"mask_var: {text}")
        mask = column_in_memory(adata.var, mask_var).to_numpy()
    else:
        try:
            mask = np.asarray(mask_var)
        except Exception as error:  # raised by an object that is not an array
            raise OptionError(f"mask_var={shown(mask_var)} must be boolean: {error}.") from error
    if mask.shape != (adata.n_vars,) or mask.dtype != bool:
        raise OptionError(
            f"mask_var must be boolean with one value for each of {adata.n_vars} genes, but is "
            f"{mask.dtype} of shape {mask.shape}."
        )
    if not mask.any():
        raise OptionError("mask_var selects no genes. Set it to True for at least one.")
    return mask


def _check_raw(adata: Any, use_raw: bool | None, layer: str | None) -> bool:
    raw = adata.raw is not None
    check_flag("use_raw", use_raw, may_be_none=True)
    if use_raw and not raw:
        raise OptionError("Received use_raw=True, but adata.raw is empty. Pass use_raw=False.")
    use_raw = raw if use_raw is None else bool(use_raw)
    if use_raw and layer is not None:
        raise OptionError(
            f"Cannot specify layer={layer!r} and have use_raw=True, which is the default if "
            "adata.raw exists. Pass use_raw=False."
        )
    return use_raw


# --- groups ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Groups:
    """The labels of all groups involved, in scanpy's order, and of those that are compared."""

    all: list[Any]
    targets: list[Any]


def _groups(adata: Any, groupby: str, groups: Any, reference: object) -> _Groups:
    obs_labels(adata, groupby)
    column = column_in_memory(adata.obs, groupby)
    if not hasattr(column, "cat"):
        raise OptionError(
            f"Column {groupby!r} of obs is {column.dtype}, not categorical. Convert it: "
            f"adata.obs[{groupby!r}] = adata.obs[{groupby!r}].astype('category')."
        )
    categories = column.cat.categories.tolist()
    if isinstance(groups, str) and groups == "all":
        labels = categories
    elif groups is None or isinstance(groups, str):
        raise OptionError(f"groups={groups!r} must be a sequence of groups, or 'all'.")
    else:
        asked = labels_of("groups", groups) or []
        labels = [_label(group, column, "group") for group in asked]
        if not labels:
            raise OptionError("groups=[] names no group. Pass some, or 'all'.")
    if isinstance(reference, str) and reference == "rest":
        chosen = _Groups(list(dict.fromkeys(labels)), list(dict.fromkeys(labels)))
    else:
        check_label("reference", reference)
        other = _label(reference, column, "reference")
        both = list(dict.fromkeys([*labels, other]))
        chosen = _Groups(both, [label for label in both if label != other])
    counts = column.value_counts()
    few = [label for label in chosen.all if counts[label] < 2]
    if few:
        raise LabelError(
            f"Could not calculate statistics for groups {listing(few)} of column {groupby!r}, "
            "because they contain one cell or none. Pass only the other groups with groups=, or "
            "remove these (and then their categories: .cat.remove_unused_categories())."
        )
    return chosen


def _label(asked: object, column: Any, role: str) -> Any:
    """Find a category by value or else by text: numbers may be given as text and vice versa."""
    categories = column.cat.categories.tolist()
    for category in categories:
        if category == asked:
            return category
    by_text = {str(category): category for category in categories}
    if str(asked) not in by_text:
        sizes = column.value_counts(sort=False).to_dict()
        what = f"{role} in column {column.name!r}:"
        raise LabelError(unknown_label(what, asked, sizes, control=role == "reference"))
    return by_text[str(asked)]


def _labels(column: Any) -> Labels:
    """Return the groups, with a label for unlabelled cells: these belong to the rest."""
    codes = column.cat.codes.to_numpy().astype(np.int64)
    categories = column.cat.categories.tolist()
    return Labels(
        np.where(codes < 0, len(categories), codes), object_array([*categories, _UNLABELLED])
    )


# --- the matrix ------------------------------------------------------------------------------


def _dataset(
    adata: Any, groupby: str, layer: str | None, use_raw: bool, mask: np.ndarray | None
) -> tuple[Dataset, Any]:
    """Return the matrix to test, and its gene names as an index."""
    if not use_raw:
        part = adata if mask is None else adata[:, mask]
        return open_dataset(part, groupby, MatrixChoice(layer)), _gene_names(part.var)
    names = _gene_names(adata.raw.var)
    if mask is not None:
        _check_mask_of(names, mask)
    source, names = _raw_source(adata.raw.X, mask), names if mask is None else names[mask]
    return (
        Dataset(
            source=source,
            labels=Labels(np.empty(0, np.int64), np.empty(0, object)),  # set later
            genes=object_array(str(name) for name in names),
            cell_name=lambda row: str(names_of(adata.obs)[row]),
            description="AnnData, raw.X",
            matrices=lambda: other_matrices(adata, "raw"),
        ),
        names,
    )


def _check_mask_of(names: Any, mask: np.ndarray) -> None:
    if len(names) != len(mask):
        raise OptionError(
            f"mask_var has one value for each of the {len(mask)} genes of adata, but adata.raw has "
            f"{len(names)} genes. Pass use_raw=False, or no mask_var."
        )


def _gene_names(var: Any) -> Any:
    """Return the index of var, or the names in its file if it is read lazily."""
    return var.index if is_frame(var) else names_of(var)


def _raw_source(matrix: Any, mask: np.ndarray | None) -> Source:
    if mask is None:
        return source_of(matrix, "raw.X")
    if not is_stored(matrix):
        return source_of(matrix[:, mask], "raw.X")
    source = source_of(matrix, "raw.X")
    return select(source, np.arange(source.n_cells), np.flatnonzero(mask))


def _hint_at_counts(source: Source) -> None:
    """Log a warning if the first rows look like counts; files are not read for this."""
    if not source.in_memory:
        return
    values = leading_values(source, _CHECKED_ROWS)
    if values.size and (values >= 0).all() and (values == np.floor(values)).all():
        logger.warning(
            "values are whole numbers, like raw counts, but rank_genes_groups expects logarithms "
            "(its fold changes take expm1 of means)"
        )


# --- the result ------------------------------------------------------------------------------


def _test_options(method: str, tie_correct: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"p_values": "asymptotic"}
    if method == "wilcoxon":
        plain = {"continuity": False, "method": "asymptotic"}
        return options | plain | {"tie_correction": bool(tie_correct)}
    return options | {"variance": "welch" if method == "t-test" else "overestimated"}


def _records(
    result: DEResult, method: str, base: float | None, n_genes: int | None, rankby_abs: bool
) -> dict[str, np.ndarray]:
    """Make scanpy's records, with one field per group and genes in descending order of score."""
    scores = result["z" if method == "wilcoxon" else "statistic"]
    scores = np.where(np.isnan(scores), 0.0, scores)
    keys = np.abs(scores) if rankby_abs else scores
    n = len(result.features) if n_genes is None else min(n_genes, len(result.features))
    first = np.argsort(-keys, axis=1, kind="stable")[:, :n]
    values = {
        "logfoldchanges": _log_fold_changes(result, base),
        "names": np.broadcast_to(result.features, scores.shape),
        "pvals": result["p_value"],
        "pvals_adj": result["fdr"],
        "scores": scores,
    }
    names = [str(target) for target in result.targets]
    found: dict[str, np.ndarray] = {}
    with np.errstate(over="ignore"):  # infinite if beyond float32
        for kind, dtype in _KINDS.items():
            rows = np.take_along_axis(values[kind], first, axis=1).astype(dtype)
            found[kind] = np.rec.fromarrays(list(rows), dtype=[(name, dtype) for name in names])
    return found


def _log_fold_changes(result: DEResult, base: float | None) -> np.ndarray:
    """Compute scanpy's log2 fold changes, from expm1 of mean logarithms, each plus 1e-9."""
    factor = 1.0 if base is None else float(np.log(base))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        target, reference = (
            np.expm1(result[f"{side}_log_mean"] * factor) + _EPSILON
            for side in ("target", "reference")
        )
        return np.log2(target / reference)


def _fractions(result: DEResult, chosen: _Groups, var_names: Any) -> dict[str, Any]:
    import pandas as pd

    of_target = dict(zip(result.targets, result["target_fraction"], strict=True))
    of_reference = dict(zip(result.targets, result["reference_fraction"], strict=True))
    names = [str(label) for label in chosen.all]

    def frame(rows: list[np.ndarray]) -> Any:
        return pd.DataFrame(np.stack(rows, axis=1), index=var_names, columns=names)

    if len(chosen.targets) < len(chosen.all):  # one reference, which has a column, too
        shared = result["reference_fraction"][0]
        return {"pts": frame([of_target.get(label, shared) for label in chosen.all])}
    return {
        "pts": frame([of_target[label] for label in chosen.all]),
        "pts_rest": frame([of_reference[label] for label in chosen.all]),
    }
