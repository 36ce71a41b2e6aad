"""Statistical tests: the kernels each needs, and how their output becomes p-values."""
