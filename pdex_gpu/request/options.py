"""All options of a call, in groups; each group is checked in the subpackage that uses it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..columns.options import ColumnOptions, FilterOptions
from ..design.options import ComparisonOptions
from ..errors import OptionError
from ..sources.options import DataOptions
from ..stats.options import CorrectionOptions, MetricOptions
from ..utils.options import keywords
from .execution import Execution
from .output import OutputOptions, TableOptions, check_about_file

#: Options of a comparison that are paths of tables.
TABLES = ("guide_calls", "guide_targets")
# Names of entries that give the numbers of other tools.
PDEX_ENTRY, SCANPY_ENTRY = "parallel_differential_expression", "rank_genes_groups"


@dataclass(frozen=True)
class Entry:
    """The public call behind a comparison, as far as it differs from the native one.

    Attributes
    ----------
    name : str
    parameters : tuple of str
        Its parameters, for messages, where their names differ from those of the groups.
    takes_nan_policy : bool
        Whether it takes the option `nan_policy` of the test.
    """

    name: str = "differential_expression"
    parameters: tuple[str, ...] = ()
    takes_nan_policy: bool = True


@dataclass(frozen=True)
class Settings:
    """All options of a call; see :func:`pdex_gpu.differential_expression`.

    Results depend on every group but `execution` and `output`.
    """

    comparison: ComparisonOptions
    data: DataOptions = field(default_factory=DataOptions)
    test: MetricOptions = field(default_factory=MetricOptions)
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    filters: FilterOptions = field(default_factory=FilterOptions)
    correction: CorrectionOptions = field(default_factory=CorrectionOptions)
    table: TableOptions = field(default_factory=TableOptions)
    execution: Execution = field(default_factory=Execution)
    output: OutputOptions = field(default_factory=OutputOptions)
    entry: Entry = Entry()

    def __post_init__(self) -> None:
        from ..results.schema import check_level_names

        check_level_names(self.comparison.within_columns)
        _check_scale(self)
        _check_counts_per_million(self)
        check_about_file("spreadsheet_safe", self.table.spreadsheet_safe, self.output.out)

    @classmethod
    def of(cls, given: Mapping[str, Any], entry: Entry = Entry(), **internal: Any) -> Settings:
        """Sort the keywords of a call into groups; what no group has is an option of the test.

        Parameters
        ----------
        given : mapping
            Keywords of :func:`pdex_gpu.differential_expression`, options of the test among them.
        entry : Entry
        **internal
            Fields that no keyword sets, by name.

        Raises
        ------
        OptionError
            If a value makes no sense for any data. Options of the test are checked by
            :func:`.stats.registry.make_test`.
        """
        known = all_names()
        options = {name: value for name, value in given.items() if name not in known}
        internal = {"test_options": options} | internal
        values = {name: value for name, value in given.items() if name in known} | internal
        made = {
            name: group(**{f.name: values[f.name] for f in fields(group) if f.name in values})
            for name, group in GROUPS.items()
        }
        return cls(**made, entry=entry)

    @property
    def call(self) -> tuple[str, ...]:
        """Return the parameters of the call that was made, for messages."""
        return self.entry.parameters or all_names()

    def changed(self, **values: Any) -> Settings:
        """Return the settings with other values of some fields, given by their names."""
        found = self
        for name, group in GROUPS.items():
            own = {f.name: values[f.name] for f in fields(group) if f.name in values}
            if own:
                found = replace(found, **{name: replace(getattr(found, name), **own)})
        return found

    def without_client(self) -> Settings:
        """Return the settings that workers of a cluster need; they write no output."""
        tables = {name: getattr(self.comparison, name) for name in TABLES}
        return self.changed(
            **{name: path and os.path.abspath(path) for name, path in tables.items()},
            client=None,
            scratch=None,
            out=None,
            force=False,
            restart=False,
            spreadsheet_safe=False,
            progress=False,
        )

    def deciding(self) -> dict[str, Any]:
        """Return the value of each field that results depend on, whether a keyword or not."""
        return {
            f.name: getattr(getattr(self, name), f.name)
            for name, group in GROUPS.items()
            if name not in ("execution", "output")
            for f in fields(group)
        }


def _check_scale(settings: Settings) -> None:
    """Raise OptionError if `is_log1p` contradicts what normalising gives."""
    asked, data = settings.columns.is_log1p, settings.data
    if data.normalize is None or asked is None or asked == data.takes_log1p:
        return
    raise OptionError(
        f"is_log1p={asked} contradicts normalize={data.normalize!r} with "
        f"log1p={data.takes_log1p}: normalised values are {'' if data.takes_log1p else 'not '}"
        "logarithms. Leave out is_log1p=."
    )


def _check_counts_per_million(settings: Settings) -> None:
    """Raise OptionError if `min_cpm` would take the counts of some genes for those of all."""
    if settings.data.genes is not None and settings.filters.min_cpm is not None:
        raise OptionError(
            f"min_cpm={settings.filters.min_cpm} needs the counts of all genes, but genes= leaves "
            "some out. Leave one of them out; min_fraction= can be used with genes=."
        )


#: The class of each group, by its name in :class:`Settings`.
GROUPS: dict[str, Any] = {
    "comparison": ComparisonOptions,
    "data": DataOptions,
    "test": MetricOptions,
    "columns": ColumnOptions,
    "filters": FilterOptions,
    "correction": CorrectionOptions,
    "table": TableOptions,
    "execution": Execution,
    "output": OutputOptions,
}


def all_names() -> tuple[str, ...]:
    """Return all keywords of a call but the options of tests."""
    return tuple(f.name for group in GROUPS.values() for f in keywords(group))
