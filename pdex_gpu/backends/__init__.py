"""Backends: each is a kernel set and the engines that can run it. See :mod:`.registry`.

``pdex_gpu.backends()`` lists them. Importing this package binds that name to the package, so the
package itself is callable. :mod:`.contract` defines what kernel sets compute, :mod:`.outputs` what
they return. May import ``sources``, ``sinks`` and the subpackages below them; kernel sets do not
import each other.

To add a backend, write a package that exports a :class:`.base.Backend` as ``BACKEND``, and add a
line to :data:`.registry.BACKENDS`. Other distributions use an entry point instead.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from ..utils.keywords import known_keywords

if TYPE_CHECKING:
    from .registry import BackendInfo


class _Backends(ModuleType):
    @partial(known_keywords, called="backends")
    def __call__(self) -> list[BackendInfo]:
        """List every backend and whether it can run here; see :func:`.registry.backends`."""
        from .registry import backends

        return backends()


sys.modules[__name__].__class__ = _Backends
