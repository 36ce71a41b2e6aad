"""Pseudobulk: cells aggregated into samples, and DESeq2 on these samples."""
