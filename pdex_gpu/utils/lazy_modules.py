"""Modules that are imported on first use.

The command line describes every statistical test, so modules of tests are imported before it is
known whether anything is computed. With ``np = LazyModule("numpy")`` they remain quick to import.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """A stand-in for a module, which imports it when an attribute is first needed.

    Parameters
    ----------
    name : str
        Full name of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, found)  # from now on found without this method
        return found
