"""The features of a matrix of Cell Ranger: genes, guides and others, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...design.labels import Labels
from ...errors import ColumnError, DataError, LayerError, listing, unknown
from ..choice import MatrixChoice
from ..dataset import GuideCounts

GENES = "Gene Expression"
GUIDES = "CRISPR Guide Capture"


@dataclass(frozen=True)
class Features:
    """The features of a matrix, in its order.

    Attributes
    ----------
    ids, names, types : numpy.ndarray, shape (n_features,), object
        As str: ``"ENSG00000243485"``, ``"MIR1302-2HG"``, ``"Gene Expression"``.
    place : str
        The file or folder of the matrix, for messages.
    """

    ids: np.ndarray
    names: np.ndarray
    types: np.ndarray
    place: str

    @classmethod
    def of(
        cls, ids: np.ndarray, names: np.ndarray | None, types: np.ndarray | None, place: str
    ) -> Features:
        """Make the features of what a file has: without types, all are genes."""
        return cls(
            ids,
            ids if names is None else names,
            np.full(len(ids), GENES, object) if types is None else types,
            place,
        )

    def chosen(self, choice: MatrixChoice) -> np.ndarray:
        """Return the columns of the chosen type, ascending; by default those of genes.

        Raises
        ------
        DataError
            There are no genes.
        LayerError
            There is no such type, or a layer or raw is asked for.
        """
        if choice.layer is not None or choice.raw:
            raise LayerError(
                f"{self.place} has one matrix, so there is no {choice.what}. Leave out layer= and "
                "raw=."
            )
        wanted = GENES if choice.modality is None else choice.modality
        found = self.of_type(wanted)
        if len(found):
            return found
        sizes = Counter(self.types.tolist())
        if choice.modality is not None:
            raise LayerError(unknown(f"feature type of {self.place}:", wanted, list(sizes)))
        types = ", ".join(f"{listing([name])} ({n:,})" for name, n in sizes.items()) or "none"
        raise DataError(
            f"{self.place} has no features of the type {GENES!r}. Its feature types: {types}. Pass "
            "the matrix that has the genes, or name a type with modality= (--modality)."
        )

    def of_type(self, wanted: str) -> np.ndarray:
        """Return the columns of the features of a type, ascending, int64."""
        return np.flatnonzero(self.types == wanted)

    def guide_counts(self, cells: np.ndarray, columns: np.ndarray, umis: np.ndarray) -> GuideCounts:
        """Return the UMIs of guides from the entries of their columns in the whole matrix."""
        guides = self.of_type(GUIDES)
        return GuideCounts(
            self.ids[guides], self.names[guides], cells, np.searchsorted(guides, columns), umis,
            self.place,
        )  # fmt: skip


def unique_names(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return names in which none occurs twice, made as ``var_names_make_unique`` makes them.

    The first of equal names stays; the others get ``-1``, ``-2`` and so on.
    """
    taken = set(names)
    seen: set[str] = set()
    counter: Counter[str] = Counter()
    found = np.empty(len(names), object)
    for i, name in enumerate(names):
        made = name
        if name in seen:
            while made in taken:
                counter[name] += 1
                made = f"{name}-{counter[name]}"
            taken.add(made)
        seen.add(name)
        found[i] = made
    return found


def labels_in(place: str, name: str) -> Labels:
    """Raise ColumnError: Cell Ranger's files have no columns of cells; see `Dataset.column`."""
    raise ColumnError(
        f"{place} has the barcodes of its cells, but no columns such as {name!r}. Group cells by "
        "their guides with guide_calls= or min_umis= (--guide-calls, --min-umis) in place of "
        "groupby=, or pass an h5ad file with the column in obs."
    )
