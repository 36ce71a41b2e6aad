"""A simulated perturbation screen: negative binomial counts with known effects."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .utils.keywords import known_keywords, known_keywords_of_init

if TYPE_CHECKING:
    import anndata
    import scipy.sparse

REFERENCE = "non-targeting"
GROUPBY = "target_gene"

# Human genes: those that screens often perturb first, then others.
_NAMES = Path(__file__).parent / "gene_names.txt"

_GUIDES_PER_TARGET = 2
_CONTROL_GUIDES = 10
_SECOND_GUIDES = 0.1  # share of cells with a control guide in addition to their own


@known_keywords_of_init
@dataclass(frozen=True)
class Screen:
    """A simulated screen.

    Attributes
    ----------
    counts : scipy.sparse.csr_matrix, shape (n_cells, n_genes), float32
        Counts (UMIs).
    labels : numpy.ndarray, shape (n_cells,), str
        The perturbation of each cell; controls carry ``"non-targeting"``.
    genes : numpy.ndarray, shape (n_genes,), str
        Gene names.
    effect : numpy.ndarray, shape (n_perturbations + 1, n_genes), float32
        Fold change of each gene's mean per perturbation; row 0 is the control (all 1).
    perturbations : numpy.ndarray, shape (n_perturbations,), str
        Names of the perturbations, in the order of ``effect[1:]``.
    obs : dict of str to numpy.ndarray, shape (n_cells,), str
        Further columns of ``obs``; none unless the screen is annotated.
    guides : numpy.ndarray or None, shape (n_cells, 1 + n_perturbations), bool
        Whether a cell carries a control guide, and a guide of each perturbation; None unless the
        screen is annotated.
    """

    counts: scipy.sparse.csr_matrix
    labels: np.ndarray
    genes: np.ndarray
    effect: np.ndarray
    perturbations: np.ndarray
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    guides: np.ndarray | None = None

    @known_keywords
    def log_normalised(self, target_sum: float = 1e4) -> scipy.sparse.csr_matrix:
        """Return counts scaled to `target_sum` per cell, then ``log1p``, as float32 CSR."""
        import scipy.sparse as sp

        total = np.asarray(self.counts.sum(axis=1), dtype=np.float64).ravel()
        scale = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)
        per_entry = np.repeat(scale, np.diff(self.counts.indptr)).astype(np.float32)
        return sp.csr_matrix(
            (np.log1p(self.counts.data * per_entry), self.counts.indices, self.counts.indptr),
            shape=self.counts.shape,
        )

    @known_keywords
    def to_anndata(self) -> anndata.AnnData:
        """Return the screen as an AnnData with ``obs["target_gene"]``.

        An annotated screen also has the further columns of `obs`, and `guides` as the data frame
        ``obsm["guides"]``.
        """
        import anndata
        import pandas as pd

        columns = {GROUPBY: self.labels, **self.obs}
        obs = pd.DataFrame(
            {name: pd.Categorical(labels) for name, labels in columns.items()},
            index=[f"cell_{i}" for i in range(len(self.labels))],
        )
        adata = anndata.AnnData(self.counts, obs=obs, var=pd.DataFrame(index=self.genes))
        if self.guides is not None:
            names = [REFERENCE, *self.perturbations]
            adata.obsm["guides"] = pd.DataFrame(self.guides, index=obs.index, columns=names)
        return adata

    @known_keywords
    def write_h5ad(self, path: str | os.PathLike[str]) -> None:
        """Write the screen as a gzip-compressed h5ad file."""
        self.to_anndata().write_h5ad(path, compression="gzip")


@known_keywords
def simulate_screen(
    n_cells: int = 10_000,
    n_genes: int = 2_000,
    n_perturbations: int = 50,
    *,
    control_fraction: float = 0.1,
    mean_umi: float = 5_000.0,
    gene_sigma: float = 1.5,
    library_sigma: float = 0.35,
    dispersion: float = 0.3,
    knockdown: float = 0.2,
    affected_fraction: float = 0.03,
    effect_sigma: float = 0.7,
    seed: int = 0,
    annotated: bool = False,
) -> Screen:
    """Simulate a perturbation screen with known effects.

    Counts are negative binomial (variance ``mu + dispersion * mu**2``, drawn as a gamma-Poisson
    mixture), with log-normal gene means and log-normal library sizes. Each perturbation
    silences the gene it is named after and changes the mean of a few others.

    Parameters
    ----------
    n_cells, n_genes, n_perturbations : int
        Size of the screen; ``n_perturbations <= n_genes``.
    control_fraction : float
        Share of the cells that are controls.
    mean_umi : float
        Expected counts per cell.
    gene_sigma, library_sigma : float
        Standard deviation of the log gene means and of the log library sizes.
    dispersion : float
        Negative binomial dispersion.
    knockdown : float
        Fold change of a perturbation's own gene.
    affected_fraction : float
        Share of genes that a perturbation affects in addition to its own.
    effect_sigma : float
        Standard deviation of the log fold change of affected genes.
    seed : int
        Seed of the random generator; the same seed gives the same screen.
    annotated : bool
        Use human gene names, and give each cell a guide, a batch, a donor and a cell type, which
        have no effect. The counts and the order of the perturbations stay the same.

    Returns
    -------
    Screen

    Raises
    ------
    ValueError
        If there are more perturbations than genes, or too few cells for all groups.

    Examples
    --------
    >>> from pdex_gpu.simulate import simulate_screen
    >>> screen = simulate_screen(1200, 60, 4, seed=1)
    >>> screen.counts.shape, screen.perturbations.tolist()[:2]
    ((1200, 60), ['GENE00031', 'GENE00042'])
    >>> screen.to_anndata().obs["target_gene"].nunique()
    5
    """
    import scipy.sparse as sp

    if n_perturbations > n_genes:
        raise ValueError(
            f"{n_perturbations} perturbations need at least that many genes; got {n_genes}"
        )
    n_control = max(1, round(n_cells * control_fraction))
    if n_cells - n_control < n_perturbations:
        raise ValueError(f"{n_cells} cells are too few for {n_perturbations} perturbations")
    rng = np.random.default_rng(seed)

    gene_mean = rng.lognormal(0.0, gene_sigma, n_genes)
    gene_mean *= mean_umi / gene_mean.sum()
    library = rng.lognormal(-0.5 * library_sigma**2, library_sigma, n_cells)

    effect = np.ones((n_perturbations + 1, n_genes), dtype=np.float32)
    own = np.sort(rng.choice(n_genes, n_perturbations, replace=False))
    hit = rng.random((n_perturbations, n_genes)) < affected_fraction
    effect[1:][hit] = rng.lognormal(0.0, effect_sigma, int(hit.sum()))
    effect[1 + np.arange(n_perturbations), own] = knockdown

    code = np.concatenate(
        [np.zeros(n_control, np.int64), 1 + np.arange(n_cells - n_control) % n_perturbations]
    )
    rng.shuffle(code)

    blocks = []
    rows_at_once = max(1, 4_000_000 // n_genes)
    for start in range(0, n_cells, rows_at_once):
        rows = slice(start, min(start + rows_at_once, n_cells))
        mean = library[rows, None] * gene_mean * effect[code[rows]]
        counts = rng.poisson(rng.gamma(1.0 / dispersion, dispersion * mean))
        blocks.append(sp.csr_matrix(counts.astype(np.float32)))
    matrix = sp.csr_matrix(sp.vstack(blocks, format="csr"))

    genes = _human_names(n_genes, own) if annotated else _numbered(0, n_genes)
    names = np.concatenate([[REFERENCE], genes[own]])
    screen = Screen(matrix, names[code], genes, effect, genes[own])
    return _annotate(screen, code, np.random.default_rng([seed, 1])) if annotated else screen


def _numbered(first: int, last: int) -> np.ndarray:
    return np.array([f"GENE{i:05d}" for i in range(first, last)], dtype=str)


def _human_names(n_genes: int, own: np.ndarray) -> np.ndarray:
    """Return names of all genes; those of the perturbed genes are sorted, like their positions."""
    listed = np.array(_NAMES.read_text(encoding="ascii").split())[:n_genes]
    names = np.concatenate([listed, _numbered(len(listed), n_genes)])
    genes = np.empty_like(names)
    genes[own] = np.sort(names[: len(own)])
    genes[np.setdiff1d(np.arange(n_genes), own)] = np.sort(names[len(own) :])
    return genes


def _annotate(screen: Screen, code: np.ndarray, rng: np.random.Generator) -> Screen:
    """Add guides, batches, donors and cell types to a screen, drawn at random."""
    n_cells = len(code)
    n_guides = np.where(code == 0, _CONTROL_GUIDES, _GUIDES_PER_TARGET)
    number = np.char.mod("%d", 1 + rng.integers(0, n_guides))
    donor = rng.integers(1, 5, n_cells)
    batch = rng.integers(1, 3, n_cells)
    obs = {
        "guide": np.char.add(np.char.add(screen.labels, "_"), number),
        "batch": np.char.mod("batch%d", batch),
        "donor": np.char.mod("donor%d", donor),
        "cell_type": rng.choice(["CD4 T cell", "CD8 T cell"], n_cells, p=[0.6, 0.4]),
    }
    guides = np.zeros((n_cells, 1 + len(screen.perturbations)), dtype=bool)
    guides[np.arange(n_cells), code] = True
    guides[rng.random(n_cells) < _SECOND_GUIDES, 0] = True
    return replace(screen, obs=obs, guides=guides)
