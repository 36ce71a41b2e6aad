"""Instructions as the executor runs them; ``executor/types.h`` has the same layout and orders."""

from __future__ import annotations

import numpy as np

KINDS = (
    "plain", "load", "store", "atomic", "branch", "return", "barrier", "syncwarp", "shuffle",
    "ballot",
)  # fmt: skip
SPACES = ("global", "shared", "local")
SHUFFLES = ("up", "down", "bfly", "idx")
IS_SIGNED, IS_VOLATILE = 1, 2

_FIELDS = (
    "form", "kind", "guard", "negated", "to", "to2", "a", "b", "c", "d", "size", "wide", "space",
    "flags", "target", "line",
)  # fmt: skip
#: Of the fields, those that name a place or an instruction: -1 where there is none.
PLACES = ("guard", "to", "to2", "a", "b", "c", "d", "target")
INSTRUCTION = np.dtype([(name, "i4") for name in _FIELDS] + [("data", "i4", 4), ("offset", "i8")])


def kind_names(code: np.ndarray) -> np.ndarray:
    """The kind of each instruction; of those in memory with the space, as in "load.global"."""
    names = []
    for instruction in code:
        kind = KINDS[instruction["kind"]]
        memory = kind in ("load", "store", "atomic")
        names.append(f"{kind}.{SPACES[instruction['space']]}" if memory else kind)
    return np.array(names)
