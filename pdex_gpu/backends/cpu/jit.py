"""How every CPU kernel is compiled: without the GIL, cached on disk, no `parallel=True`.

`parallel=True` costs ten seconds of compiling and is not cacheable here; plain kernels on a
Python thread pool scale the same. Floating-point arithmetic is left strict (no fastmath), so
that results are the same bits on every machine and thread count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...compiling import watch_numba

logger = logging.getLogger("pdex_gpu")

watch_numba()


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel on first use, with its machine code cached where that is possible."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError as error:  # neither the package folder nor a home folder is writable
        logger.debug("%s: set NUMBA_CACHE_DIR to a writable folder to compile only once", error)
        return numba.njit(nogil=True, error_model="numpy")(function)


_CACHE_LINE = 64


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any, write: Any) -> Any:
    """Ask for the cache line of ``array[index]``, to write it if `write` is a literal 1."""
    if not isinstance(write, types.IntegerLiteral):
        return None
    signature = types.void(array, index, write)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte_pointer = ir.IntType(8).as_pointer()
        address = builder.bitcast(builder.gep(data, [args[1]]), byte_pointer)
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte_pointer, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        into_all_levels, data_cache = i32(3), i32(1)
        builder.call(
            function,
            [address, i32(signature.args[2].literal_value), into_all_levels, data_cache],
        )
        return context.get_dummy_value()

    return signature, codegen


@jit
def prefetch_ahead(array, index):
    """Ask for the cache line after that of ``array[index]``, to write it; may lie outside."""
    _prefetch(array, index + np.uint64(_CACHE_LINE // array.itemsize), 1)


@jit
def prefetch(array, index):
    """Ask for the cache line of ``array[index]``, to read it; may lie outside."""
    _prefetch(array, index, 0)
