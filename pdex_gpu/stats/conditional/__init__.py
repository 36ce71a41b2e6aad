"""P-values conditional on the pooled values: what is exact about sparse genes stays exact.

Given the pooled values of both samples, all allocations of cells to the samples are equally likely
under the null hypothesis. The number of expressing cells in the target is then hypergeometric, and
only the part of the statistic that comes from expressed values needs an approximation.

Functions of arrays, one module per test, which know no tests, options or kernel sets. They return
natural logarithms of p-values. Values must not be negative, because zero has to be the smallest.
"""
