"""Pseudobulk: cells aggregated into samples, and DESeq2 on these samples.

May import ``pipeline`` and the subpackages below it, but not ``api`` and ``calibration``. To add an
aggregate, add its computation to :mod:`.sample_values` and its name to ``METHODS`` in
:mod:`.aggregate`.
"""
