"""The record of the first hour on a GPU: one outcome per step, written after each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_first_predicted import Figure
from gpu_record import RESULTS, RecordError
from record import commit, machine, without_folders

HELD, NOT_HELD, INCOMPLETE = "held", "did not hold", "incomplete"
FAILED, LEFT_OUT = "failed", "left out"

#: Outcomes of steps that need not be run again.
DONE = (HELD, NOT_HELD)


@dataclass
class Outcome:
    """What a step came to.

    Attributes
    ----------
    outcome : str
        One of the five above.
    reason : str
        Why it did not hold, failed or was left out.
    figures : list of Figure
    details : dict
        Facts for the record.
    output : list of str
        Last lines of the program, where it failed.
    """

    outcome: str
    reason: str = ""
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, figures: list[Figure], **details: Any) -> Outcome:
        """As its figures are: all must be measured, and in range."""
        outside = [figure.name for figure in figures if figure.held is False]
        unknown = [figure.name for figure in figures if figure.held is None]
        if outside:
            return cls(NOT_HELD, f"out of range: {'; '.join(outside)}", figures, details)
        if unknown:
            return cls(
                INCOMPLETE,
                f"not judged: {len(unknown)} of {len(figures)} figures",
                figures,
                details,
            )
        return cls(HELD, "", figures, details)


class FirstRecord:
    """Collects the steps of a run, which may be stopped and continued.

    Parameters
    ----------
    path : Path
        The JSON. The page of plain words lies next to it.
    emulated : bool
        Whether the emulated device stands in. Such a record cannot be among the results.
    again : bool
        Start over, whatever the file says.

    Raises
    ------
    gpu_record.RecordError
        If the file is of another commit or device, or may not be written there.
    """

    def __init__(self, path: Path, *, emulated: bool, again: bool = False) -> None:
        self.path = path
        self.emulated = emulated
        if emulated and RESULTS.resolve() in path.resolve().parents:
            raise RecordError(
                f"an emulated device has no results: give --record a place outside {RESULTS.name}/"
            )
        fresh = {
            "started": _now(),
            "emulated": emulated,
            "commit": commit(),
            "device": None,
            "machine": machine(),
            "counts": None,
            "steps": {},
            "notes": [],
        }
        self.content: dict[str, Any] = fresh
        if path.exists() and not again:
            self.content = json.loads(path.read_text("utf-8"))
            for what in ("commit", "emulated"):
                self._same(what, self.content.get(what), fresh[what])
            self.note(f"continued {_now()}")

    def _same(self, what: str, old: Any, new: Any) -> None:
        if old != new:
            raise RecordError(
                f"{self.path} cannot be continued: its {what} is {old}, now it is {new}; start "
                "over with --again, or name another file with --record"
            )

    def note(self, text: str) -> None:
        if text not in self.content["notes"]:
            self.content["notes"].append(text)

    def device(self, name: str) -> None:
        """The device, which stays the same when a run is continued."""
        if self.content["device"] is not None:
            self._same("device", self.content["device"], name)
        self.content["device"] = name

    def is_done(self, step: str) -> bool:
        return self.outcome(step) in DONE

    def outcome(self, step: str) -> str | None:
        found = self.content["steps"].get(step)
        return found["outcome"] if found else None

    def step(self, name: str, found: Outcome, seconds: float, limit: float) -> None:
        """Enter a step, and write the record."""
        self.content["steps"][name] = {
            "outcome": found.outcome,
            "reason": without_folders(found.reason),
            "emulated": self.emulated,
            "seconds": round(seconds, 1),
            "limit": limit,
            "figures": [figure.as_json() for figure in found.figures],
            "details": found.details,
            "output": [without_folders(line) for line in found.output],
        }
        self.write()

    def write(self) -> None:
        self.content["written"] = _now()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".part")
        written.write_text(json.dumps(self.content, indent=1) + "\n", "utf-8")
        written.replace(self.path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
