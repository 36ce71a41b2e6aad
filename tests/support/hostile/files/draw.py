"""A case: a file, what is done to it, and who reads it; drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import checkpoints, hdf5, parquet, zarr_store
from .damage import BYTES
from .made import CHECKPOINTS, H5AD, LABELS, METRICS, RESULTS, VALUES, ZARR

FAMILIES = {"h5ad": 0.36, "zarr": 0.15, "parquet": 0.23, "json": 0.07, "csv": 0.04,
            "checkpoint": 0.15}  # fmt: skip
_OF_SCREENS = ["native"] * 8 + ["command"] * 3 + ["calibrate", "pseudobulk", "estimate", "plan"]
_OF_RESULTS = [
    *["load"] * 6, *["rows"] * 2, *["blocks"] * 2, "to_pandas", "report", "top", "command top",
    "command report", "command plot", "command doctor",
]  # fmt: skip
_H5AD = [
    *["flip metadata"] * 14, *["flip values"] * 3, *["overwrite metadata"] * 6, *BYTES,
    "put instead", "link to it", *hdf5.NODES, *hdf5.NODES,
    *["attribute", "values", "type", "link", "unwritten"] * 2,
]  # fmt: skip
_PARQUET = [*["flip footer"] * 6, "overwrite footer", *BYTES, *BYTES, "put instead", "link to it",
            *[name for name in parquet.FILE for _ in range(2)]]  # fmt: skip

#: What changes nothing, so that the table has to be right.
HARMLESS = {"link to it", *hdf5.HARMLESS, *parquet.HARMLESS}


@dataclass(frozen=True)
class Case:
    """A file, what is done to it, and who reads it.

    Attributes
    ----------
    seed : int
    family : str
        Of `FAMILIES`.
    form : str
        How the file is stored.
    values, labels, metric : str
        Of a screen.
    entry : str
        Who reads it.
    changes : tuple of str
        What is done to the file, in turn.
    """

    seed: int
    family: str
    form: str
    values: str
    labels: str
    metric: str
    entry: str
    changes: tuple[str, ...]

    def __str__(self) -> str:
        screen = f", {self.values}, {self.labels} labels, {self.metric}"
        return (
            f"case {self.seed}: {self.form if self.family != 'json' else 'calibration'} "
            f"({self.family}{screen if self.family in ('h5ad', 'zarr') else ''}), {self.entry}, "
            f"changes: {', '.join(self.changes)}"
        )

    def rng(self, k: int) -> np.random.Generator:
        """Of the k-th change."""
        return np.random.default_rng([86, self.seed, k])

    @property
    def harmless(self) -> bool:
        """Whether nothing that matters is changed."""
        return set(self.changes) <= HARMLESS


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng([85, seed])

    def one(choices: list[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    family = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    values, labels, metric = one(VALUES), one(LABELS), one(METRICS)
    n_changes = int(rng.choice([1, 1, 1, 2]))
    forms = {"h5ad": H5AD, "zarr": ZARR, "parquet": RESULTS, "checkpoint": CHECKPOINTS}
    form = one(forms.get(family, [family]))
    entries = {"h5ad": _OF_SCREENS, "zarr": _OF_SCREENS, "parquet": _OF_RESULTS,
               "json": ["from_json", "from_json", "command report"],
               "checkpoint": ["native", "native", "command"]}  # fmt: skip
    entry = one(entries.get(family, ["command"]))
    kinds = {
        "h5ad": _H5AD, "parquet": _PARQUET, "csv": ["edit", "edit", "edit", "flip", "cut"],
        "json": ["edit"] * 6 + [*BYTES, "put instead"],
        "zarr": [*zarr_store.STORE] * 2 + ["put instead", "link to it"],
        "checkpoint": list(checkpoints.CHECKPOINT),
    }[family]  # fmt: skip
    if family == "zarr" and "zip" in form:
        kinds = [*kinds, *BYTES, *BYTES]
    return Case(seed, family, form, values, labels, metric, entry,
                tuple(one(kinds) for _ in range(n_changes)))  # fmt: skip
