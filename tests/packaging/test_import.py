"""What an import brings with it, each measured in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pdex_gpu.simulate import GROUPBY, simulate_screen

HEAVY = ("anndata", "cupy", "h5py", "matplotlib", "numba", "pandas", "polars", "pyarrow")


def loaded_after(statements: str) -> set[str]:
    """The names of all modules loaded once `statements` have run in a fresh process."""
    script = f"import sys\n{statements}\nsys.stdout.write('\\n' + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statements",
    ["import pdex_gpu", "import pdex_gpu.cli", "import pdex_gpu; dir(pdex_gpu)"],
)
def test_import_is_light(statements: str):
    loaded = loaded_after(statements)
    assert "pdex_gpu" in loaded
    assert loaded.isdisjoint({*HEAVY, "scipy.stats", "tqdm", "multiprocessing"})


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["run", "--help"], ["top", "--help"]])
def test_help_needs_no_numpy(argv: list[str]):
    script = f"from pdex_gpu.cli import main\ntry: main({argv})\nexcept SystemExit: pass"
    assert "numpy" not in loaded_after(script)


def test_command_line_needs_no_anndata(tmp_path: Path):
    """anndata and pandas take longer to import than a small file takes to analyse."""
    screen = tmp_path / "screen.h5ad"
    simulate_screen(120, 20, 2, mean_umi=100).write_h5ad(screen)
    argv = ["run", str(screen), "--groupby", GROUPBY, "-o", str(tmp_path / "de.parquet")]
    loaded = loaded_after(f"from pdex_gpu.cli import main\nassert main({argv!r}) == 0")
    assert (tmp_path / "de.parquet").exists()
    assert loaded.isdisjoint({"anndata", "pandas", "scipy.stats"})


def test_public_names_resolve():
    import pdex_gpu

    for name in pdex_gpu.__all__:
        assert getattr(pdex_gpu, name) is not None
    assert set(pdex_gpu.__all__) <= set(dir(pdex_gpu))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pdex_gpu.no_such_name


def test_backends_stays_a_function():
    """The subpackage of the same name must not take its place once it is imported."""
    script = "import pdex_gpu, pdex_gpu.backends.contract\nassert pdex_gpu.backends()"
    loaded_after(script)
