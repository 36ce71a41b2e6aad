"""A result as a page for the browser: one file, offline, with search, cut-offs, plots and tables.

`write_report` collects what the page shows (`payload`), encodes it as text (`encode`, `row_codes`),
adds what is known about the run (`provenance_table`, `definitions`, `notes`, `calibration`) and
fills in the template (`page_data`, `page`). May import every subpackage except ``cli``
and ``doctor``.

To add a view, add its data to `payload` and a script to the folder ``page``.
"""

from __future__ import annotations

from .write import write_report

__all__ = ["write_report"]
