"""Frames that nobody honest sends: made by a seeded mutator, for decoders and for a live host.

``python -m tests.hostile.fuzz 1000000 [SEED]`` sends that many to a host that trusts its peers, and a tenth as many,
pickles among them, to one that does not; it prints how they fared.
"""

import os
import random
import struct
import sys
import time
from typing import Any

import msgpack
import numpy as np

from arrayhost.core.handles import ArrayHandle
from arrayhost.core.layout import Layout
from arrayhost.wire.codec import PICKLE, Encoder, array_reference, pack_handle
from arrayhost.wire.frames import HEADER_BYTES, Kind, pack_frame
from tests.hostile.peers import Peer, calls_peer, host_with, n_descriptors, n_threads, resident_bytes, session_peer

# What may stand anywhere in a request: every type of the codec, and what its decoders may stumble over.
EXT_CODES = range(-1, 24)
# A peer that is trusted may stop the host and run what it likes; that it does is no finding.
HARMLESS = [int(kind) for kind in Kind if kind not in (Kind.SHUTDOWN, Kind.RUN, Kind.APPLY)]
_NO_PICKLE = bytes([PICKLE]), bytes([PICKLE + 1])

_BAD_PARTS = (
    -8, 0, 2**62, 2**64 - 1, [], [-1], [2**40, 2**40], [1] * 65, [8] * 65, "|O", "<f8", "<U4", "<a8", None, True, b"",
    ["sub", "<i4", [2**31]], ["rec", [["a", "|O", 0, None]], 8, False],
)  # fmt: skip


class Mutator:
    """A source of malformed values and frames.

    Parameters
    ----------
    rng : numpy.random.Generator
    handles : list of bytes
        Packed handles of arrays that exist, to be bent.
    pickles : bool
        Whether frames may hold pickles. One that is read is a program: five bytes of it make Python's unpickler fill
        64 GiB, and that is no finding about the host that trusts its peer with them.
    """

    def __init__(self, rng: np.random.Generator, handles: list[bytes], *, pickles: bool = True) -> None:
        self.rng = random.Random(int(rng.integers(2**62)))  # ten times as fast for single numbers
        self.handles = handles
        self.pickles = pickles
        self.corpus = [self._valid() for _ in range(40)]

    def pick(self, choices: Any) -> Any:
        return self.rng.choice(choices)

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, depth: int = 0) -> Any:
        """A msgpack value of any shape."""
        makers = [self._number, self._text, self._bytes, self._handle, self._extension]
        if depth < 3:
            makers += [self._list, self._map] * 2
        return self.pick(makers)(depth)

    def _number(self, _: int) -> Any:
        return self.pick([0, -1, 1, 2**31, 2**63, -(2**63), 2**64 - 1, 65, None, True, 1e308, float("nan")])

    def _text(self, _: int) -> Any:
        return self.pick(["", "add", "a", "setitem", "__class__", "numpy:sum", "method", "operator", "O", "<f8",
                          "x" * 300, "\ud800", "held", "errstate", "#ones", "rec", "sub"])  # fmt: skip

    def _bytes(self, _: int) -> Any:
        return self.rng.randbytes(self.rng.randrange(40))

    def _list(self, depth: int) -> Any:
        return [self.value(depth + 1) for _ in range(self.rng.randrange(8))]

    def _map(self, depth: int) -> Any:
        keys = [self.pick(["held", "errstate", "out", "dtype", "axis", 1, None, b"k"]) for _ in range(3)]
        return {key: self.value(depth + 1) for key in keys}

    def _extension(self, depth: int) -> Any:
        data = packed(self.value(depth + 1)) if depth < 3 and self.rng.random() < 0.7 else self._bytes(depth)
        return msgpack.ExtType(self.rng.randrange(0, 24), data)

    def _handle(self, _: int) -> Any:
        """A bad layout: negative or huge parts, 65 dimensions, other arrays, other dtypes."""
        parts = msgpack.unpackb(self.pick(self.handles))
        for _ in range(self.rng.randrange(1, 3)):
            place = self.rng.randrange(len(parts))
            parts[place] = self.pick(_BAD_PARTS)
        return msgpack.ExtType(12, packed(parts))

    # -- frames ----------------------------------------------------------------------------------------------------

    def _valid(self) -> bytes:
        """A request as an honest client would send it, to be bent."""
        encoder = Encoder(lambda value: None, allow_pickle=False)
        a = array_reference(self.pick(self.handles))
        bodies = [
            (Kind.SET_ITEM, [a, 0, 1.0, None]),
            (Kind.SET_ITEM, [a, (slice(0, 2), ...), np.arange(2.0), {"held": [], "errstate": {"over": "ignore"}}]),
            (Kind.EVALUATE, ["ufunc", "add", "__call__", None, [a, 1], {"out": (a,)}, None]),
            (Kind.EVALUATE, ["function", "numpy:sum", "", None, [a], {"axis": 0, "dtype": np.dtype("f4")}, None]),
            (Kind.EVALUATE, ["operator", "getitem", "", None, [a, np.array([0, 1])], {}, None]),
            (Kind.CREATE, ["#ones", [(3, 4), "i4"], {}, None]),
            (Kind.CREATE, ["#full", [2, 1 + 2j], {"order": "F"}, None]),
            (Kind.SNAPSHOT, [[a], None]),
            (Kind.CLAIM, [1, 2, 3]),
            (Kind.PUT_NAME, ["name", np.arange(3), True, False]),
            (Kind.GET_NAME, "a"),
            (Kind.LIST_NAMES, None),
            (Kind.STATISTICS, None),
            (Kind.RECORDS, None),
            (Kind.DESCRIBE, None),
            (Kind.CALL, [1, "add", [1], {}, None]),
        ]
        kind, body = self.pick(bodies)
        return pack_frame(int(kind), 1, encoder.encode(body))

    def descriptors(self, frame: bytes, fd: int) -> list[int]:
        """What to send along: mostly nothing, whatever the frame announces; else as many as it says, or not."""
        if self.rng.random() < 0.95:
            return []
        announced = frame[4] if len(frame) > 4 else 0
        return [fd] * self.pick([1, 2, 5, min(announced, 100), 64, 100])

    def frame(self) -> bytes:
        """A frame, or what is none, of a few kinds."""
        frame = self._any_frame()
        # Without the byte that is their type code there is no pickle, wherever a mutation might have put one.
        return frame if self.pickles else frame[:HEADER_BYTES] + frame[HEADER_BYTES:].replace(*_NO_PICKLE)

    def _any_frame(self) -> bytes:
        roll = self.rng.random()
        if roll < 0.35:
            return self._shaped()
        if roll < 0.75:
            return self._flipped(self.pick(self.corpus))
        if roll < 0.85:
            return self._nested()
        if roll < 0.95:
            frame = self.pick(self.corpus)
            return frame[: self.rng.randrange(len(frame))]
        return self.rng.randbytes(self.rng.randrange(1, 60))

    def _shaped(self) -> bytes:
        """A frame in order with nonsense in it."""
        body = packed([self.value() for _ in range(self.rng.randrange(1, 8))])
        return pack_frame(self.pick(HARMLESS), 1, body)

    def _flipped(self, frame: bytes) -> bytes:
        data = bytearray(frame)
        for _ in range(self.rng.randrange(1, 4)):
            place = self.rng.randrange(16 if self.rng.random() < 0.1 else len(data))
            data[place % len(data)] = self.rng.randrange(256)
        if data[3] in (Kind.SHUTDOWN, Kind.RUN, Kind.APPLY):
            data[3] = Kind.EVALUATE
        return bytes(data)

    def _nested(self) -> bytes:
        depth = self.rng.randrange(1, 3000)
        return pack_frame(self.pick(HARMLESS), 1, b"\x91" * depth + b"\xc0")


def packed(value: Any) -> bytes:
    return msgpack.packb(value, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def some_handles() -> list[bytes]:
    layouts = [Layout(0, (4, 3), (24, 8), np.dtype("f8")), Layout(8, (3,), (-8,), np.dtype("f8"))]
    return [pack_handle(ArrayHandle(1, 0, 1, 1, 0, 96, layout)) for layout in layouts]


def is_complete(frame: bytes) -> bool:
    """Whether a host takes it for one whole frame and so answers it."""
    if len(frame) < 16 or frame[:3] != b"AH\x01":
        return False
    n_fds, n_files, _, length = struct.unpack_from("<HHII", frame, 4)
    return n_fds == n_files == 0 and len(frame) == 16 + length


class Attack:
    """Sends frames to a host, connecting anew as often as it hangs up."""

    def __init__(self, address: str | None, mutator: Mutator) -> None:
        self.address, self.mutator = address, mutator
        self.answers = {int(Kind.RESULT): 0, int(Kind.ERROR): 0, int(Kind.DONE): 0}
        self.n_hung_up = 0
        self._session: Peer | None = None
        self._peer: Peer | None = None
        self._ident = b""
        self._null = os.open(os.devnull, os.O_RDONLY)

    def send(self, n: int) -> None:
        for _ in range(n):
            self._send_one(self.mutator.frame())

    def _send_one(self, frame: bytes) -> None:
        if self._peer is None:
            self._connect()
        assert self._peer is not None
        try:
            fds = self.mutator.descriptors(frame, self._null)
            self._peer.send(frame, fds)
            if fds or not is_complete(frame):
                self._peer.socket.shutdown(1)  # the rest will never come
            answer = self._peer.receive()
        except ConnectionError:
            answer = None
        while self._peer.fds:
            os.close(self._peer.fds.pop())
        if answer is None:
            self.n_hung_up += 1
            self._peer.close()
            self._peer = None
        else:
            self.answers[answer[0]] += 1

    def _connect(self) -> None:
        if self._session is None:
            self._session, self._ident = session_peer(self.address)
        self._peer = calls_peer(self.address, self._ident)

    def end(self) -> None:
        """Hang up for good."""
        self.close()
        os.close(self._null)

    def close(self) -> None:
        for peer in (self._peer, self._session):
            if peer is not None:
                peer.close()
        self._peer = self._session = None


def attack_host(n_frames: int, rng: np.random.Generator, *, trusts: bool, warm_up: int = 1000) -> str:
    """Send frames to a host of one's own; return a report, or raise AssertionError.

    Parameters
    ----------
    trusts : bool
        Whether the host trusts its peers; it is sent pickles, which it must refuse, if it does not.
    """
    options = {"max_bytes": 64 * 1024 * 1024, "handle_grace": 0.0, "lock_timeout": 0.2}
    with host_with(trust_peers=trusts, **options) as manager:
        a = manager.array(np.arange(12.0).reshape(4, 3))
        manager["a"] = a
        pid = manager.statistics().pid
        handles = [pack_handle(x._source.handle_for(x.layout)) for x in (a, a[1:], a.T, a[::-1, 1])]
        attack = Attack(manager.address, Mutator(rng, handles, pickles=not trusts))
        attack.send(warm_up)
        before = resident_bytes(pid), n_threads(pid), n_descriptors(pid)
        started = time.monotonic()
        while n_frames > 0:
            # A session anew from time to time, so that what one was granted is given back; and names, which stay.
            attack.send(min(n_frames, 5000))
            attack.close()
            for name in set(manager) - {"a"}:
                del manager[name]
            n_frames -= 5000
        attack.end()
        seconds = time.monotonic() - started
        manager["alive"] = np.arange(5)
        assert manager["alive"].sum() == 10
        for name in list(manager):
            del manager[name]
        after = resident_bytes(pid), n_threads(pid), n_descriptors(pid)
        report = (
            f"answers {attack.answers}, hung up {attack.n_hung_up}, {seconds:.1f} s; "
            f"resident {before[0] / 2**20:.1f} -> {after[0] / 2**20:.1f} MiB, "
            f"threads {before[1]} -> {after[1]}, descriptors {before[2]} -> {after[2]}"
        )
        assert manager.statistics().pid == pid
        assert after[0] <= before[0] * 1.1, report
        assert after[1] <= before[1] + 5, report
        assert after[2] <= before[2] + 20, report
        return report


__all__ = ["Attack", "Mutator", "attack_host", "some_handles"]

if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}", flush=True)
    for trusts, n_sent in ((False, n // 10), (True, n)):
        print(f"{n_sent} frames to a host that {'trusts' if trusts else 'does not trust'} its peers", flush=True)
        print(attack_host(n_sent, np.random.default_rng(seed), trusts=trusts), flush=True)
