"""The record of a run on a GPU: times, figures against targets, a JSON, a table."""

from __future__ import annotations

import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from record import HERE, Remarks, Target, commit, machine, summary

RESULTS = HERE / "results"


def _targets() -> dict[str, Target]:
    found = [
        Target("kernels_vs_copy", 15, False, " x",
               "kernels alone / reading and writing the matrix once"),
        Target("end_to_end_vs_pinned", 2, False, " x",
               "Wilcoxon end to end / copying the matrix from pinned memory"),
        Target("end_to_end_vs_cpu", 3, True, " x", "CPU backend / Wilcoxon end to end"),
        Target("kernels_vs_cpu", 15, True, " x", "CPU backend / kernels alone"),
        Target("end_to_end_vs_rapids", 2, True, " x",
               "rapids-singlecell / Wilcoxon end to end"),
        Target("t_test_vs_wilcoxon", 1, False, " x", "t-test / Wilcoxon"),
        Target("anderson_vs_wilcoxon", 10, False, " x", "Anderson-Darling / Wilcoxon"),
        Target("small_memory_vs_all", 1.3, False, " x",
               "Wilcoxon within 8 GiB of device memory / with all of it"),
    ]  # fmt: skip
    return {target.figure: target for target in found}


TARGETS = _targets()


class RecordError(Exception):
    """A record that may not be written where it was to be."""


class GpuRecord(Remarks):
    """Collects one run.

    Parameters
    ----------
    parameters : dict
        What was asked for.
    device : dict
        What it ran on.
    emulated : bool
        Times of an emulated device say nothing: no figure is judged, and no record of them can be
        written among the results.
    full_size : bool
        Whether the screen is the one that the targets are stated for.
    commit_text : str, optional
        The commit, where there is no git to ask.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        device: dict[str, Any],
        *,
        emulated: bool,
        full_size: bool,
        commit_text: str | None = None,
    ) -> None:
        self.emulated = emulated
        self.judged = full_size and not emulated
        self.content: dict[str, Any] = {
            "started": _now(),
            "emulated": emulated,
            "commit": {"head": commit_text, "modified": None} if commit_text else commit(),
            "device": device,
            "machine": machine(),
            "versions": {},
            "parameters": parameters,
            "screen": {},
            "check": {},
            "times": {},
            "rates": {},
            "figures": {},
            "not_measured": {},
            "notes": [],
            "errors": [],
        }

    def times(self, stage: str, taken: dict[str, list[float]]) -> None:
        """Every repeat of a stage, in seconds; those of one place in the lists were neighbours."""
        of_stage = self.content["times"].setdefault(stage, {})
        of_stage.update({label: summary(times) for label, times in taken.items() if times})

    def rate(self, name: str, value: float) -> None:
        self.content["rates"][name] = value

    def figure(self, name: str, stage: str, above: str, below: str) -> None:
        """The ratio of two times of a stage, taken repeat by repeat; the median is judged."""
        times = self.content["times"][stage]
        pairs = zip(times[above]["times"], times[below]["times"], strict=True)
        ratios = [a / b for a, b in pairs]
        value = statistics.median(ratios)
        target = TARGETS[name]
        self.content["figures"][name] = {
            "value": value,
            "ratios": ratios,
            "stage": stage,
            "numerator": above,
            "denominator": below,
            "target": target.text,
            "met": target.met(value) if self.judged else None,
        }

    def not_measured(self, what: str, why: str) -> None:
        self.content["not_measured"][what] = why

    def finish(self) -> None:
        """Give every target without a figure its reason."""
        for name, target in TARGETS.items():
            if name not in self.content["figures"]:
                self.content["not_measured"].setdefault(name, "its stage was not run")
                self.content["figures"][name] = {
                    "value": None,
                    "target": target.text,
                    "met": None,
                    "not_measured": self.content["not_measured"][name],
                }
        self.content["finished"] = _now()

    @property
    def unmet(self) -> list[str]:
        return [k for k, v in self.content["figures"].items() if v.get("met") is False]

    def check_place(self, path: Path) -> None:
        """Raise RecordError if this run may not be recorded there."""
        if self.emulated and RESULTS.resolve() in path.resolve().parents:
            raise RecordError(
                f"times of an emulated device are no results: give --record a place outside "
                f"{RESULTS.name}/"
            )

    def write(self, path: Path) -> None:
        self.check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content, indent=1) + "\n")

    def table(self) -> str:
        """The record as text: the device, seconds, figures with their targets."""
        device, screen = self.content["device"], self.content["screen"]
        lines = [
            f"{device.get('name')}, compute capability {device.get('compute_capability')}, driver "
            f"{device.get('driver')}, CUDA {device.get('cuda_runtime')}, CuPy "
            f"{device.get('cupy')}, {self.content['machine']['usable_cores']} cores",
            f"{screen['cells']:,} cells x {screen['genes']:,} genes x "
            f"{screen['perturbations']:,} perturbations, {screen['nnz']:,} nonzeros "
            f"({screen['density']:.1%}), {screen['csr_bytes'] / 1e9:.3g} GB as CSR",
        ]
        if self.emulated:
            lines.append("EMULATED DEVICE: these times say nothing")
        lines += ["", _row("milliseconds", "min", "median", "max", "repeats")]
        for stage, times in self.content["times"].items():
            lines.append(f"{stage}")
            for label, entry in times.items():
                cells = [f"{1e3 * entry[key]:,.2f}" for key in ("min", "median", "max")]
                lines.append(_row(f"  {label}", *cells, str(len(entry["times"]))))
        if self.content["rates"]:
            lines += ["", "rates"]
        for name, value in self.content["rates"].items():
            lines.append(_row(f"  {name}", "", f"{value:,.1f}"))
        lines += ["", _row("targets", "value", "target", "met", "")]
        for name, entry in self.content["figures"].items():
            value = "not measured" if entry["value"] is None else f"{entry['value']:.3g} x"
            met = {True: "yes", False: "NO", None: "-"}[entry["met"]]
            lines.append(_row(TARGETS[name].of, value, entry["target"], met, "").rstrip())
        if not self.judged:
            lines.append("-: not judged, the targets are for a device and a screen of full size")
        for title in ("not_measured", "notes", "errors"):
            found = self.content[title]
            if found:
                lines += ["", title.replace("_", " ")]
            if isinstance(found, dict):
                lines += [f"  {what}: {why}" for what, why in found.items()]
            else:
                lines += [
                    f"  {item if isinstance(item, str) else item['where'] + ': ' + item['error']}"
                    for item in found
                ]
        return "\n".join(lines)


def _row(first: str, *cells: str) -> str:
    return (first.ljust(62) + "".join(cell.rjust(13) for cell in cells)).rstrip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
