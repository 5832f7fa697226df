"""Ways to a host: its Unix socket, or a TCP port of it, with the key and the certificates that this needs.

What was used once at an address is used again there: a pickled proxy names its host's address. Who was given no key
uses the one of the file that ``ARRAYHOST_KEY_FILE`` names, else the one that the processes of one program share.
"""

from __future__ import annotations

import os
from multiprocessing import process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arrayhost.core.addresses import TCP_PREFIX, parse_tcp
from arrayhost.errors import NotAuthorizedError, UnsupportedError
from arrayhost.wire import limits, network
from arrayhost.wire.addresses import connect_unix
from arrayhost.wire.authentication import check_key, prove
from arrayhost.wire.streams import UnixStream
from arrayhost.wire.tls import client_context

if TYPE_CHECKING:
    import ssl

__all__ = ["KEY_FILE_VARIABLE", "NetworkWay", "Stream", "UnixWay", "own_key", "read_key", "remember_way", "way_to"]

Stream = UnixStream | network.NetworkStream

KEY_FILE_VARIABLE = "ARRAYHOST_KEY_FILE"


def own_key() -> bytes:
    """The key of a process that was given none.

    Raises
    ------
    NotAuthorizedError
        ``ARRAYHOST_KEY_FILE`` names no file that holds one.
    """
    file = os.environ.get(KEY_FILE_VARIABLE)
    return read_key(file) if file else bytes(process.current_process().authkey)


def read_key(file: str | os.PathLike[str]) -> bytes:
    """Read a key from a file; white space around it does not count.

    Raises
    ------
    NotAuthorizedError
        It cannot be read, or is empty.
    """
    try:
        key = Path(file).read_bytes().strip()
    except OSError as error:
        raise NotAuthorizedError(f"the key file {os.fspath(file)} cannot be read: {error.strerror}") from error
    if not key:
        raise NotAuthorizedError(f"the key file {os.fspath(file)} is empty")
    return key


class UnixWay:
    """The Unix socket of a host of this user.

    Parameters
    ----------
    address : str
        ``unix:...``.
    authkey : bytes, optional
        The host's.
    given : bool
        Whether it was given for this very host, and not merely used here before.
    """

    timeout = 10.0

    def __init__(self, address: str, authkey: bytes | None = None, *, given: bool = True) -> None:
        self.address = address
        self._key = authkey
        self._given = given

    @property
    def credentials(self) -> tuple[bytes | None, Any]:
        """The key, if one was needed, and no certificates."""
        return self._key, None

    def connect(self) -> Stream:
        """Make a connection; the host has been checked to run as this user, and is trusted, pickles and all."""
        return UnixStream(connect_unix(self.address, self.timeout), trusted=True)

    def proof(self, ident: bytes) -> tuple[bytes, bool]:
        """What a new session shows the host, and whether that must be right."""
        if self._key is None:
            return prove(own_key(), ident), False
        return prove(self._key, ident), self._given

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

    def __init__(self, address: str, authkey: bytes, tls: Any) -> None:
        self.address = address
        self._where = parse_tcp(address)
        self._key = check_key(authkey)
        self._tls = tls
        self._context: ssl.SSLContext | None = client_context(tls)

    @property
    def credentials(self) -> tuple[bytes | None, Any]:
        """The key, and the certificates."""
        return self._key, self._tls

    @property
    def timeout(self) -> float:
        """Seconds that a step of connecting may take."""
        return limits.TIMEOUTS.handshake

    def connect(self) -> Stream:
        """Make a connection, on which the key has been proved."""
        return network.connect_tcp(self._where, self._key, self._context)

    def proof(self, ident: bytes) -> tuple[bytes, bool]:
        """What a new session shows the host: nothing beyond what each connection has shown."""
        return b"", False

    def serves(self, authkey: bytes | None, tls: Any) -> bool:
        """Whether it is the way with this key and these certificates."""
        return (authkey is None or authkey == self._key) and (tls is None or tls == self._tls)


_used: dict[str, UnixWay | NetworkWay] = {}


def remember_way(way: UnixWay | NetworkWay) -> None:
    """Note that a way has led to a host: for whoever comes to its address without a key."""
    _used[way.address] = way


def way_to(address: str, authkey: bytes | None, tls: Any) -> UnixWay | NetworkWay:
    """Find the way to an address.

    Raises
    ------
    NotAuthorizedError
        An empty key for a TCP address.
    UnsupportedError
        TLS for a Unix socket.
    """
    known = _used.get(address)
    if not address.startswith(TCP_PREFIX):
        if tls is not None:
            raise UnsupportedError(f"{address} is a Unix socket, which nobody else can read: leave tls= out")
        if authkey is None and known is not None:
            # Another host may listen there by now, and need none.
            return UnixWay(address, known.credentials[0], given=False)
        return UnixWay(address, authkey)
    if known is not None and known.serves(authkey, tls):
        return known
    return NetworkWay(address, own_key() if authkey is None else authkey, tls)
