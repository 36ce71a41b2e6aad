"""A device that runs compiled kernels: their PTX, on the host.

The emulated device (:mod:`emulated`) compiles the CUDA sources with a C++ compiler of the host.
This one runs what NVIDIA's compiler makes of them: each warp in lock step, every lane's access
checked against the arrays that the launch was given, and everything counted that a device would
have to do.

:mod:`.compiler` makes PTX of a source, with NVRTC. :mod:`.text` reads its statements,
:mod:`.registers` gives operands their places, and :mod:`.decoder` turns statements into
:mod:`.instructions`. ``executor/`` runs them, which :mod:`.executor` builds and calls;
:mod:`.counts` keeps what it counted. :mod:`.device` is the device.

It finds accesses outside of arrays and unaligned ones, threads that wait for ever, and races
between lanes, warps and blocks (``PtxDevice(races=True)``). It knows no time, and PTX is not yet
machine code, which has more instructions.

What it does not know: blocks of two dimensions, named barriers, votes other than ballots, half
precision, textures, calls. A kernel with one of those is an error that names the instruction. Items
shorter than four bytes count as one for races if they share a word. Blocks run one after another: a
launch in which one waits for another is given up after many instructions.
"""
