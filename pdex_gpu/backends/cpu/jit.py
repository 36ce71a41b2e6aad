"""How every CPU kernel is compiled: without the GIL, cached on disk, no `parallel=True`.

`parallel=True` costs ten seconds of compiling and is not cacheable here; plain kernels on a
Python thread pool scale the same. Floating-point arithmetic is left strict (no fastmath), so
that results are the same bits on every machine and thread count.
"""

from __future__ import annotations

import numba

jit = numba.njit(nogil=True, cache=True, error_model="numpy")
