"""Destinations of results during a run: arrays in memory, or files that outlive the process.

May import ``design`` and ``utils``. To add a destination, write a class with the methods of
:class:`.base.Sink`, which takes the results of every gene exactly once, and choose it in
:mod:`pdex_gpu.pipeline`.
"""
