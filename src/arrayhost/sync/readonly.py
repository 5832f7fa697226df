"""The guard of an array in a process that may only look: its table of rows and its lock files are open for reading.

A shared lock needs no more than that. What such a process cannot do is leave word: it neither waits in turn nor sets
the mark of a writer that died. The next holder who may write does the latter, as it would have anyway.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arrayhost.errors import LockTimeoutError, ReadOnlyError, TornArrayError
from arrayhost.memory.control import VERSION, WAITER, WRITER_PID
from arrayhost.sync import guards
from arrayhost.sync.filelocks import EXCLUSIVE, try_lock
from arrayhost.sync.guards import Guard, Hold

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ReadOnlyGuard"]

# Without a turn of its own, it has to look often to find the lock free between two sections.
_DELAY = 50e-6


class ReadOnlyGuard(Guard):
    """A `Guard` that writes nothing to its row.

    Raises
    ------
    ReadOnlyError
        From whatever would lock exclusively.
    TornArrayError
        From an acquisition that finds what a dead writer left.
    """

    __slots__ = ()

    def prepare(self, mode: int, *, may_await: bool = False) -> Hold:
        """As `Guard.prepare`, for shared locks only."""
        if mode == EXCLUSIVE:
            raise ReadOnlyError("a section or lock for writing cannot be opened")
        return super().prepare(mode, may_await=may_await)

    def attempt(self, hold: Hold) -> bool:
        """As `Guard.attempt`; a dead writer's traces are told of and left as they are."""
        file = hold.file
        if file is None:
            if self.words[self.base + WAITER]:
                self._let_pass()
            file = hold.file = self.files.take(self.slot)
        if not try_lock(file.fd, self.shared_bytes):
            return False
        guards.note_active(hold)
        self.shared.append(hold)
        self.check_current()
        if self.words[self.base + VERSION] & 1:
            raise TornArrayError(self.words[self.base + WRITER_PID])
        return True

    def waits(self, hold: Hold, timeout: float, what: str) -> Iterable[float]:
        """As `Guard.waits`, without a place in the queue."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and not guards.main_thread_failed():
            yield min(_DELAY, left)
        raise LockTimeoutError(what, timeout, self._blocker_pid(hold))
