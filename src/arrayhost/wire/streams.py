"""Unix-socket streams: whole frames in and out, descriptors and large buffers with them."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.errors import HostGoneError, HostMemoryError, ProtocolError
from arrayhost.memory.budget import check_free, refused
from arrayhost.memory.descriptors import at_limit
from arrayhost.memory.filling import attachment_of
from arrayhost.memory.segments import check_sealed, map_segment
from arrayhost.wire.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_DESCRIPTORS,
    MAX_UNTRUSTED_BYTES,
    FrameDecoder,
    complete_frame,
    pack_frame,
)
from arrayhost.wire.limits import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from arrayhost.wire.limits import Transit, Unlimited

__all__ = ["Message", "StreamIdle", "UnixStream", "close_all", "receive_ready", "shut"]

# Most messages fit in the first; a buffer is allocated for each read, and a large one costs.
_FIRST_BYTES = 4 * 1024
_RECEIVE_BYTES = 64 * 1024
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
# Plain numbers: the socket module's are enum members, whose operators cost a microsecond each.
_TRUNCATED = int(socket.MSG_CTRUNC)
# What comes must not pass to programs that a thread of this process happens to start at this moment.
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_AT_ONCE = int(socket.MSG_DONTWAIT) | _CLOSE_ON_EXEC
_TIMEVAL = struct.Struct("ll")
_close = os.close
# Looking for a message without sleeping is given up for a while after so many times in vain.
_GIVE_UP_AFTER = 2
_TRY_AGAIN_AFTER = 128
# What ``recvmsg`` returns: bytes, ancillary data, flags, address.
_Part = tuple[bytes, list[tuple[int, int, bytes]], int, Any]
# Arguments of ``recvmsg``, as `map` takes them.
_FIRST = ((_FIRST_BYTES,), (_ANCILLARY_BYTES,), (_CLOSE_ON_EXEC,))
_FIRST_AT_ONCE = (*_FIRST[:2], (_AT_ONCE,))
_MORE = ((_RECEIVE_BYTES,), (_ANCILLARY_BYTES,), (_CLOSE_ON_EXEC,))


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


class StreamIdle(Exception):
    """No message began within the time that `UnixStream.limit` set; the stream can be used further."""


class UnixStream:
    """A connected Unix socket that carries frames.

    Parameters
    ----------
    sock : socket
    trusted : bool
        Whether this peer's pickles may be read: it could do to this process whatever a pickle can.

    Notes
    -----
    Safety: one thread at a time for each direction. After any exception but `StreamIdle` the stream is unusable and
    should be closed: a reply that still comes would be taken for the next one's.
    """

    __slots__ = (
        "_fds", "_lost", "_max_body", "_n_vain", "_receive", "_send", "_sent_files", "_transit", "_unread", "socket",
        "trusted",
    )  # fmt: skip

    passes_files = True

    def __init__(self, sock: socket.socket, *, trusted: bool) -> None:
        self.socket = sock
        self.trusted = trusted
        self._n_vain = 0
        self._lost = False
        self._send = sock.send
        self._receive = sock.recvmsg
        # C code puts here what has been received: an interrupt right after ``recvmsg`` would lose the descriptors.
        self._unread: list[_Part] = []
        self._fds: list[int] = []  # of the message that is being received
        self._transit: Transit | Unlimited = UNLIMITED
        self._max_body = MAX_BODY_BYTES
        self._sent_files = False

    def limit(self, transit: Transit) -> None:
        """Hold the peer to limits; without, `send` and `receive` wait as long as it takes."""
        self._transit = transit
        if not self.trusted:
            self._max_body = MAX_UNTRUSTED_BYTES
        # The kernel's own timeouts: Python's would add a system call to each receive.
        seconds, rest = divmod(transit.limits.idle_seconds, 1)
        wait = _TIMEVAL.pack(int(seconds), int(rest * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)

    def close(self) -> None:
        """Close the socket; safe to repeat."""
        self.socket.close()

    def cut(self) -> None:
        """End the connection under whoever waits on it in another thread; the descriptor stays theirs to close."""
        shut(self.socket)

    def tell(self, frame: bytes) -> bool:
        """Send a frame without waiting; False if the socket is full."""
        try:
            # Far below the size up to which a socket takes a message whole or not at all.
            self.socket.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def has_ended(self) -> bool:
        """Whether the peer has closed and nothing it sent is left."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

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
        ProtocolError
            It does not take the message within the limits.
        """
        if not attachments and not fds:
            frame = pack_frame(kind, sequence, body)
            try:
                sent = self._send(frame)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise HostGoneError(f"the connection broke while sending: {error}") from error
            if sent < len(frame):
                self._send_rest(frame, sent)
            return
        files: list[int] = []
        try:
            for attachment in attachments:
                files.append(attachment_of(attachment))  # noqa: PERF401  # what was made must be closed if one fails
            everything = [*files, *fds]
            frame = pack_frame(kind, sequence, body, len(everything), len(files))
            self._sent_files = bool(files) and self._transit is not UNLIMITED
            self._send_rest(frame, 0, everything)
        finally:
            for fd in files:
                os.close(fd)

    def _send_rest(self, frame: bytes, sent: int, fds: Sequence[int] = ()) -> None:
        """Send what one system call did not take, as the peer makes room; descriptors go with the first byte."""
        passage = self._transit.enter(self.cut)
        rest = memoryview(frame)
        try:
            passage.grow(len(frame))
            while sent < len(frame):
                try:
                    if fds:
                        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                        sent += self.socket.sendmsg([rest], ancillary)
                        fds = ()
                    else:
                        sent += self._send(rest[sent:])
                except BlockingIOError:
                    passage.check()
        except OSError as error:
            raise HostGoneError(f"the connection broke while sending: {error}") from error
        finally:
            passage.leave()

    # -- receiving -----------------------------------------------------------------------------------------------

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
            The peer sent something else than a frame, or takes too long to send all of it.
        StreamIdle
            There are limits, and no message began in time.
        """
        fds = self._fds = []
        try:
            try:
                data = self._receive_first(patience)
            except BlockingIOError:
                raise StreamIdle from None
            except OSError as error:
                raise HostGoneError(f"the connection broke: {error}") from error
            if not data:
                return None
            kind, sequence, n_fds, n_attachments, _, data = complete_frame(data, self._receive_rest, self._max_body)
            if self._sent_files:
                self._check_read()
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

    def _receive_first(self, patience: float) -> bytes:
        if not patience or not self._look(patience):
            self._unread.extend(map(self._receive, *_FIRST))
        return self._accept()

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

    def _accept(self) -> bytes:
        """Take what ``recvmsg`` returned: the message's descriptors to the others, the bytes as the result."""
        data, ancillary, flags, _ = self._unread[0]
        if ancillary:
            take_descriptors(ancillary, self._fds)
        self._unread.clear()
        if len(self._fds) > MAX_DESCRIPTORS:
            raise ProtocolError(f"a message with more than {MAX_DESCRIPTORS} descriptors")
        if flags & _TRUNCATED:
            # The kernel drops descriptors for which this process has no room, and says no more than this.
            self._lost = True
        return data

    def _receive_rest(self, data: bytes, end: int) -> bytes:
        """Receive up to `end` bytes of a message in all, or all that has come if that is more."""
        parts = bytearray(data)
        passage = self._transit.enter(self.cut)
        try:
            while len(parts) < end:
                try:
                    self._unread.extend(map(self._receive, *_MORE))
                except BlockingIOError:
                    passage.check()
                    continue
                more = self._accept()
                if not more:
                    raise HostGoneError("the connection ended in the middle of a message")
                passage.grow(len(more))
                parts += more
        except OSError as error:
            if isinstance(error, HostGoneError):
                raise
            raise HostGoneError(f"the connection broke: {error}") from error
        finally:
            passage.leave()
        return bytes(parts)

    def _check_read(self) -> None:
        """Refuse a peer that asks for more before it has taken the files of the last answer.

        A socket holds some hundred small messages, and each may carry files of any size: a peer that never reads
        could have its host fill the memory.
        """
        unread = fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, bytes(4))
        if int.from_bytes(unread, "little"):
            raise ProtocolError("a request before the answer to the last one was read")
        self._sent_files = False

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
        data, ancillary, flags, _ = sock.recvmsg(_RECEIVE_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
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


def shut(sock: socket.socket) -> None:
    """Wake whoever waits on a socket, at its end; the descriptor stays theirs to close."""
    with contextlib.suppress(OSError):
        # The socket's own, below TLS if there is any: whoever is cut may be in the middle of a record.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


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
        about = os.fstat(fd)
        try:
            # Of a sparse file, reading allocates what is missing.
            check_free(about.st_size - about.st_blocks * 512)
            message.attachments.append(map_segment(fd, about.st_size).writer)
        except HostMemoryError as error:
            close_all(fds)
            return message._replace(failure=error)
        except PermissionError as error:
            raise ProtocolError("an attachment that its receiver may not write to") from error
        except OSError as error:
            close_all(fds)
            return message._replace(failure=refused(error, about.st_size))
    return message
