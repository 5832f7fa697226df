"""Pickled proxies where the host's Unix socket cannot be reached, as on another machine: they go over TCP."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager
from arrayhost.core.addresses import advertised
from tests.remote.conftest import KEY, Arrays
from tests.support import child, run_python

# Told a key, and a proxy's pickle, in hexadecimal digits.
UNPICKLE = """
    import json, multiprocessing, pickle, sys
    multiprocessing.current_process().authkey = bytes.fromhex(sys.argv[1])
    try:
        a = pickle.loads(bytes.fromhex(sys.argv[2]))
        if sys.argv[3:]:
            print(json.dumps([a.add(2), a.add(3)]))
        else:
            a[0] += 1
            print(json.dumps([a._source.link.address, a.mapped, a.tolist()]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error), getattr(error, "__notes__", [])]))
"""

ANOTHER_HOST = """
    import sys
    from arrayhost import ArrayManager
    with ArrayManager(sys.argv[1]) as manager:
        print(manager.address)
        sys.stdin.read()
"""


def elsewhere(proxy: Any, key: bytes = KEY, *more: object) -> Any:
    """Unpickle in a process of its own and tell what came of it."""
    data = proxy if isinstance(proxy, bytes) else pickle.dumps(proxy)
    return json.loads(run_python(UNPICKLE, key.hex(), data.hex(), *more).stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for a host's socket."""
    return tmp_path / "inside"


def test_a_process_that_finds_the_socket_maps(place: Path) -> None:
    with ArrayManager(f"unix:{place}/host", KEY, listen="tcp://127.0.0.1:0") as manager:
        assert elsewhere(manager.arange(3.0)) == [manager.address, True, [1, 1, 2]]


def test_a_process_that_does_not_goes_over_tcp(place: Path) -> None:
    with Arrays(f"unix:{place}/host", KEY, listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]) as manager:
        a, counter = manager.arange(3.0), manager.Counter(1)
        place.rename(place.with_name("moved"))
        try:
            assert elsewhere(a[1:]) == [manager.network_addresses[0], False, [2, 2]]
            assert elsewhere(a.on_host) == [manager.network_addresses[0], False, [1, 2, 2]]
            assert elsewhere(counter, KEY, "an object") == [3, 6]
            assert a.tolist() == [1, 2, 2]
            kind, text, notes = elsewhere(a, b"another key, which is also long.")
            assert kind == "NotAuthorizedError"
            assert "the host has another key" in text
            assert any(f"no host at {manager.address}" in note for note in notes)
        finally:
            place.with_name("moved").rename(place)


def test_another_host_at_the_address_is_not_taken_for_it(place: Path) -> None:
    with ArrayManager(f"unix:{place}/host", KEY, listen="tcp://127.0.0.1:0") as manager:
        a = manager.arange(3.0)
        place.rename(place.with_name("moved"))
        try:
            with child(ANOTHER_HOST, manager.address) as other:
                other.expect(manager.address)
                assert elsewhere(a) == [manager.network_addresses[0], False, [1, 1, 2]]
        finally:
            place.rmdir()
            place.with_name("moved").rename(place)


def test_a_host_that_has_ended_is_gone_everywhere(place: Path) -> None:
    with ArrayManager(f"unix:{place}/host", KEY, listen="tcp://127.0.0.1:0") as manager:
        data, port = pickle.dumps(manager.arange(3.0)), manager.network_addresses[0]
    kind, text, notes = elsewhere(data)
    assert kind == "HostGoneError"
    assert f"no host at unix:{place}/host" in text
    assert any(port.removeprefix("tcp://") in note for note in notes)


def test_handles_of_a_host_without_ports_name_none(place: Path) -> None:
    with ArrayManager(f"unix:{place}/host", KEY) as manager:
        assert b"tcp://" not in pickle.dumps(manager.arange(3.0))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5", "tcp://127.0.0.1:5"),
        ("tcp://0.0.0.0:5", "tcp://here:5"),
        ("tcp://[::]:5", "tcp://here:5"),
        ("tcp://[fe80::1]:5", "tcp://[fe80::1]:5"),
    ],
)
def test_a_port_on_all_addresses_is_told_by_the_machines_name(address: str, expected: str) -> None:
    assert advertised(address, "here") == expected


def test_code_in_the_host_gives_out_the_same_handles() -> None:
    with Arrays(authkey=KEY, listen="tcp://127.0.0.1:0") as manager:
        data = manager.run(_pickled_there)._getvalue().tobytes()
        assert manager.network_addresses[0].encode() in data


def _pickled_there() -> Any:
    import arrayhost

    return np.frombuffer(pickle.dumps(arrayhost.ones(3)), np.uint8)
