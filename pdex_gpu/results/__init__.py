"""Finished results: the schema, in memory, in a file, and exports to other packages.

:mod:`.base` is what :class:`.memory.DEResult` and :class:`.file.ResultFile` have in common. May
import ``columns``, whose list is the schema, and the subpackages below it; plots and reports, which
lie above, are found by name, with :mod:`pdex_gpu.utils.resolve`. To add an export, write a function
in :mod:`.export` and a method that calls it.
"""
