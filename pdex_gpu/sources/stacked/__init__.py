"""Many files as one matrix: cells stacked in order, genes joined by name.

Each file is opened by its own format, and read as it is stored: :mod:`.rows` stacks blocks of rows,
:mod:`.columns` stacks ranges of genes. May import ``memory``, ``rechunk`` and what lies below them
in ``sources``.
"""
