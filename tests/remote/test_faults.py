"""Network faults with real sockets: typed errors in time, nobody hangs, the host is unharmed."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, HostGoneError, ProtocolError
from arrayhost.host import network as host_network
from arrayhost.wire import limits
from arrayhost.wire.frames import Kind, pack_frame
from tests.remote.conftest import KEY, Arrays, connected
from tests.remote.raw import (
    TCP_REPAIR,
    Relay,
    dial,
    ended,
    prove,
    prove_as_host,
    relay,
    reset,
    rogue,
    session,
    vanish,
)
from tests.support import child, wait_until

N = 1_000_000


@contextlib.contextmanager
def through(manager: ArrayManager) -> Iterator[tuple[Relay, ArrayManager, HostedArray]]:
    """A client whose bytes pass through a relay, with a large array."""
    manager["large"] = np.ones(N)
    with relay(manager.network_addresses[0]) as between:
        remote = connected(between.address)
        a = remote["large"]
        assert a[0] == 1
        yield between, remote, a
        remote._engine.session.close()  # type: ignore[union-attr]


def unharmed(manager: ArrayManager) -> None:
    """Assert that the host serves, and has let go of everybody who is gone."""
    wait_until(lambda: manager.statistics().n_sessions == 1)
    again = connected(manager.network_addresses[0])
    assert again["large"].sum() == N
    again._engine.session.close()  # type: ignore[union-attr]
    a = manager["large"]
    assert a.lock.acquire(timeout=20)
    a.lock.release()


def test_cut_between_requests(own_host: ArrayManager) -> None:
    with through(own_host) as (between, _, a):
        between.reset()
        with pytest.raises(HostGoneError):
            a.sum()
    unharmed(own_host)


@pytest.mark.parametrize("n_bytes", [1, 70_000, 5_000_000])
def test_reset_in_the_middle_of_a_result(own_host: ArrayManager, n_bytes: int) -> None:
    with through(own_host) as (between, _, a):
        between.fail_after(cut=n_bytes)
        with pytest.raises(HostGoneError, match=r"broke|ended"):
            a.copy()
    unharmed(own_host)


def test_stalled_in_the_middle_of_a_result(own_host: ArrayManager) -> None:
    with through(own_host) as (between, _, a):
        between.fail_after(stall=1_000_000)
        since = time.monotonic()
        with pytest.raises(HostGoneError, match="stood still"):
            a.copy()
        assert time.monotonic() - since < 30
    unharmed(own_host)


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
@pytest.mark.parametrize("part", ["header", "body", "lengths", "attachment"])
def test_a_request_cut_short(own_host: ArrayManager, part: str, end: object) -> None:
    own_host["large"] = np.ones(N)
    frame = pack_frame(Kind.SET_ITEM, 1, b"x" * 1000, 1, 1)
    sent = {
        "header": frame[:7],
        "body": frame[:500],
        "lengths": frame + b"\0\0\0",
        "attachment": frame + struct.pack("<Q", 10_000_000) + bytes(100_000),
    }[part]
    leases, calls = session(own_host.network_addresses[0])
    calls.sendall(sent)
    end(calls)  # type: ignore[operator]
    leases.close()
    unharmed(own_host)


def test_a_request_that_stops_half_way(own_host: ArrayManager) -> None:
    own_host["large"] = np.ones(N)
    leases, calls = session(own_host.network_addresses[0])
    with leases, calls:
        calls.sendall(pack_frame(Kind.SET_ITEM, 1, b"x" * 1000, 1, 1)[:200])
        assert ended(calls)  # after the time for what stands still
    unharmed(own_host)


def test_more_than_there_is_room_for(own_host: ArrayManager) -> None:
    own_host["large"] = np.ones(N)
    leases, calls = session(own_host.network_addresses[0])
    with leases, calls:
        calls.sendall(pack_frame(Kind.SET_ITEM, 1, b"", 1, 1) + struct.pack("<Q", 2**62))
        assert ended(calls)
    unharmed(own_host)


def test_garbage_after_the_handshake(own_host: ArrayManager, rng: np.random.Generator) -> None:
    own_host["large"] = np.ones(N)
    for _ in range(20):
        sock = prove(own_host.network_addresses[0])
        sock.sendall(rng.bytes(64))
        assert ended(sock)
        sock.close()
    leases, calls = session(own_host.network_addresses[0])
    leases.sendall(rng.bytes(64))
    assert ended(calls)
    leases.close()
    calls.close()
    unharmed(own_host)


# -- sections ----------------------------------------------------------------------------------------------------------


def test_a_section_without_its_connection_is_void(own_host: ArrayManager) -> None:
    with through(own_host) as (between, _, a):
        section = a.write()
        x = section.__enter__()
        x[...] = 5
        between.reset()
        with pytest.raises(HostGoneError, match="void and nothing was written"):
            section.__exit__(None, None, None)
        assert not x.flags.writeable
    unharmed(own_host)  # everything is 1, and the lock is free


def test_a_section_cut_while_it_is_written_back(own_host: ArrayManager) -> None:
    with through(own_host) as (between, _, a):
        section = a.write()
        x = section.__enter__()
        x[...] = 5
        between.stall()
        with pytest.raises(HostGoneError, match="void and nothing was written"):
            section.__exit__(None, None, None)
        between.reset()
    unharmed(own_host)


@pytest.mark.parametrize("mode", ["write", "read"])
def test_a_killed_client_frees_its_locks(own_host: ArrayManager, mode: str) -> None:
    own_host["large"] = np.ones(N)
    with child(
        f"""
        import arrayhost, sys
        a = arrayhost.connect({own_host.network_addresses[0]!r}, {KEY!r})["large"]
        with a.{mode}() as x:
            print("inside", flush=True)
            sys.stdin.readline()
        """
    ) as client:
        assert client.read_line() == "inside"
        assert not own_host["large"].lock.acquire(blocking=False)
        client.kill()
        unharmed(own_host)


# -- half-open ---------------------------------------------------------------------------------------------------------


def _may_vanish() -> bool:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            return False
    return True


needs_repair = pytest.mark.skipif(not _may_vanish(), reason="TCP_REPAIR, to vanish without a word, needs privileges")


@needs_repair
def test_a_client_that_vanished(own_host: ArrayManager) -> None:
    own_host["large"] = np.ones(N)
    leases, calls = session(own_host.network_addresses[0])
    wait_until(lambda: own_host.statistics().n_sessions == 2)
    vanish(leases)
    vanish(calls)
    wait_until(lambda: own_host.statistics().n_sessions == 1, timeout=30)
    unharmed(own_host)


@needs_repair
def test_a_host_that_vanished(timeouts: limits.Timeouts) -> None:
    def act(sock: socket.socket) -> None:
        prove_as_host(sock)
        sock.recv(65536)
        sock.sendall(pack_frame(Kind.RESULT, 0, msgpack.packb([b"h" * 16, 1.0, 16, 0, True, [], b""])))
        held.append(sock.dup())
        if len(held) == 2:
            sock.recv(65536)
            for one in (sock, *held):
                one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)

    held: list[socket.socket] = []
    with rogue(act) as address:
        manager = Arrays(address, KEY)
        manager.connect()
        since = time.monotonic()
        closer = _closing(held)
        with pytest.raises(HostGoneError):
            manager.statistics()
        closer.join()
        assert time.monotonic() - since < 40
        manager._engine.session.close()  # type: ignore[union-attr]


def _closing(held: list[socket.socket]):  # type: ignore[no-untyped-def]
    """Close the sockets of a host that has vanished, once it has."""
    import threading

    def close() -> None:
        wait_until(lambda: len(held) == 2 and held[0].getsockopt(socket.IPPROTO_TCP, TCP_REPAIR) == 1)
        for sock in held:
            sock.close()

    thread = threading.Thread(target=close)
    thread.start()
    return thread


# -- before the handshake ----------------------------------------------------------------------------------------------


def test_a_silent_peer_is_sent_away(own_host: ArrayManager) -> None:
    own_host["large"] = np.ones(N)
    with dial(own_host.network_addresses[0]) as sock, prove(own_host.network_addresses[0]) as proved:
        assert ended(sock)
        assert ended(proved)
    unharmed(own_host)


def test_many_silent_peers_keep_nobody_out(own_host: ArrayManager) -> None:
    own_host["large"] = np.ones(N)
    address = own_host.network_addresses[0]
    silent = [dial(address) for _ in range(host_network._MAX_UNPROVEN + 30)]
    unharmed(own_host)
    for sock in silent:
        assert ended(sock)
        sock.close()


def test_a_silent_host(timeouts: limits.Timeouts) -> None:
    with rogue(ended) as address, pytest.raises(HostGoneError, match=r"did not answer within 1\.5 s"):
        connected(address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 40, b"SSH-2.0-x\r\n" + b" " * 40, b""])
def test_something_else_listens_there(answer: bytes) -> None:
    def act(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(answer)

    with rogue(act) as address, pytest.raises((ProtocolError, HostGoneError), match=r"does not speak|hung up|broke"):
        connected(address)
