"""Tables of the page about clusters, made of the newest record of ``benchmarks/cluster.py``.

Nothing here knows Sphinx.
"""

from __future__ import annotations

import json
from typing import Any

import tables

NONE_YET = "No run has been recorded yet.\n"
_WAYS = {
    "folder": "files in a shared folder",
    "tasks": "results of tasks, kept by workers until they are fetched",
    "shuffle": "Dask's peer-to-peer shuffle of a data frame of entries",
}


def newest() -> tuple[str, dict[str, Any]] | None:
    """Name and content of the newest record."""
    found = sorted(tables.RECORDS.glob("cluster-*.json"))
    return (found[-1].name, json.loads(found[-1].read_text())) if found else None


def overhead() -> str:
    """Whole calls of both engines."""
    found = newest()
    if found is None or "overhead" not in found[1]["tasks"]:
        return NONE_YET
    name, record = found
    task = record["tasks"]["overhead"]
    threads, dask = (task["seconds"][engine]["times"] for engine in ("threads", "dask"))
    peaks = {who: max(task["peak_bytes"][who]) / 1e9 for who in task["peak_bytes"]}
    big, n = record["parameters"]["big"], len(threads)
    ratio = record["figures"]["dask_vs_threads"]["value"]
    growth = record["tasks"].get("growth", {})
    lines = [
        f"A gzip CSR file of {big['cells']:,} cells x {big['genes']:,} genes, "
        f"{big['perturbations']:,} perturbations and {task['nonzeros']:,} nonzeros, "
        f'`memory="{record["parameters"]["memory"]}"`, Parquet written, {n} rounds by turns on '
        f"two cores (`benchmarks/results/{name}`):",
        "",
        "| engine | seconds, each round | peak memory |",
        "| --- | --- | --- |",
        f"| threads, two | {_times(threads)} | {peaks['threads']:.2f} GB |",
        f"| dask, two workers of one thread | {_times(dask)} | {peaks['worker']:.2f} GB a worker, "
        f"{peaks['client']:.2f} GB the client, {peaks['scheduler']:.2f} GB the scheduler |",
        "",
        f"Median of the rounds' ratios: {ratio:.2f}. The workers had run a small screen before; "
        "memory includes Python and its packages.",
    ]
    if growth:
        few, many = growth["few"], growth["many"]
        client, scheduler = (
            [one[f"{who}_peak_bytes"] / 1e9 for one in (few, many)]
            for who in ("client", "scheduler")
        )
        lines += [
            "",
            f"From {few['nonzeros']:,} to {many['nonzeros']:,} nonzeros in the same cells and "
            f"genes, the client's peak went from {client[0]:.3f} to {client[1]:.3f} GB and the "
            f"scheduler's from {scheduler[0]:.3f} to {scheduler[1]:.3f} GB.",
        ]
    return "\n".join(lines) + "\n"


def shuffle() -> str:
    """The ways for rows to become ranges."""
    found = newest()
    if found is None or "shuffle" not in found[1]["tasks"]:
        return NONE_YET
    name, record = found
    task = record["tasks"]["shuffle"]
    lines = ["| way | seconds, each round | peak of a worker |", "| --- | --- | --- |"]
    for way, words in _WAYS.items():
        times = _times(task["seconds"][way]["times"])
        lines.append(f"| {words} | {times} | {max(task['worker_peak_bytes'][way]) / 1e9:.2f} GB |")
    lines += [
        "",
        f"{task['nonzeros']:,} nonzeros, from the gzip file to ranges put together, nothing "
        f"tested (`benchmarks/results/{name}`).",
    ]
    return "\n".join(lines) + "\n"


def _times(seconds: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds)


def table(name: str) -> str:
    """One of the tables."""
    return {"overhead": overhead, "shuffle": shuffle}[name]()
