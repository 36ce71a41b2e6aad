"""NVIDIA's tools: where they are, and what their output says. And programs with a time limit."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_GRACE = 10  # seconds that a program has to end once it is told to
_TOOLKIT = Path("/usr/local/cuda/bin")
_SANITIZER_WHEELS = ("nvidia-cuda-sanitizer-api", "nvidia-cuda-sanitizer-api-cu12")
_NO_PERMISSION = "ERR_NVGPUCTRPERM"

#: What nvidia-smi is asked for.
SMI_QUERY = (
    "name", "driver_version", "compute_cap", "memory.total", "clocks.max.sm", "power.limit",
    "pcie.link.gen.max", "pcie.link.width.max", "mig.mode.current",
)  # fmt: skip


class ToolError(Exception):
    """A tool says nothing that can be used; the message is why."""


class NoPermission(ToolError):
    """The performance counters are for administrators only."""


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes
    ----------
    code : int or None
        Its exit status; None if it ran out of time.
    out, err : str
        What it printed.
    seconds : float
    """

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def tail(self) -> list[str]:
        """The last lines it printed."""
        lines = [line for text in (self.out, self.err) for line in text.splitlines() if line]
        return [line[:300] for line in lines[-15:]]


def run(
    command: Sequence[str], limit: float, folder: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a program, and end it with all that it started once its time is up.

    Parameters
    ----------
    command : sequence of str
    limit : float
        Seconds.
    folder : Path
        Where to run it.
    environment : mapping, optional
        Variables in addition to those of this process.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **(environment or {})}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    code: int | None
    try:
        out, err = process.communicate(timeout=max(limit, 0.0))
        code = process.returncode
    except subprocess.TimeoutExpired:
        out, err = _end(process)
        code = None
    except BaseException:
        _end(process)
        raise
    return Ended(code, out, err, time.monotonic() - start)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_GRACE)
    return "", ""


def find(name: str) -> str | None:
    """The path of a tool: on PATH, in the CUDA toolkit, or in a wheel."""
    if found := shutil.which(name):
        return found
    if (_TOOLKIT / name).is_file():
        return str(_TOOLKIT / name)
    for wheel in _SANITIZER_WHEELS:
        with suppress(metadata.PackageNotFoundError):
            for file in metadata.files(wheel) or ():
                if file.name == name:
                    path = Path(str(file.locate())).absolute()
                    _let_run(path.parent)
                    return str(path)
    return None


def _let_run(folder: Path) -> None:
    """Make the programs of a wheel executable, which not every installer does."""
    for path in (*folder.iterdir(), *(folder / "x86").glob("*")):
        if path.is_file() and not path.suffix:
            path.chmod(path.stat().st_mode | 0o111)


def sanitizer_wheel(cuda: int) -> str:
    """The wheel with compute-sanitizer for a major version of CUDA."""
    return _SANITIZER_WHEELS[0 if cuda >= 13 else 1]


# --- nvidia-smi ----------------------------------------------------------------------------------


def smi_command(program: str) -> list[str]:
    """Ask for facts of every GPU."""
    return [program, f"--query-gpu={','.join(SMI_QUERY)}", "--format=csv,noheader"]


def parse_smi(text: str) -> list[dict[str, str]]:
    """The GPUs, one a line.

    Raises
    ------
    ToolError
        If the text is something else.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line]
    if not rows or any(len(row) != len(SMI_QUERY) for row in rows):
        raise ToolError(f"nvidia-smi says: {' '.join(text.split())[:200] or 'nothing'}")
    return [dict(zip(SMI_QUERY, row, strict=True)) for row in rows]


# --- compute-sanitizer ---------------------------------------------------------------------------

_MEMCHECK = re.compile(r"^=+ ERROR SUMMARY: (\d+) errors?", re.MULTILINE)
_RACECHECK = re.compile(
    r"^=+ RACECHECK SUMMARY: (\d+) hazards? displayed \((\d+) errors?, (\d+) warnings?\)",
    re.MULTILINE,
)
_OWN_ERROR = re.compile(r"^=+ ((?:Internal Sanitizer )?Error: .*)$", re.MULTILINE | re.IGNORECASE)


def sanitizer_command(program: str, tool: str, log: Path, target: Sequence[str]) -> list[str]:
    """Run a program under memcheck or racecheck."""
    # Calls of CUDA that fail are errors of the package, or none: CuPy tries what may be missing.
    of_memcheck = ["--report-api-errors", "no", "--padding", "64"] if tool == "memcheck" else []
    # The wheel for CUDA 12 has its libraries where the program does not look for them.
    libraries = Path(program).absolute().parents[1] / "lib"
    apart = (libraries / "libsanitizer-collection.so").exists()
    of_wheel = ["--injection-path", str(libraries)] if apart else []
    return [
        program, "--tool", tool, *of_memcheck, *of_wheel, "--launch-timeout", "120",
        "--error-exitcode", "86", "--log-file", str(log), *target,
    ]  # fmt: skip


def parse_sanitizer(tool: str, text: str) -> int:
    """How many errors, or hazards, a sanitizer found.

    Raises
    ------
    ToolError
        If it came to no end.
    """
    found = (_MEMCHECK if tool == "memcheck" else _RACECHECK).search(text)
    own = _OWN_ERROR.findall(text)
    if found is None or (own and int(found[1]) == 0):
        lines = [line for line in text.splitlines() if line.strip("= ")]
        raise ToolError(
            "; ".join(own) if own else f"no summary: {' '.join(lines[-2:]) or 'no output'}"
        )
    return int(found[1])


def sanitizer_messages(text: str) -> list[str]:
    """The heads of what was found, without backtraces."""
    lines = (line.strip("= ") for line in text.splitlines())
    kinds = ("Invalid ", "Race reported", "Potential ", "Error:", "Misaligned ")
    return list(dict.fromkeys(line for line in lines if line.startswith(kinds)))[:10]


# --- Nsight Compute ------------------------------------------------------------------------------

_GLOBAL = ("ld", "st", "atom", "red")

#: Metrics by what they add up to.
METRICS = {
    "instructions": ("smsp__inst_executed.sum",),
    "threads": ("smsp__thread_inst_executed.sum",),
    "sectors": tuple(f"l1tex__t_sectors_pipe_lsu_mem_global_op_{op}.sum" for op in _GLOBAL),
    "misses": ("lts__t_sectors_srcunit_tex.sum",),
    "bytes": ("dram__bytes_read.sum", "dram__bytes_write.sum"),
    "wavefronts": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",),
    "seconds": ("gpu__time_duration.sum",),
}
# What `--print-units base` leaves; names of units differ between versions.
_UNITS = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "s": 1.0, "second": 1.0}


def ncu_command(
    program: str, kernels: Sequence[str], log: Path, target: Sequence[str]
) -> list[str]:
    """Count what kernels do, with the clocks that they have in use."""
    metrics = ",".join(name for names in METRICS.values() for name in names)
    return [
        program, "--csv", "--print-units", "base", "--clock-control", "none",
        "--kernel-name", f"regex:^({'|'.join(kernels)})$", "--metrics", metrics,
        "--log-file", str(log), *target,
    ]  # fmt: skip


def parse_ncu(text: str) -> dict[str, dict[str, float]]:
    """Sums of the metrics over all launches of each kernel, by the names in `METRICS`.

    Raises
    ------
    ToolError
        If there are no counters; NoPermission if they are for administrators only.
    """
    if _NO_PERMISSION in text:
        raise NoPermission(
            f"{_NO_PERMISSION}: the performance counters are for administrators only: run as root "
            "(a container: --cap-add=SYS_ADMIN), or load the driver with "
            "NVreg_RestrictProfilingToAdminUsers=0"
        )
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if head is None:
        said = [line for line in lines if line.startswith(("==ERROR==", "==WARNING=="))]
        raise ToolError(" ".join(said[-2:] or lines[-2:]) or "ncu says nothing")
    found: dict[str, dict[str, float]] = {}
    for kernel, metric, value in _rows(lines[head:]):
        of = found.setdefault(kernel, {})
        for name, metrics in METRICS.items():
            if metric in metrics:
                of[name] = of.get(name, 0.0) + value
    return found


def _rows(lines: list[str]) -> Iterator[tuple[str, str, float]]:
    for row in csv.DictReader(lines):
        text = (row.get("Metric Value") or "").replace(",", "")
        with suppress(ValueError):
            value = float(text) * _UNITS.get(row["Metric Unit"], 1.0)
            # "name(arguments)": C++ functions are shown with their parameters.
            yield row["Kernel Name"].partition("(")[0].strip(), row["Metric Name"], value
