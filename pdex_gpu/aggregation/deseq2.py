"""The pdex 0.1.28 call for DESeq2 on pseudobulk samples."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..design.label_match import match_label
from ..design.naming import of_one_type
from ..errors import (
    DataError,
    LabelError,
    MemoryBudgetError,
    MissingDependencyError,
    OptionError,
    UnknownGroupWarning,
    listing,
    shown,
    unknown_label,
    warn,
)
from ..pipeline.value_scale import elsewhere
from ..sources.options import DataOptions
from ..utils.checks import check_choice, check_count, check_flag, check_label, check_text, labels_of
from ..utils.install_hints import how_to_install
from ..utils.keywords import known_keywords
from .aggregate import (
    METHODS,
    REFUSED,
    Aggregated,
    Samples,
    aggregate,
    find_samples,
    sample_columns,
)
from .deseq2_model import Model, make_model

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars


#: Beyond this, float64 cannot represent every whole number.
_LARGEST_COUNT = 2.0**53


@partial(known_keywords, refused=REFUSED)
def pseudobulk_dex(
    adata: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: Iterable[str],
    groups: Iterable[object] | None = None,
    test_col: str = "target_gene",
    reference: object = "non-targeting",
    design: str | None = None,
    num_workers: int | None = 1,
    aggr_method: str = "sum",
    as_polars: bool = False,
    *,
    layer: str | None = None,
    raw: bool = False,
    modality: str | None = None,
    allow: str | Collection[str] = (),
    memory: str | float | int | None = None,
) -> pandas.DataFrame | polars.DataFrame:
    """Compare groups of pseudobulk samples with DESeq2, with the call and columns of pdex 0.1.28.

    Cells become samples as in :func:`pdex_gpu.pseudobulk`. Then pydeseq2 fits one model to all
    samples and tests each group against the reference (Wald test, Benjamini-Hochberg within a
    group). Needs the extra ``pseudobulk``.

    Parameters
    ----------
    adata : anndata.AnnData, str, os.PathLike or file object
        Raw counts: an AnnData in memory or backed, or the path of an h5ad file or zarr store,
        which may be larger than memory.
    groupby : iterable of str
        Columns of obs that define a sample: `test_col` and at least one more, for replicates.
        Their labels are categories, whatever their type: numbers are not covariates.
    groups : iterable, optional
        Groups to compare, in this order; by default all but the reference, in order of first
        appearance.
    test_col : str
        Column of obs with the group of each cell.
    reference : object
        Group that the others are compared with.
    design : str, optional
        Formula of the model, as formulaic takes it; by default ``"~"`` and the columns of `groupby`
        joined by ``"+"``. A column named by itself is categorical; in an expression it keeps its
        values, so ``"~ I(age) + target_gene"`` makes the numbers in age a covariate. Names that are
        not identifiers go in backticks: ``"~ `donor id` + target_gene"``.
    num_workers : int, optional
        Processes that pydeseq2 uses; all processors if None.
    aggr_method : {"sum", "mean", "median"}
        How cells become samples. DESeq2 takes whole numbers only, which sums of counts are.
    as_polars : bool
        Return a polars frame. Needs the extra ``polars``.
    layer : str, optional
        Layer to use instead of X.
    raw : bool
    modality : str, optional
        Matrix to use, as in :func:`pdex_gpu.differential_expression`.
    allow : {"external", "unwritten"} or list of these
        As in :func:`pdex_gpu.differential_expression`.
    memory : str, int or float, optional
        Memory for making samples, as in :func:`pdex_gpu.pseudobulk`; pydeseq2 needs a multiple of
        (samples x genes) on top of it.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        Columns gene, baseMean, log2FoldChange, lfcSE, stat, pvalue, padj, target, reference; rows
        group by group, genes in matrix order. The index numbers the genes and restarts in each
        group. target and reference hold the labels of `test_col` with their type.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for every input that cannot be used, such as a design that cannot be
        fitted (DataError); MissingDependencyError if pydeseq2 is not installed.

    Notes
    -----
    Differences from pdex 0.1.28: sums are exact, where pdex adds in float32; cells without a label
    are left out with a warning; groups that do not exist are left out with a warning as long as
    some do; a group requested twice is tested once, and the reference never; numeric columns are
    categories, where pdex fits a slope.

    Examples
    --------
    >>> import warnings
    >>> from pdex_gpu import pseudobulk_dex
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> adata.obs["donor"] = [f"donor{i % 3}" for i in range(adata.n_obs)]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # of pydeseq2, which would have more genes
    ...     table = pseudobulk_dex(adata, ["target_gene", "donor"], groups=["GENE00031"])
    >>> table.loc[table["pvalue"].idxmin(), "gene"]
    'GENE00044'
    """
    check_choice("aggr_method:", aggr_method, METHODS)
    columns = sample_columns(groupby)
    check_text("test_col", test_col)
    check_text("design", design, may_be_none=True, what="a formula")
    check_flag("as_polars", as_polars)
    if test_col not in columns:
        raise OptionError(
            f"test_col={shown(test_col)} is not among the columns of groupby: "
            f"{listing(sorted(columns))}. Add it to groupby, or pass the column with the groups."
        )
    if len(columns) < 2:
        raise OptionError(
            f"groupby has only the column {columns[0]!r}, but DESeq2 needs replicates to estimate "
            "variance. Add a column that identifies them to groupby, such as a donor or a batch."
        )
    check_count("num_workers", num_workers)
    deseq = _import("pydeseq2.dds", "pseudobulk"), _import("pydeseq2.ds", "pseudobulk")
    inference = _import("pydeseq2.default_inference", "pseudobulk")
    _import("formulaic_contrasts", "pseudobulk")
    pl = _import("polars", "polars") if as_polars else None
    options = DataOptions(layer=layer, raw=raw, modality=modality, allow=allow)
    samples = find_samples(adata, sorted(columns), options, memory)
    reference, targets = _targets(samples, test_col, reference, groups)
    model = make_model(samples, columns, design, test_col)
    found = aggregate(adata, samples, options, method=aggr_method, memory=memory)
    _check_counts(found, samples, aggr_method)

    import pandas as pd

    inference = inference.DefaultInference(n_cpus=num_workers)
    parts = []
    for target, results in zip(
        targets, _tested(*deseq, inference, found.values, model, targets, reference), strict=True
    ):
        part = results.reset_index(drop=True)
        part.insert(0, "gene", found.genes)
        part["target"] = _column(target, len(found.genes))
        part["reference"] = _column(reference, len(found.genes))
        parts.append(part)
    table = pd.concat(parts)
    if pl is None:
        return table
    return pl.DataFrame(table.assign(target=of_one_type(table["target"])))


def _column(label: object, n: int) -> pandas.Series:
    """Return a series that repeats a label `n` times, with the label's type."""
    import pandas as pd

    return pd.Series([label] * n)


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module.split('.')[0]} is not installed. Run: {how_to_install(extra)}"
        ) from error


def _targets(
    samples: Samples, column: str, reference: object, groups: Iterable[object] | None
) -> tuple[object, list[Any]]:
    """Return the reference and the groups to compare, labelled as in the column."""
    by_cell = samples.levels[column][np.argsort(samples.first_cell)]
    present = list(dict.fromkeys(by_cell.tolist()))
    # "3" matches the integer 3, as on a command line.
    known_labels, by_text = set(present), {str(label): label for label in present}

    def match(label: object) -> Any:
        return match_label(label, known_labels, by_text)

    sizes = dict.fromkeys(sorted(by_text), 0)
    for label, n in zip(samples.levels[column].tolist(), samples.n_cells.tolist(), strict=True):
        sizes[str(label)] += n
    check_label("reference", reference)
    known = match(reference)
    if known not in known_labels:
        raise LabelError(
            unknown_label(f"reference in column {column!r}:", reference, sizes, control=True)
        )
    if groups is None:
        targets = [label for label in present if label != known]
    else:
        asked = [match(label) for label in labels_of("groups", groups) or ()]
        absent = [label for label in asked if label not in known_labels]
        targets = [g for g in dict.fromkeys(asked) if g in known_labels and g != known]
        if absent and not targets:
            raise LabelError(
                unknown_label(f"group in column {column!r}:", absent[0], sizes, control=False)
            )
        if absent:
            warn(
                f"Groups not found in column {column!r} and left out: {listing(absent)}.",
                UnknownGroupWarning,
            )
    if not targets:
        raise LabelError(
            f"No target group is left to compare with {str(known)!r} in column {column!r}: "
            f"found {listing(present)}. Pass other groups or another reference."
        )
    return known, targets


def _check_counts(found: Aggregated, samples: Samples, method: str) -> None:
    """Check that samples are whole numbers, none too large, and that no cell is negative."""
    for k, row in enumerate(found.values):
        wrong = np.flatnonzero((row < 0) | (row != np.floor(row)) | (row > _LARGEST_COUNT))
        if len(wrong):
            value = row[wrong[0]]
            kind = "negative" if value < 0 else "fractional"
            if value > _LARGEST_COUNT:
                kind = "too large for a count"
            advice = "Use aggr_method='sum' with raw" if method != "sum" else "Pass raw"
            raise DataError(
                f"DESeq2 needs counts, but the {method} of sample {samples.names[k]!r} is {kind} "
                f"in gene {str(found.genes[wrong[0]])!r}: {value:.6g}. {advice} counts; layer= "
                "or raw= selects the matrix that holds them."
            )
    if found.minimum < 0.0:  # a cell can be negative although its sample is not
        raise DataError(
            f"DESeq2 needs counts, but some cell has a negative value: {found.minimum:.6g}. Pass "
            f"raw counts; layer= or raw= selects the matrix that holds them. "
            f"{elsewhere(found.matrices)}"
        )


def _tested(
    dds_module: Any,
    ds_module: Any,
    inference: Any,
    values: np.ndarray,
    model: Model,
    targets: list[Any],
    reference: object,
) -> Iterator[pandas.DataFrame]:
    """Fit the model once, then yield each target's test, with the options of pdex 0.1.28.

    Samples and genes are named by numbers, as names in the data may repeat.
    """
    import pandas as pd

    contrasts = [model.contrast(target, reference) for target in targets]
    samples = model.matrix.index
    try:
        dds = dds_module.DeseqDataSet(
            counts=pd.DataFrame(
                values, index=samples, columns=pd.RangeIndex(values.shape[1]).astype(str)
            ),
            metadata=pd.DataFrame(index=samples),
            design=model.matrix,
            refit_cooks=True,
            inference=inference,
            quiet=True,
        )
        dds.deseq2()
        for contrast in contrasts:
            tested = ds_module.DeseqStats(dds, contrast=contrast, inference=inference, quiet=True)
            tested.summary()
            yield tested.results_df
    except MemoryError as error:
        raise MemoryBudgetError(
            f"pydeseq2 ran out of memory with {values.shape[0]:,} samples x {values.shape[1]:,} "
            "genes. Use fewer genes, or merge samples."
        ) from error
    except Exception as error:  # pydeseq2 may raise anything
        text = " ".join(str(error).split()).removesuffix(".")
        raise DataError(
            f"pydeseq2 cannot fit {values.shape[0]:,} samples x {values.shape[1]:,} genes "
            f"({type(error).__name__}: {text}). Check that the samples have counts, and that "
            "each group has several samples."
        ) from error
