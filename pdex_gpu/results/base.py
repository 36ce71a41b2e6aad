"""The common base of results in memory and in files: labels, and access by comparison."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.lone_surrogates import writable, writable_labels, writable_within
from ..design.naming import Within, level_columns, level_text, quoted
from ..errors import (
    LabelError,
    OptionError,
    PdexGpuError,
    listing,
    shown,
    unknown,
    unknown_genes,
)
from ..utils.checks import (
    check_count,
    check_label,
    described,
    is_array,
    is_whole,
    listed,
    names_of,
)
from ..utils.keywords import known_keywords
from ..utils.resolve import resolve
from .html import html_of
from .schema import COLUMNS, VALUES
from .strongest import strongest

if TYPE_CHECKING:
    import pandas

    from ..calibration.result import Calibration

# Largest number of values in a block of a result.
_BLOCK_VALUES = 1 << 23


class Result(ABC):
    """Differential expression of every (comparison, gene), with values in memory or in a file.

    Attributes
    ----------
    targets, references : numpy.ndarray, shape (n_comparisons,), object
        Labels of the groups compared, and of the groups they are compared with.
    features : numpy.ndarray, shape (n_genes,), object
        Gene names. In these and all labels, lone surrogates are escaped: ``"TP53\\udcff"``.
    symbols : numpy.ndarray or None, shape (n_genes,), object
        Symbols of the genes, where the call had ``gene_symbols=``; a gene without one has its name.
    columns : tuple of str
        Names of the columns of values.
    within : tuple of (str or tuple of str) and numpy.ndarray, or None
        Name of the column, and the level that each comparison is made within, shape
        (n_comparisons,), object. With several columns, a tuple of their names, and tuples of one
        level of each.
    kept : numpy.ndarray or None, shape (n_comparisons, n_genes), bool
        Whether each pair is in the result; None if all are.
    provenance : dict
        Backend and the reason for it, device, engine, versions, options.
    """

    def __init__(
        self,
        targets: np.ndarray,
        references: np.ndarray,
        features: np.ndarray,
        columns: tuple[str, ...],
        provenance: Mapping[str, Any],
        within: Within | None,
        kept: np.ndarray | None,
        symbols: np.ndarray | None,
    ) -> None:
        _check_parts(targets, references, features, provenance, within, kept, symbols)
        self.targets = writable_labels(targets)
        self.references = writable_labels(references)
        self.features = writable_labels(features)
        self.symbols = None if symbols is None else writable_labels(symbols)
        self.columns = columns
        self.within = writable_within(within)
        self.kept = kept
        self.provenance = dict(provenance)
        self._reference = _single(references)

    @property
    def reference(self) -> object:
        """Return the label that all targets are compared with; None if there are several."""
        return self._reference

    @property
    def n_rows(self) -> int:
        """Return the number of rows of the table."""
        if self.kept is not None:
            return int(np.count_nonzero(self.kept))
        return len(self.targets) * len(self.features)

    @known_keywords
    def find(self, target: object, *, reference: object = None, within: object = None) -> int:
        """Return the position of a comparison.

        Parameters
        ----------
        target : object
            Label of the target; ``"3"`` also finds the integer 3.
        reference, within : object, optional
            What it was compared with, and the level it was compared in, where `target` was
            compared more than once. With several columns, the level is a tuple with one of each,
            or its text as :meth:`name` gives it: ``"T cell, batch 1"``.

        Returns
        -------
        int
            Position in `targets`.

        Raises
        ------
        LabelError
            If `target` was not compared, or more than once. The message names similar labels.
        """
        within = tuple(within) if isinstance(within, list) else within
        for name, label in (("target", target), ("reference", reference), ("within", within)):
            check_label(name, label)
        matching = np.flatnonzero(_equal(self.targets, target))
        if not len(matching):
            known = list(dict.fromkeys(self.targets.tolist()))
            raise LabelError(unknown("target", target, known))
        levels = np.full(0, None) if self.within is None else self.within[1]
        for name, label, labels, equal in (
            ("reference", reference, self.references, _equal),
            ("within", within, levels, _equal_level),
        ):
            if label is None:
                continue
            found = labels[matching] if len(labels) else labels
            chosen = equal(found, label)
            if not chosen.any():
                what = f"{name} of target {str(target)!r}:"
                known = list(map(level_text, found))
                raise LabelError(unknown(what, level_text(label), known))
            matching = matching[chosen]
        if len(matching) > 1:
            raise LabelError(
                f"Target {str(target)!r} was compared {len(matching)} times. Select one comparison "
                "with reference= or within=."
            )
        return int(matching[0])

    @cached_property
    def gene_names(self) -> np.ndarray:
        """Return the names by which genes are shown, shape (n_genes,), object.

        They are the symbols, if there are any. A symbol of several genes is followed by the
        identifier: ``"TBCE (ENSG00000284770)"``.
        """
        if self.symbols is None:
            return self.features
        symbols = list(map(str, self.symbols))
        times = Counter(symbols)
        names = np.empty(len(symbols), object)
        for g, (symbol, feature) in enumerate(zip(symbols, self.features, strict=True)):
            alone = times[symbol] == 1 or symbol == str(feature)
            names[g] = symbol if alone else f"{symbol} ({feature})"
        return names

    @known_keywords
    def find_feature(self, name: object) -> int:
        """Return the position of a gene in `features`, the first one where its name repeats.

        Parameters
        ----------
        name : object
            Its name, or its symbol if it has one, or its name in :attr:`gene_names`.

        Raises
        ------
        LabelError
            If there is no such gene, or several have the symbol. The message names similar genes.
        """
        check_label("name", name)
        found = np.flatnonzero(_equal(self.features, name))
        if len(found):
            return int(found[0])
        if self.symbols is not None:
            found = np.flatnonzero(_equal(self.gene_names, name))
            if len(found):
                return int(found[0])
            found = np.flatnonzero(_equal(self.symbols, name))
            if len(found):
                raise LabelError(
                    f"{len(found)} genes have the symbol {str(name)!r}: "
                    f"{listing(self.features[found].tolist())}. Pass one of these names."
                )
        raise LabelError(unknown("gene", name, self._known_names))

    @known_keywords
    def find_features(self, names: Iterable[object]) -> np.ndarray:
        """Return the positions of several genes, each once, in the order of their names.

        Parameters
        ----------
        names : iterable of object, or str
            Names as in :meth:`find_feature`; a text is a single name.

        Returns
        -------
        numpy.ndarray, shape (n,), int64

        Raises
        ------
        LabelError
            If some are no genes of the result, or several genes have the symbol. The message
            counts the names that are missing, and names similar genes.
        OptionError
            If `names` is not a list of names.
        """
        try:
            asked = [names] if isinstance(names, str) else listed(names)
        except TypeError as error:
            raise OptionError(f"{shown(names)} must be a list of names.") from error
        for name in asked:
            check_label("name", name)
        texts = list(dict.fromkeys(str(writable(name)) for name in asked))
        there = {*map(str, self._known_names), *map(str, self._symbols_or_none)}
        missing = [text for text in texts if text not in there]
        if missing and len(texts) > 1:
            genes, known = (list(map(str, of)) for of in (self.gene_names, self._known_names))
            raise LabelError(
                unknown_genes(missing, len(texts), genes, known, "the list of genes", "the result")
            )
        places = dict.fromkeys(self.find_feature(name) for name in asked)
        return np.array(list(places), np.int64)

    @property
    def _known_names(self) -> list[object]:
        return list(dict.fromkeys([*self.gene_names.tolist(), *self.features.tolist()]))

    @property
    def _symbols_or_none(self) -> list[object]:
        return [] if self.symbols is None else self.symbols.tolist()

    @known_keywords
    def name(self, t: int) -> str:
        """Return a name for comparison `t`: its target, and its level and reference if they vary.

        No two comparisons share a name. If they otherwise would, the labels are quoted in all
        names.

        Raises
        ------
        OptionError
            If there is no comparison `t`.
        """
        return self._names[self._position(t)]

    @cached_property
    def _names(self) -> list[str]:
        levels: list[object] = [None] * len(self.targets)
        if self.within is not None:
            levels = list(self.within[1])
        names = []
        for target, level, reference in zip(self.targets, levels, self.references, strict=True):
            text = str(target)
            if self.within is not None:
                text += f" in {level_text(level)}"
            if self.reference is None:
                text += f" vs {reference}"
            names.append(text)
        return names if len(set(names)) == len(names) else self._quoted_names()

    def _quoted_names(self) -> list[str]:
        levels = [""] * len(self.targets)
        if self.within is not None:
            parts = zip(*level_columns(self.within).values(), strict=True)
            levels = [f" in {', '.join(map(quoted, of_columns))}" for of_columns in parts]
        return [
            f"{quoted(target)}{level} vs {quoted(reference)}"
            for target, level, reference in zip(self.targets, levels, self.references, strict=True)
        ]

    @abstractmethod
    def row(self, t: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of comparison `t`, each of shape (n_genes,).

        Pairs that are not `kept` are NaN in columns of float64, and meaningless in others.

        Raises
        ------
        OptionError
            If there is no such column, or no comparison `t`.
        """

    @abstractmethod
    def blocks(self, names: Iterable[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Yield all comparisons in blocks: their slice, and columns of shape (n, n_genes).

        Values are as in :meth:`row`. A file is never held in memory as a whole.
        """

    @known_keywords
    def top(
        self, target: object, n: int = 10, *, reference: object = None, within: object = None
    ) -> pandas.DataFrame:
        """Return the `n` genes of `target` with the smallest p-values.

        Ties in p are broken by `log10_p` where the result has it, then by the larger effect, then
        by matrix order. If `target` was compared more than once, `reference` and `within` choose
        the comparison.

        Returns
        -------
        pandas.DataFrame
            Labels; ``log2_fold_change``, or ``mean_difference`` if the matrix has negative values
            and thus no ratios; p-value, FDR, means and numbers of cells; all other columns.

        Raises
        ------
        LabelError
            If `target` was not compared, or more than once.
        """
        import pandas as pd

        check_count("n", n, least=0, may_be_none=False)
        t = self.find(target, reference=reference, within=within)
        return pd.DataFrame(strongest(self, t, n))

    def _repr_html_(self) -> str | None:
        """Return what notebooks show; None, for the plain text, where values cannot be read."""
        try:
            return html_of(self)
        except PdexGpuError:  # the file is text, or was moved or changed
            return None

    @known_keywords
    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        *,
        calibration: Calibration | str | os.PathLike[str] | None = None,
        title: str | None = None,
        fdr: float = 0.05,
        force: bool = False,
    ) -> Path:
        """Write a report for the browser: one HTML file that opens offline.

        Parameters
        ----------
        path : str or path-like
        calibration : Calibration, str or path-like, optional
            A calibration to show, or the file that :meth:`.Calibration.to_json` wrote.
        title : str, optional
        fdr : float
            A row counts as significant at or below this.
        force : bool
            Replace an existing file.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        OptionError
            If the file exists and `force` is false, or an option makes no sense.
        FileFormatError
            If `calibration` is a file of something else.
        OutputError
            If the file could not be written; no partial file remains.
        """
        write_report = resolve("pdex_gpu.report:write_report")
        return write_report(self, path, calibration=calibration, title=title, fdr=fdr, force=force)

    def _position(self, t: object) -> int:
        """Return `t` as a position in `targets`; negative ones count from the end, as in lists."""
        n = len(self.targets)
        if not is_whole(t) or not -n <= t < n:
            raise OptionError(
                f"t={shown(t)} is not a comparison of this result. Pass a whole number from 0 to "
                f"{n - 1}, as returned by find()."
            )
        return int(t) % n

    def _check_columns(self, names: Iterable[str]) -> list[str]:
        asked = names_of("names", names, "columns", "['p_value', 'fdr']")
        for name in asked:
            if name not in self.columns:
                raise OptionError(unknown("column", name, self.columns))
        return asked

    def _slices(self, n_columns: int) -> Iterator[slice]:
        """Yield slices of comparisons, so narrow that each block stays small."""
        step = max(1, _BLOCK_VALUES // max(1, n_columns * len(self.features)))
        for t in range(0, len(self.targets), step):
            yield slice(t, min(t + step, len(self.targets)))

    def _described(self) -> str:
        """Return what was compared and where it ran, for `repr`."""
        p = self.provenance
        reference = "several references" if self.reference is None else repr(str(self.reference))
        names = [*(c.name for c in COLUMNS), *self.columns[len(VALUES) :]]
        metric = p.get("metric") or "unknown test"
        backend, device, engine = (
            p.get(name) or f"unknown{after}"
            for name, after in (("backend", ""), ("device", " device"), ("engine", ""))
        )
        return (
            f"{metric}, {len(self.targets):,} targets against "
            f"{reference} x {len(self.features):,} genes = {self.n_rows:,} rows; "
            f"backend {backend} ({device}, engine {engine}); columns {', '.join(names)}"
        )


def _equal_level(levels: np.ndarray, asked: object) -> np.ndarray:
    """Return which levels match `asked`: a label, or a tuple with one level per column."""
    found = _equal(levels, asked)
    if found.any():
        return found
    if isinstance(asked, tuple):
        return np.array(
            [
                isinstance(level, tuple)
                and len(level) == len(asked)
                and all(a == b or str(a) == str(b) for a, b in zip(level, asked, strict=True))
                for level in levels
            ],
            bool,
        )
    return np.array([level_text(level) == str(asked) for level in levels], bool)


def _check_parts(
    targets: object,
    references: object,
    features: object,
    provenance: object,
    within: object,
    kept: object,
    symbols: object,
) -> None:
    """Raise OptionError unless these parts make a result."""
    n = len(targets) if isinstance(targets, np.ndarray) and targets.ndim == 1 else None
    parts = [("targets", targets, n), ("features", features, None)]
    try:
        n_references = len(references)  # type: ignore[arg-type]
        _single(references)  # type: ignore[arg-type]
    except Exception as error:  # not labels, or labels that cannot be compared
        raise OptionError(f"references={shown(references)} must be labels.") from error
    if n is not None and n_references != n:
        raise OptionError(
            f"There are {n_references} references for {n} targets. Pass one reference per target."
        )
    if within is not None:
        pair = within if isinstance(within, tuple) and len(within) == 2 else (None, None)
        names = pair[0] if isinstance(pair[0], tuple) else pair[:1]
        if not all(isinstance(name, str) for name in names):
            raise OptionError(f"within={shown(within)} must be the name of a column and labels.")
        parts.append(("within", pair[1], n))
    if symbols is not None:
        parts.append(("symbols", symbols, len(features)))  # type: ignore[arg-type]
    for name, labels, wanted in parts:
        if not is_array(labels, (wanted,)):
            raise OptionError(
                f"{name} must be an array of labels, one per comparison or gene, got "
                f"{described(labels)}."
            )
    if kept is not None and not is_array(kept, (n, len(features)), np.dtype(bool)):  # type: ignore[arg-type]
        raise OptionError(
            f"kept must be bool of shape ({n}, {len(features)}), got {described(kept)}."  # type: ignore[arg-type]
        )
    if not isinstance(provenance, Mapping):
        raise OptionError(f"provenance={shown(provenance)} must be a dict.")


def _single(labels: np.ndarray) -> object:
    """Return the label that all entries share; None if they differ."""
    first: object = labels[0] if len(labels) else None
    return first if all(label == first for label in labels) else None


def _equal(labels: np.ndarray, asked: object) -> np.ndarray:
    """Return which labels match `asked`; ``"3"`` finds the integer 3, as it does for groups."""
    asked = writable(asked)
    found = np.array([label == asked for label in labels], bool)
    return found if found.any() else np.array([str(label) == str(asked) for label in labels], bool)
