"""Selections of cells and genes from matrices in files."""
