"""The record of a run: facts about the machine, figures against targets, a JSON, a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent


def summary(times: list[float]) -> dict[str, Any]:
    """Return minimum, median and maximum, with the raw times."""
    return {
        "times": times,
        "min": min(times),
        "median": statistics.median(times),
        "max": max(times),
    }


def paired_ratio(numerator: list[float], denominator: list[float]) -> dict[str, Any]:
    """Ratios round by round, and their median."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return {"ratios": ratios, "median": statistics.median(ratios)}


@dataclass(frozen=True)
class Target:
    """A figure that the project has promised to reach."""

    figure: str
    limit: float
    at_least: bool
    unit: str
    of: str

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"


def at_least(figure: str, limit: float, of: str) -> Target:
    return Target(figure, limit, True, " x", of)


def at_most(figure: str, limit: float, unit: str, of: str) -> Target:
    return Target(figure, limit, False, unit, of)


TARGETS = {
    target.figure: target
    for target in (
        at_least("wilcoxon_log1p_vs_illico", 6, "Wilcoxon, log1p: illico / pdex_gpu"),
        at_least("wilcoxon_counts_vs_illico", 4, "Wilcoxon, counts: illico / pdex_gpu"),
        at_least("wilcoxon_log1p_vs_scanpy", 100, "Wilcoxon, log1p: scanpy / pdex_gpu"),
        at_least("wilcoxon_log1p_vs_pdex", 300, "Wilcoxon, log1p: pdex / pdex_gpu"),
        at_least("t_test_log1p_vs_scanpy", 4, "t-test, log1p: scanpy / pdex_gpu"),
        at_least("anderson_log1p_vs_pdex", 200, "Anderson-Darling, log1p: pdex / pdex_gpu"),
        at_most("groups_counts", 1.5, " x", "100 times the groups, counts: time grows by"),
        at_most("groups_log1p", 1.5, " x", "100 times the groups, log1p: time grows by"),
        at_most("memory_counts", 1.2, " x", "peak beyond the input / input, counts"),
        at_most("memory_log1p", 1.2, " x", "peak beyond the input / input, log1p"),
        at_most("first_call_cli_warm", 2.5, " s", "command line, warm numba cache"),
        at_most("first_call_cli_cold", 15, " s", "command line, cold numba cache"),
        at_most("first_call_python", 1, " s", "first call from Python beyond `import anndata`"),
        at_most("table_16m", 10, " s", "16 million rows: FDR and to_parquet"),
        at_most("wilcoxon_p_vs_scipy", 1e-12, "", "Wilcoxon p, relative difference to scipy"),
        at_most("t_test_p_vs_scipy", 1e-9, "", "t-test p, relative difference to scipy"),
        at_most("anderson_p_vs_scipy", 1e-9, "", "Anderson-Darling p, relative difference"),
    )
}


def without_folders(text: str) -> str:
    """Shorten the folders of this machine, which a record does not name."""
    for folder, short in ((REPOSITORY, "."), (Path.home(), "~")):
        text = text.replace(str(folder), short)
    return text


class Remarks:
    """Notes and errors among the content of a record."""

    content: dict[str, Any]

    def note(self, text: str) -> None:
        if text not in self.content["notes"]:
            self.content["notes"].append(text)

    def error(self, where: str, text: str) -> None:
        self.content["errors"].append({"where": where, "error": without_folders(text)})


class Record(Remarks):
    """Collects one run; `full_size` says whether its screen is the one the targets are for."""

    targets: ClassVar[dict[str, Target]] = TARGETS

    def __init__(self, parameters: dict[str, Any], *, full_size: bool) -> None:
        self.full_size = full_size
        self.content: dict[str, Any] = {
            "started": _now(),
            "machine": machine(),
            "commit": commit(),
            "parameters": parameters,
            "versions": {},
            "notes": [],
            "tasks": {},
            "agreement": {},
            "figures": {},
            "errors": [],
        }

    def error(self, where: str, text: str) -> None:
        super().error(where, text)
        print(f"  ! {where}: {self.content['errors'][-1]['error']}", file=sys.stderr)

    def task(self, name: str, content: dict[str, Any]) -> None:
        self.content["tasks"][name] = content

    def agreement(self, name: str, content: dict[str, Any]) -> None:
        self.content["agreement"][name] = content

    def figure(
        self,
        name: str,
        value: float,
        *,
        sized: bool = True,
        extrapolated: bool = False,
        **more: Any,
    ) -> None:
        """A figure; with a target of that name it is judged.

        `sized` figures are judged only on the screen that the targets are stated for.
        """
        entry: dict[str, Any] = {"value": value, "extrapolated": extrapolated, **more}
        target = self.targets.get(name)
        if target is not None:
            entry["target"] = target.text
            judged = self.full_size or not sized
            entry["met"] = target.met(value) if judged else None
        self.content["figures"][name] = entry

    def finish(self, versions: dict[str, dict[str, str]]) -> None:
        self.content["versions"] = versions
        self.content["finished"] = _now()
        self.content["load_average_at_end"] = _load_average()

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content, indent=1) + "\n")

    @property
    def unmet(self) -> list[str]:
        return [k for k, v in self.content["figures"].items() if v.get("met") is False]

    def table(self) -> str:
        """The record as text: seconds, then figures with their targets, then agreement."""
        lines: list[str] = []
        timed = [
            (task, tool, entry)
            for task, content in self.content["tasks"].items()
            for tool, entry in content.get("seconds", {}).items()
        ]
        if timed:
            lines += ["", "seconds", _row(("task", "", "min", "median", "max", "rounds"), _TIMES)]
            for task, tool, entry in timed:
                cells = [f"{entry[key]:.3f}" for key in ("min", "median", "max")]
                lines.append(_row((task, tool, *cells, str(len(entry["times"]))), _TIMES))
        if self.content["figures"]:
            lines += ["", "figures", _row(("", "value", "target", "met"), _FIGURES)]
            for name, entry in self.content["figures"].items():
                target = self.targets.get(name)
                value = f"{entry['value']:.3g}" if entry["value"] < 100 else f"{entry['value']:.0f}"
                value += (target.unit if target else " x") + ("*" if entry["extrapolated"] else "")
                met = {True: "yes", False: "NO", None: "-"}[entry.get("met")]
                lines.append(
                    _row((target.of if target else name, value, entry.get("target", "-"), met),
                         _FIGURES)
                )  # fmt: skip
            if any(entry["extrapolated"] for entry in self.content["figures"].values()):
                lines.append("* extrapolated from a subset of genes; see the record")
            if not self.full_size:
                lines.append("- not judged: this run's screen is not the one the targets are for")
        if self.content["agreement"]:
            lines += [
                "",
                "agreement with",
                _row(("", "pairs", "largest relative difference"), _AGREE),
            ]
            for name, entry in self.content["agreement"].items():
                lines.append(
                    _row((name, str(entry["pairs"]), f"{entry['max_relative_difference']:.2g}"),
                         _AGREE)
                )  # fmt: skip
        for title in ("notes", "errors"):
            if self.content[title]:
                lines += ["", title]
                for item in self.content[title]:
                    text = item if isinstance(item, str) else f"{item['where']}: {item['error']}"
                    lines.append(f"  {text}")
        return "\n".join(lines).lstrip("\n")


_TIMES = (26, 24, 10, 10, 10, 8)
_FIGURES = (50, 12, 12, 5)
_AGREE = (60, 8, 30)


def _row(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    left = 2 if widths is _TIMES else 1
    text = "".join(
        cell.ljust(width) if i < left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  " + text.rstrip()


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _load_average() -> list[float] | None:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """Return what the times depend on; nothing that names the machine or its user."""
    facts: dict[str, Any] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": platform.processor() or None,
        "cores": os.cpu_count(),
        "usable_cores": os.cpu_count(),
        "memory_bytes": None,
        "python": platform.python_version(),
        "load_average_at_start": _load_average(),
    }
    if hasattr(os, "sched_getaffinity"):
        facts["usable_cores"] = len(os.sched_getaffinity(0))
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                facts["cpu"] = line.split(":", 1)[1].strip()
                break
        facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        pass
    return facts


def commit() -> dict[str, Any]:
    """The commit measured, and whether the files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--", "pdex_gpu", "kernels", "pyproject.toml")
    head = git("rev-parse", "--verify", "HEAD")
    return {"head": head, "modified": None if changes is None else bool(changes)}
