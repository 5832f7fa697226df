"""Trial clusters: a scheduler and workers on this machine, reached from this machine only."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster

if TYPE_CHECKING:
    from distributed import Security

    from arrayhost.engines.dask.addresses import ClusterAddress

__all__ = ["TrialCluster"]

LOOPBACK = "127.0.0.1"


_SCRATCH = "arrayhost-dask-"


def _sweep() -> None:
    """Take away what clusters whose process was killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)


class TrialCluster:
    """A cluster of this machine's own, which ends with the process that started it.

    Parameters
    ----------
    options : ClusterAddress
        ``workers``, ``threads`` and ``memory`` of it are used.
    security : Security, optional

    Attributes
    ----------
    place : str
        ``host:port`` of the scheduler.
    scratch : str
        A directory for what makes recovery short; it goes with the cluster.

    Notes
    -----
    Scheduler, workers and the pages of both for browsers listen on 127.0.0.1, on free ports.
    """

    def __init__(self, options: ClusterAddress, security: Security | None = None) -> None:
        _sweep()
        self.scratch = tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-")
        settings: dict[str, Any] = {} if options.memory is None else {"memory_limit": options.memory}
        try:
            self.cluster = LocalCluster(
                n_workers=options.workers, threads_per_worker=options.threads, processes=True, host=LOOPBACK,
                dashboard_address=f"{LOOPBACK}:0", worker_dashboard_address=f"{LOOPBACK}:0", security=security,
                silence_logs=logging.ERROR, local_directory=self.scratch, **settings,
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        self.place = self.cluster.scheduler_address.partition("://")[2]

    def close(self) -> None:
        """End all its processes."""
        try:
            with contextlib.suppress(TimeoutError):
                self.cluster.close(timeout=10)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
