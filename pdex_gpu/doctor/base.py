"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    topic : str
        Its section: ``"Packages"``, ``"CUDA"`` and so on.
    name : str
    status : {"ok", "note", "problem"}
        A note is worth knowing but stops nothing; a problem is something that does not work.
    found : str
    fix : str or None
        The command that fixes it, to be copied; None if there is nothing to fix.
    required : bool
        Whether a run needs it on every machine; anything that only CUDA needs is not required.
    """

    topic: str
    name: str
    status: str
    found: str
    fix: str | None = None
    required: bool = False
