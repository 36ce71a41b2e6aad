"""Engines decide when and where ranges of genes run. They know nothing of tests or kernel sets.

A call has an executor (`executor.py`), which plans its ranges and runs them: in this process with
one of the engines (`local.py`; `serial`, `threads`, `shared_memory`, `streams`), or on a Dask
cluster (`dask/`). `memory_model.py` says what ranges take, `plan.py` cuts them.

To add an engine, write a module with `schedule` and `run` (see :class:`.base.Engine`) and name it
in the backends that can use it (:mod:`pdex_gpu.backends.registry`). May import everything
below `pipeline`, and reaches kernel sets and tests only through their registries.
"""
