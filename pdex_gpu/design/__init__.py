"""Labels, groups of cells and the contrasts between them: who is compared with whom.

:mod:`.labels` and :mod:`.label_match` read labels, ``comparisons`` says which groups are compared,
:mod:`.build` makes a :class:`.contrasts.Design` of both. May import ``utils`` only. To add a
comparison, see :mod:`.comparisons`.
"""
