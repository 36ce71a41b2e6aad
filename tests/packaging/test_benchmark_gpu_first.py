"""benchmarks/gpu_first.py: what tools print is understood, and every end of a step is recorded.

Programs stand in for those of NVIDIA, and print what NVIDIA's manuals show.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulated.build import needs_compiler
from nvrtc import needs_nvrtc
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
if os.name == "nt":
    pytest.skip("GPUs under Windows are not tried", allow_module_level=True)
sys.path[:0] = [str(BENCHMARKS), str(ROOT / "docs" / "_ext")]

import gpu_first  # noqa: E402
import gpu_first_child  # noqa: E402
import gpu_first_predicted as predicted  # noqa: E402
import gpu_first_record  # noqa: E402
import gpu_first_steps as steps  # noqa: E402
import gpu_first_tools as tools  # noqa: E402
import peer_env  # noqa: E402
import ptx_times  # noqa: E402
import rapids_env  # noqa: E402
import tables  # noqa: E402
from gpu_first_predicted import Figure  # noqa: E402
from gpu_first_record import (  # noqa: E402
    FAILED,
    HELD,
    INCOMPLETE,
    LEFT_OUT,
    NOT_HELD,
    RESULTS,
    Outcome,
)
from gpu_record import TARGETS  # noqa: E402

COUNTS = max(RESULTS.glob("ptx_counts-*.json"))

# --- what tools print ----------------------------------------------------------------------------

MEMCHECK = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at scatter_rows_32+0x70
=========     by thread (3,0,0) in block (0,0,0)
=========     Address 0x7f1a2c400200 is out of bounds
=========
========= ERROR SUMMARY: 1 error
"""
RACECHECK = """\
========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at sort_tiles_32+0x100
=========     and Read access at sort_tiles_32+0x180 [16 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
# Of compute-sanitizer 2026.4 around a program that uses no device.
NO_CUDA = """\
========= COMPUTE-SANITIZER
========= Error: process didn't terminate successfully
========= Error: Target application terminated before first instrumented API call
"""


@pytest.mark.parametrize(
    ("tool", "text", "found"),
    [
        ("memcheck", "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n", 0),
        ("memcheck", MEMCHECK, 1),
        ("racecheck", RACECHECK, 1),
        ("racecheck",
         "========= RACECHECK SUMMARY: 12 hazards displayed (0 errors, 12 warnings)\n", 12),
    ],
)  # fmt: skip
def test_summaries_of_sanitizers(tool: str, text: str, found: int) -> None:
    assert tools.parse_sanitizer(tool, text) == found
    assert len(tools.sanitizer_messages(text)) == (found == 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (NO_CUDA, "Target application terminated before first instrumented API call"),
        ("========= COMPUTE-SANITIZER\nKilled\n", "no summary: .*Killed"),
        ("", "no output"),
        (NO_CUDA + "========= ERROR SUMMARY: 0 errors\n", "Target application terminated"),
    ],
)
def test_a_sanitizer_without_an_end_has_found_nothing(text: str, why: str) -> None:
    with pytest.raises(tools.ToolError, match=why):
        tools.parse_sanitizer("memcheck", text)


NCU_HEAD = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",'
    '"Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"\n'
)


def ncu_row(launch: int, kernel: str, metric: str, unit: str, value: str) -> str:
    cells = (launch, 4711, "python3.12", "127.0.0.1", kernel, 1, 13, "(256, 1, 1)", "(2048, 1, 1)",
             0, "9.0", "Command line profiler metrics", metric, unit, value)  # fmt: skip
    return ",".join(f'"{cell}"' for cell in cells) + "\n"


def test_counters_are_summed_over_launches() -> None:
    text = (
        "==PROF== Connected to process 4711 (/usr/bin/python3.12)\n"
        '==PROF== Profiling "rank_sums_32" - 0: 0%....50%....100% - 9 passes\n'
        "==PROF== Disconnected from process 4711\n" + NCU_HEAD
        + ncu_row(0, "rank_sums_32", "smsp__inst_executed.sum", "inst", "1,234,567")
        + ncu_row(0, "rank_sums_32", "dram__bytes_read.sum", "byte", "4,096")
        + ncu_row(0, "rank_sums_32", "dram__bytes_write.sum", "byte", "1,024")
        + ncu_row(0, "rank_sums_32", "gpu__time_duration.sum", "ns", "2,500")
        + ncu_row(1, "rank_sums_32", "smsp__inst_executed.sum", "inst", "3")
        + ncu_row(2, "scatter_rows_32(const void *, int)", "gpu__time_duration.sum", "usecond", "7")
        + ncu_row(2, "scatter_rows_32(const void *, int)", "smsp__inst_executed.sum", "", "n/a")
    )  # fmt: skip
    found = tools.parse_ncu(text)
    assert found == {
        "rank_sums_32": {"instructions": 1_234_570.0, "bytes": 5120.0, "seconds": 2.5e-6},
        "scatter_rows_32": {"seconds": 7e-6},
    }


def test_ncu_without_counters() -> None:
    denied = (
        "==PROF== Connected to process 4711\n"
        "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU "
        "Performance Counters on the target device 0.\n"
    )
    with pytest.raises(tools.NoPermission, match="NVreg_RestrictProfilingToAdminUsers=0"):
        tools.parse_ncu(denied)
    with pytest.raises(tools.ToolError, match="No kernels were profiled"):
        tools.parse_ncu("==PROF== Disconnected\n==WARNING== No kernels were profiled.\n")
    with pytest.raises(tools.ToolError, match="says nothing"):
        tools.parse_ncu("")


def test_gpus_as_nvidia_smi_lists_them() -> None:
    line = "NVIDIA H200, 580.65.06, 9.0, 143771 MiB, 1980 MHz, 700.00 W, 5, 16, Disabled\n"
    (gpu,) = tools.parse_smi(line)
    assert (gpu["name"], gpu["compute_cap"], gpu["mig.mode.current"]) == (
        "NVIDIA H200", "9.0", "Disabled",
    )  # fmt: skip
    with pytest.raises(tools.ToolError, match="couldn't communicate"):
        tools.parse_smi("NVIDIA-SMI has failed because it couldn't communicate with the driver.\n")


def test_a_program_that_takes_too_long_ends_with_all_it_started(tmp_path: Path) -> None:
    for limit in (0.3, 3.0, 600.0):  # a busy machine takes longer to start it
        ended = tools.run(["sh", "-c", "echo begun; sleep 6000 & echo $!; wait"], limit, tmp_path)
        if ended.out.count("\n") == 2:
            break
    assert ended.code is None
    begun, child = ended.out.split()
    assert begun == "begun"
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or ") Z " in status.read_text()


# --- against what was counted and predicted ------------------------------------------------------

ROW = {
    "launches": 1, "warp_instructions": 10.0, "float64_instructions": 0.0, "active_lanes": 0.6,
    "sectors": 2.0, "misses": 1.0, "bytes_read": 6.0, "bytes_written": 2.0, "wavefronts": 0.0,
    "longest_warp": 1000,
}  # fmt: skip
COUNTED = {"nonzeros": 10**6, "kernels": {"rank_sums_32": ROW, "scatter_rows_32": ROW}}


def judged(figures: list[Figure]) -> dict[str, bool | None]:
    return {figure.name.partition(": ")[2].split()[0]: figure.held for figure in figures}


def test_counters_against_counts() -> None:
    nonzeros = 2 * 10**6
    as_counted = {
        "instructions": 16.0 * nonzeros, "threads": 16.0 * nonzeros * 32 * 0.6,
        "sectors": 2.0 * nonzeros, "misses": 1.0 * nonzeros, "bytes": 8.0 * nonzeros,
        "wavefronts": 0.0,
    }  # fmt: skip
    right = list(predicted.counters({"rank_sums_32": as_counted}, COUNTED, nonzeros))
    assert judged(right) == dict.fromkeys(
        ("instructions", "sectors", "misses", "bytes", "active"), True
    )
    assert right[0].value == pytest.approx(1.6)
    wrong = as_counted | {"sectors": 2.3 * nonzeros, "threads": 16.0 * nonzeros * 32 * 0.3}
    found = list(predicted.counters({"rank_sums_32": wrong, "other": {}}, COUNTED, nonzeros))
    assert {name for name, held in judged(found).items() if not held} == {"sectors", "active"}
    assert Outcome.of(found).outcome == NOT_HELD
    assert "rank_sums_32: sectors measured / counted" in Outcome.of(found).reason


def test_times_against_predictions() -> None:
    card = predicted.card_of("NVIDIA GeForce RTX 4090")
    assert card is not None
    assert predicted.card_of("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    registers = {"rank_sums_32": 40, "scatter_rows_32": 40}
    low, likely, high = (
        ptx_times.predict(ROW, 10**6, 40, card, assumed).seconds
        for assumed in ptx_times.ASSUMED.values()
    )
    for seconds, held in ((likely, True), (0.9 * low, False), (1.1 * high, False)):
        measured = {"rank_sums_32": {"seconds": seconds / 500}}
        (figure,) = predicted.kernel_times(measured, COUNTED, 2 * 10**6, card, registers)
        assert figure.held is held
        assert figure.value == pytest.approx(1e3 * seconds)
        record = {
            "times": {"phases": {"rank sums": {"times": [0.0, seconds / 2, 9.0]}, "sort": {}}},
            "screen": {"nnz": 5 * 10**8},
            "rates": {"copy from pinned memory, GB/s": 25.0},
        }
        phase, bus = predicted.phase_times(record, COUNTED, card, registers)
        assert (phase.held, phase.value) == (held, pytest.approx(1e3 * seconds))
        assert (bus.low, bus.high) == (pytest.approx(32 * 0.65), pytest.approx(32 * 0.92))
        assert bus.held is True


def test_every_counted_kernel_is_in_a_phase() -> None:
    """Phases are found by sources, so that new names of kernels are, too."""
    kernels = json.loads(COUNTS.read_text())["tasks"][predicted.TASK]["kernels"]
    texts = {
        phase: "\n".join(predicted.sources.text(name) for name in files)
        for phase, files in predicted.PHASES.items()
    }
    for kernel in kernels:
        assert sum(predicted._is_in(kernel, text) for text in texts.values()) == 1, kernel


# --- the order, the record, the exit status ------------------------------------------------------


def steps_of(**outcomes: Outcome | Callable[[Any], Outcome]) -> dict[str, steps.Step]:
    """The steps, each of which holds but for some."""

    def step(name: str) -> Callable[[Any], Outcome]:
        made = outcomes.get(name, Outcome(HELD))
        return made if callable(made) else lambda run: made

    def probe(run: steps.Run) -> Outcome:
        run.record.device("toy")
        return step("probe")(run)

    return {
        name: steps.Step(probe if name == "probe" else step(name), one.limit)
        for name, one in steps.STEPS.items()
    }


def first(
    patch: pytest.MonkeyPatch, path: Path, *argv: str, **outcomes: Any
) -> tuple[int, dict[str, Any]]:
    patch.setattr(gpu_first, "STEPS", steps_of(**outcomes))
    patch.setattr(gpu_first_record, "commit", lambda: {"head": "1234", "modified": False})
    code = gpu_first.main(["--record", str(path), *argv])
    return code, json.loads(path.read_text()) if path.exists() else {}


OUT = Figure.judged("a: time", 3.0, 1.0, 2.0, " ms")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ({}, 0),
        ({"suite": Outcome(FAILED, "pytest took longer than 330 s")}, 1),
        ({"benchmark": Outcome.of([OUT])}, 3),
        ({"benchmark": Outcome.of([OUT]), "rapids": Outcome(FAILED, "?")}, 1),
        ({"counters": Outcome(LEFT_OUT, "there is no ncu")}, 6),
        ({"benchmark": Outcome.of([Figure("b", None, None, 2.0, " x", None, "no time")])}, 6),
    ],
)
def test_the_exit_status(
    outcomes: dict[str, Outcome], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "first.json"
    found, record = first(monkeypatch, path, **outcomes)
    assert found == code
    assert list(record["steps"]) == list(steps.STEPS)
    page = path.with_suffix(".md").read_text()
    for name, outcome in outcomes.items():
        assert record["steps"][name]["outcome"] == outcome.outcome
        assert outcome.reason in page
    assert ("## What did not hold" in page) == ("benchmark" in outcomes and code != 6)
    if "benchmark" in outcomes and code != 6:
        assert "| benchmark | a: time | 3 ms | 1 to 2 ms |" in page


def test_without_a_device_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = first(
        monkeypatch, tmp_path / "a.json", probe=Outcome(FAILED, "the moon is in the way")
    )
    assert (code, record, list(tmp_path.iterdir())) == (gpu_first.NO_DEVICE, {}, [])
    assert "the moon is in the way" in capsys.readouterr().err


def test_a_run_is_stopped_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "first.json"
    done: list[str] = []

    def noted(name: str, outcome: Outcome) -> Callable[[Any], Outcome]:
        def step(run: Any) -> Outcome:
            done.append(name)
            return outcome

        return step

    def stopped(run: Any) -> Outcome:
        raise KeyboardInterrupt

    outcomes = {
        "suite": noted("suite", Outcome(HELD)),
        "memcheck": noted("memcheck", Outcome(LEFT_OUT, "no tool")),
        "racecheck": noted("racecheck", Outcome.of([OUT])),
        "benchmark": stopped,
    }
    code, record = first(monkeypatch, path, **outcomes)
    assert code == gpu_first.STOPPED
    assert list(record["steps"]) == ["probe", "suite", "memcheck", "racecheck"]
    assert "| benchmark | times against the targets and the predictions | not run |" in (
        path.with_suffix(".md").read_text()
    )
    outcomes |= {
        "memcheck": noted("memcheck", Outcome(HELD)),
        "benchmark": noted("benchmark", Outcome(HELD)),
    }
    code, record = first(monkeypatch, path, **outcomes)
    assert code == gpu_first.UNMET
    assert done == ["suite", "memcheck", "racecheck", "memcheck", "benchmark"]
    assert first(monkeypatch, path, "--only", "racecheck")[0] == gpu_first.ALL_HELD

    record["commit"] = {"head": "another", "modified": False}
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert first(monkeypatch, path)[0] == gpu_first.WRONG_OPTIONS
    assert "another" in capsys.readouterr().err
    assert first(monkeypatch, path, "--again")[0] == gpu_first.ALL_HELD


def test_a_step_that_raises_and_steps_without_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Any) -> Outcome:
        raise OSError(f"{ROOT}/x is gone")

    path = tmp_path / "first.json"
    code, record = first(monkeypatch, path, suite=broken)
    assert code == gpu_first.STEP_FAILED
    assert record["steps"]["suite"]["reason"] == "OSError: ./x is gone"
    code, record = first(monkeypatch, path, "--again", "--limit", "0")
    assert code == gpu_first.NO_DEVICE


def test_a_record_is_shown_by_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu_first-2030-01-01.json"
    first(monkeypatch, path, benchmark=Outcome.of([OUT]))
    monkeypatch.setattr(tables, "RECORDS", tmp_path)
    (found,) = tables.records()
    shown = tables.record(found)
    assert shown.startswith("## First run on toy\n")
    assert "\n### What did not hold\n" in shown


def test_the_libraries_of_a_wheel_are_named(tmp_path: Path) -> None:
    program = str(tmp_path / "bin" / "compute-sanitizer")
    assert "--injection-path" not in tools.sanitizer_command(program, "racecheck", tmp_path, [])
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libsanitizer-collection.so").touch()
    command = tools.sanitizer_command(program, "racecheck", tmp_path, [])
    assert command[command.index("--injection-path") + 1] == str(tmp_path / "lib")


def test_limits_are_those_of_the_guide() -> None:
    text = (BENCHMARKS / "README.md").read_text().partition("### The first hour")[2]
    rows = re.findall(r"^\| (`.+?`) \| ([\d.]+) min \|", text, re.M)
    minutes = {name: float(most) for names, most in rows for name in re.findall(r"`(\w+)`", names)}
    assert minutes == {name: step.limit / 60 for name, step in steps.STEPS.items()}
    assert list(minutes) == list(steps.STEPS)
    assert f"at most {sum(minutes.values()):.0f} minutes" in text
    assert sum(minutes.values()) < 30


def test_emulated_records_are_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_first.main(["--emulated", "--again"]) == gpu_first.WRONG_OPTIONS
    assert "an emulated device has no results" in capsys.readouterr().err


def test_targets_in_a_record_of_the_benchmark(tmp_path: Path) -> None:
    name = "kernels_vs_copy"
    record = {"figures": {name: {"value": 20.0, "met": False}}, "not_measured": {}}
    figure = steps._of_target(name, record)
    assert (figure.held, figure.high, figure.low) == (False, TARGETS[name].limit, None)
    missing = steps._of_target("kernels_vs_cpu", {"figures": {}, "not_measured": {}})
    assert (missing.value, missing.held) == (None, None)


def test_arrays_under_memcheck_lie_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool would let a kernel write past one array into the next."""
    taken: list[int] = []
    cuda = SimpleNamespace(
        Memory=lambda n_bytes: taken.append(n_bytes) or n_bytes,
        MemoryPointer=lambda memory, offset: (memory, offset),
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    pool = gpu_first_child.Unpooled()
    assert [pool.malloc(n) for n in (7, 0)] == [(7, 0), (0, 0)]
    assert taken == [7, 0]


def test_the_wheel_of_the_peer_is_pinned() -> None:
    assert rapids_env.wheel_pin().startswith("rapids-singlecell-cu12==")
    assert rapids_env.wheel_pin().partition("==")[2] in (BENCHMARKS / "rapids.py").read_text()


def test_where_the_peer_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path("python3.11")
    monkeypatch.setattr(peer_env, "find", lambda: (old, (3, 11)))
    assert rapids_env.main() == 1
    assert "needs Python 3.12 or later; the newest here is 3.11" in capsys.readouterr().err

    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found' >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(peer_env, "find", lambda: (python, (3, 12)))
    monkeypatch.setattr(peer_env, "ensure", lambda *args, **more: peer_env.PeerEnv(python, {}))
    assert rapids_env.main() == 1
    assert "No matching distribution found" in capsys.readouterr().err
    python.write_text('#!/bin/sh\nfor last; do :; done\nmkdir "$8"\n')
    assert rapids_env.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["wheel"]) == tmp_path / rapids_env.wheel_pin()


# --- from end to end -----------------------------------------------------------------------------

SMI = """\
print("Toy GPU, 580.65.06, 9.0, 143771 MiB, 1980 MHz, 700.00 W, 5, 16, Disabled")
"""
# Both run the program that they are given, as the tools do.
SANITIZER = f"""\
import os, subprocess, sys
log, tool = (sys.argv[sys.argv.index(name) + 1] for name in ("--log-file", "--tool"))
target = sys.argv[sys.argv.index("--log-file") + 2:]
code = subprocess.run(target).returncode
found = {{"memcheck": {MEMCHECK!r}, "racecheck": {RACECHECK!r}}}[tool]
if os.environ.get("TOY_SANITIZER") != "finds":
    found = {{
        "memcheck": "========= ERROR SUMMARY: 0 errors\\n",
        "racecheck": "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\\n",
    }}[tool]
open(log, "w").write(found)
sys.exit(code)
"""
NCU = f"""\
import os, subprocess, sys
log, kernels, metrics = (
    sys.argv[sys.argv.index(name) + 1] for name in ("--log-file", "--kernel-name", "--metrics")
)
target = sys.argv[sys.argv.index("--log-file") + 2:]
text = "==PROF== Connected to process 4711\\n"
if os.environ.get("TOY_NCU") == "denied":
    text += "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters\\n"
    code = 1
else:
    code = subprocess.run(target).returncode
    text += {NCU_HEAD!r}
    for launch, kernel in enumerate(kernels[len("regex:^("):-2].split("|")):
        for metric in metrics.split(","):
            cells = [launch, 4711, "python", "127.0.0.1", kernel, 1, 13, "(256, 1, 1)",
                     "(1, 1, 1)", 0, "9.0", "Command line profiler metrics", metric, "", "1,000"]
            text += ",".join(f'"{{cell}}"' for cell in cells) + "\\n"
open(log, "w").write(text)
sys.exit(code)
"""


@pytest.fixture
def toy_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in place of NVIDIA's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("nvidia-smi", SMI), ("compute-sanitizer", SANITIZER), ("ncu", NCU)):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@needs_compiler
@needs_nvrtc
@pytest.mark.thorough
@pytest.mark.usefixtures("toy_tools")
def test_everything_on_the_emulated_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "first.json"
    argv = ["--emulated", "--record", str(path)]
    code = gpu_first.main(argv)
    record = json.loads(path.read_text())
    found = record["steps"]
    assert {name: step["outcome"] for name, step in found.items()} == {
        "probe": HELD, "suite": HELD, "memcheck": HELD, "racecheck": HELD,
        "benchmark": INCOMPLETE, "counters": INCOMPLETE, "rapids": LEFT_OUT,
    }, found  # fmt: skip
    assert code == gpu_first.NOT_COMPLETE
    assert record["emulated"] is True
    assert all(step["emulated"] is True for step in found.values())
    assert record["device"] == "emulated device"
    assert found["probe"]["details"]["nvidia-smi"][0]["name"] == "Toy GPU"
    assert found["suite"]["details"]["passed"] >= 1
    assert found["memcheck"]["details"]["values"] == found["racecheck"]["details"]["values"] > 10**4
    assert found["benchmark"]["details"]["record"]["emulated"] is True
    assert len(found["benchmark"]["figures"]) == len(TARGETS) - 1
    for step in ("benchmark", "counters"):
        for figure in found[step]["figures"]:
            assert (figure["held"], figure["note"]) == (None, "emulated")
            assert figure["value"] is not None
    measured = found["counters"]["details"]["measured"]
    assert measured["rank_sums_32"]["sectors"] == 4000.0
    assert found["counters"]["details"]["nonzeros"] > 1000
    page = path.with_suffix(".md").read_text()
    assert "**Emulated: no GPU took part." in page
    assert "rank_sums_32: sectors measured / counted" in page

    monkeypatch.setenv("TOY_NCU", "denied")
    monkeypatch.setenv("TOY_SANITIZER", "finds")
    gpu_first.main([*argv, "--only", "memcheck", "racecheck", "counters"])
    found = json.loads(path.read_text())["steps"]
    assert found["counters"]["outcome"] == LEFT_OUT
    assert "ERR_NVGPUCTRPERM" in found["counters"]["reason"]
    assert found["memcheck"]["outcome"] == found["racecheck"]["outcome"] == NOT_HELD
    assert "Invalid __global__ write of size 4 bytes" in found["memcheck"]["reason"]
    assert "Race reported between Write access" in found["racecheck"]["reason"]
