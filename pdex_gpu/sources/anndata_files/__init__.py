"""AnnData in files, HDF5 or zarr, read without anndata.

Each format is a :class:`..formats.FormatCode`; :mod:`.store` and :mod:`.frames` read what all of
them have in common. May import ``stored`` and what lies below it in ``sources``. To add a format,
write its module here and add a line to :data:`..formats.FORMATS`.
"""
