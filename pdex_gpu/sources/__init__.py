"""Sources: a matrix read as ranges of genes. See :mod:`pdex_gpu.sources.base`."""
