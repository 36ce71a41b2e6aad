"""Statistical tests: the kernels each needs, and how their output becomes p-values."""

from __future__ import annotations

from .registry import METRICS, make_test, register
from .two_sample.base import StatisticalTest

__all__ = ["METRICS", "StatisticalTest", "make_test", "register"]
