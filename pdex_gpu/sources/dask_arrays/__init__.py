"""Matrices that are dask arrays."""
