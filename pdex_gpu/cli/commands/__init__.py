"""The commands of ``pdex-gpu``, one module each.

A module has ``HELP``, ``EXAMPLES`` and ``command``, whose annotated parameters are the options.
Like the rest of :mod:`pdex_gpu.cli` it may import every subpackage, heavy ones only when the
command runs. To add a command, write such a module and add a line to ``COMMANDS`` in :mod:`..app`.
"""
