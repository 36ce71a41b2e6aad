"""The base class of the tests: how a test describes itself, measures, and evaluates."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from ...errors import DataError, OptionError
from ...utils.lazy_modules import LazyModule
from ...utils.resolve import resolve
from .options import options_of

if TYPE_CHECKING:
    import numpy as np

    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast
    from ..samples import SamplePair
else:
    np = LazyModule("numpy")

#: Arrays of shape (n_targets, n_genes), so that genes can be evaluated a few at a time.
SufficientStatistics: TypeAlias = "tuple[np.ndarray, ...]"

_SAMPLES = {"x", "y", "a", "b", "data1", "data2", "samples", "args", "kwargs", "kwds"}


@dataclass(frozen=True)
class TestResult:
    """The results of a test for every (target, gene) pair; shape (n_targets, n_genes), float64.

    Attributes
    ----------
    statistic : numpy.ndarray
        NaN where a pair cannot be tested, unless the test defines a value.
    p_value : numpy.ndarray
        1 where a pair cannot be tested.
    z : numpy.ndarray or None
        Signed standard normal deviate, if requested.
    log10_p : numpy.ndarray or None
        log10 of the p-value, also where the p-value underflows, if requested.
    """

    __test__: ClassVar[bool] = False  # no test case, although pytest would take it for one

    statistic: np.ndarray
    p_value: np.ndarray
    z: np.ndarray | None = None
    log10_p: np.ndarray | None = None


@dataclass(frozen=True)
class Stratum:
    """The data of the comparisons within one stratum.

    Attributes
    ----------
    measured : tuple of numpy.ndarray
    sides : SamplePair
    rows : numpy.ndarray, shape (n_targets,), int64
        Row of the result that each target belongs to, -1 for none.
    """

    measured: SufficientStatistics
    sides: SamplePair
    rows: np.ndarray


@dataclass(frozen=True)
class Caveat:
    """A warning to read before trusting the p-values of a test.

    Attributes
    ----------
    text : str
    level : {"note", "warning"}
    given : mapping
        Values of options for which it holds; always by default.
    """

    text: str
    level: str = "note"
    given: Mapping[str, Any] = field(default_factory=dict)


class StatisticalTest(ABC):
    """A two-sample test of every (target, gene) pair.

    A test is a frozen dataclass. Its fields are its options, made by :func:`.options.option`; they
    are checked when the test is made. Its class says everything else about it: the command line,
    messages, reports and documentation take their texts from here.

    Attributes
    ----------
    metric : str
        The name of the test in ``metric=``.
    title : str
        The name of the test for people.
    statistic_name, statistic_meaning : str
        What the column ``statistic`` has: in a word or two, and for a report.
    stratified_form : str or None
        How comparisons are combined over strata; None if they cannot be.
    scipy_name : str or None
        The function of ``scipy.stats`` that runs options which are not declared here.
    scipy_takes_list : bool
        Whether that function takes one list of samples.
    uses_ranks : bool
        Whether the test depends only on ranks, so that scipy may be given ranks for values.
    caveats : tuple of Caveat
    options : dict
        Options as given, for provenance; of a test that was made as an object, those that differ
        from their defaults, and the kind of p-values if it was named.
    needs_m2 : bool
        Whether `evaluate` uses second moments.
    has_z : bool
        Whether the test has a standard normal deviate.
    has_log10_p : bool
        Whether the test has log10 of p-values that underflow.
    gives_u2 : bool
        Whether `measure` returns twice U and the tie term, those of `KernelSet.rank_sums`, and, if
        `needs_lowest`, its numbers of cells at the lowest values.
    p_values : str
        How p-values are computed, one of the choices of the option if the test has it. Options of
        asymptotic p-values choose these.
    nan_policy : {"raise", "omit", "propagate"}
        Treatment of NaN: raise an error, leave the cell out for that gene, or do not test the
        comparisons that involve it.
    """

    metric: str
    title: ClassVar[str]
    statistic_name: ClassVar[str]
    statistic_meaning: ClassVar[str]
    stratified_form: ClassVar[str | None] = None
    scipy_name: ClassVar[str | None] = None
    scipy_takes_list: ClassVar[bool] = False
    uses_ranks: ClassVar[bool] = True
    caveats: ClassVar[tuple[Caveat, ...]] = ()
    options: dict[str, Any]
    needs_m2: bool = False
    has_z: bool = False
    has_log10_p: bool = True
    gives_u2: ClassVar[bool] = False
    p_values: str = "asymptotic"
    nan_policy: str = "raise"

    _asymptotic_by: str | None = None

    def __post_init__(self) -> None:
        found = {}
        for option in options_of(self):
            value = getattr(self, option.name)
            option.check(value)
            if option.is_given(value):
                found[option.name] = value
        object.__setattr__(self, "options", found)  # a test is frozen
        self._choose_p_values()

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Self | None:
        """Return the test with options by their own or scipy's names; None if scipy must run it.

        Raises
        ------
        OptionError
            If an option has a value that it cannot have.
        """
        declared = options_of(cls)
        known = {name for option in declared for name in (option.name, option.scipy_name)}
        if not set(given) <= known or any(option.in_scipy(given) for option in declared):
            return None
        names = [o for o in declared if o.name in given or o.scipy_name in given]
        made = cls(**{option.name: option.value_of(given) for option in names})
        object.__setattr__(made, "options", dict(given))  # by the names that were used
        return made

    @classmethod
    def scipy_function(cls) -> Callable[..., Any]:
        """Return scipy's function for the test."""
        from scipy import stats

        assert cls.scipy_name is not None
        found: Callable[..., Any] = getattr(stats, cls.scipy_name)
        return found

    @classmethod
    def scipy_options(cls) -> list[str]:
        """Return the options that scipy has for the test."""
        if cls.scipy_name is None:
            return []
        return [p for p in inspect.signature(cls.scipy_function()).parameters if p not in _SAMPLES]

    @classmethod
    def caveats_of(cls, recorded: Mapping[str, Any]) -> Iterator[Caveat]:
        """Yield the caveats for options as provenance records them, by their repr."""
        defaults = {option.name: repr(option.default) for option in options_of(cls)}
        for caveat in cls.caveats:
            if all(
                recorded.get(name, defaults.get(name)) == repr(value)
                for name, value in caveat.given.items()
            ):
                yield caveat

    def check_calibration(self) -> None:  # noqa: B027 (most tests can be calibrated)
        """Raise OptionError if the test's p-values are not meant to be uniform."""

    def _choose_p_values(self) -> None:
        """Let options of asymptotic p-values choose these, unless conditional ones were named."""
        if self.p_values != "conditional":
            return
        for option in options_of(self):
            value = getattr(self, option.name)
            if not option.asymptotic_only or value == option.default:
                continue
            given = f"{option.name}={value!r}"
            if "p_values" in self.options:
                alias = f" (scipy: {option.scipy_name}=)" if option.scipy_name else ""
                raise OptionError(
                    f"{given}{alias} belongs to asymptotic p-values, but p_values='conditional' "
                    "was given. Pass only one of them."
                )
            object.__setattr__(self, "p_values", "asymptotic")  # a test is frozen
            object.__setattr__(self, "_asymptotic_by", given)
            return

    def why_asymptotic(self) -> str | None:
        """Return why p-values are asymptotic although nobody asked for it; None if they are not."""
        return None if self._asymptotic_by is None else f"{self._asymptotic_by} belongs to these"

    def with_p_values(self, kind: str) -> Self:
        """Return the test with another kind of p-values, and the options as they were given."""
        found = copy.copy(self)
        object.__setattr__(found, "p_values", kind)  # a test is frozen
        return found

    @property
    def needs_lowest(self) -> bool:
        """Return whether `measure` counts the cells at the lowest values, if it `gives_u2`."""
        return False

    def admits(self, sides: SamplePair) -> np.ndarray | None:
        """Return the genes whose p-values are conditional, shape (n_genes,); None for no gene.

        Genes with negative values are left out: their smallest value is not zero.

        Raises
        ------
        DataError
            If there are negative values, and conditional p-values were asked for by name.
        """
        if self.p_values != "conditional":
            return None
        if sides.negative is None:
            return np.ones(sides.target.mean.shape[1], bool)
        if "p_values" in self.options:
            raise DataError(
                "p_values='conditional' needs values that are not negative, because it counts the "
                "cells above zero, but some values are negative. Pass counts or log1p of counts, "
                "or p_values='asymptotic'."
            )
        return ~sides.negative

    @property
    def why_numpy(self) -> str | None:
        """Return why the compiled kernels cannot run the test; None if they can."""
        if self.nan_policy == "raise":
            return None
        return f"nan_policy={self.nan_policy!r}: no compiled kernel supports this"

    @property
    def needs_higher(self) -> bool:
        """Return whether `evaluate` uses third and fourth moments."""
        return False

    @property
    def bytes_per_entry(self) -> int:
        """Return the most bytes that `measure` returns for each nonzero value of a cell.

        Arrays of shape (n_targets, n_genes) are not among them.
        """
        return 0

    @property
    def refuses_nan(self) -> bool:
        """Return whether NaN is refused; infinity always is."""
        return self.nan_policy == "raise"

    @abstractmethod
    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        """Compute what `evaluate` needs from the kernels in addition to moments."""

    @abstractmethod
    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Return the statistic, the p-value and the optional values requested."""

    def evaluate_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Return one statistic and p-value per row, from all its strata.

        Raises
        ------
        OptionError
            If the test has no stratified form.
        """
        raise OptionError(
            f"metric={self.metric!r} has no stratified form with these options, so strata= cannot "
            f"be used. Use metric={resolve('pdex_gpu.stats.registry:stratified_metrics')()}."
        )


def make_result(
    statistic: np.ndarray,
    p_value: np.ndarray,
    z: np.ndarray | None = None,
    log10_p: np.ndarray | None = None,
) -> TestResult:
    """Build the result, setting p-values of pairs that could not be tested to 1, as pdex does."""
    p_value[np.isnan(p_value)] = 1.0
    if log10_p is not None:
        log10_p[np.isnan(log10_p)] = 0.0
    return TestResult(statistic, p_value, z, log10_p)
