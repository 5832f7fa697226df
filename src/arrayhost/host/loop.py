"""The loop: what a host watches without a thread for each, and what it does when something happens there.

One peer's trouble stays that peer's: whatever goes wrong in an action ends what the action was for, is logged with
its traceback, and leaves the loop running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loop"]

log = logging.getLogger(__name__)


class HasFileno(Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class _Watch(NamedTuple):
    ready: Callable[[], None]
    failed: Callable[[], None]


class Loop:
    """A selector with one action for each thing that is watched.

    Notes
    -----
    Safety: `wake` from any thread; everything else from the one that calls `turn`.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.watch(self._wake, self._woken, self._woken)

    def __len__(self) -> int:
        return len(self._selector.get_map()) - 1

    def watch(self, what: int | HasFileno, ready: Callable[[], None], failed: Callable[[], None]) -> None:
        """Call `ready` whenever something can be read.

        Parameters
        ----------
        what : int or socket
        ready : callable
        failed : callable
            Called after `ready` has raised; gives up whatever is behind `what`.
        """
        self._selector.register(what, selectors.EVENT_READ, _Watch(ready, failed))

    def unwatch(self, what: int | HasFileno) -> None:
        """Stop watching; what was not watched is left alone."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(what)

    def wake(self) -> None:
        """End the wait of `turn`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    def turn(self, timeout: float | None) -> None:
        """Wait until something can be read, `wake`, or the end of `timeout` seconds; act on all there is."""
        for key, _ in self._selector.select(timeout):
            watch: _Watch = key.data
            # An action may end what stands behind another one of the same round.
            if self._selector.get_map().get(key.fd) is key:
                self.act(watch.ready, watch.failed)

    def act(self, ready: Callable[[], None], failed: Callable[[], None]) -> None:
        """Call `ready`, and `failed` if it raises."""
        try:
            ready()
        except Exception:  # a defect of ours, met by one peer; the others are not to pay for it
            log.exception("an unexpected error; the peer concerned is dropped")
            try:
                failed()
            except Exception:
                log.exception("an unexpected error while dropping a peer")

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()
        os.close(self._wake)

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
