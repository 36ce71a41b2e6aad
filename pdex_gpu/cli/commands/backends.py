"""``pdex-gpu backends``: what can run here, and compiling ahead of time."""

from __future__ import annotations

import time
from typing import Annotated

from ... import errors
from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..json_output import write_json
from ..tables import Cell, show_line, show_table

EXAMPLES = f"""\
examples:
  {PROGRAM} backends
  {PROGRAM} backends --compile                    for the device of this machine
  {PROGRAM} backends --compile --arch sm_80,sm_90 without a device, for images
  PDEX_GPU_BACKEND=cpu {PROGRAM} run ...          instead of "auto", for one run

Compiled kernels are kept in the folder given by CUPY_CACHE_DIR.
"""

Compile = Annotated[
    bool, o.flag("--compile", "compile the CUDA kernels now, not at first run", o.RUN)
]
Device = Annotated[
    int | None,
    o.option(
        "--device", "N", "with --compile: for this device", o.RUN, parser=parsers.device_number
    ),
]
Arch = Annotated[
    list[str] | None,
    o.option("--arch", "ARCHS", "with --compile: for these, such as sm_90", o.RUN),
]


def command(
    compile: Compile = False,
    device: Device = None,
    arch: Arch = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List, or compile."""
    wanted = parsers.architectures(arch or ())
    if compile:
        _compile(device, wanted, quiet=quiet, json=json)
        return
    if device is not None or wanted:
        raise errors.OptionError(
            "--device and --arch are only valid with --compile. Add it, or remove them."
        )
    from ...backends.registry import backends

    found = backends()
    if json:
        write_json({"backends": found})
    elif not quiet:
        rows = [[b.name, _yes_no(b.usable), b.device or "-", b.reason] for b in found]
        show_table(["backend", "usable", "device", "reason"], rows)


def _yes_no(usable: bool) -> str | Cell:
    return Cell("yes", "green") if usable else Cell("no", "yellow")


def _compile(device: int | None, wanted: list[str], *, quiet: bool, json: bool) -> None:
    if device is not None and wanted:
        raise errors.OptionError("--device and --arch both set the target. Pass only one.")
    from ...backends.registry import compile_kernels

    started = time.perf_counter()
    try:
        done = compile_kernels(device, wanted)
    except errors.BackendError as error:
        if not wanted:
            error.add_note("Without a device, pass the architecture to compile for: --arch sm_90")
        raise
    seconds = time.perf_counter() - started
    if json:
        names = ("source", "architecture", "compiled")
        rows = [dict(zip(names, row, strict=True)) for row in done]
        write_json({"kernels": rows, "seconds": seconds})
    elif not quiet:
        show_table(
            ["source", "architecture", ""],
            [[name, a, "compiled" if made else "cached"] for name, a, made in done],
        )
        show_line(f"{seconds:.1f} s")
