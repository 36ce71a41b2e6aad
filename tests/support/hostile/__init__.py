"""Hostile input, drawn from a seed: three drivers, of calls, of files and of faults.

A case is what a number makes of a generator, so one that fails is run again by its number::

    python -m hostile calls 4711                  (in tests/support)
    python -m hostile files --from 0 --to 5000 --jobs 2 --record FILE

A driver is a package here with two functions: ``draw(seed)``, whose text describes the case, and
``problems(seed)``, a line for each thing that is wrong. A line begins with one of the words of
`verdict.WRONG` and a colon. A driver may have ``verdict(seed)``, which says what came of a case
that is right, too, and ``warm()``, called before the first case; it may set ``LIMIT`` (seconds a
case may take) and ``BUDGET`` (bytes of memory that its calls are given).
"""
