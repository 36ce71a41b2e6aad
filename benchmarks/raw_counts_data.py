"""The screens of ``raw_counts.py``: made once, and kept next to those of the other benchmarks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data import CACHE

#: Every screen is written anew if this changes.
_VERSION = 1


@dataclass(frozen=True)
class Sizes:
    """The sizes of the screens.

    Attributes
    ----------
    cells, genes, perturbations : int
        Of the screen that is normalised.
    little : str
        What the one call that is compared with scanpy may take.
    files, file_cells, file_genes : int
        Of the screen in many files.
    memory : str
        What a run on many files may take.
    cr_cells, cr_genes : int
        Of Cell Ranger's output.
    """

    cells: int = 40_000
    genes: int = 2_000
    perturbations: int = 300
    little: str = "400MB"
    files: int = 20
    file_cells: int = 15_000
    file_genes: int = 1_000
    memory: str = "2GB"
    cr_cells: int = 10_000
    cr_genes: int = 20_000


FULL = Sizes()
QUICK = Sizes(4_000, 300, 20, "400MB", 4, 1_000, 200, "1GB", 1_000, 500)


def one_screen(sizes: Sizes) -> tuple[Path, Path]:
    """Return a screen of raw counts and the same log-normalised, as gzip CSR files."""

    def write(folder: Path) -> None:
        from pdex_gpu.simulate import simulate_screen

        screen = simulate_screen(sizes.cells, sizes.genes, sizes.perturbations, seed=0)
        adata = screen.to_anndata()
        adata.write_h5ad(folder / "raw.h5ad", compression="gzip")
        adata.X = screen.log_normalised()
        adata.write_h5ad(folder / "log1p.h5ad", compression="gzip")

    name = f"raw-{sizes.cells}x{sizes.genes}x{sizes.perturbations}"
    folder = _made(name, write)
    return folder / "raw.h5ad", folder / "log1p.h5ad"


def twenty_files(sizes: Sizes) -> tuple[list[Path], Path]:
    """Return files with some cells each, and one file with all of them; gzip CSR, raw counts."""

    def write(folder: Path) -> None:
        import anndata

        from pdex_gpu.simulate import simulate_screen

        n = sizes.files * sizes.file_cells
        whole = simulate_screen(n, sizes.file_genes, sizes.perturbations, seed=1).to_anndata()
        whole = whole[np.random.default_rng(0).permutation(n)].copy()
        for i in range(sizes.files):
            part = whole[i * sizes.file_cells : (i + 1) * sizes.file_cells]
            part.copy().write_h5ad(folder / f"part{i}.h5ad", compression="gzip")
        assert isinstance(whole, anndata.AnnData)
        whole.write_h5ad(folder / "whole.h5ad", compression="gzip")

    folder = _made(f"files-{sizes.files}x{sizes.file_cells}x{sizes.file_genes}", write)
    return [folder / f"part{i}.h5ad" for i in range(sizes.files)], folder / "whole.h5ad"


def cell_ranger(sizes: Sizes) -> Path:
    """Return a folder like Cell Ranger's ``outs``."""

    def write(folder: Path) -> None:
        from pdex_gpu.simulate import simulate_screen

        screen = simulate_screen(
            sizes.cr_cells, sizes.cr_genes, sizes.perturbations, seed=2, annotated=True
        )
        screen.write_cell_ranger(folder)

    return _made(f"cell-ranger-{sizes.cr_cells}x{sizes.cr_genes}", write)


def _made(name: str, write: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which `write` fills the first time."""
    folder = CACHE / f"{name}-v{_VERSION}"
    if not folder.exists():
        print(f"writing {folder.name} (once)", file=sys.stderr)
        scratch = folder.with_suffix(".new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        write(scratch)
        scratch.rename(folder)
    return folder
