"""Client processes as the host knows them: a lease channel, their threads' connections, what they may do."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgpack

from arrayhost.errors import ProtocolError
from arrayhost.wire.frames import FrameDecoder, Kind

if TYPE_CHECKING:
    import socket

    from arrayhost.core.records import Creator
    from arrayhost.host.requests import CallConnection
    from arrayhost.wire.frames import Frame
    from arrayhost.wire.network import NetworkStream

__all__ = ["ClientSession", "fork_pipe", "lease_message"]

_MAX_LEASE_BYTES = 64 * 1024
# An interrupted client names its connection after having closed it, so ended ones are remembered a little.
_REMEMBERED = 64


class ClientSession:
    """A client process and its session with this host.

    Attributes
    ----------
    client : Creator
        The process.
    connected : float
        When, in seconds since the epoch.
    ident : bytes
        The holder of its leases.
    socket : socket
        Its lease channel.
    stream : NetworkStream or None
        The same of a client over the network, which is read in a thread.
    read_only, trusted : bool
    ended : bool
        Its lease channel is closed, and so are soon its connections.
    n_forks : int
        Pipes that keep its leases for forked children.
    n_requests_before : int
        Received on connections that have ended.
    last_told : int
        The number of the latest message on the lease channel.
    """

    def __init__(self, ident: bytes, sock: socket.socket, client: Creator, *, read_only: bool, trusted: bool) -> None:
        self.client = client
        self.connected = time.time()
        self.ident = ident
        self.socket = sock
        self.stream: NetworkStream | None = None
        self.read_only = read_only
        self.trusted = trusted
        self.decoder = FrameDecoder(_MAX_LEASE_BYTES)
        self.fds: list[int] = []
        self.ended = False
        self.n_forks = 0
        self.n_requests_before = 0
        self.last_told = 0
        self._connections: dict[int, CallConnection] = {}
        self._forgotten_next: deque[CallConnection] = deque()
        self._lock = threading.Lock()

    def add(self, connection: CallConnection) -> None:
        """Note a connection of one of its threads."""
        with self._lock:
            self._connections[connection.number] = connection

    def forget(self, connection: CallConnection) -> None:
        """Note that a connection has ended; it is remembered a little."""
        with self._lock:
            self._forgotten_next.append(connection)
            while len(self._forgotten_next) > _REMEMBERED:
                old = self._forgotten_next.popleft()
                if self._connections.get(old.number) is old:
                    del self._connections[old.number]

    def connections(self) -> list[CallConnection]:
        """All its connections."""
        with self._lock:
            return list(self._connections.values())

    def abandon(self, number: int, sequence: int, counted: list[int]) -> None:
        """Take back what the answer to an interrupted request granted and its client did not count."""
        with self._lock:
            connection = self._connections.get(number)
        if connection is not None:
            connection.abandon(sequence, counted)

    def is_new(self, frame: Frame) -> bool:
        """Whether a message is not one sent again, as by a client that was interrupted after it had sent it."""
        again = frame.sequence != 0 and frame.sequence == self.last_told
        self.last_told = frame.sequence
        return not again

    def fds_of(self, frame: Frame) -> list[int]:
        """Take the descriptors that came with a frame; the caller closes what it does not keep.

        Raises
        ------
        ProtocolError
            There are fewer than it announced.
        """
        if len(self.fds) < frame.n_descriptors:
            raise ProtocolError("a message without its descriptors")
        fds, self.fds[: frame.n_descriptors] = self.fds[: frame.n_descriptors], []
        return fds


# Shape of each message on a lease channel: integers, pairs of them, two and a list of more, or nothing.
_INTEGERS, _PAIRS, _ANSWER, _NOTHING = range(4)
_SHAPES = {
    int(Kind.RELEASE): _PAIRS,
    int(Kind.EXPORT): _INTEGERS,
    int(Kind.FORK_GUARD): _NOTHING,
    int(Kind.ABANDON): _ANSWER,
}


def lease_message(frame: Frame) -> Any:
    """Decode a message on a lease channel.

    Raises
    ------
    ProtocolError
        It is none.
    """
    shape = _SHAPES.get(frame.kind)
    try:
        body = msgpack.unpackb(frame.body)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError("a malformed message on a lease channel") from error
    if shape is None or not _fits(body, shape):
        raise ProtocolError(f"a malformed {Kind(frame.kind).name} message on a lease channel")
    return body


def _fits(body: Any, shape: int) -> bool:
    if shape == _NOTHING:
        return body is None
    if shape == _INTEGERS:
        return _are_integers(body)
    if type(body) is not list:
        return False
    if shape == _PAIRS:
        return all(_are_integers(pair) and len(pair) == 2 for pair in body)
    return len(body) == 3 and _are_integers(body[:2]) and _are_integers(body[2])


def _are_integers(value: Any) -> bool:
    return type(value) is list and all(type(item) is int for item in value)


def fork_pipe(fds: list[int]) -> int:
    """Take the pipe of a child about to be forked.

    Raises
    ------
    ProtocolError
        It is none, or one whose end would never be told.
    """
    if len(fds) != 1:
        raise ProtocolError("a fork without its pipe")
    is_pipe = stat.S_ISFIFO(os.fstat(fds[0]).st_mode)
    if not is_pipe or fcntl.fcntl(fds[0], fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
        raise ProtocolError("a fork with something else than a pipe's reading end")
    return fds.pop()
