"""The model that DESeq2 fits to pseudobulk samples: design matrix and contrasts of groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, OptionError, listing
from .aggregate import Samples, in_order

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Model:
    """A model built by formulaic.

    Attributes
    ----------
    matrix : pandas.DataFrame, shape (n_samples, n_coefficients)
        Has full rank and more rows than columns.
    """

    matrix: pandas.DataFrame
    _contrasts: Any
    _column: str
    _texts: dict[Any, Any]

    def contrast(self, target: object, reference: object) -> np.ndarray:
        """Return the contrast vector of a target against the reference, shape (n_coefficients,)."""
        sides = self._texts[reference], self._texts[target]
        try:
            found = np.asarray(self._contrasts.contrast(self._column, *sides), np.float64)
        except Exception as error:  # formulaic may raise anything
            raise self._no_contrast(target, reference, _said(error)) from error
        if not np.isfinite(found).all() or not found.any():
            raise self._no_contrast(target, reference, "it does not distinguish the two")
        return found

    def _no_contrast(self, target: object, reference: object, why: str) -> OptionError:
        return OptionError(
            f"The model has no contrast of {str(target)!r} with {str(reference)!r}: {why}. Use "
            f"only the column {self._column!r} in design=, or leave design out."
        )


def make_model(samples: Samples, columns: Sequence[str], design: str | None, column: str) -> Model:
    """Build the model of a formula, or by default a model with one effect per column.

    Labels are categories whatever their type, and columns may have any name: formulaic gets
    substitutes for both. With a user's formula, it gets the user's column names, and the user's
    values for a column that is part of an expression, as in ``I(age)``.

    Parameters
    ----------
    samples : Samples
    columns : sequence of str
        Those of `samples`, in the order of the default formula.
    design : str or None
        A formula for formulaic.
    column : str
        The column of the groups.

    Raises
    ------
    OptionError
        If the formula cannot be used.
    DataError
        If the samples are too few, or do not determine some coefficient.
    """
    import pandas as pd
    from formulaic_contrasts import FormulaicContrasts

    if design is None:
        names = {name: f"column{k}" for k, name in enumerate(columns)}
        formula, computed, shown = "~" + "+".join(names.values()), set[str](), " + ".join(columns)
    else:
        names = {name: name for name in columns}
        formula, computed, shown = design, _computed(design, columns, column), design
    frame: dict[str, Any] = {}
    texts: dict[Any, Any] = {}
    for name, levels in samples.levels.items():
        labels = levels.tolist()
        if name in computed and name != column:
            frame[names[name]] = labels
            continue
        ordered = in_order(set(labels))
        if name in computed:
            words = ordered
        else:
            words = list(map(str, range(len(ordered)) if design is None else ordered))
        position = {label: k for k, label in enumerate(ordered)}
        frame[names[name]] = pd.Categorical.from_codes(
            [position[label] for label in labels],
            categories=pd.Index(words, tupleize_cols=False),
        )
        if name == column:
            texts = dict(zip(ordered, words, strict=True))
    data = pd.DataFrame(frame, index=pd.RangeIndex(len(samples)).astype(str))
    try:
        contrasts = FormulaicContrasts(data, formula)
        matrix = pd.DataFrame(contrasts.design_matrix)
        numbers = matrix.to_numpy(np.float64)
    except Exception as error:  # formulaic, or code that it evaluates, may raise anything
        raise _unusable(design, columns, _said(error)) from error
    _check_matrix(numbers, len(data), shown)
    return Model(matrix, contrasts, names[column], texts)


def _computed(design: str, columns: Sequence[str], column: str) -> set[str]:
    """Return the columns that a formula uses in expressions."""
    from formulaic import Formula

    try:
        formula = Formula(design)
        terms = list(formula)
        if not all(hasattr(term, "factors") for term in terms):
            raise ValueError("it must be the right-hand side of a single formula")
        factors = {factor for term in terms for factor in term.factors}
        named = {str(name) for name in formula.required_variables}
        lookups = {factor.expr for factor in factors if factor.eval_method.value == "lookup"}
        expressions = {factor.expr for factor in factors} - lookups
        found = {
            str(name) for text in expressions for name in Formula(f"{{{text}}}").required_variables
        }
    except Exception as error:  # formulaic may raise anything here
        raise _unusable(design, columns, _said(error)) from error
    unknown = sorted(named - set(columns))
    if unknown:
        raise _unusable(design, columns, f"it names {listing(unknown)}")
    if column not in named:
        raise _unusable(design, columns, f"it does not name {column!r}, whose groups are compared")
    return found & set(columns)


def _unusable(design: str | None, columns: Sequence[str], why: str) -> OptionError:
    return OptionError(
        f"design={design!r} cannot be used: {why}. Pass a formula in formulaic syntax that uses "
        f"columns of groupby ({listing(columns)}), with backticks around names with spaces or "
        "other special characters: "
        '"~ `donor id` + group".'
    )


def _said(error: Exception) -> str:
    """Return an error's message on one line, without the colours that formulaic adds."""
    text = re.sub("\x1b\\[[0-9;]*m|⧛.*?⧚", "", f"{error}")
    return f"{type(error).__name__}: {' '.join(text.split()).removesuffix('.')}"


def _check_matrix(matrix: np.ndarray, n_samples: int, shown: str) -> None:
    n_coefficients = matrix.shape[1]
    if len(matrix) < n_samples or not np.isfinite(matrix).all():
        raise DataError(
            f"The model {shown!r} has a missing or infinite value in some sample. Use columns, and "
            "expressions of them, that are finite in every sample."
        )
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < n_coefficients and rank < n_samples:
        raise DataError(
            f"The model {shown!r} cannot be fitted to these {n_samples} samples: of its "
            f"{n_coefficients} coefficients, {n_coefficients - rank} depend on the others. Two "
            "columns may carry the same information, for example if each group has its own "
            "batches. Leave out a column of groupby or of design=."
        )
    if n_samples <= n_coefficients:
        raise DataError(
            f"{n_samples} samples are too few for the {n_coefficients} coefficients of the model "
            f"{shown!r}: DESeq2 needs replicates to estimate variance. Leave out a column of "
            "groupby or of design=, or compare fewer groups at a time."
        )
