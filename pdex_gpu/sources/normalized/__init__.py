"""Counts scaled by cell while a matrix is read: each count over its cell's total, and log1p of it.

Every source can be wrapped (:mod:`.source`). Chunks then hold float64, computed on the host by the
same compiled functions whatever the storage and the backend, so that the bits are the same.
"""
