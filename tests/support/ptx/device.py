"""The device: an emulated device whose kernels are PTX."""

from __future__ import annotations

import ctypes
import re
import struct
from typing import Any

import cuda_sources
import numpy as np
from emulated.device import EmulatedDevice, EmulationError
from emulated.memory import EmulatedArray

from . import executor
from .compiler import program
from .counts import TOTALS, Counted
from .decoder import Kernel
from .text import PtxError

_MESSAGE_BYTES = 4096
_CONSTANT = np.dtype([("at", "i4"), ("bytes", "i4"), ("value", "u8")])


class PtxKernel:
    """A kernel, and what it is called with."""

    def __init__(self, source: cuda_sources.Source, kernel: Kernel) -> None:
        self.source = source
        self.decoded = kernel
        self.name = kernel.name
        self.bound = kernel.most_threads

    def check(self, given: tuple[str, ...]) -> None:
        """Compare codes of arguments with the sizes of parameters, which is all that PTX knows."""
        sizes = [8 if code.startswith("p") else int(code[1:]) for code in given]
        if sizes != self.decoded.parameters:
            raise EmulationError(
                f"kernel {self.name} takes arguments of {self.decoded.parameters} bytes, "
                f"not {sizes}"
            )

    def constants(self, n_blocks: int, n_threads: int, slots: bytes) -> np.ndarray:
        """Places that hold the same for all threads: constants, sizes of the grid, arguments."""
        kernel, registers = self.decoded, self.decoded.registers
        found = [(at, width, value) for (width, value), at in registers.constants.items()]
        values = struct.unpack(f"{len(kernel.parameters)}Q", slots)
        for number, at in registers.parameters.items():
            found.append((at, max(4, kernel.parameters[number]), values[number]))
        for name, value in (("%ntid.x", n_threads), ("%nctaid.x", n_blocks)):
            if name in registers.special:
                found.append((registers.special[name], 4, value))
        return np.array(found, _CONSTANT)


class PtxDevice(EmulatedDevice):
    """A device that runs compiled PTX on the host.

    Parameters
    ----------
    races : bool
        Whether a launch fails in which two threads access a word, one of them to write, and nothing
        orders them. Slower, and takes thirty times the memory of the arrays.
    l1_bytes : int
        What a block has of the L1 cache, for counts.
    most_instructions : int
        Warp instructions after which a launch is given up.
    **rest
        As of `EmulatedDevice`. With seed 0, blocks and warps run in ascending order, each warp as
        far as it can.

    Attributes
    ----------
    counted : dict of str to Counted
        By kernel.
    """

    def __init__(
        self,
        *,
        races: bool = False,
        l1_bytes: int = 16 << 10,
        most_instructions: int = 1 << 34,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.races = races
        self.l1_bytes = l1_bytes
        self.most_instructions = most_instructions
        self.counted: dict[str, Counted] = {}

    def kernel(self, source: str, name: str) -> PtxKernel:
        read = cuda_sources.read(source, self._folder)
        compiled = program(read)
        if name not in compiled.names:
            raise EmulationError(f"{source}.cu has no kernel {name}, only {compiled.names}")
        try:
            return PtxKernel(read, compiled.kernel(name))
        except PtxError as error:
            raise PtxError(_with_places(str(error), read)) from error

    def _execute(
        self,
        kernel: PtxKernel,
        n_blocks: int,
        n_threads: int,
        shared: int,
        seed: int,
        slots: bytes,
        alive: tuple[Any, ...],
    ) -> None:
        decoded, registers = kernel.decoded, kernel.decoded.registers
        constants = kernel.constants(n_blocks, n_threads, slots)
        ranges = np.array(_ranges(alive), np.uint64).reshape(-1, 2)
        if kernel.name not in self.counted:
            self.counted[kernel.name] = Counted(kernel.source, decoded)
        counted = self.counted[kernel.name]
        if counted.source.name != kernel.source.name:
            raise EmulationError(
                f"kernel {kernel.name} is in {counted.source.name}.cu and in "
                f"{kernel.source.name}.cu: counts are kept by name, so rename one of them"
            )
        totals = np.zeros(len(TOTALS), np.uint64)
        message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        launch = executor.Launch(
            code=decoded.code.ctypes.data,
            constants=constants.ctypes.data,
            ranges=ranges.ctypes.data,
            counts=counted.counts.ctypes.data,
            totals=totals.ctypes.data,
            message=ctypes.cast(message, ctypes.c_char_p),
            n_constants=len(constants),
            n_ranges=len(ranges),
            message_bytes=_MESSAGE_BYTES,
            n_predicates=registers.n_predicates,
            register_bytes=registers.n_bytes,
            shared_bytes=decoded.shared_bytes + shared,
            local_bytes=decoded.local_bytes,
            l1_bytes=self.l1_bytes,
            blocks=n_blocks,
            threads=n_threads,
            thread_at=registers.special.get("%tid.x", -1),
            lane_at=registers.special.get("%laneid", -1),
            block_at=registers.special.get("%ctaid.x", -1),
            seed=seed if self._seed else 0,
            most_instructions=self.most_instructions,
            watch_races=int(self.races),
        )
        if not executor.run(launch):
            told = _with_places(message.value.decode(), kernel.source)
            raise EmulationError(f"kernel {kernel.name}, {told}")
        counted.add(n_blocks, n_threads, totals)


def _with_places(message: str, source: cuda_sources.Source) -> str:
    """A message with "line 12" of the source as compilers see it as "sort.cu:7" of its files."""

    def place(match: re.Match[str]) -> str:
        number = int(match[1])
        return source.line(number).place if number else f"{source.name}.cu"

    return re.sub(r"\bline (\d+)", place, message)


def _ranges(alive: tuple[Any, ...]) -> list[tuple[int, int]]:
    """The memory of the arrays among arguments in ascending order, overlapping ones as one."""
    arrays = [arg for arg in alive if isinstance(arg, EmulatedArray) and arg.nbytes]
    found: list[tuple[int, int]] = []
    for begin, end in sorted((a.address, a.address + a.nbytes) for a in arrays):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found
