"""Calls of other packages, with their parameters and columns: pdex 0.1.28, pdex 0.3, and scanpy.

May import ``api``, ``calibration``, ``aggregation`` and the subpackages below them. To add a call,
write a module that translates its parameters into options of
:func:`pdex_gpu.differential_expression` and the result into its columns, and name it in
``pdex_gpu/__init__.py``.
"""
