"""Matrices in HDF5 and zarr files: arrays that are decoded in parallel, whole or in part.

May import ``memory``, ``rechunk`` and what lies below them in ``sources``. To add a way to store
arrays, write a :class:`.base.StoredArray`; :mod:`.sparse`, :mod:`.dense` and the selections then
read it. A library of such arrays is a line in :data:`..formats.LIBRARIES`.
"""
