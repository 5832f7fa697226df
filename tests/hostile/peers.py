"""Peers that say what they like, and hosts that are watched while they listen."""

import array
import contextlib
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgpack

from arrayhost import ArrayManager
from arrayhost.hosting import HostOptions
from arrayhost.wire.addresses import socket_name
from arrayhost.wire.frames import HEADER_BYTES, Kind, pack_frame, unpack_header
from arrayhost.wire.hello import CALLS, SESSION, Hello, pack_hello
from arrayhost.wire.limits import Limits

ALL_KINDS = [int(kind) for kind in Kind]


class LimitedHost(ArrayManager):
    """A manager whose host has limits of its own, or trusts nobody."""

    limits = Limits()
    trust_peers = True

    def _host_options(self) -> HostOptions:
        return replace(super()._host_options(), limits=self.limits, trust_peers=self.trust_peers)


def host_with(limits: Limits | None = None, *, trust_peers: bool = True, **options: Any) -> LimitedHost:
    """Make a manager whose host will have these limits."""
    manager = LimitedHost(**options)
    manager.limits = limits or Limits()
    manager.trust_peers = trust_peers
    return manager


class Peer:
    """A socket connected to a host, and the frames it sends and gets.

    `receive` gives None where the host has hung up.
    """

    def __init__(self, address: str | None, timeout: float = 20.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self._data = b""
        self.fds: list[int] = []
        try:
            self.socket.connect(socket_name(str(address)))
        except BaseException:
            self.socket.close()
            raise

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self) -> tuple[int, bytes] | None:
        """Return kind and body of the next frame."""
        try:
            while len(self._data) < HEADER_BYTES or len(self._data) < HEADER_BYTES + unpack_header(self._data)[4]:
                more, fds, _, _ = socket.recv_fds(self.socket, 65536, 64)
                self.fds += fds
                if not more:
                    return None
                self._data += more
        except ConnectionError:
            return None
        kind, _, _, _, length = unpack_header(self._data)
        body = self._data[HEADER_BYTES : HEADER_BYTES + length]
        self._data = self._data[HEADER_BYTES + length :]
        return kind, body

    def ask(self, kind: int, body: bytes, fds: Sequence[int] = (), attachments: int = 0) -> tuple[int, bytes] | None:
        """Send a frame; return the answer, or None if the host hangs up."""
        try:
            self.send(pack_frame(kind, 1, body, len(fds), attachments), fds)
        except ConnectionError:
            return None
        return self.receive()

    def close(self) -> None:
        self.socket.close()
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def session_peer(address: str | None, ident: bytes | None = None) -> tuple[Peer, bytes]:
    """Begin a session as a client does; return its lease channel and ident."""
    peer, ident = Peer(address), ident or os.urandom(16)
    answer = peer.ask(Kind.HELLO, pack_hello(Hello(SESSION, ident)))
    assert answer is not None
    assert answer[0] == Kind.RESULT
    while peer.fds:
        os.close(peer.fds.pop())
    return peer, ident


def calls_peer(address: str | None, ident: bytes, number: int = 1) -> Peer:
    """Begin a connection for requests in a session."""
    peer = Peer(address)
    assert peer.ask(Kind.HELLO, pack_hello(Hello(CALLS, ident, number))) == (Kind.DONE, b"")
    return peer


@contextlib.contextmanager
def caller(address: str | None) -> Iterator[Peer]:
    """A whole client: the connection for requests, with its session."""
    lease_channel, ident = session_peer(address)
    with lease_channel, calls_peer(address, ident) as peer:
        yield peer


def error_name(answer: tuple[int, bytes] | None) -> str:
    """The class that an answer is an error of."""
    assert answer is not None
    assert answer[0] == Kind.ERROR
    described = msgpack.unpackb(answer[1])[0]
    name: str = described if isinstance(described, str) else described[0]  # of a hello, or of a request
    return name.rpartition(":")[2]


# -- watching a process -------------------------------------------------------------------------------------------


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own: shared memory, that is hosted arrays, aside."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) * 1024


def n_threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def n_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """Let this process have as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
