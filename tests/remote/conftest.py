"""A host that listens on loopback, a manager that has reached it over TCP, and certificates."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import trustme

from arrayhost import ArrayManager, locked
from arrayhost.wire import limits

KEY = b"the key of the tests, 32 bytes.."


class Counter:
    """A class to host."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def take(self, value: object) -> str:
        return type(value).__name__

    def give(self) -> object:
        return object()


class Arrays(ArrayManager):
    """The manager of these tests."""


Arrays.register("Counter", Counter)


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> limits.Timeouts:
    """Short times for what stands still; hosts that a test starts afterwards inherit them."""
    short = limits.Timeouts(handshake=1.5, stall=1.5, keepalive=3.0)
    monkeypatch.setattr(limits, "TIMEOUTS", short)
    return short


def connected(address: str, key: bytes | None = KEY, tls: object = None) -> ArrayManager:
    """Connect over TCP; the connection for requests is made, too."""
    manager = Arrays(address, key, tls=tls)
    manager.connect()
    manager.statistics()
    return manager


@pytest.fixture(scope="module")
def host() -> Iterator[ArrayManager]:
    """A host of this process, which maps its arrays."""
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0") as manager:
        held = [manager.zeros(1) for _ in range(32)]
        with locked(*held):  # opens the lock files that the tests will need
            held[0][0] = 1
        yield manager


@pytest.fixture(scope="module")
def remote(host: ArrayManager) -> ArrayManager:
    """The same host, reached over TCP."""
    manager = connected(host.network_addresses[0])
    with locked(*(manager.zeros(1) for _ in range(3))):  # the connections for locks are made now
        pass
    return manager


@pytest.fixture
def own_host(timeouts: limits.Timeouts) -> Iterator[ArrayManager]:
    """A host with short times, for one test."""
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0") as manager:
        yield manager


class Certificates(NamedTuple):
    """Files: authorities, and certificate and key for a host, for another name, and for a client."""

    authority: str
    host: tuple[str, str]
    elsewhere: tuple[str, str]
    client: tuple[str, str]
    stranger: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = trustme.CA(), trustme.CA()

    def written(name: str, *identities: str) -> tuple[str, str]:
        made = authority.issue_cert(*identities)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return str(certificate), str(key)

    def authorities(name: str, of: trustme.CA) -> str:
        path = folder / name
        of.cert_pem.write_to_path(str(path))
        return str(path)

    return Certificates(
        authorities("ca.pem", authority),
        written("host", "127.0.0.1", "localhost"),
        written("elsewhere", "example.org"),
        written("client", "client@example.org"),
        authorities("stranger.pem", stranger),
    )
