"""An emulated CUDA device: the kernels' own sources, compiled for the host.

:mod:`.device` is the device, :mod:`.memory` its arrays, :mod:`.build` compiles sources into
libraries, and ``cuda_host.h`` makes a CUDA C++ source compile, and its threads run, on the host.

``python tests/support/emulated -m pytest tests/...`` runs tests with the address and
undefined-behaviour sanitizers; a report ends the run.

What it cannot find: races between blocks, which run one after another, and races that need threads
to switch between two barriers or warp primitives, both of which :mod:`ptx` finds; overruns from one
slice of an allocation into the next. A kernel that waits for another block, or spins for another
thread, never ends.
"""
