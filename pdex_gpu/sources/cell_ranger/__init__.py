"""Cell Ranger's output: matrices in HDF5 files and in folders, and its tables of guides.

- :mod:`.hdf5`: ``filtered_feature_bc_matrix.h5``, and files like it of Cell Ranger 2 or CellBender;
- :mod:`.folder`, :mod:`.mtx`: folders with ``matrix.mtx.gz``, features and barcodes;
- :mod:`.features`: which features are genes, which are guides, and what both formats share;
- :mod:`.guide_tables`: ``protospacer_calls_per_cell.csv`` and ``feature_reference.csv``;
- :mod:`.text_files`: lines and tables of text, compressed or not.

May import ``views``, ``anndata_files`` and what lies below them in ``sources``.
"""
