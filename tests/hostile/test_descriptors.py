"""Descriptors that are too many, too few or not what they are announced as: a refusal, and none of them is kept."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator

import msgpack
import numpy as np
import pytest

from arrayhost import ArrayManager
from arrayhost.memory.segments import create_segment
from arrayhost.wire.codec import ATTACHED_ARRAY, Encoder
from arrayhost.wire.frames import Kind, pack_frame
from arrayhost.wire.hello import SESSION, Hello, pack_hello
from tests.hostile.peers import Peer, caller, error_name, n_descriptors, session_peer
from tests.support import wait_until

N_BYTES = 100_000


@pytest.fixture(scope="module")
def host() -> Iterator[ArrayManager]:
    with ArrayManager() as manager:
        manager["a"] = np.zeros(3)
        kept = manager["a"]  # and with it the mapping, which each test would make anew
        kept[0] = 1
        yield manager


@pytest.fixture(autouse=True)
def none_kept(host: ArrayManager) -> Iterator[None]:
    pid = host.statistics().pid
    wait_until(lambda: host.statistics().n_sessions == 1)
    before = n_descriptors(pid)
    yield
    wait_until(lambda: n_descriptors(pid) <= before, what="the host to close what it was sent")
    host["a"][0] += 1


@contextlib.contextmanager
def opened(make: Callable[[], int], n: int = 1) -> Iterator[list[int]]:
    fds = [make() for _ in range(n)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def null() -> int:
    return os.open(os.devnull, os.O_RDWR)


STATISTICS = msgpack.packb(None)


@pytest.mark.parametrize(("announced", "sent"), [(0, 1), (0, 64), (1, 0), (3, 2), (2, 3), (64, 1)])
def test_another_number_than_announced(host: ArrayManager, announced: int, sent: int) -> None:
    with opened(null, sent) as fds, caller(host.address) as peer:
        peer.send(pack_frame(Kind.STATISTICS, 1, STATISTICS, announced), fds)
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.receive() is None


def test_more_than_a_message_may_have(host: ArrayManager) -> None:
    """The kernel passes up to 253 at a time; what does not fit is dropped by it, and the rest is closed."""
    with opened(null, 200) as fds, caller(host.address) as peer:
        peer.send(pack_frame(Kind.STATISTICS, 1, STATISTICS, 64), fds)
        answer = peer.receive()
        assert answer is None or answer[0] == Kind.ERROR


def test_with_a_hello_and_on_a_lease_channel(host: ArrayManager) -> None:
    with opened(null, 3) as fds:
        with Peer(host.address) as peer:
            assert error_name(peer.ask(Kind.HELLO, pack_hello(Hello(SESSION, bytes(16))), fds)) == "ProtocolError"
        for kind, body, n in ((Kind.RELEASE, [[1, 1]], 0), (Kind.FORK_GUARD, None, 3), (Kind.FORK_GUARD, None, 1)):
            channel, _ = session_peer(host.address)
            with channel:
                channel.send(pack_frame(kind, 1, msgpack.packb(body), n), fds)
                assert channel.receive() is None
        channel, _ = session_peer(host.address)
        with channel:  # announced, and never sent
            channel.send(pack_frame(Kind.FORK_GUARD, 1, msgpack.packb(None), 1))
            assert channel.receive() is None


def unsealed() -> int:
    fd = os.memfd_create("peer", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, N_BYTES)
    return fd


def read_only() -> int:
    made = create_segment(N_BYTES)
    fd = os.open(f"/proc/self/fd/{made.fd}", os.O_RDONLY)
    os.close(made.fd)
    return fd


def empty() -> int:
    fd = os.memfd_create("peer", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def sparse() -> int:
    """A file of a pebibyte, of which no page is there: reading it would make them."""
    fd = os.memfd_create("peer", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2**50)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


NO_ATTACHMENTS: dict[str, Callable[[], int]] = {
    "a device": null,
    "a file": lambda: os.open(__file__, os.O_RDONLY),
    "a folder": lambda: os.open("/", os.O_RDONLY),
    "a socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "an event": lambda: os.eventfd(0),
    "a memory file that may shrink": unsealed,
    "a memory file that cannot be written to": read_only,
    "an empty memory file": empty,
    "a sparse memory file": sparse,
}


@pytest.mark.parametrize("name", NO_ATTACHMENTS)
def test_what_is_no_attachment(host: ArrayManager, name: str) -> None:
    body = Encoder(lambda value: None, allow_pickle=False).encode(
        ["#array", [msgpack.ExtType(ATTACHED_ARRAY, msgpack.packb(["|u1", [N_BYTES], "C", True, 0]))], {}, None]
    )
    with opened(NO_ATTACHMENTS[name]) as fds, caller(host.address) as peer:
        answer = peer.ask(Kind.CREATE, body, fds, 1)
        assert answer is None or answer[0] == Kind.ERROR
    assert host.statistics().n_arrays == 1


@pytest.mark.parametrize("number", [1, -1, 2**40, None, "0"])
def test_an_attachment_that_did_not_come(host: ArrayManager, number: object) -> None:
    array = msgpack.ExtType(ATTACHED_ARRAY, msgpack.packb(["|u1", [N_BYTES + 8], "C", True, number]))
    body = Encoder(lambda value: None, allow_pickle=False).encode(["#array", [array], {}, None])
    with opened(lambda: create_segment(N_BYTES).fd) as fds, caller(host.address) as peer:
        answer = peer.ask(Kind.CREATE, body, fds, 1)
        assert error_name(answer) == "ProtocolError"
