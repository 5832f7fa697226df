"""What coverage-guided fuzzing calls; imported by `guided` so that every function of arrayhost is instrumented."""

import logging
import os
from collections.abc import Callable

import numpy as np

from arrayhost.core.records import Creator
from arrayhost.errors import ProtocolError, UnsupportedDTypeError
from arrayhost.host import reports
from arrayhost.host.requests import CallConnection
from arrayhost.host.sessions import ClientSession, lease_message
from arrayhost.hosting import HostOptions, build_server
from arrayhost.wire.codec import MAX_PARTS, Codec, pack_handle, unpack_handle
from arrayhost.wire.frames import HEADER_BYTES, FrameDecoder, Kind
from arrayhost.wire.hello import unpack_hello
from arrayhost.wire.streams import Message
from tests.hostile.fuzz import Mutator, some_handles

REFUSALS = (ProtocolError, UnsupportedDTypeError)
KINDS = frozenset(int(kind) for kind in Kind if kind != Kind.SHUTDOWN)
# What the mutator's frames have been given as the array's handle, and the array really is.
VALUES = np.arange(12.0).reshape(4, 3)


def seeds(target: str, n: int) -> list[bytes]:
    """What to begin with: honest frames and bent ones; for requests without their headers, but for the kind."""
    mutator = Mutator(np.random.default_rng(1), some_handles())
    frames = [*mutator.corpus, *(mutator.frame() for _ in range(n))]
    return frames if target == "decoder" else [frame[3:4] + frame[HEADER_BYTES:] for frame in frames]


def _is_refused(decode: Callable[[bytes], object], data: bytes) -> bool:
    try:
        decode(data)
    except REFUSALS:
        return True
    return False


def decoder() -> Callable[[bytes], None]:
    """Decode bytes as frames, and their bodies as whatever they might be."""
    codec = Codec(
        lambda handle: unpack_handle(handle) if isinstance(handle, bytes) else handle,
        allow_pickle=False,
        max_parts=MAX_PARTS,
    )

    def one(data: bytes) -> None:
        frames = FrameDecoder()
        frames.feed(data)
        try:
            while (frame := frames.next_frame()) is not None:
                _is_refused(codec.decode, frame.body)
                _is_refused(unpack_hello, frame.body)
                _is_refused(unpack_handle, frame.body)
                _is_refused(lambda _, frame=frame: lease_message(frame), frame.body)  # type: ignore[misc]
        except ProtocolError:
            pass

    return one


class _Stream:
    """A stream that takes every answer."""

    trusted = False
    passes_files = True
    socket = None

    def send(self, *message: object) -> None:
        pass


def requests() -> Callable[[bytes], None]:
    """Answer a request of a peer that is not trusted: decode it, carry it out, encode what comes of it.

    The first byte tells its kind, and the others are its body.
    """
    logging.disable()
    reports.install()
    address = f"unix:@arrayhost-fuzz-{os.getpid()}"
    options = HostOptions(address, b"", handle_grace=0.0, lock_timeout=0.05, max_bytes=64 * 1024 * 1024)
    server = build_server({}, options)
    store = server.service.store
    array = server.service.put_name("a", VALUES, "fuzz")
    packed = pack_handle(array.handle())
    known = [bytes(handle) for handle in some_handles()]
    session = ClientSession(bytes(16), None, Creator(0, "", "fuzz"), read_only=False, trusted=False)  # type: ignore[arg-type]

    def one(data: bytes) -> None:
        kind, body = (data[0], data[1:]) if data else (0, b"")
        if kind not in KINDS:
            return
        for handle in known:  # the seeds' array is this host's
            body = body.replace(handle, packed)
        connection = CallConnection(server, _Stream(), session, 1)  # type: ignore[arg-type]
        connection._answer(Message(kind, 1, body, [], []))
        connection._locks.end()
        store.drop_holder(session.ident)
        for name in set(store.names.listed()) - {"a"}:
            store.names.delete(name)

    return one
