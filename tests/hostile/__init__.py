"""Hostile input: calls drawn from a seed, run on every kernel set, their answers held to scipy.

A case is a matrix (values, dtype, storage), labels, options and an entry point. Its number is its
seed, so a case that fails is run again by number::

    python -m hostile 4711                (in the folder tests)
    python -m hostile --from 0 --to 5000

A right answer or one `PdexGpuError` is accepted, nothing else: no other exception, no number that
differs between kernel sets or from the truth, no refusal of input that has an answer.
"""
