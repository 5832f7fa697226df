"""What a peer can do to a connection with a bare socket: handshakes by hand, and a relay that fails on demand."""

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import msgpack

from arrayhost.core.addresses import parse_tcp
from arrayhost.wire.authentication import CLIENT, GREETING_BYTES, HOST, PROOF_BYTES, Handshake
from arrayhost.wire.frames import Kind, pack_frame
from tests.remote.conftest import KEY

TCP_REPAIR = 19
_libc = ctypes.CDLL(None)


def dial(address: str) -> socket.socket:
    """Connect, and wait no more than ten seconds for anything."""
    return socket.create_connection(parse_tcp(address), 10)


def exactly(sock: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        more = sock.recv(n_bytes - len(data))
        if not more:
            raise EOFError(data)
        data += more
    return data


def ended(sock: socket.socket) -> bool:
    """Wait for the other end to hang up; what it says before is nothing."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        return True
    return True


def prove(address: str, key: bytes = KEY) -> socket.socket:
    """Connect and pass the handshake."""
    sock = dial(address)
    handshake = Handshake(CLIENT, key)
    sock.sendall(handshake.greeting())
    handshake.hear_greeting(exactly(sock, GREETING_BYTES))
    sock.sendall(handshake.proof())
    assert exactly(sock, 1) == b"\1"
    handshake.check_proof(exactly(sock, PROOF_BYTES))
    return sock


def hello(sock: socket.socket, role: str, ident: bytes, number: int = 0) -> None:
    sock.sendall(pack_frame(Kind.HELLO, 0, msgpack.packb([role, ident, number, b"", "r+", b"", False])))
    assert sock.recv(65536)


def session(address: str) -> tuple[socket.socket, socket.socket]:
    """A session by hand: its lease channel, and a connection for requests."""
    ident = os.urandom(16)
    leases, calls = prove(address), prove(address)
    hello(leases, "session", ident)
    hello(calls, "calls", ident, 1)
    return leases, calls


def reset(sock: socket.socket) -> None:
    """Close with a reset in place of an orderly end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def vanish(sock: socket.socket) -> None:
    """Close without a word to the other end, as a machine that loses its power does."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.close()


class Relay:
    """A port that passes everything on to a host, until it is told to fail.

    Attributes
    ----------
    address : str
    recorded : list of bytearray
        What clients have sent, one for each connection.
    cut_after : int or None
        Bytes from the host after which every connection is reset.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.recorded: list[bytearray] = []
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self._n_passed = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._ends: list[socket.socket] = []
        self._dead: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host = dial(self._target)
            host.settimeout(None)
            self._ends += [client, host]
            record = bytearray()
            self.recorded.append(record)
            for source, target, kept in ((client, host, record), (host, client, None)):
                thread = threading.Thread(target=self._pump, args=(source, target, kept), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if record is not None:
                    record += data
                else:
                    self._n_passed += len(data)
                    if self.stall_after is not None and self._n_passed > self.stall_after:
                        self.stall()
                    if self.cut_after is not None and self._n_passed > self.cut_after:
                        self.reset()
                self._flowing.wait()
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Pass nothing on from now on, and keep the connections."""
        self._flowing.clear()
        if self._closed:  # meanwhile: nobody else would let it flow again
            self._flowing.set()

    def fail_after(self, *, cut: int | None = None, stall: int | None = None) -> None:
        """Fail once so many bytes more have come from the host."""
        self._n_passed = 0
        self.cut_after, self.stall_after = cut, stall

    def reset(self) -> None:
        """Reset every connection."""
        ends, self._ends = self._ends, []
        self._dead += ends
        for sock in ends:
            # What an unspecified address does to a connection: a reset goes out, and whoever waits on it wakes.
            _libc.connect(sock.fileno(), bytes(16), 16)
        self._flowing.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._closed = True
        self._flowing.set()
        for sock in self._ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self._ends + self._dead:
            sock.close()


@contextlib.contextmanager
def relay(target: str) -> Iterator[Relay]:
    made = Relay(target)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def rogue(act: Any) -> Iterator[str]:
    """A port on which `act` is called with each connection; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.settimeout(10)
                with sock, contextlib.suppress(OSError, EOFError):
                    act(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(15)
        assert not thread.is_alive()


def prove_as_host(sock: socket.socket, key: bytes = KEY) -> None:
    """The host's part of the handshake, by somebody who has the key."""
    handshake = Handshake(HOST, key)
    handshake.hear_greeting(exactly(sock, GREETING_BYTES))
    sock.sendall(handshake.greeting())
    handshake.check_proof(exactly(sock, PROOF_BYTES))
    sock.sendall(b"\1" + handshake.proof())
