"""What reading and sections cost: no round trip; and that no copy mixes two writes of another thread."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from arrayhost import ArrayManager
from arrayhost.client.session import round_trips


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        running["a"] = np.zeros(10)
        yield running


def test_inside_ones_own_section_everything_is_direct(manager: ArrayManager) -> None:
    a = manager["a"]
    before = round_trips()
    with a.write() as x:
        x[:] = 2
        a[1] = 5
        a[2:4] += 1
        a += 1
        with a[5:].write() as y:
            y[0] = 9
        assert a.sum() == x.sum() == 41
    assert round_trips() == before
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


def test_reads_make_no_round_trip(manager: ArrayManager) -> None:
    a = manager.ones((4, 5))
    before = round_trips()
    assert a[1, 2] == 1
    assert a[1:3].shape == (2, 5)
    assert a.T.sum() == (a + a).sum() / 2 == 20
    assert round_trips() == before


def test_no_copy_shows_two_writes(manager: ArrayManager) -> None:
    a = manager.zeros(1_000_000)
    stop = threading.Event()

    def write() -> None:
        for k in range(1, 10_000):
            a.fill(k)
            with a.write() as x:
                x.fill(-k)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            copy = a.copy()
            assert copy.min() == copy.max()
    finally:
        stop.set()
        writer.join()
