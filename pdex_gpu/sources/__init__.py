"""Sources, which read a matrix as ranges of genes. See :mod:`pdex_gpu.sources.base`."""
