"""Runs on a Dask cluster: connecting to it, checking its workers, and their tasks.

:mod:`.connect` finds the client, :mod:`.survey` checks the workers, :mod:`.cluster` submits tasks
and collects results; :mod:`.tasks`, :mod:`.worker_state` and :mod:`.split_files` run on workers,
which compute with the other engines. May import what :mod:`pdex_gpu.engines` may. A new task is a
function in :mod:`.tasks`, which Dask pickles by its name.
"""
