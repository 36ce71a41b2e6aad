"""Engines that are asked for by an object, which may stand where the engine's name does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..utils.keywords import known_keywords_of_init

#: The name of the engine.
DASK = "dask"


@known_keywords_of_init
@dataclass(frozen=True)
class Dask:
    """Run on the workers of a Dask cluster: ``engine=Dask(client)``.

    The same as ``engine="dask", client=client``.

    Attributes
    ----------
    client : distributed.Client or str, optional
        A client, or the address of a scheduler; the current client by default.

    Examples
    --------
    >>> import pdex_gpu
    >>> pdex_gpu.Dask("tcp://host:8786")
    Dask(client='tcp://host:8786')
    """

    client: Any = None
