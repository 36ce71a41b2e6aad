"""Matrices in HDF5 and zarr files: arrays that are decoded in parallel, whole or in part."""
