"""Waiting for an array to be written to: blocking, in an event loop, one change after the other."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from arrayhost.client.evaluating import evaluate_in_host
from arrayhost.evaluation.operations import HOSTED, Operation
from arrayhost.sync.watching import wait_changed

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.client.array import HostedArray

__all__ = ["Changes", "wait_for_change", "wait_for_change_async"]

_WAIT = Operation(HOSTED, "wait")
# A host is asked to wait no longer than this, and then again: a caller that goes away keeps no thread there for long.
_LONGEST_REQUEST = 2.0


def wait_for_change(
    array: HostedArray, since: int, timeout: float | None, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Wait until an array's version is another than `since`; return it, or `since` when the time is over."""
    if array.mapped:
        return wait_changed(array.guard, since, timeout, stopped)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        seconds = _LONGEST_REQUEST if deadline is None else min(_LONGEST_REQUEST, max(0.0, deadline - time.monotonic()))
        version: int = evaluate_in_host(_WAIT, (array, since, seconds), {})
        if version != since or stopped() or (deadline is not None and time.monotonic() >= deadline):
            return version


async def wait_for_change_async(array: HostedArray, since: int, timeout: float | None) -> int:
    """As `wait_for_change`, in a thread of its own while the event loop goes on."""
    import asyncio  # not before somebody uses it

    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[int] = loop.create_future()
    stop = threading.Event()

    def deliver(set_outcome: Callable[[Any], None], value: Any) -> None:
        if not outcome.done():
            set_outcome(value)

    def work() -> None:
        set_outcome: Callable[[Any], None] = outcome.set_result
        try:
            value: Any = wait_for_change(array, since, timeout, stop.is_set)
        except Exception as error:  # whatever it is belongs to who awaits
            set_outcome, value = outcome.set_exception, error
        if not stop.is_set():
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody awaits any more
                loop.call_soon_threadsafe(deliver, set_outcome, value)

    # A thread of its own, not the loop's pool: a few waits for arrays that nobody writes to would fill that.
    threading.Thread(target=work, name="arrayhost-wait", daemon=True).start()
    try:
        return await outcome
    finally:
        stop.set()
        if array.mapped:
            array.guard.wake()


class Changes:
    """What ``a.changes()`` gives: an iterator, also an asynchronous one, over the versions after each change.

    Notes
    -----
    Writes that follow each other quickly may be reported as one. Leaving the loop ends the watching.
    """

    def __init__(self, array: HostedArray, since: int, timeout: float | None) -> None:
        self._array = array
        self._since = since
        self._timeout = timeout

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> int:
        version = wait_for_change(self._array, self._since, self._timeout)
        if version == self._since:
            raise StopIteration
        self._since = version
        return version

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> int:
        version = await wait_for_change_async(self._array, self._since, self._timeout)
        if version == self._since:
            raise StopAsyncIteration
        self._since = version
        return version
