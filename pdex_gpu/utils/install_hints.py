"""The commands that messages suggest for installing missing packages.

This package is on no package index, so the commands never name it or its extras. They name the
packages of others directly, which works however this one was installed.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Packages of each extra that features need, as arguments of pip. Formats of data have their own:
#: see :mod:`pdex_gpu.sources.formats`.
EXTRAS = {
    "dask": ("dask[array]", "distributed"),
    "plot": ("matplotlib", "textalloc"),
    "polars": ("polars",),
    "pseudobulk": ("pydeseq2",),
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
    return install_command(EXTRAS[extra])


def install_command(packages: Iterable[str]) -> str:
    """Return the command that installs packages, given as arguments of pip."""
    quoted = (f'"{name}"' if "[" in name else name for name in packages)
    return f"pip install {' '.join(quoted)}"
