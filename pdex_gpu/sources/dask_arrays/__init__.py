"""Sources over matrices that are dask arrays, computed in lines of blocks.

May import ``anndata_files`` and what lies below it in ``sources``, but not ``views``. Registered
in :data:`..formats.MATRICES`, as other kinds of matrices would be.
"""
