"""The Dask client of a call: the one given, one for an address, or the current one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import ClusterError, MissingDependencyError, OptionError
from ...utils.install_hints import how_to_install

if TYPE_CHECKING:
    from distributed import Client

_TIMEOUT = 10.0  # seconds within which a scheduler must answer


@contextmanager
def connected(given: Any) -> Iterator[Client]:
    """Yield a client of a running cluster, and close it at the end if it was made here.

    Parameters
    ----------
    given : distributed.Client, str or None
        A client, the address of a scheduler, or None for the current client.

    Raises
    ------
    ClusterError
        If there is no current client, nothing answers at the address, or there are no workers.
    MissingDependencyError
        If the package distributed is not installed.
    OptionError
        If `given` is anything else.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            f"engine='dask' needs the packages dask and distributed: {how_to_install('dask')}."
        ) from error
    if isinstance(given, str):
        client = _client_at(given)
        try:
            with _checked(client).as_current():
                yield client
        finally:
            client.close()
        return
    if given is None:
        try:
            given = Client.current()
        except ValueError as error:
            raise ClusterError(
                "engine='dask' needs a Dask cluster, and there is no client in this process. "
                "Create one (for this machine: `from distributed import Client; client = "
                "Client()`), or pass the address of a scheduler as client= (--client)."
            ) from error
    if not isinstance(given, Client):
        raise OptionError(
            f"client={given!r} must be a distributed.Client, the address of a scheduler as a "
            "string ('tcp://host:8786'), or None for the current client, not "
            f"{type(given).__name__}."
        )
    with _checked(given).as_current():  # dask arrays are inspected through it, too
        yield given


def _client_at(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise ClusterError(
            f"No Dask scheduler answers at client={address!r}: {error}. Check the address (the "
            "scheduler prints it when it starts) and that this machine can reach it."
        ) from error


def _checked(client: Client) -> Client:
    if client.asynchronous:
        raise OptionError(
            "client= is asynchronous. Pass a client created with asynchronous=False (the default), "
            "or call from another thread."
        )
    if client.status != "running":
        raise ClusterError(
            f"The Dask client is not connected (it is {client.status}). Create a new one."
        )
    if not client.nthreads():
        raise ClusterError(
            f"The Dask cluster at {client.scheduler.address} has no workers. Start some "
            "(cluster.scale(n)) and wait for them (client.wait_for_workers(1))."
        )
    return client
