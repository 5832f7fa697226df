"""Copies that the host takes under an array's shared lock, for readers whom writers leave no quiet moment.

Copies of one array are taken one at a time, and after each the writers get three times as long as it took: however
many readers ask, they cost the writers no more than a quarter of the time. Readers who ask for the same views while
others wait share one copy of each.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from arrayhost.memory.budget import check_free
from arrayhost.sync.filelocks import SHARED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from arrayhost.core.layout import Layout
    from arrayhost.host.store import Operand
    from arrayhost.sync.guards import Guard

__all__ = ["LockedCopies"]

_WRITERS_SHARE = 3.0
_LONGEST_PAUSE = 0.25


class LockedCopies:
    """Locked copies of one array, taken in turn."""

    __slots__ = ("_count", "_guard", "_latest", "_lock", "_n_asking", "_ready_at", "_timeout")

    def __init__(self, guard: Guard, timeout: float) -> None:
        self._guard = guard
        self._timeout = timeout
        self._lock = threading.Lock()
        self._count = threading.Lock()
        self._n_asking = 0
        self._ready_at = 0.0
        self._latest: tuple[list[Layout], float, list[npt.NDArray[Any]]] | None = None

    def copies(self, views: Sequence[Operand]) -> list[npt.NDArray[Any]]:
        """Copy views of the array under one hold of the shared lock.

        Returns
        -------
        list of ndarray
            Read-only: others may have been given the same ones.

        Raises
        ------
        TornArrayError, LockTimeoutError, StaleProxyError, WouldDeadlock
        """
        asked = time.monotonic()
        with self._count:
            self._n_asking += 1
        try:
            with self._lock:
                return self._copies([view.layout for view in views], views, asked)
        finally:
            with self._count:
                self._n_asking -= 1
                if self._n_asking == 0:
                    self._latest = None

    def _copies(self, layouts: list[Layout], views: Sequence[Operand], asked: float) -> list[npt.NDArray[Any]]:
        latest = self._latest
        # Whatever was begun after the question was asked answers it as well.
        if latest is not None and latest[0] == layouts and latest[1] >= asked:
            return latest[2]
        pause = self._ready_at - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        check_free(sum(layout.nbytes for layout in layouts))
        hold = self._guard.acquire(SHARED, self._timeout, "shared lock for a consistent copy")
        try:
            started = time.monotonic()
            self._guard.check_whole()
            copies = [view.live.copy("K") for view in views]
        finally:
            hold.release()
        ended = time.monotonic()
        for copy in copies:
            copy.flags.writeable = False
        self._ready_at = ended + min((ended - started) * _WRITERS_SHARE, _LONGEST_PAUSE)
        self._latest = (layouts, started, copies)
        return copies
