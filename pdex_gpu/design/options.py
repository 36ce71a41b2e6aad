"""The options that say who is compared with whom."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import OptionError, shown
from ..utils.checks import check_choice, check_count, check_path, check_text, kind
from ..utils.options import option
from .comparisons.base import Comparison
from .comparisons.registry import comparison_names, find_comparison

#: What messages call the labels of cells that come from called guides.
GUIDE_CALLS = "guide_calls"
#: The label of cells with non-targeting guides.
NON_TARGETING = "non-targeting"
_MULTIPLICITIES = ("low", "high")


@dataclass(frozen=True)
class ComparisonOptions:
    """Who is compared with whom; see :func:`pdex_gpu.differential_expression`."""

    TITLE: ClassVar = "Compare"

    groupby: str | Sequence[str] | None = option(
        None, "groups; and columns to compare within", "one or several", "COLS"
    )
    reference: object = option(
        NON_TARGETING, "reference [non-targeting]; several are pooled", "one or several", "NAMES"
    )
    groups: Iterable[object] | None = option(None, "test only these groups", "several", "NAMES")
    comparison: str | Comparison = option(
        "reference",
        lambda: ", ".join(comparison_names()),
        "choice",
        choices=comparison_names,
    )
    pairs: Any = option(
        None, "A vs B; or .csv, .tsv with target and reference", "pairs", "A:B|FILE"
    )
    guides: str | None = option(None, "guide matrix in obsm, instead of --groupby")
    guide_calls: str | os.PathLike[str] | None = option(
        None, "Cell Ranger's protospacer_calls_per_cell.csv", "path", "FILE"
    )
    guide_targets: str | os.PathLike[str] | None = option(
        None, "feature_reference.csv: targets of guides", "path", "FILE"
    )
    min_umis: int | None = option(None, "UMIs from which on a cell has a guide", "count", "N")
    multiplicity: str = option(
        "low", "one guide per cell (low) or several (high)", "choice",
        choices=lambda: _MULTIPLICITIES,
    )  # fmt: skip
    on_target: str | None = option(
        None, "test each group only at the gene in this column", "text", "COL"
    )
    strata: str | None = option(None, "stratify by this obs column, such as batch", "text", "COL")
    min_cells: int = option(1, "minimum number of cells on each side [1]", "count", "N")

    def __post_init__(self) -> None:
        for name in ("on_target", "strata", "guides"):
            check_text(name, getattr(self, name), may_be_none=True)
        self._check_guide_calls()
        given = "guides" if self.guides is not None else self._calls_guides_by
        if not given:
            _check_groupby(self.groupby)
        elif self.groupby is not None:
            raise OptionError(
                f"{given}={shown(str(getattr(self, given)))} and groupby={shown(self.groupby)} "
                "both assign cells to groups. Pass groupby=None."
            )
        elif self.on_target is not None and self.groups_overlap:
            raise OptionError(
                "on_target= maps the groups of a column to genes, but guides= has no such column. "
                "Select rows of the result instead."
            )
        self.chosen.check(groups=self.groups, pairs=self.pairs)
        if self.strata is not None and self.strata in (self.group_column, *self.within_columns):
            raise OptionError(
                f"strata={self.strata!r} is a column of groupby, so no stratum would contain cells "
                "of both sides. Use another column."
            )
        check_count("min_cells", self.min_cells, may_be_none=False)

    def _check_guide_calls(self) -> None:
        for name in ("guide_calls", "guide_targets"):
            if getattr(self, name) is not None:
                check_path(name, getattr(self, name))
        check_count("min_umis", self.min_umis)
        check_choice("multiplicity", self.multiplicity, _MULTIPLICITIES)
        if self.calls_guides:
            if self.guides is not None:
                raise OptionError(
                    f"guides={self.guides!r} and {self._calls_guides_by}= both say which guides a "
                    "cell carries. Leave one of them out."
                )
            return
        for name in ("guide_targets", "multiplicity"):
            if getattr(self, name) not in (None, "low"):
                raise OptionError(
                    f"{name}={shown(str(getattr(self, name)))} needs the guide of each cell. Pass "
                    "guide_calls= (protospacer_calls_per_cell.csv), or min_umis= for guides that "
                    "the data count."
                )

    @property
    def calls_guides(self) -> bool:
        """Return whether the groups are guides that Cell Ranger called or counted."""
        return self.guide_calls is not None or self.min_umis is not None

    @property
    def _calls_guides_by(self) -> str:
        """Return the option that says which guides cells have; empty text if none does."""
        if self.guide_calls is not None:
            return "guide_calls"
        return "" if self.min_umis is None else "min_umis"

    @property
    def groups_overlap(self) -> bool:
        """Return whether a cell may be in several groups."""
        return self.guide_matrix is not None

    @property
    def guide_matrix(self) -> str | None:
        """Return the name of the matrix that says which guides a cell carries, if there is one."""
        if self.calls_guides and self.multiplicity == "high":
            return GUIDE_CALLS
        return self.guides

    @property
    def chosen(self) -> Comparison:
        """Return the comparison itself; raise OptionError if there is none of this name."""
        return find_comparison(self.comparison)

    @property
    def group_column(self) -> str:
        """Return the column of obs with the groups, or its stand-in for messages."""
        if self.groupby is None:
            return GUIDE_CALLS if self.guides is None else self.guides
        return self.groupby if isinstance(self.groupby, str) else self.groupby[0]

    @property
    def within_columns(self) -> tuple[str, ...]:
        """Return the columns of obs within whose levels cells are compared."""
        if self.groupby is None or isinstance(self.groupby, str):
            return ()
        return tuple(self.groupby[1:])


def _check_groupby(groupby: Any) -> None:
    names = [groupby] if isinstance(groupby, str) else groupby
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or not names:
        raise OptionError(
            f"groupby={shown(groupby)} must be text, not {kind(groupby)}: a column of obs, or a "
            "list of columns with that of the groups first."
        )
    if len(set(names)) < len(names):
        raise OptionError(f"groupby={groupby!r} names a column twice.")
