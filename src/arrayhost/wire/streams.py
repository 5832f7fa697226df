"""Unix-socket streams: whole frames in and out, descriptors and large buffers with them."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.errors import HostGoneError, NotAuthorizedError, ProtocolError
from arrayhost.memory.budget import refused
from arrayhost.memory.descriptors import at_limit, descriptor_limit
from arrayhost.memory.filling import attachment_of
from arrayhost.memory.segments import check_sealed, map_segment
from arrayhost.wire.frames import HEADER_BYTES, MAX_DESCRIPTORS, FrameDecoder, pack_frame, unpack_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

__all__ = ["LOCAL_PREFIX", "Message", "UnixStream", "bind_unix", "connect_unix", "peer_credentials", "receive_ready"]

# Most messages fit in the first; a buffer is allocated for each read, and a large one costs.
_FIRST_BYTES = 4 * 1024
_RECEIVE_BYTES = 64 * 1024
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
# Plain numbers: the socket module's are enum members, whose operators cost a microsecond each.
_TRUNCATED = int(socket.MSG_CTRUNC)
_DONTWAIT = int(socket.MSG_DONTWAIT)
_CREDENTIALS = struct.Struct("3i")
_close = os.close
# Looking for a message without sleeping is given up for a while after so many times in vain.
_GIVE_UP_AFTER = 2
_TRY_AGAIN_AFTER = 128
# What ``recvmsg`` returns: bytes, ancillary data, flags, address.
_Part = tuple[bytes, list[tuple[int, int, bytes]], int, Any]
# Arguments of ``recvmsg``, as `map` takes them.
_FIRST = ((_FIRST_BYTES,), (_ANCILLARY_BYTES,))
_FIRST_AT_ONCE = (*_FIRST, (_DONTWAIT,))
_MORE = ((_RECEIVE_BYTES,), (_ANCILLARY_BYTES,))
LOCAL_PREFIX = "unix:"


class Message(NamedTuple):
    """One received message.

    Attributes
    ----------
    attachments : list of ndarray of uint8
        Its large buffers, mapped, writeable and the receiver's own.
    fds : list of int
        All its descriptors, owned by the receiver; the first ones are the attachments'.
    failure : Exception or None
        Why descriptors or attachments are missing: the receiver has no descriptor or no memory left for them. The
        stream is in order.
    """

    kind: int
    sequence: int
    body: bytes
    attachments: list[npt.NDArray[np.uint8]]
    fds: list[int]
    failure: Exception | None = None


class UnixStream:
    """A connected Unix socket that carries frames.

    Notes
    -----
    Safety: one thread at a time for each direction. After any exception the stream is unusable and should be closed:
    a reply that still comes would be taken for the next one's.
    """

    __slots__ = ("_lost", "_n_vain", "_receive", "_send", "_unread", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._n_vain = 0
        self._lost = False
        self._send = sock.send
        self._receive = sock.recvmsg
        # C code puts here what has been received: an interrupt right after ``recvmsg`` would lose the descriptors.
        self._unread: list[_Part] = []

    def close(self) -> None:
        """Close the socket; safe to repeat."""
        self.socket.close()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def send(
        self,
        kind: int,
        sequence: int,
        body: bytes,
        attachments: Sequence[npt.NDArray[Any]] = (),
        fds: Sequence[int] = (),
    ) -> None:
        """Send one message.

        Parameters
        ----------
        attachments : sequence of ndarray
            Each is copied once, into a memory file that the receiver maps.
        fds : sequence of int
            Stay open here.

        Raises
        ------
        HostGoneError
            The other side has closed.
        """
        if not attachments and not fds:
            self._send_all(pack_frame(kind, sequence, body))
            return
        files: list[int] = []
        try:
            for attachment in attachments:
                files.append(attachment_of(attachment))  # noqa: PERF401  # what was made must be closed if one fails
            everything = [*files, *fds]
            frame = pack_frame(kind, sequence, body, len(everything), len(files))
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", everything))]
            try:
                sent = self.socket.sendmsg([frame], ancillary)
            except OSError as error:
                raise HostGoneError(f"the connection broke while sending: {error}") from error
            self._send_all(frame[sent:])
        finally:
            for fd in files:
                os.close(fd)

    def _send_all(self, data: bytes) -> None:
        try:
            sent = self._send(data)
            while sent < len(data):
                data = data[sent:]
                sent = self._send(data)
        except OSError as error:
            raise HostGoneError(f"the connection broke while sending: {error}") from error

    def receive(self, patience: float = 0.0) -> Message | None:
        """Wait for one message; None at the end of the stream.

        Parameters
        ----------
        patience : float
            Seconds to look for it again and again before sleeping: being woken on an idle processor takes several
            times as long as most answers.

        Raises
        ------
        HostGoneError
            The connection broke, or ended within a message.
        ProtocolError
            The peer sent something else than a frame.
        """
        fds: list[int] = []
        try:
            try:
                data = self._receive_first(patience, fds)
                if not data:
                    return None
                while len(data) < HEADER_BYTES:
                    data += self._receive_more(fds)
                kind, sequence, n_fds, n_attachments, length = unpack_header(data)
                end = HEADER_BYTES + length
                if len(data) < end:
                    parts = bytearray(data)
                    while len(parts) < end:
                        parts += self._receive_more(fds)
                    data = bytes(parts)
            except OSError as error:
                if isinstance(error, HostGoneError):
                    raise
                raise HostGoneError(f"the connection broke: {error}") from error
            if len(data) > end:
                raise ProtocolError("more than one message at a time on a connection that answers each")
            message = Message(kind, sequence, data[HEADER_BYTES:], [], fds)
            if not n_fds and not fds:
                return message
            if self._lost:
                self._lost = False
                close_all(fds)
                return message._replace(failure=at_limit("what came with a message"))
            return _with_descriptors(message, n_fds, n_attachments)
        except BaseException:
            self._take_unread(fds)
            close_all(fds)
            raise

    def _receive_first(self, patience: float, fds: list[int]) -> bytes:
        if not patience or not self._look(patience):
            self._unread.extend(map(self._receive, *_FIRST))
        return self._accept(fds)

    def _look(self, patience: float) -> bool:
        """Look for data without sleeping, unless that was in vain lately.

        It is where both sides share a processor: the other one cannot run before this one sleeps. Yielding instead
        would hand the processor to whatever else wants it.
        """
        if self._n_vain >= _GIVE_UP_AFTER:
            self._n_vain = (self._n_vain + 1) % _TRY_AGAIN_AFTER
            return False
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                self._unread.extend(map(self._receive, *_FIRST_AT_ONCE))
            except BlockingIOError:
                continue
            self._n_vain = 0
            return True
        self._n_vain += 1
        return False

    def _accept(self, fds: list[int]) -> bytes:
        """Take what ``recvmsg`` returned: the descriptors into `fds`, the bytes as the result."""
        data, ancillary, flags, _ = self._unread[0]
        if ancillary:
            take_descriptors(ancillary, fds)
        self._unread.clear()
        if flags & _TRUNCATED:
            # The kernel drops descriptors for which this process has no room, and says no more than this.
            self._lost = True
        return data

    def _receive_more(self, fds: list[int]) -> bytes:
        self._unread.extend(map(self._receive, *_MORE))
        data = self._accept(fds)
        if not data:
            raise HostGoneError("the connection ended in the middle of a message")
        return data

    def _take_unread(self, fds: list[int]) -> None:
        """Add the descriptors of a part that an interrupt kept from being accepted, or from being forgotten then."""
        received: list[int] = []
        for _, ancillary, _, _ in self._unread:
            take_descriptors(ancillary, received)
        self._unread.clear()
        fds += [fd for fd in received if fd not in fds]


def receive_ready(sock: socket.socket, decoder: FrameDecoder, fds: list[int]) -> bool:
    """Feed what a non-blocking socket has into a decoder; False at the end of the stream.

    Raises
    ------
    ProtocolError
        Descriptors were lost, or came in an implausible number.
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(_RECEIVE_BYTES, _ANCILLARY_BYTES)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    take_descriptors(ancillary, fds)
    if flags & _TRUNCATED or len(fds) > MAX_DESCRIPTORS:
        raise ProtocolError("descriptors were lost on the way")
    decoder.feed(data)
    return bool(data)


def take_descriptors(ancillary: list[tuple[int, int, bytes]], fds: list[int]) -> None:
    """Append the descriptors of a received message to `fds`."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) // 4 * 4])
            fds.extend(received)


def close_all(fds: list[int]) -> None:
    """Close descriptors and empty the list."""
    # All in C: between taking a number out of the list and closing it, an interrupt would lose it.
    with contextlib.suppress(IndexError):
        deque(map(_close, iter(fds.pop, None)), 0)


def _with_descriptors(message: Message, n_fds: int, n_attachments: int) -> Message:
    """Map a message's attachments."""
    fds = message.fds
    if len(fds) != n_fds:
        raise ProtocolError(f"a message with {len(fds)} descriptors that announced {n_fds}")
    for fd in fds[:n_attachments]:
        check_sealed(fd)
        n_bytes = os.fstat(fd).st_size
        try:
            message.attachments.append(map_segment(fd, n_bytes).writer)
        except OSError as error:
            close_all(fds)
            return message._replace(failure=refused(error, n_bytes))
    return message


# -- addresses ----------------------------------------------------------------------------------------------------


def socket_name(address: str) -> str:
    """Turn ``unix:/path`` or ``unix:@name`` into what the socket calls take.

    Raises
    ------
    ValueError
        `address` is neither.
    """
    name = address.removeprefix(LOCAL_PREFIX)
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    if name.startswith("/") and "\0" not in name:
        return name
    raise ValueError(f"address {address!r}: expected 'unix:/absolute/path' or 'unix:@name'")


def bind_unix(address: str, backlog: int = 128) -> socket.socket:
    """Listen on a Unix socket that only this user may connect to.

    Raises
    ------
    OSError
        The address is taken, or its folder belongs to somebody else.
    """
    name = socket_name(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if name[0] != "\0":
            _remove_stale(name)
            # The file's mode is set before anybody can connect: connecting is possible only after listen().
            sock.bind(name)
            os.chmod(name, 0o600)
        else:
            sock.bind(name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise type(error)(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    return sock


def _remove_stale(name: str) -> None:
    """Make the folder of a socket; remove the socket that a dead host of this user left."""
    folder = os.path.dirname(name)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Two hosts that start at once would both find the dead one's socket, and the second remove the first's.
        fcntl.flock(fd, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setblocking(False)
            if probe.connect_ex(name) == errno.ECONNREFUSED and os.lstat(name).st_uid == os.geteuid():
                os.unlink(name)
    finally:
        os.close(fd)


def connect_unix(address: str, timeout: float) -> socket.socket:
    """Connect to a host's Unix socket and check that the host belongs to this user.

    Raises
    ------
    HostGoneError
        Nobody listens there.
    NotAuthorizedError
        Another user does.
    """
    with descriptor_limit("a connection to a host"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(socket_name(address))
        sock.settimeout(None)
        check_peer(sock)
    except OSError as error:
        sock.close()
        if isinstance(error, NotAuthorizedError):
            raise
        raise HostGoneError(
            f"no host at {address}: {error.strerror or error}; start it, or check the address"
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Process and user id of the other side, as the kernel knows them."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def check_peer(sock: socket.socket) -> int:
    """Return the other side's process id.

    Raises
    ------
    NotAuthorizedError
        It runs as another user.
    """
    pid, uid = peer_credentials(sock)
    if uid != os.geteuid():
        raise NotAuthorizedError(f"process {pid} belongs to user {uid}, this one to user {os.geteuid()}")
    return pid
