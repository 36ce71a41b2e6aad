"""The main call: groups of cells, compared gene by gene."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack, overload

from .pipeline.execute import compare
from .request.keywords import Options, full_signature
from .request.options import Settings
from .results.file import ResultFile
from .results.memory import DEResult

if TYPE_CHECKING:
    from .request.keywords import Data


@overload
def differential_expression(
    data: Data,
    groupby: str | Sequence[str] | None = None,
    *,
    out: None = None,
    **options: Unpack[Options],
) -> DEResult: ...


@overload
def differential_expression(
    data: Data,
    groupby: str | Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str],
    **options: Unpack[Options],
) -> ResultFile: ...


@full_signature()
def differential_expression(
    data: Data,
    groupby: str | Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    **options: Unpack[Options],
) -> DEResult | ResultFile:
    """Compare groups of cells, gene by gene: with a reference, each other, or the rest.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, file object, or list or dict of paths
        A screen. Either an AnnData: in memory, backed, a view of a backed one, read by
        ``anndata.experimental.read_lazy``, or with a dask array in X or the layer. Or the path of
        an h5ad file, a zarr store (folder or .zip), or a modality in an h5mu file
        (``"screen.h5mu/mod/rna"``). Or the path of Cell Ranger's output, an HDF5 file such as
        ``filtered_feature_bc_matrix.h5`` or the folder of that name: features of the type Gene
        Expression are read, named by their symbols, made unique as ``var_names_make_unique`` does.
        Or an HDF5 file opened with ``open(path, "rb")`` or the like, which stays open. Or several
        files as one screen: a list of paths, a pattern (``"plates/*.h5ad"``, in natural order), or
        a mapping of names to paths. Their cells are stacked, and their genes joined by name. X may
        be dense, CSR or CSC, of any integer or float dtype; integers up to 64 bits are ranked
        exactly. Indices may be in any order; duplicate entries are summed.
    groupby : str or list of str
        Column of obs with the group of each cell. Cells without a label are left out. In a list,
        the first column has the groups, and cells are compared only with cells that have the same
        levels of the other columns: ``["perturbation", "cell_type"]``. These other columns are
        added to the result, so they must not have the name of one of its own columns.
    reference : object
        Group that the others are compared with, or a list of groups whose cells are pooled. With
        ``comparison="each_reference"``, the groups to compare with one by one; with
        ``"perturbed"``, the groups that are left out.
    groups : iterable, optional
        Groups to compare, in this order; by default all but the reference, sorted.
    comparison : {"reference", "each_reference", "rest", "perturbed", "pairs"}
        What each group is compared with: the reference; each of several references; all other
        cells that have a label; all of these except the reference's; or as given by `pairs`.
        Instead of a name, an instance of a ``pdex_gpu.design.comparisons.Comparison``.
    pairs : pandas.DataFrame or list of pairs, optional
        Columns target and reference, for ``comparison="pairs"``.
    guides : str, optional
        Matrix in obsm, cells x perturbations, True where a cell carries a guide; used instead of
        `groupby`. A cell counts for each guide that it carries. ``comparison="rest"`` compares the
        cells that carry a guide with those that do not, ``"reference"`` with those that carry
        the reference guide (a cell that carries both counts on both sides). Guides are identified
        by column name in a data frame and by number in an array. Columns hold booleans, 1 and 0,
        or categories or text with these values. Where a value is missing, the cell is on neither
        side of that guide's comparisons; a MissingLabelWarning gives the number of such cells.
    guide_calls : str or os.PathLike, optional
        Cell Ranger's table of the guides in each cell, ``protospacer_calls_per_cell.csv``; used
        instead of `groupby`, with any data whose cells are named by barcodes. The groups are the
        guides, or their targets with `guide_targets`. Barcodes that match no cell are counted
        in a warning; if no barcode matches, that is an error.
    guide_targets : str or os.PathLike, optional
        Cell Ranger's ``feature_reference.csv``, with the columns id and target_gene_name: cells
        are grouped by the targets of their guides. The target ``Non-Targeting`` becomes the group
        ``"non-targeting"``, the default reference.
    min_umis : int, optional
        A cell has a guide if it has at least this many UMIs of it: of the features of the type
        CRISPR Guide Capture that Cell Ranger's matrix counts, or of the calls in `guide_calls`.
    multiplicity : {"low", "high"}
        Whether cells carry one guide or several, for `guide_calls` and `min_umis`. With ``"low"``,
        cells without a guide, or with guides of several groups, are left out, and a warning counts
        them; a cell with two guides of one target stays. With ``"high"``, a cell counts for each
        of its guides or targets, as with `guides`.
    on_target : str, optional
        Column of obs with the gene that each group targets: each group is tested only at its gene.
    strata : str, optional
        Column of obs, such as the batch: cells are compared within its levels, and these
        comparisons are combined (van Elteren's test for Wilcoxon, a fixed effect of the stratum
        for t, the sum of A2 for Anderson-Darling). Strata that lack one of the sides are skipped.
    columns : iterable of str or "all"
        Further columns of the result, see :data:`pdex_gpu.results.schema.EXTRA_COLUMNS`: numbers
        and fractions of cells, means, fold changes as in other tools, effect sizes with
        confidence intervals, ``z``, ``log10_p``.
    confidence : float
        Level of confidence intervals.
    pseudocount : float
        Pseudocount of ``log2_fold_change_geometric``.
    fdr_method : {"benjamini-hochberg", "benjamini-yekutieli", "bonferroni", "empirical"}
        How the column fdr is computed from p-values. ``"empirical"``: cells of the reference are
        split at random into mock groups of the sizes of the targets, and each is compared with
        the others by the same test. The share of these null p-values, of groups of similar size,
        that are at most as large as a row's takes the place of its p-value in
        Benjamini-Hochberg; the column p_value stays. Of `n` null p-values, none gives less than
        ``1 / (n + 1)``, so that few hits may not be found among many rows: the log says how many
        it takes. It needs a reference with enough cells: about twice as many as the largest
        target. It reads the data once more, and takes about as long again, longer if controls are
        few. The split is the same in every call on cells in the same order.
    fdr_scope : {"all", "target", "gene"}
        Which tests are corrected together: all rows, those of each comparison, or of each gene.
    min_cells : int
        Comparisons with fewer cells on either side are left out.
    min_fraction : float, optional
        Rows are left out before correction unless at least this fraction of the cells of both
        sides together expresses the gene.
    min_cpm : float, optional
        Rows are left out before correction unless the counts per million of both sides together
        exceed this: the gene's mean count over the sum of all genes' means, times a million.
    metric : {"wilcoxon", "anderson", "t-test", "ks"} or StatisticalTest
        Wilcoxon rank-sum (Mann-Whitney U), two-sample Anderson-Darling, t-test, or two-sample
        Kolmogorov-Smirnov. Or a test with its options, such as ``Wilcoxon(continuity=False)``.
    layer : str, optional
        Layer to use instead of X.
    raw : bool
        Use the matrix of ``adata.raw``, with its own genes, instead of X.
    modality : str, optional
        The modality of a MuData to use, given as an object or as the path of an h5mu file or a
        zarr store. Columns that its obs lacks come from the obs of the MuData, matched by the
        names of the cells. For Cell Ranger's output: the feature type in place of Gene
        Expression, or the genome in a file of Cell Ranger 2.
    genes : list of str, str or os.PathLike, optional
        Genes to test, and to correct p-values over: their names, a boolean column of var, or a
        text file with one name per line. A name that is both a column and a file is the column.
        Results have the genes in the order of the matrix.
    gene_symbols : str, optional
        Column of var with the symbols of genes. The result has them in addition to the names in
        var, as ``symbols`` and as the column symbol of tables. Figures and reports show them,
        and `genes`, `on_target` and the calls of a result understand them. A gene without a
        symbol has its name.
    cells : str, optional
        Cells to keep: a boolean column of obs, or ``"column=value"`` for the cells with this label
        (compared as text). All others do not count anywhere, not even in a median of totals.
    normalize : float, "median" or str, optional
        Normalise raw counts while they are read: scale the counts of each cell to this sum, as
        ``scanpy.pp.normalize_total`` does, or to the median of the totals, or divide them by the
        size factors in this column of obs. Tests then see ``log1p(normalize * (count / total))``
        or ``log1p(count / size_factor)``, computed in float64; without log1p if `log1p` is false.
        A total is the sum over all genes of the matrix, whatever genes are tested. Values that are
        not counts are refused.
    log1p : bool, optional
        Whether log1p is taken of normalised counts; by default it is.
    totals : str, optional
        Column of obs with the total of each cell, in place of the sum of its counts.
    allow : {"external", "unwritten"} or list of these
        What may be read although it is not in the given file; refused otherwise. ``"external"``:
        other files that it refers to by a link out of its folder, as part of a virtual dataset,
        or as raw bytes. ``"unwritten"``: fill values for data never written or missing.
    join : {"inner", "outer"}
        Genes of several files: those that all files have, or those that any file has, as 0 where
        it is missing; in the order of the first file. Either way `normalize` takes the totals of
        all genes of each file.
    batch : str, optional
        New column of obs with the name of each cell's file: its key in the mapping, or its name
        without folder and suffix. It can be used like any column, as `strata` for instance.
    out : str or os.PathLike, optional
        File that results are written to as they are computed: ``.parquet``, ``.csv`` or ``.tsv``.
        The table is never held in memory. Until the file is complete, intermediate results are
        kept next to it, in the folder ``.NAME.checkpoint``: after a crash, the same call continues
        from there, and the file has the same bytes. It gets its name when it is complete.
    force : bool
        Replace `out` if it exists; the old file stays until the new one is complete.
    restart : bool
        Discard what an earlier, unfinished call left next to `out`.
    spreadsheet_safe : bool
        In ``.csv`` and ``.tsv`` files, write an apostrophe before names that a spreadsheet would
        run as a formula: those that begin with ``=``, ``+``, ``-`` or ``@``. Other programs will
        read the apostrophe, too.
    backend : {"auto", "cuda", "cpu", "numpy"}
        ``"auto"`` takes the first that can run here, or the one that ``PDEX_GPU_BACKEND`` names.
    engine : {"auto", "threads", "shared_memory", "serial", "dask"} or Dask
        How the work is distributed; ``"auto"`` is threads. ``"shared_memory"`` starts worker
        processes that share one copy of a matrix in memory. They are faster than threads where
        Python itself is busy: with the numpy kernel set, and with options of a test that run
        through scipy. ``"dask"`` runs on the workers of a Dask cluster, each with the backend
        available there. Workers open the data from the path, so the path must lead to the same
        file or store on all of them. ``Dask(client)`` is ``"dask"`` with that client.
    client : distributed.Client or str, optional
        With ``engine="dask"``: a client, or the address of a scheduler; the current client by
        default.
    memory : str, int or float, optional
        Memory to use, not counting an input that is already in memory: ``"4GB"``, bytes, or a
        fraction of the free memory (default 0.5). With ``engine="dask"``, memory per worker.
    scratch : str or os.PathLike, optional
        Folder for data that do not fit in memory while a file is read; by default the system's
        temporary folder. With ``engine="dask"``, a folder that all workers see, for the rechunked
        rows of a matrix stored by rows; by default next to `out`, with the checkpoint.
    device : int, list of int or "all", optional
        CUDA device to use, by number; a list of several; or all usable ones. By default the first
        usable one. If given, ``backend="auto"`` takes CUDA or raises. Several devices share the
        ranges of genes and give bitwise the same results as one; if one is lost, the others
        continue. A matrix that is already on a device is used only by that one.
    device_memory : str, int or float, optional
        Memory to use on each CUDA device: a size as for `memory`, or a fraction of the free memory
        there; 0.9 by default.
    n_workers : int, optional
        Ranges of genes processed at once (with the shared-memory engine: processes; on CUDA: per
        device).
    n_threads : int, optional
        Threads per range. By default all processors that affinity and cgroups allow.
    gene_chunk_size : int, optional
        Largest number of genes in a range.
    is_log1p : bool, optional
        Whether values are ``log1p`` of counts, so that means are given in count space. By
        default true if any value of the compared cells has a fractional part above 0.001, unless
        one is above 25, too large for the logarithm of a count (a warning says so). Ignored if a
        value is negative: means are then those of the values as they are, and ratios are NaN, with
        a warning. With `normalize`, it follows from `log1p`.
    exp_post_agg : bool
        If `is_log1p`: ``expm1`` of the mean (true) or mean of ``expm1`` (false).
    clip_value : float, optional
        Fold change where the reference mean is 0; its inverse is used where the target mean is 0.
        With None these are NaN and 0.
    progress : bool or callable
        Show a progress bar on long runs; or a function that is called now and then with a
        :class:`pdex_gpu.Progress`.
    **test_options
        Options of the test. Wilcoxon: ``continuity``, ``tie_correction`` (both True),
        ``alternative``, ``method="auto"|"asymptotic"|"exact"``. t: ``variance="pooled"|"welch"|
        "overestimated"`` (or scipy's ``equal_var``), ``alternative``. Anderson-Darling:
        ``variant="midrank"|"right"|"continuous"``. Kolmogorov-Smirnov: ``alternative``. All:
        ``p_values="conditional"|"asymptotic"``: conditional on the pooled values, which holds for
        sparse genes and small groups, too, or by the limit for large samples, as in scipy
        (Anderson-Darling also ``"interpolated"``: scipy's table). Options of the asymptotic
        formula (``method``, ``continuity=False``, ``tie_correction=False``, ``variance`` other
        than pooled, ``variant`` other than midrank) and genes with negative values have asymptotic
        ones; provenance and a log line say so. And
        ``nan_policy="raise"|"omit"|"propagate"``: NaN is refused (infinity always is); or left
        out, as if the cell did not exist at that gene, in all columns and filters; or the means
        and statistics that involve it are NaN, and p is 1. Other options, named as in scipy, run
        through scipy, pair by pair; a log line says so.

    Returns
    -------
    DEResult
        With `out`, a :class:`ResultFile` instead: where the table is, and its labels.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for any input that cannot be used; see :mod:`pdex_gpu.errors`.

    Examples
    --------
    >>> from pdex_gpu import differential_expression
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()  # raw counts
    >>> result = differential_expression(adata, "target_gene", normalize=1e4, progress=False)
    >>> result["fold_change"].shape
    (4, 60)
    >>> result.top("GENE00031", 2)["feature"].tolist()
    ['GENE00044', 'GENE00031']

    Each group against all other cells, with a further column:

    >>> rest = differential_expression(
    ...     adata, "target_gene", comparison="rest", columns=["auroc"], normalize=1e4,
    ...     progress=False,
    ... )
    >>> rest["auroc"][rest.find("GENE00031"), rest.find_feature("GENE00044")].round(2).item()
    0.83

    A table too large for memory:

    >>> differential_expression(  # doctest: +SKIP
    ...     "screen.h5ad", "target_gene", normalize=1e4, out="results.parquet", memory="8GB"
    ... )
    """
    return compare(data, Settings.of({"groupby": groupby, "out": out} | options))
