"""What to type to install what is missing, as messages say it.

This package is on no index, so that no command names it or its extras: packages of others are named
themselves, which is right however this one was installed.
"""

from __future__ import annotations

#: Packages of each extra that features need, as pip takes them.
EXTRAS = {
    "dask": ("dask[array]", "distributed"),
    "plot": ("matplotlib", "textalloc"),
    "polars": ("polars",),
    "pseudobulk": ("pydeseq2",),
    "zarr": ("zarr",),
}

#: How to have a newer version of this package.
UPDATE = "update pdex_gpu: in its checkout, run git pull, then pip install ."


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra: ``"pip install matplotlib textalloc"``.

    Parameters
    ----------
    extra : str
        A key of `EXTRAS`.
    """
    packages = (f'"{name}"' if "[" in name else name for name in EXTRAS[extra])
    return f"pip install {' '.join(packages)}"
