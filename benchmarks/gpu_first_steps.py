"""The steps of the first hour on a GPU. Each runs programs and says what they came to."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent, HERE.parent / "tests" / "support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import gpu_first_predicted as predicted  # noqa: E402
import gpu_first_tools as tools  # noqa: E402
import ptx_times  # noqa: E402
from gpu_first_predicted import Figure  # noqa: E402
from gpu_first_record import FAILED, HELD, LEFT_OUT, NOT_HELD, FirstRecord, Outcome  # noqa: E402
from gpu_record import TARGETS  # noqa: E402

from pdex_gpu.backends.cuda import driver as nvidia  # noqa: E402
from pdex_gpu.backends.cuda import probe as cuda_probe  # noqa: E402

ROOT = HERE.parent
_STAND_IN = ROOT / "tests" / "support" / "emulated" / "program.py"
#: A screen on which the emulated device takes seconds.
_TINY = ["--cells", "400", "--genes", "24", "--perturbations", "4", "--rounds", "1",
         "--slow-rounds", "1"]  # fmt: skip
_WRONG_RESULTS = 5  # of gpu.py


@dataclass
class Run:
    """What steps share.

    Attributes
    ----------
    record : FirstRecord
    counts : dict
        A record of ptx_counts.py.
    folder : Path
        For files of the steps.
    """

    record: FirstRecord
    counts: Mapping[str, Any]
    folder: Path
    _until: float = 0.0

    @property
    def emulated(self) -> bool:
        return self.record.emulated

    @property
    def python(self) -> list[str]:
        """Runs a program to which the device, real or emulated, is a GPU."""
        return [sys.executable, *([str(_STAND_IN)] if self.emulated else [])]

    def begin(self, limit: float) -> None:
        """Give the next step so many seconds."""
        self._until = time.monotonic() + limit

    @property
    def left(self) -> float:
        """Seconds that the step still has."""
        return max(0.0, self._until - time.monotonic())

    def execute(self, *command: str, share: float = 1.0, **environment: str) -> tools.Ended:
        """Run a command within a share of the time that the step has."""
        return tools.run(command, self.left * share, ROOT, environment)

    def file(self, name: str) -> Path:
        """A file that is not there yet."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path


def _judged(run: Run, figures: list[Figure], **details: Any) -> Outcome:
    if run.emulated:  # no figure of it says anything
        figures = [replace(figure, held=None, note="emulated") for figure in figures]
    return Outcome.of(figures, **details)


def _failed(what: str, ended: tools.Ended, **details: Any) -> Outcome:
    if ended.code is None:
        reason = f"{what} took longer than {ended.seconds:.0f} s"
    else:
        reason = f"{what} ended with status {ended.code}"
    return Outcome(FAILED, reason, details=details, output=ended.tail)


# --- the device ----------------------------------------------------------------------------------


def probe(run: Run) -> Outcome:
    """Whether a kernel runs on the device; installs CuPy into a virtual environment without it."""
    details: dict[str, Any] = {}
    if smi := tools.find("nvidia-smi"):
        ended = run.execute(*tools.smi_command(smi), share=0.1)
        try:
            details["nvidia-smi"] = tools.parse_smi(ended.out)
        except tools.ToolError as error:
            details["nvidia-smi"] = str(error)
    else:
        details["nvidia-smi"] = "not found"
    if not run.emulated and (why := _install_cupy(run)):
        return Outcome(FAILED, why, details=details)
    doctor = run.execute(*run.python, "-m", "pdex_gpu", "doctor", "--json", share=0.5)
    backends = run.execute(*run.python, "-m", "pdex_gpu", "backends", "--json")
    try:
        checks = json.loads(doctor.out)["checks"]
        (cuda,) = (b for b in json.loads(backends.out)["backends"] if b["name"] == "cuda")
    except (ValueError, KeyError) as error:
        return _failed(f"pdex-gpu ({error})", backends if doctor.code == 0 else doctor, **details)
    details["doctor"] = [check for check in checks if check["topic"] == "CUDA"]
    details["probe"] = cuda["reason"]
    if not cuda["usable"]:
        return Outcome(FAILED, f"no CUDA device can be used: {cuda['reason']}", details=details)
    run.record.device(cuda["devices"][0]["model"])
    return Outcome(HELD, details=details)


def _install_cupy(run: Run) -> str | None:
    """Install the CuPy for the driver if there is none; why it cannot be."""
    driver = nvidia.ask()
    if driver.problem or importlib.util.find_spec("cupy") is not None:
        return None  # the probe says what is wrong
    if why := _install(run, nvidia_package(driver)):
        return f"CuPy cannot be installed: {why}"
    return None


def nvidia_package(driver: nvidia.Driver) -> str:
    """The CuPy for a driver."""
    return cuda_probe.install_command(driver).split('"')[1]


def _install(run: Run, *packages: str) -> str | None:
    if sys.prefix == sys.base_prefix:
        return "this Python is not a virtual environment"
    ended = run.execute(sys.executable, "-m", "pip", "install", "-q", *packages, share=0.8)
    importlib.invalidate_caches()
    return None if ended.code == 0 else (ended.tail or ["pip took too long"])[-1]


# --- the suite -----------------------------------------------------------------------------------


def suite(run: Run) -> Outcome:
    """The tests marked gpu, as `make test-gpu` runs them."""
    report = run.file("suite.xml")
    chosen = ["-m", "gpu"]
    if run.emulated:  # a few tests of the same kernels
        chosen = ["tests/contract/test_kernel_sets.py", "-k", "emulated and asked_for",
                  "-m", "not thorough"]  # fmt: skip
    ended = run.execute(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen,
        f"--junitxml={report}",
    )  # fmt: skip
    if not report.exists():
        return _failed("pytest", ended)
    found = parse_junit(report)
    passed = found["tests"] - found["failures"] - found["errors"] - found["skipped"]
    details = {**found, "passed": passed}
    if found["failing"]:
        why = f"{found['failures'] + found['errors']} tests fail: {', '.join(found['failing'])}"
        return Outcome(NOT_HELD, why, details=details, output=ended.tail)
    if not passed:
        return Outcome(LEFT_OUT, "no test was run", details=details, output=ended.tail)
    if ended.code != 0:
        return _failed("pytest", ended, **details)
    return Outcome(HELD, details=details)


def parse_junit(path: Path) -> dict[str, Any]:
    """Numbers of tests, and the names of those that fail, in a report of pytest."""
    found: dict[str, Any] = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    failing = []
    for of_suite in ET.parse(path).getroot().iter("testsuite"):
        for name in ("tests", "failures", "errors", "skipped"):
            found[name] += int(of_suite.get(name, 0))
        failing += [
            f"{case.get('classname')}::{case.get('name')}"
            for case in of_suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
    return {**found, "failing": failing[:20]}


# --- compute-sanitizer ---------------------------------------------------------------------------


def memcheck(run: Run) -> Outcome:
    """Every kernel on small inputs, under memcheck."""
    return _sanitize(run, "memcheck")


def racecheck(run: Run) -> Outcome:
    """Every kernel on small inputs, under racecheck."""
    return _sanitize(run, "racecheck")


def _sanitize(run: Run, tool: str) -> Outcome:
    program = tools.find("compute-sanitizer")
    if program is None and not run.emulated:
        driver = nvidia.ask()
        wheel = tools.sanitizer_wheel((driver.version or (13, 0))[0])
        if why := _install(run, wheel):
            return Outcome(LEFT_OUT, f"there is no compute-sanitizer, nor can it be installed as "
                           f"{wheel}: {why}")  # fmt: skip
        program = tools.find("compute-sanitizer")
    if program is None:
        return Outcome(LEFT_OUT, "there is no compute-sanitizer: it comes with the CUDA toolkit")
    log = run.file(f"{tool}.log")
    target = [*run.python, str(HERE / "gpu_first_child.py"), "every-kernel"]
    ended = run.execute(*tools.sanitizer_command(program, tool, log, target))
    text = log.read_text(errors="replace") if log.exists() else ""
    if ended.code is None:
        return _failed(tool, ended)
    try:
        n_errors = tools.parse_sanitizer(tool, text)
    except tools.ToolError as error:
        return Outcome(FAILED, f"{tool}: {error}", output=ended.tail)
    messages = tools.sanitizer_messages(text)
    if n_errors:
        return Outcome(NOT_HELD, f"{tool} finds {n_errors}: {'; '.join(messages)}",
                       details={"found": n_errors, "messages": messages})  # fmt: skip
    child = _last_json(ended.out)
    if ended.code != 0 or not child.get("values"):
        return _failed(f"the program under {tool}", ended)
    return Outcome(HELD, details={"found": 0, **child})


def _last_json(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- times ---------------------------------------------------------------------------------------


def benchmark(run: Run) -> Outcome:
    """gpu.py: checked results, then times against the targets and the predictions."""
    own = [name for name in TARGETS if name != "end_to_end_vs_rapids"]
    path = run.file("gpu.json")
    ended = _gpu(run, run.python, path, "--cpu", *(["--h5ad"] if run.emulated else []))
    return _of_gpu(run, ended, path, own)


def _gpu(run: Run, python: list[str], path: Path, *more: str, **environment: str) -> tools.Ended:
    size = _TINY if run.emulated else []
    return run.execute(
        *python, str(HERE / "gpu.py"), "--record", str(path), "--budget", str(int(run.left * 0.8)),
        *size, *more, **environment,
    )  # fmt: skip


def _of_gpu(run: Run, ended: tools.Ended, path: Path, names: list[str]) -> Outcome:
    if ended.code == _WRONG_RESULTS:
        return Outcome(FAILED, "the device computes wrong results; nothing was timed",
                       output=ended.tail)  # fmt: skip
    if not path.exists():
        return _failed("gpu.py", ended)
    record = json.loads(path.read_text())
    figures = [_of_target(name, record) for name in names]
    if not run.emulated and "phases" in record["times"]:
        figures += _against_predictions(run, record)
    found = _judged(run, figures, record=record)
    if ended.code != 0:
        failed = _failed("gpu.py", ended, record=record)
        where = [error["where"] for error in record["errors"]]
        failed.reason += f", at {', '.join(where)}" if where else ""
        failed.figures = found.figures
        return failed
    return found


def _of_target(name: str, record: Mapping[str, Any]) -> Figure:
    target, entry = TARGETS[name], record["figures"].get(name, {})
    low, high = (target.limit, None) if target.at_least else (None, target.limit)
    value = entry.get("value")
    why = record["not_measured"].get(name, "") if value is None else ""
    if value is not None and entry["met"] is None:
        why = "not judged: no device, or a smaller screen"
    return Figure(target.of, value, low, high, target.unit, entry.get("met"), why)


def _against_predictions(run: Run, record: Mapping[str, Any]) -> list[Figure]:
    card = predicted.card_of(record["device"]["name"])
    if card is None:
        run.record.note(
            f"ptx_times.py predicts nothing for {record['device']['name']}: add its facts to CARDS"
        )
        return []
    counted = run.counts["tasks"][predicted.TASK]
    registers = ptx_times.registers_of(card.architecture)
    return list(predicted.phase_times(record, counted, card, registers))


def counters(run: Run) -> Outcome:
    """What ncu counts for the kernels of a Wilcoxon test, against what PTX was counted to do."""
    program = tools.find("ncu")
    if program is None:
        return Outcome(LEFT_OUT, "there is no ncu: it comes with Nsight Compute, in the CUDA "
                       "toolkit (apt-get install cuda-nsight-compute-13-0)")  # fmt: skip
    counted = run.counts["tasks"][predicted.TASK]
    log = run.file("ncu.csv")
    target = [*run.python, str(HERE / "gpu_first_child.py"), "counted"]
    target += ["--quick"] if run.emulated else []
    ended = run.execute(*tools.ncu_command(program, list(counted["kernels"]), log, target))
    text = log.read_text(errors="replace") if log.exists() else ended.out + ended.err
    try:
        measured = tools.parse_ncu(text)
    except tools.NoPermission as error:
        return Outcome(LEFT_OUT, str(error))
    except tools.ToolError as error:
        return _failed("ncu", ended) if ended.code is None else Outcome(
            FAILED, f"ncu: {error}", output=ended.tail
        )  # fmt: skip
    nonzeros = _last_json(ended.out).get("nonzeros")
    if ended.code != 0 or not nonzeros:
        return _failed("the program under ncu", ended, measured=measured)
    figures = list(predicted.counters(measured, counted, nonzeros))
    card = predicted.card_of(run.record.content["device"])
    if card is not None and not run.emulated:
        registers = ptx_times.registers_of(card.architecture)
        figures += predicted.kernel_times(measured, counted, nonzeros, card, registers)
    figures += [
        Figure(f"{kernel}: counters", None, None, None, "", None, "ncu saw no launch")
        for kernel in counted["kernels"]
        if kernel not in measured
    ]
    return _judged(run, figures, measured=measured, nonzeros=nonzeros)


# --- the peer ------------------------------------------------------------------------------------


def rapids(run: Run) -> Outcome:
    """rapids-singlecell next to ours, in an environment of its own."""
    if run.emulated:
        return Outcome(LEFT_OUT, "rapids-singlecell does not run on the emulated device")
    made = run.execute(sys.executable, str(HERE / "rapids_env.py"), share=0.5)
    found = _last_json(made.out)
    if made.code != 0 or not found:
        why = "installing it took too long" if made.code is None else (made.tail or ["?"])[-1]
        return Outcome(LEFT_OUT, why, output=made.tail)
    path = run.file("rapids.json")
    ended = _gpu(
        run, [found["python"]], path, "--only", "rapids", "--rapids", found["wheel"],
        "--slow-rounds", "2", LD_LIBRARY_PATH=found["libraries"],
    )  # fmt: skip
    return _of_gpu(run, ended, path, ["end_to_end_vs_rapids"])


# --- all of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Something to do, and the seconds that it may take."""

    do: Callable[[Run], Outcome]
    limit: float


#: In order. All limits together leave three minutes of half an hour for `make` to install.
STEPS = {
    "probe": Step(probe, 210),
    "suite": Step(suite, 330),
    "memcheck": Step(memcheck, 120),
    "racecheck": Step(racecheck, 120),
    "benchmark": Step(benchmark, 420),
    "counters": Step(counters, 120),
    "rapids": Step(rapids, 300),
}
