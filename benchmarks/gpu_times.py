"""The stages that are timed, the most important first.

A stage takes a `Bench` and leaves times in its record.

What is compared takes turns, repeat after repeat, and ratios are taken between neighbours: a
machine that slows down halfway slows both sides.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpu_check
import gpu_files
import gpu_kernels
import numpy as np
import rapids
from gpu_meter import Meter
from gpu_record import GpuRecord
from gpu_screen import GROUPBY, REFERENCE, Screen

from pdex_gpu.api import differential_expression
from pdex_gpu.backends.cuda import probe
from pdex_gpu.backends.registry import load_kernels

E2E = "Wilcoxon end to end"
KERNELS = "kernels alone: layout, sort, rank sums"
COPY = "reading and writing the matrix once, at the copy bandwidth"
PINNED = "copying the matrix from pinned memory"
CPU = "Wilcoxon on the CPU backend"

_COPIED = 4 << 30  # bytes of the copy on the device: many times any cache
_PIECE = 64 << 20
_SMALLER = 10  # the share of the cells where the whole matrix would take long


class LeftOut(Exception):
    """A measurement that is not made, and why."""


@dataclass
class Clock:
    """The time that a run may take."""

    budget: float | None = None
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def is_over(self) -> bool:
        return self.budget is not None and self.elapsed > self.budget

    def check(self) -> None:
        """Raise LeftOut if the time is up."""
        if self.is_over:
            raise LeftOut(f"the budget of {self.budget:g} s was spent")


@dataclass
class Bench:
    """Everything that a stage needs.

    Attributes
    ----------
    run : callable
        The ``map`` of a pool of threads, one for each processor.
    truth : Truth or None
        What is right for some genes.
    p_values : dict
        P-values of checked calls by test, to hold other calls to.
    """

    options: argparse.Namespace
    screen: Screen
    meter: Meter
    record: GpuRecord
    clock: Clock
    run: Any
    truth: gpu_check.Truth | None = None
    p_values: dict[str, np.ndarray] = field(default_factory=dict)

    def call(
        self, metric: str = "wilcoxon", matrix: Any = None, backend: str = "cuda", **more: Any
    ) -> Any:
        """One call from arrays on the host (the log-normalised CSR) to arrays on the host.

        P-values are asymptotic, to be held to scipy's, unless another kind is asked for.
        """
        more.setdefault("p_values", "asymptotic")
        if backend == "cuda":
            more.setdefault("device", self.options.device)
        data = self.screen.dataset(self.screen.matrix() if matrix is None else matrix)
        return differential_expression(
            data, GROUPBY, reference=REFERENCE, metric=metric, backend=backend, progress=False,
            **more,
        )  # fmt: skip

    def timed(self, *args: Any, **more: Any) -> Callable[[], float]:
        """A function that makes that call and gives its seconds."""
        return lambda: seconds(lambda: self.call(*args, **more))

    def kernels(self) -> Any:
        return load_kernels("cuda", self.options.device)

    def take_turns(
        self, stage: str, entries: dict[str, Callable[[], float]], rounds: int
    ) -> dict[str, list[float]]:
        """Seconds of each entry, round by round, as each says itself."""
        times: dict[str, list[float]] = {label: [] for label in entries}
        for number in range(rounds):
            if number == 0:
                self.clock.check()
            elif self.clock.is_over:
                self.record.note(f"{stage}: {number} of {rounds} repeats, the budget was spent")
                break
            for label, entry in entries.items():
                times[label].append(entry())
                say(f"{stage}: {number + 1} of {rounds}, {label}: {times[label][-1]:.4f} s")
        self.record.times(stage, times)
        return times


def seconds(function: Callable[[], Any]) -> float:
    """Return the seconds of a call; its result is thrown away afterwards."""
    start = time.perf_counter()
    kept = function()
    taken = time.perf_counter() - start
    del kept
    return taken


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


# --- the check ---------------------------------------------------------------------------------


def check(bench: Bench) -> None:
    """Raise CheckFailed unless kernels and calls give what is right; warms up all that is timed."""
    findings, screen = gpu_check.Findings(), bench.screen
    say("check: the reference computes some genes")
    truth = bench.truth = gpu_check.make_truth(screen)
    kernels, design = bench.kernels(), screen.design
    say("check: every storage form")
    forms = gpu_check.check_forms(kernels, truth, bench.meter, bench.run, findings)
    findings.end()
    say("check: the whole matrix")
    block = gpu_kernels.pack(kernels, screen, design, bench.run)
    gpu_check.check_block(kernels, block, design, truth, "log1p", findings)
    findings.end()
    del block, kernels
    pairs = 0
    for metric in gpu_check.METRICS:
        say(f"check: {metric} end to end")
        result = bench.call(metric)
        pairs += gpu_check.check_result(result, truth, metric, findings)
        if metric == "wilcoxon":
            gpu_check.check_fdr(result, findings)
        bench.p_values[metric] = result["p_value"]
    findings.end()
    bench.record.content["check"] = {
        "passed": True,
        "genes": len(truth.genes),
        "targets": len(truth.design.targets),
        "storage_forms": forms,
        "numbers_compared": findings.n_compared,
        "pairs_against_scipy": pairs,
        "largest_relative_difference": findings.worst,
    }


# --- stages --------------------------------------------------------------------------------------


def kernels(bench: Bench) -> None:
    """The kernels alone against the copy bandwidth; also upload, phases and p-values."""
    screen, rounds = bench.screen, bench.options.rounds
    design, opened = screen.design, bench.kernels()

    def packed() -> float:
        return seconds(lambda: gpu_kernels.pack(opened, screen, design, bench.run))

    packed()
    bench.take_turns("upload", {"upload and check alone (pack)": packed}, rounds)
    resident = _resident(bench, opened)
    copied = min(_COPIED, bench.meter.free_bytes() // 4)
    rates: list[float] = []

    def copy() -> float:
        rates.append(2 * copied / statistics.median(bench.meter.copy_seconds(copied, 5)))
        return 2 * screen.csr_bytes / rates[-1]

    resident.all_queued()
    entries = {COPY: copy, KERNELS: resident.all_queued}
    bench.take_turns("kernels", entries, rounds)
    bench.record.figure("kernels_vs_copy", "kernels", KERNELS, COPY)
    bench.record.rate("device copy, read + written, GB/s", statistics.median(rates) / 1e9)
    bench.record.content["screen"]["slices"] = len(resident.slices)

    phases: dict[str, list[float]] = {name: [] for name in gpu_kernels.PHASES}
    sums = resident.sums()

    def one_by_one() -> float:
        taken = resident.phases()
        for name, value in taken.items():
            phases[name].append(value)
        return sum(taken.values())

    resident.phases()
    bench.take_turns(
        "phases",
        {
            "all phases, one by one": one_by_one,
            "kernels alone, on all lanes at once": resident.on_all_slots,
            "p-values from U and ties, on the host": lambda: gpu_kernels.p_values(
                sums, design, bench.run
            ),
        },
        rounds,
    )
    bench.record.times("phases", phases)
    bench.record.note(
        "p-values are the host's work, done while the device has other slices: they are no part of "
        "the kernels alone"
    )


def _resident(bench: Bench, opened: Any) -> gpu_kernels.Resident:
    design = bench.screen.design
    block = gpu_kernels.pack(opened, bench.screen, design, bench.run)
    return gpu_kernels.Resident.of(opened, block, design)


def end_to_end(bench: Bench) -> None:
    """A call from ordinary host arrays against a mere copy from pinned memory."""
    entries = {E2E: bench.timed()}
    if _has_numba():  # conditional p-values are computed by it, on the host
        entries[f"{E2E}, conditional"] = bench.timed(p_values="conditional")
    free = bench.meter.free_bytes()
    bench.call()
    bench.record.content["screen"]["device_bytes_kept_after_a_call"] = (
        free - bench.meter.free_bytes()
    )
    try:
        pinned: PinnedCopy | None = PinnedCopy(bench)
    except Exception as error:  # a machine may refuse to lock so much: the call is timed anyway
        bench.record.error(PINNED, f"{type(error).__name__}: {error}")
        pinned = None
    if pinned is not None:
        pinned.seconds()
        entries = {PINNED: pinned.seconds, **entries}
    times = bench.take_turns("end to end", entries, bench.options.rounds)
    if pinned is not None:
        bench.record.figure("end_to_end_vs_pinned", "end to end", E2E, PINNED)
        rate = bench.screen.csr_bytes / statistics.median(times[PINNED])
        bench.record.rate("copy from pinned memory, GB/s", rate / 1e9)


class PinnedCopy:
    """The arrays of the CSR matrix in pinned memory, and room for them on the device."""

    def __init__(self, bench: Bench) -> None:
        device = bench.kernels().device
        self._stream = device.stream()
        self._pairs = []
        for array in bench.screen.arrays:
            pinned, flat = device.pinned(array.nbytes), array.view(np.uint8)

            def fill(start: int, pinned: np.ndarray = pinned, flat: np.ndarray = flat) -> None:
                pinned[start : start + _PIECE] = flat[start : start + _PIECE]

            list(bench.run(fill, range(0, array.nbytes, _PIECE)))
            self._pairs.append((pinned, self._stream.empty(array.nbytes, np.uint8)))
        self._stream.synchronize()

    def seconds(self) -> float:
        start = time.perf_counter()
        for pinned, array in self._pairs:
            self._stream.upload(pinned, array)
        self._stream.synchronize()
        return time.perf_counter() - start


def small_memory(bench: Bench) -> None:
    """The same call within less device memory."""
    memory = bench.options.small_memory
    label = f"{E2E}, device_memory={memory}"
    found = bench.call(device_memory=memory)["p_value"]
    gpu_check.check_equal(label, found, bench.p_values["wilcoxon"])
    entries = {E2E: bench.timed(), label: bench.timed(device_memory=memory)}
    bench.take_turns("device memory", entries, bench.options.rounds)
    bench.record.figure("small_memory_vs_all", "device memory", label, E2E)


def t_test(bench: Bench) -> None:
    """The t-test against Wilcoxon."""
    _other_test(bench, "t-test", "t-test end to end", "t_test_vs_wilcoxon", bench.options.rounds)


def anderson(bench: Bench) -> None:
    """Anderson-Darling against Wilcoxon."""
    label, rounds = "Anderson-Darling end to end", bench.options.slow_rounds
    _other_test(bench, "anderson", label, "anderson_vs_wilcoxon", rounds)


def _other_test(bench: Bench, metric: str, label: str, figure: str, rounds: int) -> None:
    bench.take_turns(metric, {E2E: bench.timed(), label: bench.timed(metric)}, rounds)
    bench.record.figure(figure, metric, label, E2E)


def cpu(bench: Bench) -> None:
    """This package's CPU backend on all cores, against a call and against the kernels alone."""
    found = bench.call(backend="cpu")["p_value"]
    gpu_check.check_equal(CPU, found, bench.p_values["wilcoxon"], 1e-12)
    resident = _resident(bench, bench.kernels())
    resident.all_queued()
    entries = {
        E2E: bench.timed(),
        KERNELS: resident.all_queued,
        CPU: bench.timed(backend="cpu"),
    }
    bench.take_turns("cpu", entries, bench.options.slow_rounds)
    bench.record.figure("end_to_end_vs_cpu", "cpu", CPU, E2E)
    bench.record.figure("kernels_vs_cpu", "cpu", CPU, KERNELS)


def peer(bench: Bench) -> None:
    """rapids-singlecell, the same test of the same matrix on the host."""
    tool = rapids.Peer(bench.options.rapids, bench.screen)
    bench.record.content["versions"]["rapids_singlecell"] = tool.version
    tool.call()
    agreement = tool.agreement(bench.call())
    bench.record.content["check"]["rapids"] = agreement
    if not agreement["agrees"]:
        raise rapids.Disagreement(f"its p-values are others, so it is not compared: {agreement}")
    label = f"rapids-singlecell {tool.version}"
    entries = {E2E: bench.timed(), label: lambda: seconds(tool.call)}
    bench.take_turns("rapids", entries, bench.options.slow_rounds)
    bench.record.figure("end_to_end_vs_rapids", "rapids", label, E2E)


def devices(bench: Bench) -> None:
    """All devices that can be used against one of them, the matrix on the host."""
    n_devices = len(probe.probe_asked("all").devices)
    if n_devices < 2:
        raise LeftOut("it takes two CUDA devices that can be used, and there is one")
    label = f"{E2E}, {n_devices} devices"
    found = bench.call(device="all")["p_value"]
    gpu_check.check_equal(label, found, bench.p_values["wilcoxon"])
    entries = {E2E: bench.timed(), label: bench.timed(device="all")}
    bench.take_turns("devices", entries, bench.options.rounds)


def counts(bench: Bench) -> None:
    """Counts as float32: they travel as small integers."""
    assert bench.truth is not None
    matrix = bench.screen.matrix("counts")
    gpu_check.check_u(bench.call(matrix=matrix), bench.truth, "counts")
    label = f"{E2E}, counts"
    bench.take_turns(
        "counts", {E2E: bench.timed(), label: bench.timed(matrix=matrix)}, bench.options.rounds
    )


def on_device(bench: Bench) -> None:
    """A matrix that is on the device already."""
    matrix = bench.meter.on_device(bench.screen.matrix())
    found = bench.call(matrix=matrix)["p_value"]
    label = f"{E2E}, matrix on the device"
    gpu_check.check_equal(label, found, bench.p_values["wilcoxon"])
    bench.take_turns("on the device", {label: bench.timed(matrix=matrix)}, bench.options.rounds)


def fdr(bench: Bench) -> None:
    """Benjamini-Hochberg alone, from p-values on the host to the host."""
    opened, p = bench.kernels(), bench.p_values["wilcoxon"]

    def once() -> Any:
        return opened.benjamini_hochberg(p, bench.run)

    once()
    label = f"FDR alone, {p.size:,} p-values"
    bench.take_turns("FDR", {label: lambda: seconds(once)}, bench.options.rounds)


def forms(bench: Bench) -> None:
    """Time CSC and dense next to CSR, on a tenth of the cells."""
    n_cells = _fewer_cells(bench)
    smaller = bench.screen.matrix(n_cells=n_cells)
    csc, dense = smaller.tocsc(), smaller.toarray()
    expected = bench.call(matrix=smaller)["p_value"]
    for matrix in (csc, dense):
        found = bench.call(matrix=matrix)["p_value"]
        gpu_check.check_equal("CSC and dense against CSR", found, expected)
    entries = {
        f"{E2E}, {name}, {n_cells:,} cells": bench.timed(matrix=matrix)
        for name, matrix in (("CSR", smaller), ("CSC", csc), ("dense", dense))
    }
    bench.take_turns("storage forms", entries, bench.options.rounds)


def h5ad(bench: Bench) -> None:
    """A file, read as it is needed: a tenth of the cells."""
    n_cells = _fewer_cells(bench)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "screen.h5ad"
        matrix = bench.screen.matrix(n_cells=n_cells)
        gpu_files.write_h5ad(bench.screen, matrix, path)

        def once() -> Any:
            return differential_expression(
                path, GROUPBY, reference=REFERENCE, backend="cuda", device=bench.options.device,
                p_values="asymptotic", progress=False,
            )  # fmt: skip

        expected = bench.call(matrix=matrix)["p_value"]
        gpu_check.check_equal("h5ad file against CSR", once()["p_value"], expected)
        label = f"{E2E}, h5ad file, {n_cells:,} cells"
        bench.take_turns("h5ad", {label: lambda: seconds(once)}, bench.options.rounds)


def _fewer_cells(bench: Bench) -> int:
    """Cells enough to compare some group with the reference."""
    n_cells = max(1, bench.screen.sizes.cells // _SMALLER)
    codes = bench.screen.codes[:n_cells]
    if not ((codes == 0).any() and (codes != 0).any()):
        raise LeftOut(f"a tenth of the cells, {n_cells}, are too few")
    return n_cells


@dataclass(frozen=True)
class Stage:
    """Something to time.

    Attributes
    ----------
    run : callable
    figures : tuple of str
        Targets that it gives the figures of.
    why_not : callable
        Why it is left out, given the options; None if it is not.
    """

    run: Callable[[Bench], None]
    figures: tuple[str, ...] = ()
    why_not: Callable[[argparse.Namespace], str | None] = lambda options: None


def _no_cpu(options: argparse.Namespace) -> str | None:
    if not options.cpu:
        return "--cpu was not given"
    return None if _has_numba() else "numba cannot be imported here"


def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


STAGES = {
    "kernels": Stage(kernels, ("kernels_vs_copy",)),
    "end-to-end": Stage(end_to_end, ("end_to_end_vs_pinned",)),
    "small-memory": Stage(small_memory, ("small_memory_vs_all",)),
    "t-test": Stage(t_test, ("t_test_vs_wilcoxon",)),
    "anderson": Stage(anderson, ("anderson_vs_wilcoxon",)),
    "cpu": Stage(cpu, ("end_to_end_vs_cpu", "kernels_vs_cpu"), _no_cpu),
    "rapids": Stage(
        peer, ("end_to_end_vs_rapids",),
        lambda options: None if options.rapids else "--rapids was not given",
    ),
    "devices": Stage(
        devices, (), lambda options: None if options.devices else "--devices was not given"
    ),
    "counts": Stage(counts),
    "on-device": Stage(on_device),
    "fdr": Stage(fdr),
    "forms": Stage(forms),
    "h5ad": Stage(h5ad, (), lambda options: None if options.h5ad else "--h5ad was not given"),
}  # fmt: skip


def run_stages(bench: Bench, save: Callable[[], None]) -> None:
    """Every stage in order; what fails or finds no time left is recorded, the rest goes on."""
    for name, stage in STAGES.items():
        only = bench.options.only
        why = "--only left it out" if only and name not in only else stage.why_not(bench.options)
        if why is None:
            print(f"{name} ({bench.clock.elapsed:.0f} s so far):", file=sys.stderr, flush=True)
            try:
                bench.clock.check()
                stage.run(bench)
            except LeftOut as error:
                why = str(error)
            except gpu_check.CheckFailed:
                raise
            except Exception as error:
                why = "it failed; see the errors"
                bench.record.error(name, f"{type(error).__name__}: {error}")
                say(f"! {type(error).__name__}: {error}")
        if why is not None:
            for what in stage.figures or (name,):
                if what not in bench.record.content["figures"]:
                    bench.record.not_measured(what, why)
        save()
