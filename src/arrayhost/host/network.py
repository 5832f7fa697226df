"""The host's TCP ports: peers prove the key in a thread of their own, and only then reach the server.

Nothing that a stranger does here is seen by the server's loop. How many may be unproven at once is bounded, and how
long each may take. When there are too many, the oldest has to go: an honest client is done in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

from arrayhost.core.addresses import is_loopback, parse_tcp, tcp_address
from arrayhost.errors import ArrayHostError, HostGoneError, NotAuthorizedError
from arrayhost.wire import network
from arrayhost.wire.authentication import check_key
from arrayhost.wire.streams import shut
from arrayhost.wire.tls import host_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from arrayhost.wire.network import NetworkStream
    from arrayhost.wire.streams import Message

__all__ = ["NetworkListener", "check_exposed"]

log = logging.getLogger(__name__)

_MAX_UNPROVEN = 64
_BACKLOG = 64
# After an error of accept, which leaves the listener readable: no descriptor is left, say.
_PAUSE_SECONDS = 0.05


def check_exposed(address: str, where: str, *, tls: Any, insecure: bool) -> None:
    """Refuse to listen in the open for all the network to read along.

    Parameters
    ----------
    address : str
        What was asked for.
    where : str
        The numeric address that it stands for.

    Raises
    ------
    NotAuthorizedError
    """
    if tls is None and not insecure and not is_loopback(where):
        raise NotAuthorizedError(
            f"{address} can be reached from other machines, and without TLS everybody on the way can read and change "
            "what is sent: give tls=(certificate, key), or say insecure=True if the network itself is protected"
        )


class NetworkListener:
    """A TCP port of a host.

    Parameters
    ----------
    address : str
        ``tcp://host:port``; port 0 takes a free one.
    authkey : bytes
        What every peer has to prove.
    tls : None, SSLContext or sequence of path
        See `arrayhost.wire.tls.host_context`.
    insecure : bool
        Whether to listen on other addresses than loopback without TLS.
    welcome : callable
        Given the stream of a peer that has proved the key, its first message and its address. Called in a thread
        that ends afterwards.

    Attributes
    ----------
    address : str
        With the port that was taken.

    Raises
    ------
    NotAuthorizedError
        There is no key, or the port would be open to the network without TLS.
    OSError
        It cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        authkey: bytes,
        tls: Any,
        *,
        insecure: bool,
        welcome: Callable[[NetworkStream, Message, str], None],
    ) -> None:
        self._key = check_key(authkey)
        self._context: ssl.SSLContext | None = host_context(tls)
        self._welcome = welcome
        self._socket = _listen(address, tls=tls, insecure=insecure)
        self.address = tcp_address(self._socket.getsockname())
        self._unproven: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def start(self) -> None:
        """Accept peers from here on, in a thread."""
        log.info("peers with the key may connect to %s%s", self.address, " with TLS" if self._context else "")
        threading.Thread(target=self._accept, name="arrayhost-accept", daemon=True).start()

    def close(self) -> None:
        """Stop listening and hang up on those who are still proving the key. From any thread."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        with self._lock:
            for sock in self._unproven:
                shut(sock)

    def after_fork_in_child(self) -> None:
        """Let go of the sockets: they are the parent's."""
        self._socket.close()
        for sock in self._unproven:
            sock.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                sock, peer = self._socket.accept()
            except OSError as error:
                if not self._closed.wait(_PAUSE_SECONDS):
                    log.warning("cannot accept a peer: %s", error)
                continue
            try:
                sock = network.with_tls(sock, self._context)
                self._make_room(sock)
                name = "arrayhost-greet"
                threading.Thread(target=self._meet, args=(sock, tcp_address(peer)), name=name, daemon=True).start()
            except (OSError, RuntimeError) as error:  # gone already, or no more threads to be had
                log.warning("cannot serve a peer: %s", error)
                self._forget(sock)
                sock.close()
        self._socket.close()

    def _make_room(self, sock: socket.socket) -> None:
        with self._lock:
            if len(self._unproven) >= _MAX_UNPROVEN:
                oldest = next(iter(self._unproven))
                del self._unproven[oldest]
                log.warning("too many peers have not proved the key; the oldest is sent away")
                shut(oldest)
            self._unproven[sock] = None

    def _forget(self, sock: socket.socket) -> None:
        with self._lock:
            self._unproven.pop(sock, None)

    def _meet(self, sock: socket.socket, peer: str) -> None:
        """Be the thread of a peer until it has said hello, or has failed to."""
        try:
            stream = network.greet_client(sock, self._key)
            message = stream.receive_hello()
            if message is None:
                raise HostGoneError("it hung up before it said hello")
            stream.socket.settimeout(None)
        except ArrayHostError as error:
            log.warning("refused a peer at %s: %s", peer, error)
            network.part(sock)
            self._forget(sock)
            return
        self._forget(sock)
        self._welcome(stream, message, peer)


def _listen(address: str, *, tls: Any, insecure: bool) -> socket.socket:
    host, port = parse_tcp(address)
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    check_exposed(address, str(where[0]), tls=tls, insecure=insecure)
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    return sock
