"""The reception: peers between connecting and an accepted hello, by whatever they connect.

They cost a descriptor and a kilobyte each, no thread. Who does not finish in time is sent away, and where too many
are unfinished the oldest go first: an honest client says its hello within a millisecond, so it is never among them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Protocol

import msgpack

from arrayhost.errors import ArrayHostError, NotAuthorizedError, ProtocolError
from arrayhost.memory.descriptors import at_limit
from arrayhost.wire import failures
from arrayhost.wire.frames import FrameDecoder, Kind, pack_frame
from arrayhost.wire.hello import MAX_HELLO_BYTES, Hello, unpack_hello
from arrayhost.wire.streams import close_all, receive_ready

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from arrayhost.host.loop import Loop
    from arrayhost.wire.limits import Limits

__all__ = ["Listener", "Newcomer", "Reception", "tell_refusal"]

log = logging.getLogger(__name__)

# So many are accepted before the loop looks at anything else.
_ACCEPT_AT_ONCE = 64
# A listener that cannot be served stays readable: it is left alone for so long.
_PAUSE_SECONDS = 0.1


class Listener(Protocol):
    """A place where peers connect.

    Attributes
    ----------
    trusted : bool
        Whether those who connect here could do to this process whatever a pickle can.
    """

    trusted: bool

    def fileno(self) -> int:
        """The descriptor to watch."""

    def accept(self) -> socket.socket:
        """Accept one peer without waiting.

        Raises
        ------
        NotAuthorizedError
            One that may not connect; it has been closed.
        OSError
        """

    def close(self) -> None:
        """Stop listening."""

    def hang_up(self) -> None:
        """Close this process's copy of the socket, and leave the address to the process it was forked from."""


class Newcomer:
    """A peer that has connected and not said who it is."""

    __slots__ = ("deadline", "decoder", "fds", "socket", "trusted")

    def __init__(self, sock: socket.socket, deadline: float, *, trusted: bool) -> None:
        self.socket = sock
        self.deadline = deadline
        self.trusted = trusted
        self.decoder = FrameDecoder(MAX_HELLO_BYTES)
        self.fds: list[int] = []


class Reception:
    """Accept peers, hear their hello, hand them on.

    Parameters
    ----------
    loop : Loop
    limits : Limits
    admit : callable
        Given a newcomer, its hello and the hello's sequence number, takes the socket over; or raises
        `ArrayHostError`, and the peer is told why and sent away.
    """

    def __init__(self, loop: Loop, limits: Limits, admit: Callable[[Newcomer, Hello, int], None]) -> None:
        self._loop = loop
        self._limits = limits
        self._admit = admit
        self._newcomers: dict[Newcomer, None] = {}  # the oldest first
        self._paused: dict[Listener, float] = {}
        self._listeners: list[Listener] = []
        # Given up for a moment when there is no other descriptor, so that a peer is told instead of left waiting.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._newcomers)

    def open(self, listener: Listener) -> None:
        """Accept peers from a listener; it is the reception's to close from here on."""
        self._listeners.append(listener)
        self._watch(listener)

    @property
    def is_open(self) -> bool:
        """Whether peers can connect."""
        return bool(self._listeners)

    def hang_up(self) -> None:
        """In a forked child: close its copies of the sockets, which are the parent's to serve."""
        for listener in self._listeners:
            listener.hang_up()
        for newcomer in self._newcomers:
            newcomer.socket.close()

    def close(self) -> None:
        """Stop listening and send everybody away who is still here; safe to repeat."""
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.unwatch(listener)
            listener.close()
        self._paused.clear()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        for newcomer in list(self._newcomers):
            self._drop(newcomer)

    def next_deadline(self) -> float | None:
        """Monotonic seconds at which `keep_deadlines` has something to do."""
        times = [newcomer.deadline for newcomer in list(self._newcomers)[:1]]
        return min([*times, *self._paused.values()], default=None)

    def keep_deadlines(self) -> None:
        """Send away whose time is over, and listen again where that was given up for a while."""
        now = time.monotonic()
        while self._newcomers and (oldest := next(iter(self._newcomers))).deadline <= now:
            log.info("a peer did not say hello in time")
            self._drop(oldest)
        for listener in [one for one, when in self._paused.items() if when <= now]:
            del self._paused[listener]
            self._watch(listener)

    # -- accepting -----------------------------------------------------------------------------------------------

    def _watch(self, listener: Listener) -> None:
        def accept() -> None:
            self._accept(listener)

        self._loop.watch(listener, accept, lambda: self._pause(listener))

    def _pause(self, listener: Listener) -> None:
        self._loop.unwatch(listener)
        self._paused[listener] = time.monotonic() + _PAUSE_SECONDS

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock = listener.accept()
            except BlockingIOError:
                return
            except (NotAuthorizedError, ConnectionError) as error:
                log.warning("refused a peer: %s", error)
                continue
            except OSError as error:
                log.warning("cannot accept a peer: %s", error)
                if not self._turn_away(listener, error):
                    self._pause(listener)
                    return
                continue
            self._take_in(sock, trusted=listener.trusted)

    def _turn_away(self, listener: Listener, error: OSError) -> bool:
        """Without a descriptor to be had, use the spare one to tell a peer so; False if that cannot be done."""
        if error.errno not in (errno.EMFILE, errno.ENFILE) or self._spare < 0:
            return False
        os.close(self._spare)
        self._spare = -1
        try:
            with listener.accept() as sock:
                tell_refusal(sock, 0, at_limit("another client", error.errno))
        except (OSError, NotAuthorizedError):  # another thread was quicker
            return False
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return True

    def _take_in(self, sock: socket.socket, *, trusted: bool) -> None:
        if len(self._newcomers) >= self._limits.max_newcomers:
            log.info("too many peers have not said hello; the oldest is sent away")
            self._drop(next(iter(self._newcomers)))
        sock.setblocking(False)
        newcomer = Newcomer(sock, time.monotonic() + self._limits.hello_seconds, trusted=trusted)
        self._newcomers[newcomer] = None

        def hear() -> None:
            self._hear(newcomer)

        def drop() -> None:
            self._drop(newcomer)

        self._loop.act(hear, drop)  # most peers have said hello by now, and need no watch
        if newcomer in self._newcomers:
            self._loop.watch(sock, hear, drop)

    def _let_go(self, newcomer: Newcomer) -> None:
        self._newcomers.pop(newcomer, None)
        self._loop.unwatch(newcomer.socket)
        close_all(newcomer.fds)

    def _drop(self, newcomer: Newcomer) -> None:
        self._let_go(newcomer)
        newcomer.socket.close()

    # -- the hello -----------------------------------------------------------------------------------------------

    def _hear(self, newcomer: Newcomer) -> None:
        """Read a peer's hello as it arrives."""
        sequence = 0
        try:
            alive = receive_ready(newcomer.socket, newcomer.decoder, newcomer.fds)
            if newcomer.fds:
                raise ProtocolError("a hello with descriptors")
            frame = newcomer.decoder.next_frame()
            if frame is None:
                if not alive:
                    self._drop(newcomer)
                return
            sequence = frame.sequence
            if frame.kind != Kind.HELLO or newcomer.decoder.pending_bytes:
                raise ProtocolError("something else than one hello from a peer that has just connected")
            hello = unpack_hello(frame.body)
            self._let_go(newcomer)
            self._admit(newcomer, hello, sequence)
        except ArrayHostError as error:
            self._refuse(newcomer, sequence, error)

    def _refuse(self, newcomer: Newcomer, sequence: int, error: ArrayHostError) -> None:
        log.warning("refused a peer: %s", error)
        tell_refusal(newcomer.socket, sequence, error)
        self._drop(newcomer)


def tell_refusal(sock: socket.socket, sequence: int, error: ArrayHostError) -> None:
    """Answer a hello with an error."""
    description = failures.describe(error, with_traceback=False, allow_pickle=False)
    with contextlib.suppress(OSError):
        sock.send(pack_frame(Kind.ERROR, sequence, msgpack.packb(description)))
