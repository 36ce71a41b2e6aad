"""AnnData in files, HDF5 or zarr, read without anndata."""
