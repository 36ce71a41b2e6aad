"""What R answered about a screen: see ``r_truths.R`` in the folder data."""

from __future__ import annotations

import csv
from typing import Any

import pandas as pd
from brute_force import screen
from repository import DATA


def r_truths() -> dict[tuple[str, str], float]:
    with (DATA / "r_truths.csv").open() as file:
        return {(row["gene"], row["what"]): float(row["value"]) for row in csv.DictReader(file)}


def r_screen() -> tuple[Any, list[str]]:
    """The screen that R was given, group t against r, batches b1, b2 and b3."""
    table = pd.read_csv(DATA / "r_screen.csv")
    genes = ["counts", "normal"]
    obs = table[["group", "batch"]].set_index(table.index.astype(str))
    return screen(table[genes].to_numpy(float), obs), genes
