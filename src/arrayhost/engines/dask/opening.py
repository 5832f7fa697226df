"""Opening a cluster: connecting to one that runs, or starting one for trial; imports Dask and what goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.wire.hello import READ_WRITE

try:
    import distributed  # noqa: F401
    import zarr  # noqa: F401
except ImportError as error:
    raise ImportError(f"addresses dask://... need Dask and Zarr ({error}): pip install 'arrayhost[dask]'") from error

from arrayhost.engines.dask.addresses import LOCAL, ClusterAddress
from arrayhost.engines.dask.array import ClusterArray
from arrayhost.engines.dask.checkpoints import found_in
from arrayhost.engines.dask.companion import Companion
from arrayhost.engines.dask.engine import DaskEngine
from arrayhost.engines.dask.link import link_for
from arrayhost.engines.dask.trial import TrialCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arrayhost.host.objects import Registration

__all__ = ["ClusterArray", "connect", "start"]


def connect(
    address: str,
    registrations: Callable[[], Mapping[str, Registration]],
    *,
    mode: str = READ_WRITE,
    tls: Any = None,
    directory: str | None = None,
    lock_timeout: float = 60.0,
    handle_grace: float = 60.0,
) -> DaskEngine:
    """Connect to a running cluster.

    Raises
    ------
    HostGoneError
        No scheduler answers there.
    ValueError
        The address is a trial cluster's, which has to be started; or the cluster has another directory.
    """
    options = ClusterAddress.parse(address)
    if options.place == LOCAL:
        raise ValueError(f"{address!r} is a cluster that has to be started: use 'with', or start()")
    return _engine(options, registrations, mode, tls, directory or options.directory, lock_timeout, handle_grace)


def start(
    address: str,
    registrations: Callable[[], Mapping[str, Registration]],
    *,
    mode: str = READ_WRITE,
    tls: Any = None,
    directory: str | None = None,
    lock_timeout: float = 60.0,
    handle_grace: float = 60.0,
) -> DaskEngine:
    """Start a trial cluster, which ends with `DaskEngine.close`.

    Raises
    ------
    ValueError
        The address is a running cluster's, which is to be connected to.
    """
    options = ClusterAddress.parse(address)
    if options.place != LOCAL:
        raise ValueError(f"{address!r} is a running cluster: use connect(), or 'dask://local?workers=N' to start one")
    trial = TrialCluster(options, tls)
    try:
        return _engine(
            options.at(trial.place), registrations, mode, tls, directory or options.directory, lock_timeout,
            handle_grace, trial,
        )  # fmt: skip
    except BaseException:
        trial.close()
        raise


def _engine(
    options: ClusterAddress,
    registrations: Callable[[], Mapping[str, Registration]],
    mode: str,
    security: Any,
    directory: str | None,
    lock_timeout: float,
    handle_grace: float,
    trial: TrialCluster | None = None,
) -> DaskEngine:
    link = link_for(options, mode, security, lock_timeout=lock_timeout, handle_grace=handle_grace)
    assert link.client is not None  # connected
    if directory is not None:
        told = link.hello(directory, durable=True)
        if told["directory"] != directory:
            raise ValueError(f"this cluster keeps its arrays in {told['directory']}, and not in {directory}")
        if told["is_new"]:
            link.call("stored_names", names=found_in(link, directory))
    elif trial is not None:
        link.hello(trial.scratch)
    return DaskEngine(link, registrations, Companion(registrations), trial)
