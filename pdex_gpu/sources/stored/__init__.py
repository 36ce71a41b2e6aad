"""Arrays in HDF5 and zarr files, decoded in parallel."""
