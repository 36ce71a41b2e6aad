"""A result as a page for the browser: one file, offline, with search, volcano plots and tables.

`write_report` collects what the page carries (`carried`), turns it into text (`encode`,
`row_codes`), adds what is known about the run (`settings`, `notes`, `calibration`) and fills in the
template (`page`).
"""

from __future__ import annotations

from .write import write_report

__all__ = ["write_report"]
