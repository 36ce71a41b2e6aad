"""Runs on a Dask cluster: connecting to it, checking its workers, and their tasks."""
