"""Statistics: tests, effect sizes, null distributions, and correction for multiple testing.

:mod:`.registry` finds the tests by name, ``two_sample`` has them, ``distributions`` their null
distributions, ``multitest`` the corrections, :mod:`.effects` and :mod:`.fold_change` the formulas
of columns. May import ``backends`` and the rooms below it; kernels come as arguments.

To add a test, write a class in ``two_sample`` and add it to :mod:`.registry`.
"""
