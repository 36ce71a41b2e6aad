"""Matrices in memory, of the host or of a CUDA device."""
