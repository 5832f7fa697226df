"""Opening a cluster: connecting to one that runs, or starting one for trial; imports Dask and what goes with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from arrayhost.wire.hello import READ_WRITE

try:
    import distributed  # noqa: F401  # only to see whether it is there
    import zarr  # noqa: F401  # likewise
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

    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.host.objects import Registration

__all__ = ["ClusterArray", "open_cluster"]


def open_cluster(
    address: str,
    registrations: Callable[[], Mapping[str, Registration]],
    *,
    start: bool,
    mode: str = READ_WRITE,
    tls: Any = None,
    directory: str | None = None,
    lock_timeout: float = 60.0,
    handle_grace: float = 60.0,
) -> DaskEngine:
    """Connect to a running cluster, or start one for trial, which ends with `DaskEngine.close`.

    Parameters
    ----------
    address : str
        ``dask://...``; see `ClusterAddress`.
    registrations : callable
        Gives what the manager's class has registered by now.
    start : bool
    mode : {"r+", "r"}
    tls : distributed.Security, optional
    directory : str, optional
        Where named arrays are stored; goes before the one in the address.
    lock_timeout, handle_grace : float
        Seconds.

    Raises
    ------
    HostGoneError
        No scheduler answers there.
    ValueError
        A trial cluster can only be started, and any other only be connected to; or the cluster has another directory.
    """
    options = ClusterAddress.parse(address)
    if start and options.place != LOCAL:
        raise ValueError(f"{address!r} is a running cluster: use connect(), or 'dask://local?workers=N' to start one")
    if not start and options.place == LOCAL:
        raise ValueError(f"{address!r} is a cluster that has to be started: use 'with', or start()")
    with contextlib.ExitStack() as failed:
        trial = TrialCluster(options, tls) if start else None
        if trial is not None:
            failed.callback(trial.close)
            options = options.at(trial.place)
        link = link_for(options, mode, tls, lock_timeout=lock_timeout, handle_grace=handle_grace)
        assert link.client is not None  # connected
        _use_directory(link, directory or options.directory, trial)
        engine = DaskEngine(link, registrations, Companion(registrations), trial)
        failed.pop_all()
    return engine


def _use_directory(link: ClusterLink, directory: str | None, trial: TrialCluster | None) -> None:
    """Tell the cluster where to store arrays, and learn what is stored there already."""
    if directory is not None:
        told = link.hello(directory, durable=True)
        if told["directory"] != directory:
            raise ValueError(f"this cluster keeps its arrays in {told['directory']}, and not in {directory}")
        if told["is_new"]:
            link.call("stored_names", names=found_in(link, directory))
    elif trial is not None:
        link.hello(trial.scratch)
