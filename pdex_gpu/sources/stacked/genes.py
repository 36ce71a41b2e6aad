"""The genes of several files, joined by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...design.labels import object_array
from ...errors import DataError, listing, shown

_SHOWN = 5  # genes of a file that a message shows


@dataclass(frozen=True)
class JoinedGenes:
    """The genes of several files.

    Attributes
    ----------
    names : numpy.ndarray, shape (n_all_genes,), object
        First the genes of the joined matrix, then those that it leaves out.
    n_genes : int
        Genes of the joined matrix.
    places : list of numpy.ndarray, shape (n_genes of the file,), int64
        For each file, the position of each of its genes among `names`.
    """

    names: np.ndarray
    n_genes: int
    places: list[np.ndarray]


def join_genes(files: Sequence[str], genes: Sequence[np.ndarray], join: str) -> JoinedGenes:
    """Join the genes of files by name, in the order in which they appear.

    Parameters
    ----------
    files : sequence of str
        For messages.
    genes : sequence of numpy.ndarray, object
        The names in each file.
    join : {"inner", "outer"}
        Whether genes that some file lacks are left out.

    Raises
    ------
    DataError
        A file has several genes of a name, or no gene is in all files.
    """
    first = genes[0]
    same = [len(names) == len(first) and bool((names == first).all()) for names in genes]
    for file, names, is_same in zip(files, genes, [False, *same[1:]], strict=True):
        if not is_same:
            _check_distinct(file, names)
    every = np.arange(len(first), dtype=np.int64)
    if all(same):
        return JoinedGenes(first, len(first), [every] * len(genes))
    times: dict[str, int] = {}
    for names in genes:
        for name in names.tolist():
            times[name] = times.get(name, 0) + 1
    kept = [name for name, n in times.items() if join == "outer" or n == len(genes)]
    if not kept and times:
        raise DataError(_no_common(files, genes))
    chosen = set(kept)
    order = kept + [name for name in times if name not in chosen]
    position = {name: i for i, name in enumerate(order)}
    places = [
        np.fromiter((position[name] for name in names.tolist()), np.int64, len(names))
        for names in genes
    ]
    return JoinedGenes(object_array(order), len(kept), places)


def _check_distinct(file: str, names: np.ndarray) -> None:
    seen: set[str] = set()
    for name in names.tolist():
        if name in seen:
            n = len(names) - len(set(names.tolist()))
            raise DataError(
                f"{file} has several genes named {shown(name)} (repeated names: {n:,}), but genes "
                "of several files are joined by name. Make them unique in that file "
                "(adata.var_names_make_unique)."
            )
        seen.add(name)


def _no_common(files: Sequence[str], genes: Sequence[np.ndarray]) -> str:
    told = "; ".join(
        f"{file} begins with {listing(names[:_SHOWN].tolist())}"
        for file, names in list(zip(files, genes, strict=True))[:_SHOWN]
    )
    return (
        f"No gene is in all of the {len(files)} files: {told}. Write the same kind of names "
        "(symbols or identifiers) in all of them, or pass join='outer' (--join outer) to take a "
        "gene that a file lacks as 0 there."
    )
