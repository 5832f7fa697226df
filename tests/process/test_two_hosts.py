"""Operations on arrays of two hosts: evaluated where the target is, given the values of what the other host owns."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from arrayhost import ArrayManager, UnsupportedError, locked
from arrayhost.client.session import round_trips
from tests.support import assert_same, child, wait_until

HALF = 20_000
WRITER = """
import itertools, sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
for k in itertools.count():
    with a.write() as x:
        x.fill(k % 1000)
"""


class Hosts(NamedTuple):
    """Two of them."""

    here: ArrayManager
    there: ArrayManager


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with ArrayManager() as here, ArrayManager() as there:
        for manager in (here, there):
            held = [manager.zeros(1) for _ in range(32)]
            with locked(*held):  # opens the connection and the lock files that the tests will need
                held[0][0] = 1
        yield Hosts(here, there)


def test_views_of_one_array_are_sent_as_of_one_moment(hosts: Hosts) -> None:
    hosts.there["a"] = np.zeros(2 * HALF, np.int64)
    a = hosts.there["a"]
    left, right = a[:HALF], a[HALF:]
    target, sparse = hosts.here.zeros(HALF, np.int64), hosts.here.zeros(1000, np.int64)
    differences: tuple[Callable[[], Any], ...] = (
        lambda: np.subtract(left, right, out=target),
        lambda: np.subtract(left, right, out=target.on_host),
        lambda: np.subtract(left.on_host, right.on_host, out=target),
    )
    version = a.version
    with child(WRITER, hosts.there.address) as writer:
        writer.expect("ready")
        for _ in range(20):
            for subtract in differences:
                subtract()
                assert not target.any()
            sparse[left[:3]] = right[:3]
            written = sparse.copy()
            assert ((written == 0) | (written == np.arange(1000))).all()
        wait_until(lambda: a.version > version + 20)
        writer.kill()
    del hosts.there["a"]


def test_several_views_take_one_round_trip(hosts: Hosts) -> None:
    a, target = hosts.there.arange(30.0).on_host, hosts.here.zeros((3, 10))
    before = round_trips()
    np.stack([a[:10], a[10:20], a[20:]], out=target)
    assert round_trips() == before + 2
    assert_same(target.copy(), np.arange(30.0).reshape(3, 10))
    indices = hosts.there.array([2, 0, 1, 5, 6, 7]).on_host
    before = round_trips()
    target[0, indices[:3]] = indices[3:]
    assert round_trips() == before + 2
    assert target[0, :3].tolist() == [6, 7, 5]


@pytest.mark.parametrize("on_host", [False, True])
def test_nothing_is_written_to_arrays_of_two_hosts(hosts: Hosts, on_host: bool) -> None:
    a, b = hosts.here.zeros(3), hosts.there.zeros(3)
    out = (a.on_host, b.on_host) if on_host else (a, b)
    with pytest.raises(UnsupportedError, match="arrays of two hosts"):
        np.divmod([7.0, 8, 9], 2, out=out)
    assert not a.any()
    assert not b.any()
    with locked(a, b):
        np.divmod([7.0, 8, 9], 2, out=(a, b))
    assert (a.tolist(), b.tolist()) == ([3, 4, 4], [1, 0, 1])
