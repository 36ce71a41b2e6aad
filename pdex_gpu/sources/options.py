"""The options that say which matrix is read, and what may be read besides the given file."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import OptionError, shown
from ..utils.checks import (
    check_choice,
    check_flag,
    check_number,
    check_path,
    check_text,
    kind,
    listed,
)
from ..utils.options import option
from .allowed import NAMES, Allowed, check_allow
from .choice import JOINS, MatrixChoice

#: The sum to which cells are scaled is the median of their totals.
MEDIAN = "median"


@dataclass(frozen=True)
class DataOptions:
    """The files, matrix, cells and genes to read; see :func:`pdex_gpu.differential_expression`."""

    TITLE: ClassVar = "Data"

    layer: str | None = option(None, "use this layer instead of X")
    raw: bool = option(False, "use adata.raw, with its genes, instead of X", "flag")
    modality: str | None = option(None, "use this modality of a MuData")
    genes: str | os.PathLike[str] | Sequence[str] | None = option(
        None, "test these: boolean column of var, or a file", metavar="COL|FILE"
    )
    gene_symbols: str | None = option(
        None, "column of var with the symbols of genes", "text", "COL"
    )
    cells: str | None = option(
        None, "keep these: boolean column of obs, or COL=VALUE", metavar="COL"
    )
    normalize: float | str | None = option(
        None, "raw counts: scale cells to this sum, or median", "number or name", "SUM"
    )
    log1p: bool | None = option(
        None, "take log1p of normalised counts [yes]", "yes or no", "YES|NO"
    )
    totals: str | None = option(None, "obs column with the total of each cell", "text", "COL")
    allow: str | Collection[str] = option(
        (), f"accept data not in the file: {', '.join(NAMES)}", "choices", choices=lambda: NAMES
    )
    join: str = option(
        JOINS[0],
        "genes of several files: inner (all), outer (any)",
        "choice",
        choices=lambda: JOINS,
    )
    batch: str | None = option(None, "new obs column: the file of each cell", "text", "COL")

    def __post_init__(self) -> None:
        check_text("layer", self.layer, may_be_none=True)
        check_text("modality", self.modality, may_be_none=True)
        check_flag("raw", self.raw)
        if self.raw and self.layer is not None:
            raise OptionError(
                f"raw=True and layer={self.layer!r} each name a matrix to read in place of X. "
                "Leave one of them out: adata.raw has no layers."
            )
        check_choice("join", self.join, JOINS)
        check_text("batch", self.batch, may_be_none=True, what="a new column of obs")
        if self.batch == "":
            raise OptionError("batch='' must name a new column of obs, such as batch='plate'.")
        check_allow(self.allow)
        check_text("gene_symbols", self.gene_symbols, may_be_none=True, what="a column of var")
        check_text("cells", self.cells, may_be_none=True, what="a column of obs, or 'column=value'")
        self._check_genes()
        self._check_normalisation()

    def _check_genes(self) -> None:
        genes = self.genes
        if genes is None:
            return
        if isinstance(genes, str | os.PathLike):
            check_path("genes", genes)
            return
        try:
            names = listed(genes)
        except TypeError as error:
            raise OptionError(
                f"genes={shown(genes)} must be names of genes in a list, the name of a boolean "
                f"column of var, or the path of a file: {error}."
            ) from error
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if wrong is not None:
            is_mask = isinstance(wrong, bool) or type(wrong).__name__ == "bool"
            advice = "adata.var_names[mask], or a boolean column of var" if is_mask else "text"
            raise OptionError(
                f"genes= holds {shown(wrong)} ({kind(wrong)}), but names are needed: pass {advice}."
            )
        if not names:
            raise OptionError("genes=[] names no gene. Pass some, or leave it out to test all.")
        object.__setattr__(self, "genes", tuple(map(str, names)))  # it may be used up, or change

    def _check_normalisation(self) -> None:
        check_flag("log1p", self.log1p, may_be_none=True)
        check_text("totals", self.totals, may_be_none=True, what="a column of obs")
        if self.normalize is None:
            for name, value in (("log1p", self.log1p), ("totals", self.totals)):
                if value is not None:
                    raise OptionError(
                        f"{name}={value!r} says how counts are normalised, but normalize= is not "
                        f"given. Pass normalize=1e4 or normalize={MEDIAN!r}, or leave out {name}=."
                    )
            return
        if isinstance(self.normalize, str) and self.normalize:
            if self.totals is not None and self.normalize != MEDIAN:
                raise OptionError(
                    f"normalize={self.normalize!r} is a column of size factors, so "
                    f"totals={self.totals!r} is not used. Leave one of them out, or pass a sum: "
                    "normalize=1e4."
                )
            return
        words = f"a sum per cell above 0, {MEDIAN!r}, or a column of obs with size factors"
        if isinstance(self.normalize, str) or check_number("normalize", self.normalize, words) <= 0:
            raise OptionError(f"normalize={self.normalize!r} must be {words}.")

    @property
    def target_sum(self) -> float | None:
        """Return what each cell's values are scaled to; None for the median of the totals."""
        if not isinstance(self.normalize, str):
            return None if self.normalize is None else float(self.normalize)
        return None if self.normalize == MEDIAN else 1.0

    @property
    def divisors(self) -> str | None:
        """Return the column that holds totals or size factors, if counts need not be added up."""
        is_column = isinstance(self.normalize, str) and self.normalize != MEDIAN
        return str(self.normalize) if is_column else self.totals

    @property
    def takes_log1p(self) -> bool:
        """Return whether log1p is taken of normalised counts."""
        return self.log1p is not False

    @property
    def allowed(self) -> Allowed:
        """Return what may be read from outside the given file."""
        return check_allow(self.allow)

    @property
    def choice(self) -> MatrixChoice:
        """Return the matrix to read."""
        return MatrixChoice(
            self.layer, bool(self.raw), self.modality, self.allowed, self.join, self.batch
        )
