"""Tables of what kernels do per nonzero, made of the newest record of ``benchmarks/ptx_counts.py``.

Nothing here knows Sphinx.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import tables

NONE_YET = "Nothing has been counted yet.\n"
_WILCOXON = ("check", "Wilcoxon")  # tasks
# Kernels that do next to nothing per nonzero are left out.
_FEWEST = 0.005  # warp instructions


def newest() -> tuple[str, dict[str, Any]] | None:
    """Name and content of the newest record."""
    found = sorted(tables.RECORDS.glob("ptx_counts-*.json"))
    return (found[-1].name, json.loads(found[-1].read_text("utf-8"))) if found else None


def kernels(record: dict[str, Any] | None = None) -> str:
    """Counts of every kernel, per nonzero."""
    found = ("", record) if record else newest()
    if found is None:
        return NONE_YET
    head = (
        "kernel", "warp instructions", "of float64", "active lanes", "sectors / least",
        "bytes read / written", "bank factor", "atomics / queue",
    )  # fmt: skip
    rows = [
        (
            _label(task, name),
            _number(kernel["warp_instructions"]),
            _number(kernel["float64_instructions"]),
            f"{kernel['active_lanes']:.2f}",
            _pair(kernel["sectors"], kernel["least_sectors"]),
            _pair(kernel["bytes_read"], kernel["bytes_written"]),
            _number(kernel["bank_factor"]),
            _pair(kernel["atomics"], kernel["atomic_queue"]) if kernel["atomics"] else "",
        )
        for task, name, kernel in _kernels(found[1])
    ]
    return tables.markdown(head, [*rows, _sum_of_wilcoxon(found[1])])


def _sum_of_wilcoxon(record: dict[str, Any]) -> tuple[str, ...]:
    kernels = [kernel for task in _WILCOXON for kernel in record["tasks"][task]["kernels"].values()]
    sums = {
        count: sum(kernel[count] for kernel in kernels)
        for count in (
            "warp_instructions", "float64_instructions", "sectors", "least_sectors", "bytes_read",
            "bytes_written",
        )
    }  # fmt: skip
    return (
        "all of Wilcoxon",
        _number(sums["warp_instructions"]),
        _number(sums["float64_instructions"]),
        "",
        _pair(sums["sectors"], sums["least_sectors"]),
        _pair(sums["bytes_read"], sums["bytes_written"]),
        "",
        "",
    )


def hottest(record: dict[str, Any] | None = None) -> str:
    """The lines with the most instructions, of the kernels with the most."""
    found = ("", record) if record else newest()
    if found is None:
        return NONE_YET
    most = sorted(_kernels(found[1]), key=lambda item: -item[2]["warp_instructions"])
    rows = [
        (
            _label(task, name),
            f"{line['share']:.0%}",
            tables.code(line["line"]),
            tables.code(line["text"]),
        )
        for task, name, kernel in most[:6]
        for line in kernel["hottest"][:2]
    ]
    return tables.markdown(("kernel", "of its instructions", "at", "line"), rows)


def about(record: dict[str, Any] | None = None) -> str:
    """What was counted, of which screen."""
    found = ("the record", record) if record else newest()
    if found is None:
        return NONE_YET
    name, content = found
    shape = content["parameters"]["shape"]
    versions = content["versions"]["pdex_gpu"]
    return (
        f"Counted (`benchmarks/results/{name}`, NVRTC {versions['nvrtc']}, "
        f"{versions['architecture']}): a slice of {shape['genes']} genes, "
        f"{shape['reference']:,} reference cells and {shape['groups']:,} groups of "
        f"{shape['cells_per_group']}, {content['tasks']['Wilcoxon']['nonzeros']:,} nonzeros, CSR, "
        "float32, keys of 32 bits. "
        f"`check_rows` is counted on rows of {shape['row_genes']:,} genes, "
        f"Anderson-Darling on {shape['anderson_genes']} genes.\n"
    )


def _kernels(record: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for task, content in record["tasks"].items():
        for name, kernel in content["kernels"].items():
            if kernel["warp_instructions"] >= _FEWEST:
                yield task, name, kernel


def _number(value: float | None) -> str:
    if value is None:
        return tables.NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _label(task: str, name: str) -> str:
    said = task in _WILCOXON or name.startswith(task.lower().replace("-", "_"))
    return tables.code(name.removesuffix("_32")) + ("" if said else f" ({task})")


def _pair(first: float, second: float) -> str:
    return f"{_number(first)}/{_number(second)}"


MADE = {"kernels": kernels, "hottest": hottest, "about": about}


def table(name: str) -> str:
    """One of the tables."""
    return MADE[name]()
