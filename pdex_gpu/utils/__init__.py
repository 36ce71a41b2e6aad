"""The ground that every room stands on: files, checks, threads, progress, words of messages.

May import :mod:`pdex_gpu.errors` and nothing else of the package. A module belongs here if it knows
nothing of cells and genes, and at least two rooms need it.
"""
