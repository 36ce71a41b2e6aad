"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Check:
    """One thing that was examined.

    Attributes
    ----------
    topic : str
        What it belongs to: ``"Packages"``, ``"CUDA"`` and so on.
    name : str
    status : {"ok", "note", "problem"}
        A note is worth knowing and stops nothing; a problem is something that does not work.
    found : str
    fix : str or None
        The command that mends it, to be copied; None if there is nothing to mend.
    required : bool
        Whether a run needs it on every machine; what belongs to CUDA alone is not required.
    """

    topic: str
    name: str
    status: str
    found: str
    fix: str | None = None
    required: bool = False
