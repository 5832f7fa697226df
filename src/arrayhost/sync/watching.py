"""Waiting until an array has been written to, without looking at it again and again.

A watcher leaves word in the array's row and sleeps in the kernel on the version itself (a futex: it works across
processes, since all map the same file). Whoever ends a write finds the word and wakes it; where nobody watches, that
costs one comparison. The watcher sleeps in slices, which bounds what it misses: the word may become visible to a writer
just after it looked, and a writer may be killed between its write and the waking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from arrayhost.memory._libc import futex_wait
from arrayhost.memory.control import VERSION, WATCHED

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.sync.guards import Guard

__all__ = ["wait_changed"]

SLICE = 0.5
_LOOK = 1e-3


def wait_changed(guard: Guard, since: int, timeout: float | None, stopped: Callable[[], bool] = lambda: False) -> int:
    """Wait until the version of the last completed write is another than `since`.

    Parameters
    ----------
    guard : Guard
    since : int
    timeout : float, optional
        Seconds; None waits without end.
    stopped : callable
        Asked after each awakening; True ends the waiting. To be followed by ``guard.wake()``.

    Returns
    -------
    int
        The version now: `since` itself if the time is over.

    Raises
    ------
    StaleProxyError
        The array has been freed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    row = guard.row
    while True:
        version = row[VERSION]
        guard.check_current()
        if version & ~1 != since or stopped():
            return version & ~1
        seconds = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
        if seconds <= 0:
            return since
        if guard.table.read_only:
            time.sleep(min(seconds, _LOOK))  # it cannot leave word, so nobody would wake it
            continue
        # Said anew for each slice and good for two: while anybody watches, no writer finds it expired.
        row[WATCHED] = time.monotonic_ns() + int(2e9 * SLICE)
        # Returns at once if the version has changed since it was read above.
        futex_wait(guard.version_address, version & 0xFFFFFFFF, seconds)
