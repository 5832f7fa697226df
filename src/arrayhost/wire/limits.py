"""Limits: how long a peer may take and how much it may leave unfinished.

`Limits` are a host's, whatever a peer is connected by; `Timeouts` are for both ends of a connection over the network,
where the other machine may vanish without a word.

A peer that stops in the middle of something costs its host a descriptor, perhaps a thread, and what has arrived so
far. None of that may add up: every step has a deadline, and where many messages are unfinished at once the slow ones
go first, so that those who only have much to say get through.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arrayhost.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_LIMITS", "TIMEOUTS", "UNLIMITED", "Limits", "Passage", "Timeouts", "Transit", "Unlimited"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a host allows its peers.

    Attributes
    ----------
    hello_seconds : float
        From connecting to a complete hello.
    idle_seconds : float
        After which a connection without requests gives its thread back; it stays open.
    message_seconds : float
        From the first byte of a message to its last, in either direction.
    lease_seconds : float
        The same for a message on a lease channel; clients send these in one piece.
    max_newcomers : int
        Peers that have not finished their hello; the oldest goes when there is one more.
    max_unfinished : int
        Messages under way that did not fit one system call.
    max_unfinished_bytes : int
        What has arrived of these, or waits to be sent, together.
    patience : float
        Seconds after which a message may count as slow.
    min_rate : float
        Bytes a second below which it does.
    max_forks : int
        Forked children of one session that keep its leases.
    """

    hello_seconds: float = 5.0
    idle_seconds: float = 5.0
    message_seconds: float = 60.0
    lease_seconds: float = 60.0
    max_newcomers: int = 256
    max_unfinished: int = 128
    max_unfinished_bytes: int = 512 * 1024 * 1024
    patience: float = 2.0
    min_rate: float = 1024 * 1024
    max_forks: int = 4096


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the steps of a connection over the network may take, in seconds.

    Attributes
    ----------
    connect : float
        To be connected.
    handshake : float
        From there until both ends have proved the key.
    stall : float
        Without a byte in the middle of a message. A request itself may take as long as it likes.
    keepalive : float
        Without a sign of life from the other machine's kernel. Probes begin after a third of it.
    """

    connect: float = 10.0
    handshake: float = 10.0
    stall: float = 60.0
    keepalive: float = 45.0


TIMEOUTS = Timeouts()


class Passage:
    """One unfinished message on its way.

    Attributes
    ----------
    deadline : float
        Monotonic seconds.
    """

    __slots__ = ("_transit", "cut", "deadline", "n_bytes", "since", "waiting")

    def __init__(self, transit: Transit, cut: Callable[[], None], seconds: float) -> None:
        self._transit = transit
        self.cut = cut
        self.since = time.monotonic()
        self.deadline = self.since + seconds
        self.n_bytes = 0
        self.waiting = False

    def check(self) -> None:
        """Raise `ProtocolError` once the deadline is over."""
        if time.monotonic() > self.deadline:
            raise ProtocolError("a peer left a message unfinished for too long")

    def grow(self, n_bytes: int) -> None:
        """Find room for more of the message.

        Raises
        ------
        ProtocolError
            The deadline is over.
        """
        self.check()
        self._transit.grow(self, n_bytes)

    def leave(self) -> None:
        """Note that the message is complete, or will never be."""
        self._transit.leave(self)


class Transit:
    """The unfinished messages of a host, in the order in which they began.

    Parameters
    ----------
    limits : Limits

    Notes
    -----
    Safety: any thread. A message that finds no room waits for others to be finished or given up; the oldest always
    has room, so that waiting ends.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._passages: dict[Passage, None] = {}
        self._n_bytes = 0
        self._changed = threading.Condition()

    @property
    def n_bytes(self) -> int:
        """Bytes held for unfinished messages."""
        return self._n_bytes

    def __len__(self) -> int:
        return len(self._passages)

    def enter(self, cut: Callable[[], None]) -> Passage:
        """Note that a message has begun; `cut`, called from any thread, must make its transfer fail."""
        passage = Passage(self, cut, self.limits.message_seconds)
        with self._changed:
            if len(self._passages) >= self.limits.max_unfinished:
                self._cut_slow()
            self._passages[passage] = None
        return passage

    def grow(self, passage: Passage, n_bytes: int) -> None:
        """Find room for more of a message; see `Passage.grow`."""
        with self._changed:
            passage.waiting = True
            try:
                while self._n_bytes + n_bytes > self.limits.max_unfinished_bytes and not self._is_oldest(passage):
                    before = time.monotonic()
                    if not self._changed.wait(self.limits.patience):
                        self._cut_slow()
                    passage.since += time.monotonic() - before
                    passage.check()
            finally:
                passage.waiting = False
            passage.n_bytes += n_bytes
            self._n_bytes += n_bytes

    def leave(self, passage: Passage) -> None:
        """Forget a message; see `Passage.leave`."""
        with self._changed:
            del self._passages[passage]
            self._n_bytes -= passage.n_bytes
            self._changed.notify_all()

    def _is_oldest(self, passage: Passage) -> bool:
        return next(iter(self._passages)) is passage

    def _cut_slow(self) -> None:
        now = time.monotonic()
        for passage in self._passages:
            age = now - passage.since
            if not passage.waiting and age > self.limits.patience and passage.n_bytes < age * self.limits.min_rate:
                passage.cut()


class Unlimited:
    """Stands for a `Transit`, and for each passage of it, where the peer may take as long as it likes."""

    def enter(self, cut: Callable[[], None]) -> Unlimited:
        """Note nothing."""
        return self

    def grow(self, n_bytes: int) -> None:
        """Find room for any number of bytes."""

    def leave(self) -> None:
        """Forget nothing."""

    def check(self) -> None:
        """Refuse to wait: called only where a socket does not."""
        raise ProtocolError("a peer that does not take what is sent")


UNLIMITED = Unlimited()
