"""The result of a comparison in memory, and its exports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.naming import Within, level_columns
from ..errors import MissingDependencyError, OptionError, listing, shown, unknown
from ..utils.atomic_files import write_atomically
from ..utils.checks import check_flag, described, is_array
from ..utils.install_hints import how_to_install
from ..utils.keywords import known_keywords, known_keywords_of_init
from .base import Result
from .schema import EXTRA, INTEGERS, VALUES, check_level_names
from .table import Table, write_parquet, write_text

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars
    import pyarrow


# Characters that numbers, quotes and line ends are written with.
_NO_SEPARATORS = "+-.\"'\r\n\0"


@known_keywords_of_init
class DEResult(Result):
    """Differential expression of every (comparison, gene).

    ``result[name]`` is a column as an array of shape (n_comparisons, n_genes), float64 or int64;
    there is never one object per row. Exported tables have their rows comparison by comparison,
    with genes in matrix order. Pairs that are not `kept` are left out of the tables, and are NaN
    in the arrays.

    Attributes
    ----------
    targets, references, features, symbols, columns, within, kept
        See :class:`.results.base.Result`.
    provenance : dict
        Backend and the reason for it, device, engine, versions, options, seconds.

    Examples
    --------
    >>> from pdex_gpu import differential_expression
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> result = differential_expression(adata, "target_gene", progress=False)
    >>> result["p_value"].shape, result["p_value"].dtype
    ((4, 60), dtype('float64'))
    >>> len(result.to_pandas()) == result.n_rows == 240
    True
    >>> result.ranking("GENE00031").head(2).round(1)
    feature
    GENE00044    61.7
    GENE00036    29.1
    Name: signed_log10_p, dtype: float64
    >>> result.to_wide("fold_change").iloc[:2, :2].round(2)
    feature    GENE00000  GENE00001
    target
    GENE00031       0.98       1.02
    GENE00042       0.88       0.93
    """

    def __init__(
        self,
        targets: np.ndarray,
        references: np.ndarray,
        features: np.ndarray,
        columns: Mapping[str, np.ndarray],
        provenance: Mapping[str, Any],
        *,
        within: Within | None = None,
        kept: np.ndarray | None = None,
        symbols: np.ndarray | None = None,
    ) -> None:
        given = listing(columns) if isinstance(columns, Mapping) else shown(columns)
        known = (
            *VALUES,
            *(name for name in EXTRA if isinstance(columns, Mapping) and name in columns),
        )
        if not isinstance(columns, Mapping) or set(columns) != set(known):
            raise OptionError(f"columns must be {VALUES}, then any of {tuple(EXTRA)}, got {given}.")
        super().__init__(targets, references, features, known, provenance, within, kept, symbols)
        shape = (len(targets), len(features))
        for name, values in columns.items():
            wanted = np.dtype(np.int64 if name in INTEGERS else np.float64)
            if not is_array(values, shape, wanted):
                raise OptionError(
                    f"column {name!r} must be {wanted} of shape {shape}, got {described(values)}."
                )
        check_level_names(level_columns(within))
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> np.ndarray:
        if not isinstance(name, str) or name not in self._columns:
            raise OptionError(unknown("column", name, self.columns))
        return self._columns[name]

    def __repr__(self) -> str:
        return f"DEResult: {self._described()}"

    @known_keywords
    def row(self, t: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        t = self._position(t)
        return {name: self[name][t] for name in self._check_columns(names)}

    @known_keywords
    def blocks(self, names: Iterable[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        asked = self._check_columns(names)
        for part in self._slices(len(asked)):
            yield part, {name: self[name][part] for name in asked}

    @known_keywords
    def to_pandas(self) -> pandas.DataFrame:
        """Return a pandas data frame; labels are categorical."""
        import pandas as pd

        frame: dict[str, Any] = {}
        for name, (codes, categories) in self._table().labels(slice(0, len(self.targets))).items():
            frame[name] = pd.Categorical.from_codes(
                codes, categories=pd.Index(categories, tupleize_cols=False)
            )
        frame |= {name: self.flat(name) for name in self.columns}
        return pd.DataFrame(frame)

    @known_keywords
    def flat(self, name: str) -> np.ndarray:
        """Return a column as in the exported tables, shape (n_rows,)."""
        return self[name].ravel() if self.kept is None else self[name][self.kept]

    @known_keywords
    def to_polars(self) -> polars.DataFrame:
        """Return a polars data frame; labels are categorical. Needs the extra ``polars``."""
        try:
            import polars as pl
        except ImportError as error:
            raise MissingDependencyError(
                f"polars is not installed. Run: {how_to_install('polars')}"
            ) from error
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    @known_keywords
    def to_arrow(self) -> pyarrow.Table:
        """Return a pyarrow table; labels are dictionary-encoded, provenance is in the metadata."""
        return self._arrow(self._table(), slice(0, len(self.targets)))

    @known_keywords
    def to_anndata(self) -> anndata.AnnData:
        """Return an AnnData of comparisons x genes, with one layer per column.

        Returns
        -------
        anndata.AnnData, shape (n_comparisons, n_genes)
            ``obs`` has `target`, `reference` and a column for each of `within`, and is indexed by
            :meth:`name`. ``layers`` has every column of values as float64 or int64, NaN at pairs
            that are not `kept`. ``X`` is empty. ``uns["pdex_gpu"]`` is the provenance as JSON.
        """
        from .export import to_anndata

        return to_anndata(self)

    @known_keywords
    def to_wide(self, column: str = "signed_log10_p") -> pandas.DataFrame:
        """Return one column as a data frame of comparisons x genes, as decoupler takes it.

        Parameters
        ----------
        column : str
            A column, or ``"signed_log10_p"``: -log10 of the p-value with the sign of
            ``target_mean - reference_mean``. It is taken from `log10_p` where the result has that;
            otherwise a p-value of 0 counts as 5e-324.

        Returns
        -------
        pandas.DataFrame, shape (n_comparisons, n_genes), float64
            Indexed by :meth:`name`; NaN at pairs that are not `kept`.

        Raises
        ------
        OptionError
            If there is no such column.
        """
        from .export import to_wide

        return to_wide(self, column)

    @known_keywords
    def to_pertpy(self) -> pandas.DataFrame:
        """Return a data frame with the columns of pertpy's tests, for its plots.

        The names are those of pertpy 1.0.3 (read on 2026-12-01): `variable`, `p_value`, `log_fc`
        and `adj_p_value` of all its methods, and `contrast` of its linear models, by which
        ``plot_multicomparison_fc`` tells comparisons apart. Values are this result's own; pertpy's
        simple tests adjust p-values over all comparisons and take the fold change of the values
        as they are.

        Returns
        -------
        pandas.DataFrame, shape (n_rows, 6 or 7)
            Sorted by p-value within each comparison, comparisons in the order of the result.
            `variable` is the gene's name in var; `p_value`, `statistic`, `log_fc` (our
            `log2_fold_change`) and `adj_p_value` (`fdr`) are float64; `contrast` is :meth:`name`,
            categorical. `symbol` follows if the result has `symbols`.

        Raises
        ------
        OptionError
            If the result has no `log2_fold_change`.
        """
        from .export import to_pertpy

        return to_pertpy(self)

    @known_keywords
    def ranking(
        self,
        target: object,
        by: str = "signed_log10_p",
        *,
        reference: object = None,
        within: object = None,
    ) -> pandas.Series:
        """Return the genes of one target in order, as gseapy's ``prerank`` takes them.

        Parameters
        ----------
        target : object
            Label of the target.
        by : str
            A column, or ``"signed_log10_p"``, as in :meth:`to_wide`.
        reference, within : object, optional
            Choose one comparison of the target, as in :meth:`find`.

        Returns
        -------
        pandas.Series, float64
            Values by gene, largest first, without NaN; ties are ordered by the change of the mean.

        Raises
        ------
        LabelError
            If `target` was not compared, or more than once.
        OptionError
            If there is no such column.
        """
        from .export import ranking

        return ranking(self, self.find(target, reference=reference, within=within), by)

    @known_keywords
    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file, completely or not at all, without building the table as a frame."""
        table = self._table()
        write_atomically(path, lambda file: write_parquet(file, table, self._arrow_parts(table)))

    @known_keywords
    def to_csv(
        self, path: str | os.PathLike[str], sep: str = ",", *, spreadsheet_safe: bool = False
    ) -> None:
        """Write a text table, completely or not at all; numbers read back to the same bits.

        Labels are quoted only if one of them holds a separator, a quote or a line break.

        Parameters
        ----------
        path : str or os.PathLike
        sep : str
            Separator between values.
        spreadsheet_safe : bool
            Write an apostrophe before names that a spreadsheet would run as a formula: those that
            begin with ``=``, ``+``, ``-`` or ``@``. Other programs then read the apostrophe as
            part of the name.

        Raises
        ------
        OptionError
            If `sep` is not one character, or is one that numbers or quotes contain.
        OutputError
            If the file cannot be written.
        """
        if not isinstance(sep, str) or len(sep) != 1 or sep in _NO_SEPARATORS or sep.isalnum():
            raise OptionError(
                f"sep={shown(sep)} cannot separate values. Pass one character that cannot occur in "
                "numbers or quotes, such as ',' or '\\t'."
            )
        check_flag("spreadsheet_safe", spreadsheet_safe)
        table = self._table(spreadsheet_safe)
        write_atomically(path, lambda file: write_text(file, table, self._arrow_parts(table), sep))

    def _arrow_parts(self, table: Table) -> Iterator[pyarrow.Table]:
        for targets in table.blocks():
            yield self._arrow(table, targets)

    def _arrow(self, table: Table, targets: slice) -> pyarrow.Table:
        return table.arrow(targets, {name: self[name][targets] for name in self.columns})

    def _table(self, spreadsheet_safe: bool = False) -> Table:
        return Table(
            self.targets,
            self.references,
            self.features,
            self.provenance,
            columns=self.columns[len(VALUES) :],
            within=self.within,
            kept=self.kept,
            symbols=self.symbols,
            spreadsheet_safe=spreadsheet_safe,
        )
