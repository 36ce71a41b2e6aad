"""One call, from an opened screen to its results: execute, identify, record, write.

`execute.py` decides everything about a call (`call.py`) and hands it to `in_memory.py` or
`into_file.py`; both compute with `ranges.py`, which also compares the mock groups that
`empirical.py` judges p-values against. None of them knows where ranges run: the executor of
the call does (:mod:`pdex_gpu.engines.executor`). May import all subpackages below it.
"""
