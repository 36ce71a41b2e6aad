"""The ground that every subpackage builds on: files, checks, threads, progress, messages.

May import :mod:`pdex_gpu.errors` and nothing else of the package. A module belongs here if it knows
nothing of cells and genes, and at least two subpackages need it.
"""
