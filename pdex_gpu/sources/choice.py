"""The matrix to read out of the data that a user passes."""

from __future__ import annotations

from dataclasses import dataclass

from .allowed import Allowed

#: How the genes of several files are joined.
JOINS = ("inner", "outer")


@dataclass(frozen=True)
class MatrixChoice:
    """The matrix to read, of several that data may have; by default X.

    Attributes
    ----------
    layer : str or None
        This layer instead of X.
    raw : bool
        The matrix of ``adata.raw``, with its own genes, instead of X.
    modality : str or None
        This modality of data that have several.
    allow : frozenset of str
        See :mod:`.allowed`.
    join : {"inner", "outer"}
        Of several files: the genes that all have, or that any has.
    batch : str or None
        Of several files: the new column of obs that holds the name of each cell's file.
    """

    layer: str | None = None
    raw: bool = False
    modality: str | None = None
    allow: Allowed = frozenset()
    join: str = JOINS[0]
    batch: str | None = None

    @property
    def what(self) -> str:
        """Return the name of the matrix for messages."""
        if self.raw:
            return "raw.X"
        return "X" if self.layer is None else f"layer {self.layer!r}"

    @property
    def title(self) -> str:
        """Return the name of the matrix at the start of a sentence: ``"Layer 'counts'"``."""
        return self.what[0].upper() + self.what[1:]

    @property
    def place(self) -> str:
        """Return where an AnnData object has the matrix: ``"layers['counts']"``."""
        if self.raw:
            return "raw.X"
        return "X" if self.layer is None else f"layers[{self.layer!r}]"


#: X, without anything from outside the given data.
X = MatrixChoice()
