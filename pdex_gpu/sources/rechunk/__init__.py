"""Row-major matrices, rechunked into ranges of genes."""
