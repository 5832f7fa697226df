"""The host beside a cluster: where instances of registered classes live.

Dask's own stateful workers, actors, are not used: an actor is lost with its worker, and its calls come out of order. So
an object lives in one ordinary host process, which a program that makes objects starts beside itself.
"""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing import process, util
from typing import TYPE_CHECKING, Any

from arrayhost.engines.host import HostEngine
from arrayhost.engines.process import end_host, own_address, start_host
from arrayhost.hosting import HostOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from arrayhost.client.session import Session
    from arrayhost.host.objects import Registration

__all__ = ["Companion"]

_SHUTDOWN_SECONDS = 5.0


class Companion:
    """An ordinary host, started when the first object is made.

    Parameters
    ----------
    registrations : callable
        Returns what is registered.
    ctx : multiprocessing context
        How its process is started.
    """

    def __init__(self, registrations: Callable[[], Mapping[str, Registration]], ctx: Any = None) -> None:
        self._registrations = registrations
        self._ctx = ctx if ctx is not None else multiprocessing.get_context()
        self._engine: HostEngine | None = None
        self._running: tuple[Any, Session] | None = None
        self._lock = threading.Lock()

    @property
    def engine(self) -> HostEngine:
        """The host, started if it was not."""
        with self._lock:
            if self._engine is None:
                options = HostOptions(own_address(), bytes(process.current_process().authkey))
                start_host(self._ctx, "arrayhost-companion", self._registrations(), options, self._own)
                assert self._running is not None
                # Its objects may be used for as long as the program runs, whatever becomes of the manager.
                util.Finalize(None, self.close, exitpriority=0)
                self._engine = HostEngine(self._running[1].address, follows=False)
            return self._engine

    def _own(self, host: Any, session: Session, ports: Sequence[str]) -> None:
        self._running = host, session

    def close(self) -> None:
        """End the host, if it was started."""
        with self._lock:
            running, self._running, self._engine = self._running, None, None
        if running is not None:
            end_host(*running, _SHUTDOWN_SECONDS)
