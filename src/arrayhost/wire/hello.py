"""The hello: the first frame of a connection, which says what it is for and on whose behalf.

Nothing in it is ever unpickled, and until it is accepted nothing else is read.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import msgpack

from arrayhost.errors import ProtocolError

__all__ = ["CALLS", "MAX_HELLO_BYTES", "READ_ONLY", "READ_WRITE", "SESSION", "Hello", "pack_hello", "unpack_hello"]

SESSION = "session"  # a client process's lease channel
CALLS = "calls"  # one of its threads' connection for requests
READ_WRITE = "r+"
READ_ONLY = "r"
# The handle of an array with many fields is the largest part of one.
MAX_HELLO_BYTES = 64 * 1024
_IDENT_BYTES = 16
_MAX_NUMBER = 2**63


@dataclass(frozen=True, slots=True)
class Hello:
    """What a peer says of itself.

    Attributes
    ----------
    role : str
        `SESSION` or `CALLS`.
    ident : bytes
        16 random bytes that name the session; whoever knows them belongs to it.
    number : int
        Tells a session's connections apart.
    proof : bytes
        Of the key, on a Unix socket: see `arrayhost.wire.authentication`.
    mode : str
        `READ_WRITE`, or `READ_ONLY` for a session that wants to be kept from writing.
    wanted : bytes
        The packed handle of an array that a session is to be sent with the answer; empty for none.
    given : bool
        Whether the key was given for this host, which then refuses another one even if it asks for none. Else it is
        merely the one that the process has.
    """

    role: str
    ident: bytes
    number: int = 0
    proof: bytes = b""
    mode: str = READ_WRITE
    wanted: bytes = b""
    given: bool = False


def pack_hello(hello: Hello) -> bytes:
    """Encode a hello frame's body."""
    return msgpack.packb(astuple(hello))  # type: ignore[no-any-return]  # msgpack has no annotations


def unpack_hello(body: bytes) -> Hello:
    """Decode `pack_hello`.

    Raises
    ------
    ProtocolError
        It is none.
    """
    try:
        role, ident, number, proof, mode, wanted, given = msgpack.unpackb(body)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError("a malformed hello") from error
    if (
        role not in (SESSION, CALLS)
        or mode not in (READ_WRITE, READ_ONLY)
        or type(ident) is not bytes
        or len(ident) != _IDENT_BYTES
        or type(number) is not int
        or not 0 <= number < _MAX_NUMBER
        or type(proof) is not bytes
        or type(wanted) is not bytes
        or type(given) is not bool
    ):
        raise ProtocolError("a malformed hello")
    return Hello(role, ident, number, proof, mode, wanted, given)
