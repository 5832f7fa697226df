"""Arrays that a client which is gone may have been writing: looked at until its locks are free, and told then.

A host hears of a client's end when the kernel closes its sockets, which may be a while before the kernel closes its
lock files. Looking on is the loop's work, between other things. Without it, the next writer would find out.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from arrayhost.errors import ArrayHostError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from arrayhost.host.store import Store

__all__ = ["Suspects"]

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1e-3, 0.05
# Of a process that has ended; one that has merely closed its session keeps its locks.
_PATIENCE = 10.0


class _Suspect(NamedTuple):
    ident: int
    pid: int
    until: float


class Suspects:
    """What is still to be judged of a store's arrays. For the loop's thread alone.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: list[_Suspect] = []
        self._pause = _FIRST_PAUSE

    def add(self, holder: Hashable, pid: int) -> None:
        """Look at what a client was writing that has just gone; before its leases end."""
        until = time.monotonic() + _PATIENCE
        self._open += [_Suspect(ident, pid, until) for ident in self._store.written_by(holder, pid)]
        self._pause = _FIRST_PAUSE

    def look(self) -> float | None:
        """Judge what can be judged; return when (monotonic seconds) to look again."""
        if not self._open:
            return None
        now = time.monotonic()
        self._open = [one for one in self._open if not self._is_judged(one) and now < one.until]
        if not self._open:
            return None
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return now + self._pause

    def _is_judged(self, one: _Suspect) -> bool:
        try:
            return self._store.judge_writer(one.ident, one.pid)
        except (ArrayHostError, OSError) as error:  # no descriptor is left, say: the loop has other things to do
            log.debug("array %d cannot be looked at: %s", one.ident, error)
            return False
