"""Calibration of a screen's p-values with its control cells, split into mock groups.

:mod:`.mock_groups` draws the groups, :mod:`.split_run` compares them, :mod:`.result` and
:mod:`.serialize` hold and store what came of it. May import ``pipeline`` and the subpackages
below it, but not ``api`` and ``aggregation``. To add a summary, add a method to
:class:`.result.Calibration`.
"""
