"""The two-sample tests, one module each.

A test is a :class:`.base.StatisticalTest`: it asks the kernels for what it needs and turns their
output into statistics and p-values. May import :mod:`..samples`, :mod:`..scales`,
:mod:`..distributions` and the subpackages below ``stats``. To add a test, write a module here and
add its class to :mod:`..registry`.
"""
