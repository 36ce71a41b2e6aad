"""Objects found by name, where an import would run against the way of the data."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(name: str) -> Any:
    """Import an object by its name, ``"package.module:attribute"``.

    For methods of lower subpackages that call higher ones, such as ``Result.report``, and for
    registries, which name what they have not imported.
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
