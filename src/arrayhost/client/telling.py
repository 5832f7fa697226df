"""The lease channel: the socket on which a process tells a host of its leases, and on which nothing is answered.

The host knows by it that the process lives. Since no answer is waited for, finalizers can write to it at any moment.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
import threading
import time
import weakref
from _thread import interrupt_main, start_new_thread
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import msgpack

from arrayhost.client.links import Lease
from arrayhost.wire.frames import Kind, pack_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.client.ways import Stream

__all__ = ["LeaseChannel"]

# Told in one message at most, which a host bounds.
_IDENTS_AT_ONCE = 1000


class _LeaseEnd(weakref.ref[Lease]):
    """A reference to a lease that goes to the outbox when the lease dies.

    C code puts it there, so that neither an interrupt nor a lock can be in the way.
    """

    __slots__ = ("count", "ident", "number")

    count: list[int]
    ident: int
    number: int

    def __new__(cls, lease: Lease, number: int, outbox: deque[Any]) -> Self:
        """Watch a lease; `number` tells its end from all else that is told."""
        self = super().__new__(cls, lease, outbox.append)
        self.number, self.ident, self.count = number, lease.ident, lease.count
        return self

    def __init__(self, *_: object) -> None:
        """Everything is set already; the reference itself takes no more arguments."""

    def frame(self) -> bytes:
        """What gives the leases back; nothing if there are none."""
        count = self.count[0]
        return _told(self.number, Kind.RELEASE, [[self.ident, count]]) if count else b""


def _told(number: int, kind: Kind, body: Any) -> bytes:
    return pack_frame(kind, number & 0xFFFFFFFF, msgpack.packb(body))


def _interrupt_soon() -> None:
    time.sleep(1e-3)
    interrupt_main()


class LeaseChannel:
    """What a session tells its host, in order.

    Attributes
    ----------
    stream : UnixStream, NetworkStream or None
        None while there is no connection.
    outbox : deque
        What waits to be told.

    Notes
    -----
    Safety: any thread, finalizers, signal handlers.
    """

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.outbox: deque[bytes | _LeaseEnd] = deque()
        self._numbers = itertools.count(1)
        self._ends: dict[int, tuple[_LeaseEnd, weakref.ref[Lease]]] = {}
        # Reentrant: the collector may run a finalizer that tells something while something is told.
        self._telling = threading.RLock()
        self._is_telling = False
        self._new_pipe = -1
        self._fork_pipes: list[int] = []

    def has_ended(self) -> bool:
        """Whether the host has hung up; False without a connection."""
        with self._telling:
            # Nothing is ever sent on this socket after the hello: readable means that the other side is closed.
            return self.stream is not None and self.stream.has_ended()

    def close(self) -> None:
        """Hang up."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        self.close_fork_pipes()

    # -- leases --------------------------------------------------------------------------------------------------

    def leases(self) -> list[Lease]:
        """The living leases of this process."""
        found = [end() for end, _ in list(self._ends.values())]
        return [lease for lease in found if lease is not None]

    def watch(self, lease: Lease) -> None:
        """Give back what `lease` counts when it dies."""
        number = next(self._numbers)
        # Callbacks run from the latest reference to the first: it is in the outbox when `_lease_died` looks.
        prompt = weakref.ref(lease, self._lease_died)
        self._ends[number] = (_LeaseEnd(lease, number, self.outbox), prompt)

    def _lease_died(self, _: Any, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        try:
            if not is_finalizing():
                self.send_outbox()
        except KeyboardInterrupt:
            # Python would print and forget it here, where nobody can catch it. Whoever runs a moment later gets it.
            start_new_thread(_interrupt_soon, ())

    # -- telling -------------------------------------------------------------------------------------------------

    def tell(self, kind: Kind, body: Any) -> None:
        """Send without waiting; what does not fit goes with the next message."""
        self.outbox.append(_told(next(self._numbers), kind, body))
        self.send_outbox()

    def send_outbox(self) -> None:
        """Send what the socket takes at once, in order, from one thread at a time.

        An entry is taken out after it was sent: an interrupt in between sends it again, and the host knows it by its
        number.
        """
        outbox = self.outbox
        with self._telling:
            if self._is_telling:  # a finalizer, in the middle of the loop below
                return
            try:
                self._is_telling = True
                while outbox:
                    entry = outbox[0]
                    if not self._sent(entry if isinstance(entry, bytes) else entry.frame()):
                        return
                    outbox.popleft()
                    if not isinstance(entry, bytes):
                        self._ends.pop(entry.number, None)
            finally:
                self._is_telling = False

    def _sent(self, frame: bytes) -> bool:
        """Send one frame without waiting; False if the socket is full."""
        if self.stream is not None and frame:
            try:
                return self.stream.tell(frame)
            except OSError:
                pass  # the host is gone, and all leases with it
        return True

    # -- fork ----------------------------------------------------------------------------------------------------

    def before_fork(self, *, by_grace: bool) -> None:
        """Have the host keep all leases for the child until its end of a new pipe closes.

        Parameters
        ----------
        by_grace : bool
            No pipe can be sent: the child has the grace of pickled handles to connect.
        """
        self._new_pipe = -1
        if self.stream is None or not self._ends:
            return
        if by_grace:
            idents = [lease.ident for lease in self.leases()]
            for start in range(0, len(idents), _IDENTS_AT_ONCE):
                self.tell(Kind.EXPORT, idents[start : start + _IDENTS_AT_ONCE])
            return
        reader, self._new_pipe = os.pipe2(os.O_CLOEXEC)
        try:
            _send_waiting(self.stream.socket, pack_frame(Kind.FORK_GUARD, 0, msgpack.packb(None), 1), reader)
        except OSError:
            pass  # the host is gone: nothing to keep
        finally:
            os.close(reader)

    def after_fork_in_parent(self) -> None:
        """Leave the pipe to the child."""
        if self._new_pipe >= 0:
            os.close(self._new_pipe)
            self._new_pipe = -1

    def after_fork_in_child(self) -> None:
        """Let go of the parent's socket; keep the pipe, and count no lease until all are claimed anew."""
        self._telling = threading.RLock()
        self._is_telling = False
        self.outbox.clear()
        if self._new_pipe >= 0:
            self._fork_pipes.append(self._new_pipe)
            self._new_pipe = -1
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        for end, _ in list(self._ends.values()):
            end.count[0] = 0
        for lease in self.leases():
            lease.exported = False

    def close_fork_pipes(self) -> None:
        """Let go of the pipes that kept inherited leases."""
        pipes, self._fork_pipes = self._fork_pipes, []
        for pipe in pipes:
            os.close(pipe)


def _send_waiting(channel: socket.socket, frame: bytes, fd: int, seconds: float = 5.0) -> None:
    """Send a frame with a descriptor on a socket that may be full; give up in the end rather than never return."""
    poll = select.poll()
    poll.register(channel, select.POLLOUT)
    deadline = time.monotonic() + seconds
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        try:
            socket.send_fds(channel, [frame], [fd], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            continue
        return
