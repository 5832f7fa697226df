"""What a hostile message costs its host: bodies that decode to many times their size, and ones that nobody may send."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from arrayhost import ArrayManager
from arrayhost.wire.codec import MAX_PARTS, OBJECT_HANDLE, SET, Encoder, decoded_bytes
from arrayhost.wire.frames import HEADER_BYTES, MAX_BODY_BYTES, MAX_UNTRUSTED_BYTES, Kind, pack_frame
from tests.hostile.peers import LimitedHost, Peer, caller, error_name, host_with

MIB = 1024 * 1024
MOST = decoded_bytes(MAX_UNTRUSTED_BYTES)


def ext(code: int, data: bytes) -> bytes:
    return b"\xc7" + bytes([len(data), code]) + data


# A body is one of these again and again.
ATOMS = {
    "empty lists": b"\x90",
    "empty maps": b"\x80",
    "small numbers": b"\xd0\x80",
    "text of two letters": b"\xa2ab",
    "sets": ext(SET, b"\x90"),
    "handles of an object": ext(OBJECT_HANDLE, b"\x94\x01\xa0\x90\xc3"),
}
# A list of lists that each say that they have millions of elements.
PROMISES = b"\xdd" + (2**24 - 1).to_bytes(4, "big")


def filled(atom: bytes, n_bytes: int) -> bytes:
    n = (n_bytes - 5) // len(atom)
    return b"\xdd" + n.to_bytes(4, "big") + atom * n


def peak(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Hosted:
    """Something to have handles of."""


LimitedHost.register("Hosted", Hosted)


@pytest.fixture(scope="module")
def host() -> Iterator[ArrayManager]:
    with host_with(trust_peers=False) as manager:
        hosted = manager.Hosted()
        assert hosted._arrayhost_handle.ident == 1
        yield manager


def cost(host: ArrayManager, body: bytes) -> tuple[int, str]:
    """By how much a request raises the host's peak of memory, and what it is answered with."""
    pid = host.statistics().pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak(pid)
    with caller(host.address) as peer:
        answer = error_name(peer.ask(Kind.CREATE, body))
    return peak(pid) - before, answer


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ATOMS, "promises"])
def test_a_body_that_decodes_to_many_times_its_size(host: ArrayManager, name: str) -> None:
    atom = ATOMS.get(name)
    body = filled(atom, MAX_UNTRUSTED_BYTES) if atom else PROMISES * (MAX_UNTRUSTED_BYTES // 5)
    risen, answer = cost(host, body)
    print(f"16 MiB of {name}: the host took {risen / MIB:.0f} MiB and answered {answer}")
    assert answer == "ProtocolError"
    assert risen < MOST
    assert host.statistics().n_arrays >= 0


def test_small_bodies_may_be_anything(host: ArrayManager) -> None:
    for atom in ATOMS.values():
        risen, _ = cost(host, filled(atom, 60_000))
        assert risen < 20 * MIB


def test_a_body_that_nobody_may_send_is_not_received(host: ArrayManager) -> None:
    pid = host.statistics().pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = peak(pid)
    with caller(host.address) as peer:
        header = pack_frame(Kind.CALL, 1, b"")[: HEADER_BYTES - 4] + (MAX_UNTRUSTED_BYTES + 1).to_bytes(4, "little")
        peer.send(header)
        assert peer.receive() is None
    with Peer(host.address) as peer:
        peer.send(pack_frame(Kind.HELLO, 1, b"")[: HEADER_BYTES - 4] + MAX_BODY_BYTES.to_bytes(4, "little"))
        answer = peer.receive()
        assert error_name(answer) == "ProtocolError"
    assert peak(pid) - before < MIB


def test_what_is_too_much_for_the_memory_that_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from arrayhost.memory import budget

    monkeypatch.setattr(budget, "free_bytes", lambda: budget.Free(100 * MIB, "the control group /tight"))
    with host_with(trust_peers=False) as manager:  # forked: the host sees the same
        risen, answer = cost(manager, filled(b"\xa2ab", 4 * MIB))
        assert answer == "HostMemoryError"
        assert risen < 12 * MIB
        assert manager.ones(3).sum() == 3


def test_a_trusted_peer_may_send_more() -> None:
    body = Encoder(lambda value: None, allow_pickle=False).encode(["#array", [[[]] * (MAX_PARTS + 1)], {}, None])
    with host_with() as manager, caller(manager.address) as peer:
        answer = peer.ask(Kind.CREATE, body)
        assert answer is not None
        assert answer[0] == Kind.RESULT
