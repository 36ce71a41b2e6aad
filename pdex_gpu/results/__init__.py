"""Finished results: the schema, in memory, in a file, and exports to other packages.

:mod:`.base` is what :class:`.memory.DEResult` and :class:`.file.ResultFile` have in common. May
import ``design`` and ``utils``, and the columns that make up the schema; what lies above (plots,
reports) is found by name, with :mod:`pdex_gpu.utils.resolve`. To add an export, write a function in
:mod:`.export` and a method that calls it.
"""
