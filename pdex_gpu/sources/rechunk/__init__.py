"""Row-major matrices, rechunked into ranges of genes.

Rows arrive in blocks (:class:`..base.RowBlocks`), are split by range of genes (:mod:`.ranges`) and
kept in memory or in a scratch file (:mod:`.store`). May import ``chunk_ops`` and what lies below it
in ``sources``. Anything that yields such blocks can be read through :mod:`.source`.
"""
