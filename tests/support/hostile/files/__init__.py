"""Files that are damaged, changed by other programs or tampered with, read by whoever reads them.

A case is a small file (a screen in h5ad, h5mu or zarr, a result in Parquet, a calibration in JSON,
a table of pairs in CSV, the checkpoint of an interrupted run), one or two changes to it, and a call
or command. Accepted is one `PdexGpuError`, the table of the file as it was, or that of what h5py,
zarr and scipy read of the changed one: where values were changed and nothing in the file tells, the
table has to be that of the changed values, and the case counts as an undetectable change.
"""

from .check import problems, verdict, warm
from .draw import draw

#: Seconds; a case takes 0.1 where machines are not busy.
LIMIT = 120.0
#: As calls are given: see `made.CALL`.
BUDGET = 100_000_000

__all__ = ["BUDGET", "LIMIT", "draw", "problems", "verdict", "warm"]
