"""A result as a page for the browser: one file, offline, with search, volcanoes and tables.

`write_report` collects what the page carries (`carried`), turns it into text (`encode`, `rows`),
adds what is known of the run (`settings`, `notes`, `calibration`) and puts it into the template
(`page`).
"""

from __future__ import annotations

from .write import write_report

__all__ = ["write_report"]
