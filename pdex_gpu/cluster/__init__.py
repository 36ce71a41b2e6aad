"""Runs on a Dask cluster: finding it, what its workers are, and what they do."""
