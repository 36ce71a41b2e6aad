"""The compiler of CPU kernels, :func:`.utils.jit.jit`, and prefetching.

`parallel=True` takes ten seconds to compile and cannot be cached here; plain kernels on a Python
thread pool scale equally well. Floating-point arithmetic stays strict (no fastmath), so that
results have the same bits on every machine and with any number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...utils.jit import jit as jit

_CACHE_LINE = 64


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any, write: Any) -> Any:
    """Prefetch the cache line of ``array[index]``, for writing if `write` is a literal 1."""
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
    """Prefetch the cache line after ``array[index]`` for writing; it may lie outside."""
    _prefetch(array, index + np.uint64(_CACHE_LINE // array.itemsize), 1)


@jit
def prefetch(array, index):
    """Prefetch the cache line of ``array[index]`` for reading; it may lie outside."""
    _prefetch(array, index, 0)
