"""Ways to a host: its Unix socket, or a TCP port of it with the key and the certificates that this needs.

What was used once at an address is used again there: a pickled proxy names its host's address and nothing secret.
"""

from __future__ import annotations

from multiprocessing import process
from typing import TYPE_CHECKING, Any, ClassVar

from arrayhost.core.addresses import TCP_PREFIX, parse_tcp
from arrayhost.errors import UnsupportedError
from arrayhost.wire import network
from arrayhost.wire.addresses import connect_unix
from arrayhost.wire.authentication import check_key, prove
from arrayhost.wire.streams import UnixStream
from arrayhost.wire.tls import client_context

if TYPE_CHECKING:
    import ssl

__all__ = ["NetworkWay", "Stream", "UnixWay", "way_to"]

Stream = UnixStream | network.NetworkStream


class UnixWay:
    """The Unix socket of a host of this user.

    Parameters
    ----------
    address : str
        ``unix:...``.
    authkey : bytes, optional
        Presented to the host, which refuses a wrong one.
    """

    timeout = 10.0

    def __init__(self, address: str, authkey: bytes | None = None) -> None:
        self.address = address
        self._key = authkey

    def connect(self) -> Stream:
        """Make a connection; the host has been checked to run as this user, and is trusted, pickles and all."""
        return UnixStream(connect_unix(self.address, self.timeout), trusted=True)

    def proof(self, ident: bytes) -> bytes:
        """What a new session shows the host."""
        return prove(self._key, ident) if self._key is not None else b""

    def serves(self, authkey: bytes | None, tls: Any) -> bool:
        """Whether it is the way with this key."""
        return authkey is None or authkey == self._key


class NetworkWay:
    """A TCP port of a host.

    Parameters
    ----------
    address : str
        ``tcp://host:port``.
    authkey : bytes
    tls : object
        As for `arrayhost.connect`.
    """

    used: ClassVar[dict[str, NetworkWay]] = {}

    def __init__(self, address: str, authkey: bytes, tls: Any) -> None:
        self.address = address
        self._where = parse_tcp(address)
        self._key = check_key(authkey)
        self._tls = tls
        self._context: ssl.SSLContext | None = client_context(tls)

    @property
    def timeout(self) -> float:
        """Seconds that a step of connecting may take."""
        return network.TIMEOUTS.handshake

    def connect(self) -> Stream:
        """Make a connection, on which the key has been proved."""
        stream = network.connect_tcp(self._where, self._key, self._context)
        NetworkWay.used[self.address] = self
        return stream

    def proof(self, ident: bytes) -> bytes:
        """What a new session shows the host: nothing beyond what each connection has shown."""
        return b""

    def serves(self, authkey: bytes | None, tls: Any) -> bool:
        """Whether it is the way with this key and these certificates."""
        return (authkey is None or authkey == self._key) and (tls is None or tls == self._tls)


def way_to(address: str, authkey: bytes | None, tls: Any) -> UnixWay | NetworkWay:
    """Find the way to an address.

    Raises
    ------
    NotAuthorizedError
        An empty key for a TCP address.
    UnsupportedError
        TLS for a Unix socket.
    """
    if not address.startswith(TCP_PREFIX):
        if tls is not None:
            raise UnsupportedError(f"{address} is a Unix socket, which nobody else can read: leave tls= out")
        return UnixWay(address, authkey)
    known = NetworkWay.used.get(address)
    if known is not None and known.serves(authkey, tls):
        return known
    # Without a key, the one that processes of one program share.
    return NetworkWay(address, bytes(process.current_process().authkey) if authkey is None else authkey, tls)
