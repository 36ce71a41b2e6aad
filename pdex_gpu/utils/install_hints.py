"""The commands that messages suggest for installing missing packages.

This package is on no package index, so the commands never name it or its extras. They name the
packages of others directly, which works however this one was installed.
"""

from __future__ import annotations

#: Packages of each extra that features need, as arguments of pip.
EXTRAS = {
    "dask": ("dask[array]", "distributed"),
    "plot": ("matplotlib", "textalloc"),
    "polars": ("polars",),
    "pseudobulk": ("pydeseq2",),
    "zarr": ("zarr",),
}

#: Instructions to update this package.
UPDATE = "update pdex_gpu: in its checkout, run git pull, then pip install ."


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra: ``"pip install matplotlib textalloc"``.

    Parameters
    ----------
    extra : str
        A key of `EXTRAS`.
    """
    packages = (f'"{name}"' if "[" in name else name for name in EXTRAS[extra])
    return f"pip install {' '.join(packages)}"
