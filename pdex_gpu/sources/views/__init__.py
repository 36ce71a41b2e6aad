"""Selections of cells and genes, in any order and with repeats."""
