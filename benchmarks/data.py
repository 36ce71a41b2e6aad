"""The screen the benchmark runs on, as .npy files that every worker can load."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CACHE = HERE / ".data"

REFERENCE = "non-targeting"


@dataclass(frozen=True)
class ScreenParameters:
    """Arguments of ``pdex_gpu.simulate.simulate_screen``."""

    n_cells: int = 40_000
    n_genes: int = 2_000
    n_perturbations: int = 300
    control_fraction: float = 0.05
    seed: int = 0

    @property
    def name(self) -> str:
        return (
            f"screen-{self.n_cells}x{self.n_genes}x{self.n_perturbations}"
            f"-c{self.control_fraction:g}-s{self.seed}"
        )


# The screen that the targets are stated for, and the nonzeros it must have.
FULL = ScreenParameters()
FULL_NNZ = 42_022_507
QUICK = ScreenParameters(4_000, 300, 20)


@dataclass(frozen=True)
class ScreenFiles:
    """A screen on disk: ``indptr, indices, counts, log1p, labels, genes`` as .npy files."""

    folder: Path
    parameters: ScreenParameters
    nnz: int
    sparse_bytes: int

    @property
    def labels(self) -> np.ndarray:
        return np.load(self.folder / "labels.npy")

    @property
    def genes(self) -> np.ndarray:
        return np.load(self.folder / "genes.npy")

    def regrouped(self, n_groups: int) -> Path:
        """Labels with `n_groups` perturbations dealt again to the same non-control cells."""
        path = self.folder / f"labels-{n_groups}.npy"
        if not path.exists():
            labels = self.labels
            treated = np.flatnonzero(labels != REFERENCE)
            rng = np.random.default_rng([self.parameters.seed, n_groups])
            names = np.array([f"P{i:05d}" for i in range(n_groups)])
            dealt = np.full(len(labels), REFERENCE, dtype=f"<U{max(len(REFERENCE), 6)}")
            dealt[rng.permutation(treated)] = names[np.arange(len(treated)) % n_groups]
            np.save(path, dealt)
        return path


def ensure(parameters: ScreenParameters) -> ScreenFiles:
    """Simulate the screen, or take it from the cache.

    The cache is keyed by the parameters and the text of ``pdex_gpu/simulate.py``.
    """
    source = (REPOSITORY / "pdex_gpu" / "simulate.py").read_bytes()
    key = {**asdict(parameters), "simulate": hashlib.sha256(source).hexdigest()}
    folder = CACHE / parameters.name
    meta_file = folder / "meta.json"
    if meta_file.exists():
        meta = json.loads(meta_file.read_text())
        if meta["key"] == key:
            return ScreenFiles(folder, parameters, meta["nnz"], meta["sparse_bytes"])

    print(f"simulating {parameters.name} (once)", file=sys.stderr)
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(0, str(REPOSITORY))
    from pdex_gpu.simulate import simulate_screen

    screen = simulate_screen(
        parameters.n_cells,
        parameters.n_genes,
        parameters.n_perturbations,
        control_fraction=parameters.control_fraction,
        seed=parameters.seed,
    )
    scratch = CACHE / f".{parameters.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    counts = screen.counts
    np.save(scratch / "indptr.npy", counts.indptr)
    np.save(scratch / "indices.npy", counts.indices)
    np.save(scratch / "counts.npy", counts.data)
    np.save(scratch / "log1p.npy", screen.log_normalised().data)
    np.save(scratch / "labels.npy", np.asarray(screen.labels))
    np.save(scratch / "genes.npy", np.asarray(screen.genes))
    meta = {
        "key": key,
        "nnz": int(counts.nnz),
        "sparse_bytes": int(counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes),
    }
    (scratch / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return ScreenFiles(folder, parameters, meta["nnz"], meta["sparse_bytes"])
