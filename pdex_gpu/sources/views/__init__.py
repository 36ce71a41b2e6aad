"""Selections of cells and genes of a source, in any order and with repeats.

May import ``anndata_files`` and what lies below it in ``sources``, but not ``dask_arrays``. A
source that can skip what is not selected says so with :meth:`..base.Source.select`; nothing has
to be added here.
"""
