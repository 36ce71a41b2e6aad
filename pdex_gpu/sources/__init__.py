"""Sources: a matrix of cells x genes, read as ranges of genes, from any kind of storage.

- :mod:`.base`: the interface of a source, and what a source can say that it can do;
- :mod:`.formats`: the registry of formats; :mod:`.open`: data that users pass, opened;
- ``anndata_files``, :mod:`.anndata_objects`: AnnData in files and in memory;
- ``stored``, ``memory``, ``dask_arrays``: matrices in files, in memory, and lazy ones;
- ``cell_ranger``: Cell Ranger's output, with its guides;
- ``rechunk``: row-major matrices, turned into ranges of genes; ``views``: some cells, in any order;
- ``normalized``: counts, scaled while they are read; ``stacked``: many files as one matrix.

It may import ``design``, ``utils`` and ``errors``, and nothing else of the package.

To add a format: write its :class:`.formats.FormatCode` (``claims`` and ``open``) in
``anndata_files``, a :class:`.stored.base.StoredArray` for its arrays in ``stored``, one line in
:data:`.formats.FORMATS`, and the extra that it needs in ``pyproject.toml``. StoredCsr, StoredCsc
and StoredDense then read it, also in part; no other module has to know it.
"""
