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
    def write_cell_ranger(self, folder: str | os.PathLike[str], *, seed: int = 0) -> None:
        """Write the screen as Cell Ranger writes one, to a folder like its ``outs``.

        ``filtered_feature_bc_matrix.h5`` and the folder ``filtered_feature_bc_matrix`` hold the
        counts of genes and guides, ``crispr_analysis/protospacer_calls_per_cell.csv`` the guides of
        each cell, and ``feature_reference.csv`` their targets.

        Parameters
        ----------
        folder : str or os.PathLike
            Made if it does not exist; files in it are replaced.
        seed : int
            Seed of the UMIs of guides.

        Raises
        ------
        ValueError
            If the screen is not annotated, so that cells have no guides.
        """
        if self.guides is None:
            raise ValueError("cells have no guides: simulate the screen with annotated=True")
        outs = Path(folder)
        guides, targets, umis = _guide_umis(self, np.random.default_rng([seed, 2]))
        _write_hdf5(outs / "filtered_feature_bc_matrix.h5", self, guides, umis)
        _write_text(outs / "filtered_feature_bc_matrix", self, guides, umis)
        _write_tables(outs, _barcodes(len(self.labels)), guides, targets, umis)


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


# --- Cell Ranger's files --------------------------------------------------------------------------

_CALLED, _FAINT = 4, 0.05  # fewest UMIs of a guide that is called; share of cells with others


def _guide_umis(
    screen: Screen, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, scipy.sparse.csr_matrix]:
    """Return the names of guides, their targets, and their UMIs in each cell, drawn at random."""
    import scipy.sparse as sp

    assert screen.guides is not None
    guides, own = np.unique(screen.obs["guide"], return_inverse=True)
    targets = np.array([guide.rpartition("_")[0] for guide in guides.tolist()])
    n_cells = len(own)
    controls = np.flatnonzero(targets == REFERENCE)
    second = np.flatnonzero(screen.guides[:, 0] & (screen.labels != REFERENCE))
    faint = np.flatnonzero(rng.random(n_cells) < _FAINT)
    cells = np.concatenate([np.arange(n_cells), second, faint])
    columns = np.concatenate(
        [own, rng.choice(controls, len(second)), rng.integers(0, len(guides), len(faint))]
    )
    strong = _CALLED + 1 + rng.poisson(20.0, n_cells + len(second))
    counts = np.concatenate([strong, np.ones(len(faint), np.int64)]).astype(np.int32)
    umis = sp.csr_matrix((counts, (cells, columns)), shape=(n_cells, len(guides)))
    umis.sum_duplicates()
    return guides, targets, umis


def _barcodes(n_cells: int) -> np.ndarray:
    """Return a barcode for each cell: its number in letters of DNA, and the suffix -1."""
    digits = (np.arange(n_cells)[:, None] >> np.arange(30, -2, -2)) & 3
    return np.array(["".join("ACGT"[d] for d in row) + "-1" for row in digits.tolist()])


def _features(screen: Screen, guides: np.ndarray) -> dict[str, np.ndarray]:
    n_genes = len(screen.genes)
    ids = [f"ENSG{i:011d}" for i in range(n_genes)]
    return {
        "id": np.array([*ids, *guides]),
        "name": np.concatenate([screen.genes, guides]),
        "feature_type": np.repeat(
            ["Gene Expression", "CRISPR Guide Capture"], [n_genes, len(guides)]
        ),
    }


def _write_hdf5(
    path: Path, screen: Screen, guides: np.ndarray, umis: scipy.sparse.csr_matrix
) -> None:
    import h5py
    import scipy.sparse as sp

    path.parent.mkdir(parents=True, exist_ok=True)
    counts = sp.csr_matrix(sp.hstack([screen.counts, umis], format="csr"))
    arrays = {
        "barcodes": _barcodes(counts.shape[0]).astype("S"),
        "data": counts.data.astype(np.int32),
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": np.array(counts.shape[::-1], np.int32),
    }
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name, values in arrays.items():
            group.create_dataset(name, data=values, compression="gzip", compression_opts=1)
        features = group.create_group("features")
        for name, values in _features(screen, guides).items():
            features.create_dataset(name, data=values.astype("S"), compression="gzip")
        genome = np.repeat([b"GRCh38", b""], [len(screen.genes), len(guides)])
        features.create_dataset("genome", data=genome, compression="gzip")
        features.create_dataset("_all_tag_keys", data=np.array([b"genome"]))


def _write_text(
    folder: Path, screen: Screen, guides: np.ndarray, umis: scipy.sparse.csr_matrix
) -> None:
    import gzip

    import scipy.sparse as sp

    folder.mkdir(parents=True, exist_ok=True)
    counts = sp.coo_matrix(sp.hstack([screen.counts, umis], format="csr"))
    features = zip(*_features(screen, guides).values(), strict=True)
    texts = {
        "features.tsv.gz": "".join("\t".join(row) + "\n" for row in features),
        "barcodes.tsv.gz": "".join(f"{name}\n" for name in _barcodes(counts.shape[0])),
        "matrix.mtx.gz": "%%MatrixMarket matrix coordinate integer general\n"
        f"{counts.shape[1]} {counts.shape[0]} {counts.nnz}\n"
        + "".join(
            f"{gene + 1} {cell + 1} {int(count)}\n"
            for cell, gene, count in zip(
                counts.row.tolist(), counts.col.tolist(), counts.data.tolist(), strict=True
            )
        ),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(gzip.compress(text.encode(), compresslevel=1, mtime=0))


def _write_tables(
    outs: Path,
    barcodes: np.ndarray,
    guides: np.ndarray,
    targets: np.ndarray,
    umis: scipy.sparse.csr_matrix,
) -> None:
    lines = ["cell_barcode,num_features,feature_call,num_umis"]
    for cell, barcode in enumerate(barcodes.tolist()):
        found = slice(umis.indptr[cell], umis.indptr[cell + 1])
        called = umis.data[found] >= _CALLED
        names = guides[umis.indices[found][called]]
        counts = map(str, umis.data[found][called].tolist())
        lines.append(f"{barcode},{len(names)},{'|'.join(names)},{'|'.join(counts)}")
    (outs / "crispr_analysis").mkdir(exist_ok=True)
    calls = outs / "crispr_analysis" / "protospacer_calls_per_cell.csv"
    calls.write_text("\n".join(lines) + "\n", encoding="ascii")
    named = np.where(targets == REFERENCE, "Non-Targeting", targets)
    lines = ["id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name"]
    lines += [
        f"{guide},{guide},R2,(BC)GTTTAAGAGCTA,{barcode[:16]},CRISPR Guide Capture,{target},{target}"
        for guide, barcode, target in zip(guides, _barcodes(len(guides)), named, strict=True)
    ]
    (outs / "feature_reference.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
