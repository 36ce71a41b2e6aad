"""The numba kernel set: compiled, cached, without the GIL, for CPU threads."""
