"""The comparisons that ``comparison=`` names: one class each, found by name in the registry.

A comparison says which rows the result has and which groups of cells each row compares. It sees
labels and numbers of cells only; :mod:`..build` does the rest, for levels and strata too.
It may import ``utils``, ``errors`` and its neighbours in :mod:`pdex_gpu.design`, and does
not load numpy: the command line shows the names before anything is read.

To add one, write a module with a subclass of :class:`Comparison` and add it to the tuple in
:mod:`.registry`. Code outside the package calls :func:`register` instead, or hands an instance to
``comparison=``. Command line, error messages and the documentation read the class.
"""

from __future__ import annotations

from .base import Comparison
from .label_contrasts import LabelContrasts, Row
from .pairs import Pairs
from .registry import comparison_names, find_comparison, register
from .selection import Selection

__all__ = [
    "Comparison",
    "LabelContrasts",
    "Pairs",
    "Row",
    "Selection",
    "comparison_names",
    "find_comparison",
    "register",
]
