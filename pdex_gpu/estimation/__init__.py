"""An estimate of a run: its work, memory, disk space and seconds, without reading the matrix.

:mod:`.workload` counts the work, :mod:`.benchmark` measures constants of this machine,
:mod:`.model` turns both into seconds, and :mod:`.estimate` is the public call. May import ``api``,
``calibration``, ``aggregation`` and the subpackages below them. To add a phase, add its term to
:mod:`.model` and its constant to :mod:`.benchmark`.
"""
