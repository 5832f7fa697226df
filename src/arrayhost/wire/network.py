"""TCP streams: the same frames as on a Unix socket, large buffers streamed after the body instead of passed as files.

After the body come eight bytes for the length of each attachment, and then the attachments. They are sent from the
arrays' own memory and received into their destination. Nothing that comes over the network is ever unpickled.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import (
    DescriptorLimitError,
    HostGoneError,
    HostMemoryError,
    NotAuthorizedError,
    ProtocolError,
)
from arrayhost.memory.budget import check_free
from arrayhost.memory.segments import create_segment
from arrayhost.wire import limits
from arrayhost.wire.authentication import CLIENT, GREETING_BYTES, HOST, PROOF_BYTES, Handshake
from arrayhost.wire.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_UNTRUSTED_BYTES,
    complete_frame,
    pack_frame,
    trailing,
)
from arrayhost.wire.hello import MAX_HELLO_BYTES
from arrayhost.wire.limits import UNLIMITED
from arrayhost.wire.streams import Message, close_all, shut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from arrayhost.wire.limits import Transit, Unlimited

__all__ = ["NetworkStream", "connect_tcp", "greet_client", "own_memory", "part", "shared_memory", "with_tls"]

if TYPE_CHECKING:
    # Given a size: the memory, and the file that it lies in or None.
    Allocate = Callable[[int], tuple[npt.NDArray[np.uint8], int | None]]

_FIRST_BYTES = 64 * 1024
_LENGTH = struct.Struct("<Q")
# Pieces in which a strided array is copied on its way out.
_PIECE_BYTES = 4 * 1024 * 1024
_NOTHING_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_ACCEPTED, _REFUSED = b"\1", b"\0"
_PARTING_SECONDS, _PARTING_READS = 1.0, 16
# What may lie in a lease channel's own buffer before its owner keeps the rest.
_MAX_UNSENT = 256 * 1024
# Of a message for which there is no room, so much is taken from the stream to be able to say so.
_MOST_SKIPPED = 64 * 1024**3


def own_memory(n_bytes: int) -> tuple[npt.NDArray[np.uint8], int | None]:
    """Receive so many bytes into memory of this process's own; no file.

    Raises
    ------
    HostMemoryError
    """
    check_free(n_bytes)
    return np.empty(n_bytes, np.uint8), None


def shared_memory(n_bytes: int) -> tuple[npt.NDArray[np.uint8], int | None]:
    """Receive into a segment: a host may make it an array's as it is.

    Raises
    ------
    HostMemoryError
    """
    made = create_segment(n_bytes)
    return made.mapping.writer, made.fd


class NetworkStream:
    """A connected TCP socket, with or without TLS, that carries frames.

    Parameters
    ----------
    sock : socket or SSLSocket
    allocate : callable
        `own_memory` or `shared_memory`.

    Notes
    -----
    Safety: one thread at a time. After any exception the stream is unusable and should be closed.
    """

    __slots__ = ("_allocate", "_max_body", "_transit", "_unsent", "socket")

    trusted = False  # whether pickles may be read from the other end
    passes_files = False

    def __init__(self, sock: socket.socket, allocate: Allocate) -> None:
        self.socket = sock
        self._allocate = allocate
        self._unsent = bytearray()
        self._transit: Transit | Unlimited = UNLIMITED
        self._max_body = MAX_BODY_BYTES

    def limit(self, transit: Transit) -> None:
        """Hold the peer to limits, as a host does."""
        self._transit = transit
        self._max_body = MAX_UNTRUSTED_BYTES

    def close(self) -> None:
        """Close this process's descriptor; safe to repeat."""
        self.socket.close()

    def cut(self) -> None:
        """End the connection under whoever waits on it in another thread; the descriptor stays theirs to close."""
        shut(self.socket)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    # -- sending -------------------------------------------------------------------------------------------------

    def send(
        self,
        kind: int,
        sequence: int,
        body: bytes,
        attachments: Sequence[npt.NDArray[Any]] = (),
        fds: Sequence[int] = (),
    ) -> None:
        """Send one message; see `UnixStream.send`. Files cannot be passed.

        Raises
        ------
        HostGoneError
            The connection broke, or the other end has taken nothing for too long.
        """
        if fds:
            raise ProtocolError("files do not travel over the network")
        frame = pack_frame(kind, sequence, body, len(attachments), len(attachments))
        try:
            if not attachments:
                self.socket.sendall(frame)
                return
            lengths = b"".join(_LENGTH.pack(array.nbytes) for array in attachments)
            self._send_large(frame + lengths, attachments)
        except OSError as error:
            raise _broken(error, "sending") from error

    def _send_large(self, head: bytes, attachments: Sequence[npt.NDArray[Any]]) -> None:
        sock = self.socket
        before = sock.gettimeout()
        sock.settimeout(limits.TIMEOUTS.stall)
        try:
            sock.sendall(head)
            for array in attachments:
                for piece in _pieces(array):
                    rest = piece
                    while rest:
                        rest = rest[sock.send(rest) :]
        finally:
            sock.settimeout(before)

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, patience: float = 0.0) -> Message | None:
        """Wait for one message; None at the end of the stream. See `UnixStream.receive`.

        Raises
        ------
        HostGoneError
            The connection broke, ended within a message, or stood still in the middle of one.
        ProtocolError
            The peer sent something else than a frame.
        """
        del patience  # the way is too long to look for an answer without sleeping
        return self._receive(self._max_body, takes_attachments=True)

    def receive_hello(self) -> Message | None:
        """Wait for the first message of a peer, of which no more is known than that it has the key: a small one."""
        return self._receive(MAX_HELLO_BYTES, takes_attachments=False)

    def _receive(self, max_body: int, *, takes_attachments: bool) -> Message | None:
        try:
            data = self.socket.recv(_FIRST_BYTES)
            if not data:
                return None
            before = self.socket.gettimeout()
            kind, sequence, n_fds, n_attachments, end, data = complete_frame(
                data, self._receive_to, max_body, _LENGTH.size
            )
            if n_fds != n_attachments or (n_attachments and not takes_attachments):
                raise ProtocolError("a message over the network that announces files")
            attachments, fds, failure = self._receive_attachments(data, end, n_attachments)
            if self.socket.gettimeout() != before:
                self.socket.settimeout(before)
        except OSError as error:
            if isinstance(error, HostGoneError):
                raise
            raise _broken(error, "receiving") from error
        body = data[HEADER_BYTES : end - n_attachments * _LENGTH.size]
        return Message(kind, sequence, body, attachments, fds, failure)

    def _receive_to(self, data: bytes, end: int) -> bytes:
        """Receive until there are at least `end` bytes."""
        self.socket.settimeout(limits.TIMEOUTS.stall)
        parts = bytearray(data)
        passage = self._transit.enter(self.cut)
        try:
            while len(parts) < end:
                more = self.socket.recv(_FIRST_BYTES)
                if not more:
                    raise HostGoneError("the connection ended in the middle of a message")
                passage.grow(len(more))
                parts += more
        finally:
            passage.leave()
        return bytes(parts)

    def _receive_attachments(
        self, data: bytes, end: int, n_attachments: int
    ) -> tuple[list[npt.NDArray[np.uint8]], list[int], Exception | None]:
        """Receive the attachments; `data` is what has come, and they begin at `end`."""
        rest = memoryview(data)[end:]
        attachments: list[npt.NDArray[np.uint8]] = []
        fds: list[int] = []
        failure: Exception | None = None
        if n_attachments:
            self.socket.settimeout(limits.TIMEOUTS.stall)
        try:
            for (n_bytes,) in _LENGTH.iter_unpack(data[end - n_attachments * _LENGTH.size : end]):
                n_here = min(len(rest), n_bytes)
                try:
                    array, fd = self._allocate(n_bytes)
                except (HostMemoryError, DescriptorLimitError) as error:
                    # The sender is told, once all of it has been taken from the stream.
                    failure = error
                    self._skip(n_bytes - n_here)
                else:
                    attachments.append(array)
                    if fd is not None:
                        fds.append(fd)
                    array[:n_here] = np.frombuffer(rest[:n_here], np.uint8)
                    self._fill(array.data[n_here:n_bytes])
                rest = rest[n_here:]
            if rest:
                raise trailing()
        except BaseException:
            close_all(fds)
            raise
        return attachments, fds, failure

    def _skip(self, n_bytes: int) -> None:
        """Receive and forget."""
        if n_bytes > _MOST_SKIPPED:
            raise ProtocolError(f"a message with {n_bytes} bytes, for which there is no room")
        scratch = memoryview(bytearray(min(n_bytes, _PIECE_BYTES)))
        while n_bytes:
            part = scratch[: min(n_bytes, len(scratch))]
            self._fill(part)
            n_bytes -= len(part)

    def _fill(self, target: memoryview) -> None:
        receive = self.socket.recv_into
        while target:
            n = receive(target)
            if not n:
                raise HostGoneError("the connection ended in the middle of a message")
            target = target[n:]

    # -- a lease channel -----------------------------------------------------------------------------------------

    def tell(self, frame: bytes) -> bool:
        """Send a frame without waiting; False if too much waits to be sent already."""
        if len(self._unsent) > _MAX_UNSENT and not self._flush():
            return False
        self._unsent += frame
        self._flush()
        return True

    def _flush(self) -> bool:
        """Send what the socket takes at once; True if that was all."""
        self.socket.settimeout(0.0)
        try:
            while self._unsent:
                sent = self.socket.send(self._unsent)
                del self._unsent[:sent]
        except _NOTHING_WAITS:
            return False
        return True

    def has_ended(self) -> bool:
        """Whether the peer has closed; only where it is not to send anything any more."""
        self.socket.settimeout(0.0)
        try:
            return self.socket.recv(1) == b""
        except _NOTHING_WAITS:
            return False
        except OSError:
            return True


def _pieces(array: npt.NDArray[Any]) -> Iterator[memoryview]:
    """An array's bytes in its memory order: all in one piece if they lie so, else copied piece by piece."""
    straight = array.T if array.flags.f_contiguous and not array.flags.c_contiguous else array
    if straight.flags.c_contiguous:
        yield memoryview(straight.reshape(-1).view(np.uint8).data)
        return
    n_rows = max(1, _PIECE_BYTES // max(1, straight.nbytes // len(straight)))
    for start in range(0, len(straight), n_rows):
        yield memoryview(np.ascontiguousarray(straight[start : start + n_rows]).reshape(-1).view(np.uint8).data)


def _broken(error: OSError, doing: str) -> HostGoneError:
    if isinstance(error, TimeoutError):
        what = f"the other end stood still for {limits.TIMEOUTS.stall:g} s in the middle of a message"
        if error.errno is not None:
            what = "the other machine gave no sign of life"
        return HostGoneError(f"the connection was given up while {doing}: {what}")
    return HostGoneError(f"the connection broke while {doing}: {error.strerror or error}")


# -- connecting ---------------------------------------------------------------------------------------------------


def tune(sock: socket.socket) -> None:
    """Send small messages at once, and notice when the other machine is gone."""
    third = max(1, int(limits.TIMEOUTS.keepalive / 3))
    given_up = max(limits.TIMEOUTS.keepalive, limits.TIMEOUTS.stall)
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, third),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, third // 2)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
        # What was sent and is never acknowledged is given up at the same time: keep-alive does not probe then.
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(given_up * 1000)),
    ):
        sock.setsockopt(level, option, value)


def connect_tcp(
    where: tuple[str, int], authkey: bytes, context: ssl.SSLContext | None, allocate: Allocate = own_memory
) -> NetworkStream:
    """Connect to a host's TCP port, and prove the key to each other.

    Parameters
    ----------
    where : (str, int)
        Host name or address, and port.
    context : SSLContext or None
        None for a connection without TLS.

    Raises
    ------
    HostGoneError
        Nobody listens there, or the other end hung up or did not answer in time.
    NotAuthorizedError
        It has another key, or a certificate that is not accepted.
    ProtocolError
        It is no host, or only one of the two ends uses TLS.
    """
    name = f"{where[0]}:{where[1]}"
    try:
        sock = socket.create_connection(where, limits.TIMEOUTS.connect)
    except OSError as error:
        raise HostGoneError(f"no host at {name}: {error.strerror or error}; start it, or check the address") from error
    try:
        tune(sock)
        sock.settimeout(limits.TIMEOUTS.handshake)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=where[0])
        _prove_to_host(sock, authkey)
        sock.settimeout(None)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and not isinstance(error, (HostGoneError, NotAuthorizedError)):
            raise _refused(error, name) from error
        raise
    return NetworkStream(sock, allocate)


def _prove_to_host(sock: socket.socket, authkey: bytes) -> None:
    handshake = Handshake(CLIENT, authkey)
    sock.sendall(handshake.greeting())
    handshake.hear_greeting(_receive_exactly(sock, GREETING_BYTES))
    sock.sendall(handshake.proof())
    if _receive_exactly(sock, 1) != _ACCEPTED:
        raise NotAuthorizedError("the host has another key; give connect() the authkey of the host")
    handshake.check_proof(_receive_exactly(sock, PROOF_BYTES))


def with_tls(sock: socket.socket, context: ssl.SSLContext | None) -> socket.socket:
    """Let an accepted socket use TLS, if there is a context. No byte is sent or awaited yet."""
    if context is None:
        return sock
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def greet_client(sock: socket.socket, authkey: bytes, allocate: Allocate = shared_memory) -> NetworkStream:
    """Do the host's part of `connect_tcp`, on a socket from `with_tls`; it stays the caller's to close.

    Returns
    -------
    NetworkStream
        The time for the handshake still holds for it.

    Raises
    ------
    HostGoneError, NotAuthorizedError, ProtocolError
    """
    try:
        tune(sock)
        sock.settimeout(limits.TIMEOUTS.handshake)
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        handshake = Handshake(HOST, authkey)
        try:
            handshake.hear_greeting(_receive_exactly(sock, GREETING_BYTES))
        except ProtocolError:
            sock.sendall(handshake.greeting())  # so that the other end can tell what it has met
            raise
        sock.sendall(handshake.greeting())
        try:
            handshake.check_proof(_receive_exactly(sock, PROOF_BYTES))
        except NotAuthorizedError:
            sock.sendall(_REFUSED)
            raise
        sock.sendall(_ACCEPTED + handshake.proof())
    except OSError as error:
        if isinstance(error, (HostGoneError, NotAuthorizedError)):
            raise
        raise _refused(error, "the client") from error
    return NetworkStream(sock, allocate)


def part(sock: socket.socket) -> None:
    """Close the host's end after a handshake that failed, so that what it said last still arrives.

    A socket that is closed with bytes unread resets the connection, which discards what the other end has not read yet.
    """
    with contextlib.suppress(OSError), sock:
        # Below TLS, if there is any.
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(_PARTING_SECONDS)
        for _ in range(_PARTING_READS):
            if not socket.socket.recv(sock, _FIRST_BYTES):
                return


def _receive_exactly(sock: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        more = sock.recv(n_bytes - len(data))
        if not more:
            if data[:2] in (b"\x16\x03", b"\x15\x03"):
                return data
            raise HostGoneError("the other end hung up during the handshake; if it uses TLS, give tls=")
        data += more
    return data


def _refused(error: OSError, name: str) -> Exception:
    """What an error of a handshake means to the caller."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAuthorizedError(f"the certificate of {name} is not accepted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
            return NotAuthorizedError(f"{name} refused a certificate: {reason}")
        if reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST"):
            return ProtocolError(f"no TLS at the other end ({name}): leave tls= out, or have the host use it")
        return ProtocolError(f"TLS with {name} failed: {reason}")
    if isinstance(error, TimeoutError):
        return HostGoneError(f"{name} did not answer within {limits.TIMEOUTS.handshake:g} s")
    return HostGoneError(
        f"the connection with {name} broke during the handshake: {error.strerror or error}; if it uses TLS, give tls="
    )
