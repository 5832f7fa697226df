"""Peers that stop at each step: an honest client is served at once, and what the stallers cost is bounded."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

import arrayhost
from arrayhost import ArrayManager
from arrayhost.wire.codec import Encoder
from arrayhost.wire.frames import Kind, pack_frame
from arrayhost.wire.hello import SESSION, Hello, pack_hello
from arrayhost.wire.limits import Limits
from tests.faults.harness import Victim, shared_words, victims
from tests.hostile.peers import (
    Peer,
    caller,
    calls_peer,
    host_with,
    many_descriptors,
    n_descriptors,
    n_threads,
    resident_bytes,
    session_peer,
)
from tests.support import child, wait_until

N_STALLERS = 500
DRIP_SECONDS = 0.3
# The deadlines of a test: short, so that their end can be waited for.
SHORT = Limits(hello_seconds=2.0, idle_seconds=0.5, message_seconds=2.0, lease_seconds=2.0, patience=0.5)

HELLO = pack_frame(Kind.HELLO, 0, pack_hello(Hello(SESSION, bytes(16))))
BIG_HEADER = pack_frame(Kind.CALL, 1, bytes(1))[:12] + (64 * 1024 * 1024).to_bytes(4, "little")

HONEST = """
import sys, time, arrayhost
started = time.monotonic()
manager = arrayhost.connect(sys.argv[1])
a = manager["a"]
a[0] = 5
assert a[0] == 5
print(time.monotonic() - started)
"""


def silent(address: str) -> list[Peer]:
    return [Peer(address)]


def half_hello(address: str) -> list[Peer]:
    peer = Peer(address)
    peer.send(HELLO[:20])
    return [peer]


def one_byte(address: str) -> list[Peer]:
    """The first of a hello's bytes; a thread sends the others, one after the other."""
    peer = Peer(address)
    peer.send(HELLO[:1])
    return [peer]


def hello_without_reading(address: str) -> list[Peer]:
    peer = Peer(address)
    peer.send(pack_frame(Kind.HELLO, 0, pack_hello(Hello(SESSION, os.urandom(16)))))
    return [peer]


def half_lease_message(address: str) -> list[Peer]:
    peer, _ = session_peer(address)
    peer.send(pack_frame(Kind.RELEASE, 0, msgpack.packb([[1, 1]]))[:-2])
    return [peer]


def half_request(address: str) -> list[Peer]:
    session, ident = session_peer(address)
    peer = calls_peer(address, ident)
    peer.send(BIG_HEADER + bytes(5000))
    return [session, peer]


STEPS: dict[str, Callable[[str], list[Peer]]] = {
    "silent": silent,
    "half a hello": half_hello,
    "a byte at a time": one_byte,
    "hello, not reading": hello_without_reading,
    "half a lease message": half_lease_message,
    "half a request of 64 MiB": half_request,
}


@contextlib.contextmanager
def crowd(address: str, stall: Callable[[str], list[Peer]]) -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    stop = threading.Event()

    def drip() -> None:
        for byte in HELLO[1:]:
            if stop.wait(DRIP_SECONDS):
                return
            for peer in list(peers):
                with contextlib.suppress(OSError):
                    peer.send(bytes([byte]))

    thread = threading.Thread(target=drip)
    with many_descriptors():
        try:
            for _ in range(N_STALLERS):
                peers += stall(address)
            if stall is one_byte:
                thread.start()
            yield peers
        finally:
            stop.set()
            if thread.ident:
                thread.join()
            for peer in peers:
                peer.close()


@pytest.mark.parametrize("stall", STEPS.values(), ids=STEPS)
def test_500_stalling_peers_and_an_honest_client(stall: Callable[[str], list[Peer]]) -> None:
    with host_with(SHORT) as manager:
        manager["a"] = np.zeros(10)
        pid, address = manager.statistics().pid, str(manager.address)
        before = n_threads(pid), n_descriptors(pid), resident_bytes(pid)
        with crowd(address, stall):
            with child(HONEST, address) as honest:
                seconds = float(honest.read_line())
            assert n_threads(pid) < before[0] + N_STALLERS + 20
            assert n_descriptors(pid) < before[1] + 2 * N_STALLERS + 30
            assert resident_bytes(pid) < before[2] + 100 * 1024 * 1024
            print(f"an honest client was served in {seconds:.3f} s")
            assert seconds < 1
            # The deadlines end what stalls in the middle of something; a session that is merely quiet stays.
            if stall is not hello_without_reading:
                quiet = N_STALLERS if stall is half_request else 0
                wait_until(lambda: n_descriptors(pid) <= before[1] + quiet + 5, 15, "the stalling peers to be dropped")
            wait_until(lambda: n_threads(pid) <= before[0] + 5, 15, "their threads to end")
        wait_until(lambda: n_descriptors(pid) <= before[1] + 2, 15, "the host to let go of the peers")
        assert manager["a"][0] == 5


def test_one_byte_a_second_is_not_soon_enough() -> None:
    with host_with(Limits(hello_seconds=1.0, idle_seconds=0.2, message_seconds=1.0)) as manager:
        with Peer(manager.address) as peer:
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                for byte in HELLO:
                    peer.send(bytes([byte]))
                    time.sleep(0.2)
            assert peer.receive() is None
            assert time.monotonic() - started < 10
        with caller(manager.address) as peer:
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                for byte in pack_frame(Kind.STATISTICS, 1, msgpack.packb(None) * 50):
                    peer.send(bytes([byte]))
                    time.sleep(0.1)
            assert peer.receive() is None
            assert time.monotonic() - started < 15


def test_the_oldest_newcomer_makes_room() -> None:
    limits = Limits(hello_seconds=60.0, max_newcomers=10)
    with host_with(limits) as manager:
        manager["a"] = np.zeros(10)
        peers = [Peer(manager.address) for _ in range(40)]
        try:
            assert arrayhost.connect(str(manager.address))["a"][0] == 0
            assert [peer.receive() for peer in peers[:25]] == [None] * 25  # closed long before their minute is over
        finally:
            for peer in peers:
                peer.close()


class Echo:
    """Gives as much as one asks for."""

    def give(self, n_bytes: int) -> bytes:
        return bytes(n_bytes)


def encoded(*parts: Any) -> bytes:
    return Encoder(lambda value: None, allow_pickle=False).encode(list(parts))


def test_a_peer_that_does_not_read_a_large_answer_is_dropped() -> None:
    with host_with(SHORT) as manager:
        echo = manager.run(Echo)
        assert len(echo.give(10)) == 10
        pid = manager.statistics().pid
        with caller(manager.address) as peer:
            wait_until(lambda: n_threads(pid) <= 3, 10, "the idle connections' threads to end")
            before = resident_bytes(pid)
            # A socket holds far less than this.
            peer.send(pack_frame(Kind.CALL, 1, encoded(echo._arrayhost_handle.ident, "give", [30_000_000], {}, None)))
            wait_until(lambda: resident_bytes(pid) > before + 20_000_000, 10, "the host to answer")
            assert len(echo.give(10)) == 10  # others are served meanwhile
            n_connections = manager.statistics().n_connections
            wait_until(lambda: manager.statistics().n_connections < n_connections, 20, "the host to give up")
            # The allocator keeps some of what was freed.
            assert resident_bytes(pid) < before + 150_000_000


def test_answers_with_files_are_not_piled_up() -> None:
    with ArrayManager() as manager:
        a = manager.ones(100_000)
        request = encoded([a.reference(a._source.link, by_value=False)], None)
        with caller(manager.address) as peer:
            n_connections = manager.statistics().n_connections
            peer.send(pack_frame(Kind.SNAPSHOT, 1, request))
            assert select.select([peer.socket], [], [], 10)[0]
            # The answer is there and has not been read, so the next request is answered by hanging up.
            peer.send(pack_frame(Kind.SNAPSHOT, 2, request))
            wait_until(lambda: manager.statistics().n_connections < n_connections)
            answer = peer.receive()
            assert answer is not None
            assert answer[0] == Kind.RESULT
            assert peer.receive() is None


CROWD = """
import resource, sys
from arrayhost.client.session import Session
from arrayhost.client.ways import UnixWay
from arrayhost.wire.frames import Kind
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
clients = [Session(UnixWay(sys.argv[1])) for _ in range(int(sys.argv[2]))]
for client in clients:
    client.open()
    client.request(Kind.STATISTICS, None)
print("connected", flush=True)
sys.stdin.readline()
for client in clients:
    client.close()
"""


@pytest.mark.slow
def test_1000_idle_clients_and_200_active_ones() -> None:
    with host_with(Limits(idle_seconds=1.0)) as manager:
        manager["total"] = np.zeros(4, np.int64)
        pid = manager.statistics().pid
        before = n_threads(pid), n_descriptors(pid), resident_bytes(pid)
        with child(CROWD, manager.address, 1000, timeout=60) as idle:
            idle.expect("connected")
            assert manager.statistics().n_sessions >= 1001
            wait_until(lambda: n_threads(pid) <= before[0] + 2, 30, "idle clients' threads to end")
            descriptors = (n_descriptors(pid) - before[1]) / 1000
            memory = (resident_bytes(pid) - before[2]) / 1000
            print(f"an idle client costs {descriptors:.2f} descriptors, no thread, {memory / 1024:.1f} KiB")
            assert descriptors <= 2.05
            assert memory < 64 * 1024
            words = shared_words(1)
            with victims() as active:
                active += [Victim(be_active, str(manager.address), words) for _ in range(10)]
                wait_until(lambda: manager.statistics().n_connections >= 200, 30, "200 active clients")
                words[0] = 1
                for process in active:
                    assert process.wait(30.0) == 0
                active.clear()
            assert manager["total"].copy().tolist() == [200 * 20, 200 * 2, 200, 0]
            idle.send()
        # What remains is the host's own pool of descriptors for locking, one for each write that has had to wait.
        wait_until(lambda: n_descriptors(pid) <= before[1] + 210, 20, "the clients' descriptors to be closed")


def be_active(address: str, words: np.ndarray) -> None:
    """Be a process of 20 threads, each with a connection of its own, that write when everybody is there."""
    total = arrayhost.connect(address)["total"]

    def work() -> None:
        total[2:3] += 1  # connects
        while not words[0]:
            time.sleep(0.001)
        for k in range(20):
            total[0:1] += 1
            if k % 10 == 0:
                with total.write() as x:
                    x[1] += 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
