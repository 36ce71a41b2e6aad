"""Statistical tests: the kernels each needs, and how their output becomes p-values."""

from __future__ import annotations

from .two_sample.base import METRICS, StatisticalTest, make_test

__all__ = ["METRICS", "StatisticalTest", "make_test"]
