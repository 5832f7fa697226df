"""Who gets in: keys, certificates, and what listens where."""

import ipaddress
import socket
import ssl
from pathlib import Path

import msgpack
import numpy as np
import pytest

from arrayhost import ArgumentEncodingError, ArrayManager, NotAuthorizedError, ProtocolError
from arrayhost.core.addresses import parse_tcp, tcp_address
from arrayhost.errors import HostGoneError
from arrayhost.wire import codec
from arrayhost.wire.authentication import CLIENT, GREETING_BYTES, HOST, PROOF_BYTES, Handshake
from arrayhost.wire.frames import HEADER_BYTES, MAX_BODY_BYTES, MAX_UNTRUSTED_BYTES, Kind, pack_frame
from arrayhost.wire.hello import MAX_HELLO_BYTES
from tests.remote.conftest import KEY, Arrays, Certificates, connected
from tests.remote.raw import dial, ended, exactly, hello, prove, prove_as_host, relay, rogue, session
from tests.support import wait_until


def works(manager: ArrayManager) -> None:
    """Assert that a host is none the worse for what was done to it."""
    again = connected(manager.network_addresses[0])
    assert again.ones(3).sum() == 3
    again._engine.session.close()  # type: ignore[union-attr]  # a host's
    assert manager.ones(3).sum() == 3


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"wrong", KEY[:-1], KEY + b"\0"])
def test_a_wrong_key(host: ArrayManager, key: bytes) -> None:
    with pytest.raises(NotAuthorizedError, match="another key"):
        connected(host.network_addresses[0], key)
    works(host)


def test_no_key(host: ArrayManager) -> None:
    with pytest.raises(NotAuthorizedError, match="need the host's key"):
        connected(host.network_addresses[0], b"")
    with pytest.raises(NotAuthorizedError, match="another key"):
        Arrays(host.network_addresses[0].replace("127.0.0.1", "localhost")).connect()
    with pytest.raises(NotAuthorizedError, match="need the host's key"):
        Arrays(authkey=b"", listen="tcp://127.0.0.1:0").start()


def test_a_client_without_the_key_learns_nothing(host: ArrayManager) -> None:
    with dial(host.network_addresses[0]) as sock:
        sock.sendall(Handshake(CLIENT, b"wrong").greeting())
        exactly(sock, GREETING_BYTES)
        sock.sendall(bytes(PROOF_BYTES))
        assert exactly(sock, 1) == b"\0"
        assert sock.recv(100) == b""


def test_a_host_without_the_key_is_found_out() -> None:
    def act(sock: socket.socket) -> None:
        handshake = Handshake(HOST, b"wrong")
        handshake.hear_greeting(exactly(sock, GREETING_BYTES))
        sock.sendall(handshake.greeting())
        exactly(sock, PROOF_BYTES)
        sock.sendall(b"\1" + handshake.proof())

    with rogue(act) as address, pytest.raises(NotAuthorizedError, match="different keys"):
        connected(address)


def test_a_replayed_handshake(host: ArrayManager) -> None:
    with relay(host.network_addresses[0]) as between:
        manager = connected(between.address)
        recording = bytes(between.recorded[0])
        manager._engine.session.close()  # type: ignore[union-attr]  # a host's
    assert len(recording) > GREETING_BYTES + PROOF_BYTES
    with dial(host.network_addresses[0]) as sock:
        sock.sendall(recording)
        exactly(sock, GREETING_BYTES)
        assert exactly(sock, 1) == b"\0"
        assert ended(sock)
    works(host)


def test_a_reflected_handshake() -> None:
    """A proof of the client's own is no proof of the host's, whatever numbers it covers."""

    def act(sock: socket.socket) -> None:
        sock.sendall(exactly(sock, GREETING_BYTES))
        sock.sendall(b"\1" + exactly(sock, PROOF_BYTES))

    with rogue(act) as address, pytest.raises(NotAuthorizedError, match="different keys"):
        connected(address)


def test_proofs_depend_on_role_numbers_and_key() -> None:
    one, other = Handshake(CLIENT, KEY), Handshake(HOST, KEY)
    one.hear_greeting(other.greeting())
    other.hear_greeting(one.greeting())
    other.check_proof(one.proof())
    one.check_proof(other.proof())
    assert len({one.proof(), other.proof(), one.greeting(), other.greeting()}) == 4
    for wrong in (one.proof(), bytes(PROOF_BYTES), b"", other.proof()[:-1]):
        with pytest.raises(NotAuthorizedError):
            one.check_proof(wrong)


# -- no pickle in either direction -------------------------------------------------------------------------------------


class _Bomb:
    exploded = False

    def __reduce__(self) -> object:
        return _explode, ()


def _explode() -> None:
    _Bomb.exploded = True


def _pickled() -> msgpack.ExtType:
    return codec.Encoder(lambda value: None, allow_pickle=True).pickled(_Bomb())


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.CALL, Kind.EVALUATE, Kind.PUT_NAME, Kind.SET_ITEM])
def test_a_host_reads_no_pickle(host: ArrayManager, kind: Kind) -> None:
    leases, calls = session(host.network_addresses[0])
    with leases, calls:
        calls.sendall(pack_frame(kind, 7, msgpack.packb(_pickled())))
        answer = calls.recv(65536)
        assert answer[3] == Kind.ERROR
        assert b"a pickle from a peer that may not send one" in answer
    works(host)


@pytest.mark.parametrize("where", ["result", "error"])
def test_a_client_reads_no_pickle(where: str) -> None:
    def act(sock: socket.socket) -> None:
        prove_as_host(sock)
        request = sock.recv(65536)
        role = msgpack.unpackb(request[16:])[0]
        sock.sendall(pack_frame(Kind.RESULT, 0, msgpack.packb([b"h" * 16, 1.0, 16, 0, True, [], b""])))
        if role == "session":
            held.append(sock.dup())
            return
        sequence = int.from_bytes(sock.recv(65536)[8:12], "little")
        if where == "result":
            sock.sendall(pack_frame(Kind.RESULT, sequence, b"\0" + msgpack.packb([_pickled(), []])))
        else:
            described = ["builtins.ValueError", ["x"], [], _pickled().data, "x"]
            sock.sendall(pack_frame(Kind.ERROR, sequence, msgpack.packb([described, []])))
        ended(sock)

    held: list[socket.socket] = []
    manager = None
    with rogue(act) as address:
        manager = Arrays(address, KEY)
        manager.connect()
        with pytest.raises(Exception) as raised:  # which one depends on where
            manager.statistics()
        manager._engine.session.close()  # type: ignore[union-attr]  # a host's
    for sock in held:
        sock.close()
    assert not _Bomb.exploded
    assert where == "error" or isinstance(raised.value, ProtocolError)


@pytest.mark.parametrize(
    "operation",
    [
        ["function", "numpy.testing:run_module_suite", "", None],
        ["function", "numpy.f2py:compile", "", None],
        ["function", "numpy:save", "", None],
        ["function", "numpy:load", "", None],
        ["function", "numpy.lib.stride_tricks:as_strided", "", None],
        ["method", "tofile", "", None],
        ["method", "dump", "", None],
        ["method", "__reduce__", "", None],
        ["method", "__setstate__", "", None],
        ["get", "ctypes", "", None],
        ["get", "__class__", "", None],
        ["operator", "call", "", None],
        ["operator", "attrgetter", "", None],
        ["ufunc", "add", "__reduce__", None],
        ["set", "strides", "", None],
    ],
    ids=lambda operation: ".".join(operation[:2]),
)
def test_what_is_not_evaluated(remote: ArrayManager, operation: list[object], tmp_path: Path) -> None:
    a = remote.ones(3)
    with pytest.raises(NotAuthorizedError, match="does not carry out"):
        remote._engine.session.request(Kind.EVALUATE, [*operation, [a, str(tmp_path / "file")], {}, None])  # type: ignore[union-attr]  # a host's
    assert not list(tmp_path.iterdir())


# -- TLS -------------------------------------------------------------------------------------------------------------


def test_tls(certificates: Certificates) -> None:
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0", tls=certificates.host) as manager:
        address = manager.network_addresses[0]
        remote = connected(address, tls=certificates.authority)
        values = np.arange(500_000.0)
        a = remote.array(values)
        assert (a.copy() == values).all()
        with a.write() as x:
            x[...] = 3
        assert a.sum() == 3 * a.size
        del a
        wait_until(lambda: manager.statistics().n_arrays == 0)
        localhost = connected(address.replace("127.0.0.1", "localhost"), tls=certificates.authority)
        assert localhost.ones(2).sum() == 2
        with pytest.raises(NotAuthorizedError, match=r"certificate of .* is not accepted"):
            connected(address, tls=certificates.stranger)
        with pytest.raises(NotAuthorizedError, match="another key"):
            connected(address, b"wrong", tls=certificates.authority)
        with pytest.raises((ProtocolError, HostGoneError), match="TLS"):
            connected(address, tls=False)
        with dial(address) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert ended(plain)
        assert remote.ones(2).sum() == 2


def test_a_certificate_for_another_name(certificates: Certificates) -> None:
    with (
        Arrays(authkey=KEY, listen="tcp://127.0.0.1:0", tls=certificates.elsewhere) as manager,
        pytest.raises(NotAuthorizedError, match=r"certificate of .* is not accepted"),
    ):
        connected(manager.network_addresses[0], tls=certificates.authority)


def test_certificates_of_clients(certificates: Certificates) -> None:
    tls = (*certificates.host, certificates.authority)
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0", tls=tls) as manager:
        address = manager.network_addresses[0]
        with pytest.raises((NotAuthorizedError, HostGoneError, ProtocolError)):
            connected(address, tls=certificates.authority)
        remote = connected(address, tls=(certificates.authority, *certificates.client))
        assert remote.ones(2).sum() == 2


def test_a_tls_client_on_a_plain_port(host: ArrayManager, certificates: Certificates) -> None:
    with pytest.raises(ProtocolError, match="no TLS at the other end"):
        connected(host.network_addresses[0], tls=certificates.authority)
    works(host)


def test_a_context_of_the_callers_own(certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.authority)
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0", tls=certificates.host) as manager:
        assert connected(manager.network_addresses[0], tls=context).ones(2).sum() == 2


# -- where it listens ------------------------------------------------------------------------------------------------


def _listening(pid: int) -> set[str]:
    """The addresses on which a process listens, as the kernel tells them."""
    own = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                words = bytes.fromhex(fields[1].partition(":")[0])
                number = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(str(ipaddress.ip_address(number)))
    return found


def test_only_loopback_and_only_when_asked(host: ArrayManager) -> None:
    assert _listening(host.statistics().pid) == {"127.0.0.1"}
    with ArrayManager() as quiet:
        assert _listening(quiet.statistics().pid) == set()
        assert quiet.network_addresses == ()


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://[::]:0"])
def test_the_open_network_needs_tls_or_a_word(address: str, certificates: Certificates) -> None:
    with pytest.raises(NotAuthorizedError, match="can be reached from other machines"):
        Arrays(authkey=KEY, listen=address).start()
    if address.startswith("tcp://["):
        return
    for how in ({"tls": certificates.host}, {"insecure": True}):
        with Arrays(authkey=KEY, listen=address, **how) as manager:  # type: ignore[arg-type]  # of several types
            assert _listening(manager.statistics().pid) == {"0.0.0.0"}


def test_addresses() -> None:
    assert parse_tcp("tcp://example.org:80") == ("example.org", 80)
    assert parse_tcp("tcp://[::1]:0") == ("::1", 0)
    assert tcp_address(("::1", 5, 0, 0)) == "tcp://[::1]:5"
    for wrong in (
        "tcp://",
        "tcp://x",
        "tcp://:1",
        "tcp://a b:1",
        "tcp://x:99999",
        "tcp://::1:5",
        "tcp://x/y:1",
        "http://x:1",
    ):
        with pytest.raises(ValueError, match="expected 'tcp://HOST:PORT'"):
            parse_tcp(wrong)
    with pytest.raises(ValueError, match="listen="):
        Arrays(("127.0.0.1", 0)).start()
    with pytest.raises(HostGoneError, match="no host at"):
        Arrays("tcp://127.0.0.1:1", KEY).connect()


def test_a_hello_by_hand(host: ArrayManager) -> None:
    with prove(host.network_addresses[0]) as sock, pytest.raises(AssertionError):
        hello(sock, "nonsense", b"x" * 16)
        assert ended(sock)
        raise AssertionError
    works(host)


@pytest.mark.parametrize("n_bytes", [MAX_HELLO_BYTES + 1, MAX_BODY_BYTES])
def test_a_first_message_larger_than_a_hello_is_not_received(host: ArrayManager, n_bytes: int) -> None:
    with prove(host.network_addresses[0]) as sock:
        sock.sendall(pack_frame(Kind.HELLO, 0, b"")[: HEADER_BYTES - 4] + n_bytes.to_bytes(4, "little"))
        assert ended(sock)
    with prove(host.network_addresses[0]) as sock:  # nor one with an attachment
        sock.sendall(pack_frame(Kind.HELLO, 0, b"", 1, 1) + n_bytes.to_bytes(8, "little"))
        assert ended(sock)
    works(host)


def test_a_request_larger_than_one_may_be(host: ArrayManager, remote: ArrayManager) -> None:
    leases, calls = session(host.network_addresses[0])
    with leases, calls:
        header = pack_frame(Kind.CALL, 1, b"")[: HEADER_BYTES - 4]
        calls.sendall(header + (MAX_UNTRUSTED_BYTES + 1).to_bytes(4, "little"))
        assert ended(calls)
    with pytest.raises(ArgumentEncodingError, match=r"17\.0 MiB as a message, and 16\.0 MiB is the most"):
        remote.Counter().take(b"x" * (17 * 1024 * 1024))  # type: ignore[attr-defined]
    assert remote.Counter().take(b"x" * (15 * 1024 * 1024)) == "bytes"  # type: ignore[attr-defined]
    works(host)
