"""The names of the comparisons."""

#: What each group is compared with; see :func:`pdex_gpu.differential_expression`.
COMPARISONS = ("reference", "each_reference", "rest", "perturbed", "pairs")
