"""Frames: a header of 16 bytes and a body. Bytes in, frames out; no socket here.

====== ====== ==============================================================
offset format field
====== ====== ==============================================================
0      2s     ``AH``
2      u8     protocol version
3      u8     kind, one of `Kind`
4      u16    number of descriptors that come with the frame
6      u16    how many of these are attachments: large buffers of the body
8      u32    sequence number; a reply repeats its request's
12     u32    length of the body
====== ====== ==============================================================

Numbers are little-endian.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from arrayhost.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HEADER_BYTES", "MAX_BODY_BYTES", "MAX_DESCRIPTORS", "MAX_UNTRUSTED_BYTES", "Frame", "FrameDecoder", "Kind",
           "complete_frame",
           "pack_frame"]  # fmt: skip

PROTOCOL_VERSION = 1
HEADER_BYTES = 16
# Large buffers travel beside the body; what is left is arguments.
MAX_BODY_BYTES = 64 * 1024 * 1024
# Of a request from a peer that is not trusted: one of small values takes twenty times as much when it is decoded.
MAX_UNTRUSTED_BYTES = 16 * 1024 * 1024
MAX_DESCRIPTORS = 64
_HEADER = struct.Struct("<2sBBHHII")
_MAGIC = b"AH"


class Kind(IntEnum):
    """What a frame asks for or answers."""

    # replies
    RESULT = 1
    ERROR = 2
    DONE = 3  # a result of None with nothing to tell beside it
    STREAMED = 4  # a result that counts if DONE follows; else what follows is the answer
    # first frame of a connection
    HELLO = 10
    # requests
    CREATE = 20  # call a registered function, host what it returns
    RUN = 21  # the same with a function of the caller's
    CALL = 22  # a method or attribute of a hosted object
    EVALUATE = 23  # an operation on hosted arrays
    SET_ITEM = 24
    ATTACH = 25
    SNAPSHOT = 26
    PUT_NAME = 27
    GET_NAME = 28
    DELETE_NAME = 29
    LIST_NAMES = 30
    STATISTICS = 31
    SHUTDOWN = 32
    DESCRIBE = 33
    CLAIM = 34  # leases for what a forked child inherited
    CREATE_NAME = 35  # a new array under a name, or the one that is there
    ATTRIBUTES = 36  # change an array's attributes; answered with what they were
    RECORDS = 37  # all arrays and clients, or one array, described
    APPLY = 38  # a function of the caller's on an array
    FLUSH = 39  # make named arrays durable
    LOCK = 50  # an array's lock, held for this connection
    FETCH = 51  # the bytes of an array that is locked so
    UNLOCK = 52  # with what is to be written back
    # on a session's lease channel, never answered
    RELEASE = 40
    EXPORT = 41
    FORK_GUARD = 42
    ABANDON = 43


# Kinds travel through the code as plain ints: hashing or comparing an enum member costs more than the rest of the
# header's decoding.
_KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    """One decoded frame, without its descriptors."""

    kind: int
    sequence: int
    n_descriptors: int
    n_attachments: int
    body: bytes


def pack_frame(kind: int, sequence: int, body: bytes, n_descriptors: int = 0, n_attachments: int = 0) -> bytes:
    """Return a frame's bytes.

    Raises
    ------
    ProtocolError
        `body` is larger than a receiver would take.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ProtocolError(
            f"a message of {len(body)} bytes; more than {MAX_BODY_BYTES} travel only as ndarrays or bytes"
        )
    return _HEADER.pack(_MAGIC, PROTOCOL_VERSION, kind, n_descriptors, n_attachments, sequence, len(body)) + body


def unpack_header(data: bytes | bytearray) -> tuple[int, int, int, int, int]:
    """Return kind, sequence, descriptors, attachments and body length.

    Raises
    ------
    ProtocolError
        These are not the first bytes of a frame, or one that nobody may send.
    """
    magic, version, kind, n_descriptors, n_attachments, sequence, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ProtocolError(f"the peer does not speak this protocol: it sent {bytes(data[:16])!r}")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the peer speaks protocol version {version} and this process {PROTOCOL_VERSION}: "
            "use the same arrayhost release on both sides"
        )
    if kind not in _KINDS:
        raise ProtocolError(f"a frame of unknown kind {kind}")
    if n_descriptors > MAX_DESCRIPTORS or n_attachments > n_descriptors or length > MAX_BODY_BYTES:
        raise ProtocolError(f"a frame of {length} bytes with {n_descriptors} descriptors")
    return kind, sequence, n_descriptors, n_attachments, length


def complete_frame(
    data: bytes, more: Callable[[bytes, int], bytes], max_body_bytes: int, length_bytes: int = 0
) -> tuple[int, int, int, int, int, bytes]:
    """Complete the one frame that is due on a connection whose every message is answered.

    Parameters
    ----------
    data : bytes
        What has arrived of it, not nothing.
    more : callable
        Given what has arrived and a number of bytes, receives until there are at least as many and returns all.
    max_body_bytes : int
        Of what this peer may send.
    length_bytes : int
        For each attachment, so many follow the body, and then come the attachments; 0 where they do not travel in the
        stream.

    Returns
    -------
    kind, sequence, n_descriptors, n_attachments : int
        As in the header.
    end : int
        Where in `data` frame and lengths end; what stands behind is the beginning of the attachments.
    data : bytes

    Raises
    ------
    ProtocolError
        It is no frame, its body is too long, or something comes behind it.
    """
    if len(data) < HEADER_BYTES:
        data = more(data, HEADER_BYTES)
    kind, sequence, n_descriptors, n_attachments, length = unpack_header(data)
    if length > max_body_bytes:
        raise ProtocolError(f"a message of {length} bytes where at most {max_body_bytes} may come")
    end = HEADER_BYTES + length + n_attachments * length_bytes
    if len(data) < end:
        data = more(data, end)
    if len(data) > end and not (length_bytes and n_attachments):
        raise trailing()
    return kind, sequence, n_descriptors, n_attachments, end, data


def trailing() -> ProtocolError:
    """What is wrong with a peer that does not wait for its answer."""
    return ProtocolError("more than one message at a time on a connection that answers each")


class FrameDecoder:
    """Cut a stream of bytes into frames.

    Feed it whatever arrives; ask for frames until there is none.

    Parameters
    ----------
    max_body_bytes : int
        Of a frame that may come here.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def next_frame(self) -> Frame | None:
        """Return the next complete frame, or None until more bytes were fed.

        Raises
        ------
        ProtocolError
            The bytes are not frames; the connection cannot be used further.
        """
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        kind, sequence, n_descriptors, n_attachments, length = unpack_header(buffer)
        if length > self.max_body_bytes:
            raise ProtocolError(f"a frame of {length} bytes where at most {self.max_body_bytes} may come")
        end = HEADER_BYTES + length
        if len(buffer) < end:
            return None
        body = bytes(memoryview(buffer)[HEADER_BYTES:end])
        del buffer[:end]
        return Frame(kind, sequence, n_descriptors, n_attachments, body)
