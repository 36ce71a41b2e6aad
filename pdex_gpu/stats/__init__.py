"""Statistics: tests, effect sizes, null distributions, and correction for multiple testing.

:mod:`.registry` finds the tests by name, ``two_sample`` defines them, ``distributions`` their
null distributions, ``multitest`` the corrections, :mod:`.effects` and :mod:`.fold_change` the
formulas of columns. May import ``backends`` and the subpackages below it; kernels are passed as
arguments.

To add a test, write a class in ``two_sample`` and add it to :data:`.registry.METRICS`; code outside
the package calls :func:`register` instead.
"""

from __future__ import annotations

from .registry import METRICS, make_test, register
from .two_sample.base import StatisticalTest

__all__ = ["METRICS", "StatisticalTest", "make_test", "register"]
