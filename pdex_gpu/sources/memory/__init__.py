"""Sources over matrices in memory, of the host or of a CUDA device.

May import ``chunk_ops`` and what lies below it in ``sources``. To add a kind of array, write a
source next to :mod:`.arrays` and open it in :mod:`.open`.
"""
