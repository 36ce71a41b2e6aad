"""Every CUDA source compiles for every architecture, without a warning, and does not spill.

A table at the end of the test run says what each kernel takes; so does ``python -m nvrtc`` in
``tests/support``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import nvrtc
import pytest

from pdex_gpu.backends.cuda import sources
from pdex_gpu.backends.cuda.launch_config import MOST_THREADS, Shapes

pytestmark = nvrtc.needs_nvrtc

ALL = pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)


@pytest.mark.sampled(every=11)
@ALL
@pytest.mark.parametrize("name", sources.names())
def test_source(name: str, architecture: str, record_property: Callable[[str, object], None]):
    compiled = nvrtc.compile_source(name, architecture)
    rows = [(name, architecture, asdict(function)) for function in compiled.functions]
    record_property(nvrtc.PROPERTY, rows)  # printed by conftest.py
    assert compiled.cubin.startswith(b"\x7fELF")
    assert any(function.registers for function in compiled.functions), "no kernel in it"
    assert compiled.warnings == []
    assert [f.name for f in compiled.functions if f.spills] == []
    for function in compiled.functions:
        if function.registers:
            assert registers_of_a_block(function.registers, MOST_THREADS) <= REGISTERS, function


# Of compute capability 7.0 to 12.1: registers that a block can have, and that are given together.
REGISTERS = 65_536
GIVEN_TOGETHER = 256  # to a warp


def registers_of_a_block(of_a_thread: int, n_threads: int) -> int:
    of_a_warp = -(-of_a_thread * 32 // GIVEN_TOGETHER) * GIVEN_TOGETHER
    return of_a_warp * n_threads // 32


def test_every_shape_can_be_started():
    """Whatever a kernel takes: no compiler gives a thread more than 255 registers."""
    assert registers_of_a_block(255, MOST_THREADS) <= REGISTERS
    assert registers_of_a_block(132, 512) > REGISTERS  # one of ours on sm_86
    assert Shapes(n_threads=MOST_THREADS).n_threads == MOST_THREADS
    for n_threads in (0, 31, 33, MOST_THREADS + 32, 512):
        with pytest.raises(ValueError, match=f"n_threads={n_threads} must be a multiple of 32 up"):
            Shapes(n_threads=n_threads)


# What the test above relies on can be seen.

# All of `live` is needed after the barrier: more values than 32 registers hold.
SPILLS = """
extern "C" __global__ void spills(const float* in, float* out) {
    float live[64];
    #pragma unroll
    for (int i = 0; i < 64; ++i) live[i] = in[i * blockDim.x + threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 64; ++i) out[i * blockDim.x + threadIdx.x] = live[i] * live[63 - i];
}
"""


@pytest.mark.sampled(every=3)
@ALL
def test_spills_are_seen(architecture: str):
    (tight,) = nvrtc.compile_text(SPILLS, architecture, "--maxrregcount=32").functions
    assert tight.name == "spills"
    assert tight.spills
    assert tight.registers == 32
    assert min(tight.stack, tight.spill_stores, tight.spill_loads) > 0
    (wide,) = nvrtc.compile_text(SPILLS, architecture).functions
    assert not wide.spills
    assert wide.registers is not None
    assert wide.registers > 32


def test_spills_of_a_function_that_is_not_inlined_are_seen():
    text = SPILLS.replace('extern "C" __global__', "__noinline__ __device__")
    text += 'extern "C" __global__ void calls(const float* in, float* out) { spills(in, out); }'
    functions = nvrtc.compile_text(text, "sm_90", "--maxrregcount=32").functions
    assert {f.registers is None for f in functions} == {True, False}
    assert any(f.spills for f in functions if f.registers is None)


def test_each_kernel_is_listed():
    text = "".join(f'extern "C" __global__ void k{i}(int* x) {{ x[0] = {i}; }}\n' for i in range(3))
    functions = nvrtc.compile_text(text, "sm_80").functions
    assert sorted(f.name for f in functions) == ["k0", "k1", "k2"]
    assert not any(f.spills for f in functions)


def test_warnings_are_seen():
    compiled = nvrtc.compile_text('extern "C" __global__ void f() { int unused = 3; }', "sm_80")
    assert len(compiled.warnings) == 1
    assert "unused" in compiled.warnings[0]


def test_errors_come_with_the_log():
    with pytest.raises(nvrtc.CompileError, match=r'toy\.cu\(2\): error: .*"undeclared"'):
        nvrtc.compile_text("\n__global__ void f() { undeclared = 1; }", "sm_80")


def test_products_are_not_fused():
    """The options reach the compiler: with fused operations results would differ from the CPU's."""
    text = 'extern "C" __global__ void f(double* x) { x[0] = x[1] * x[2] + x[3]; }'
    plain = nvrtc.compile_text(text, "sm_90").cubin
    assert plain != nvrtc.compile_text(text, "sm_90", options=()).cubin
