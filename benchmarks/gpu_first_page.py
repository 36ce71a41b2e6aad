"""The page of plain words next to the record of the first hour on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpu_first_record import FAILED, HELD, INCOMPLETE, LEFT_OUT, NOT_HELD

_WORDS = {
    "probe": "a kernel runs on the device",
    "suite": "tests marked `gpu`",
    "memcheck": "every kernel under memcheck",
    "racecheck": "every kernel under racecheck",
    "benchmark": "times against the targets and the predictions",
    "counters": "counters against what PTX was counted to do",
    "rapids": "rapids-singlecell next to ours",
}
_MARKS = {
    HELD: "held", NOT_HELD: "**did not hold**", FAILED: "**failed**", INCOMPLETE: "incomplete",
    LEFT_OUT: "left out", None: "not run",
}  # fmt: skip


def page(record: Mapping[str, Any], steps: list[str], name: str) -> str:
    """What held and what did not, as Markdown; `name` is that of the record."""
    return "\n".join(_lines(record, steps, name)) + "\n"


def _lines(record: Mapping[str, Any], steps: list[str], name: str) -> Iterator[str]:
    found: Mapping[str, Any] = record["steps"]
    yield f"# First run on {record['device'] or 'a GPU'}"
    yield ""
    if record["emulated"]:
        yield "**Emulated: no GPU took part. Its times and counters say nothing.**"
        yield ""
    head = record["commit"]["head"] or "unknown"
    changed = " with changes" if record["commit"]["modified"] else ""
    yield f"Commit {head[:12]}{changed}, {record['started'][:10]}. All figures are in `{name}`."
    cards = found.get("probe", {"details": {}})["details"].get("nvidia-smi")
    if isinstance(cards, list):
        yield ""
        yield from (f"- {', '.join(f'{key} {value}' for key, value in card.items())}"
                    for card in cards)  # fmt: skip
    yield ""
    yield "| step | what | outcome | seconds | why |"
    yield "| --- | --- | --- | --- | --- |"
    for step in steps:
        entry = found.get(step, {"outcome": None, "reason": "", "seconds": ""})
        why = _cell(entry["reason"])
        mark = _MARKS[entry["outcome"]]
        yield f"| {step} | {_WORDS[step]} | {mark} | {entry['seconds']} | {why} |"
    of_steps = [
        (step, figure) for step in steps for figure in found.get(step, {"figures": []})["figures"]
    ]
    for title, held in (("What did not hold", False), ("What held", True), ("Not judged", None)):
        rows = [(step, figure) for step, figure in of_steps if figure["held"] is held]
        yield from _table(title, rows)
    if record["notes"]:
        yield ""
        yield "## Notes"
        yield ""
        yield from (f"- {note}" for note in record["notes"])


def _table(title: str, rows: list[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield f"## {title}"
    yield ""
    yield "| step | figure | measured | expected |"
    yield "| --- | --- | --- | --- |"
    for step, figure in rows:
        unit = figure["unit"]
        value = "-" if figure["value"] is None else f"{figure['value']:.4g}{unit}"
        note = f" ({_cell(figure['note'])})" if figure["note"] else ""
        yield f"| {step} | {_cell(figure['name'])} | {value}{note} | {_expected(figure)} |"


def _expected(figure: Mapping[str, Any]) -> str:
    low, high, unit = figure["low"], figure["high"], figure["unit"]
    if low is None and high is None:
        return "-"
    if low is None:
        return f"at most {high:.4g}{unit}"
    if high is None:
        return f"at least {low:.4g}{unit}"
    return f"{low:.4g} to {high:.4g}{unit}"


def _cell(text: str) -> str:
    short = text if len(text) <= 400 else f"{text[:400]} ..."
    return " ".join(short.replace("|", "\\|").split())
