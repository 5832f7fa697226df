"""The memory of hosted arrays: packed, cleared before its next use, bounded, and let go of."""

import gc
import itertools
import os
import threading

import numpy as np
import pytest

from arrayhost.core.arena import ALIGNMENT
from arrayhost.errors import HostMemoryError, ProtocolError
from arrayhost.host import places as module
from arrayhost.host.places import PACKED_BELOW, Place, Places
from arrayhost.memory.segments import Mapping, create_segment


def n_fds() -> int:
    gc.collect()  # what earlier tests left to the collector is none of this one's
    return len(os.listdir("/proc/self/fd"))


def give_back(places: Places, taken: list[Place]) -> None:
    while taken:
        places.discard(taken.pop())
    places.collect()


def test_small_places_share_a_segment_and_no_cache_line() -> None:
    places = Places()
    before = n_fds()
    taken = [places.create(n) for n in (0, 1, 8, 63, 64, 65, 1000, PACKED_BELOW - 1)]
    assert n_fds() == before + 1
    assert len({place.segment.ident for place in taken}) == 1
    ranges = sorted((place.start, place.start + place.mapping.n_bytes) for place in taken)
    assert all(start % ALIGNMENT == 0 for start, _ in ranges)
    assert all(-(-stop // ALIGNMENT) * ALIGNMENT <= start for (_, stop), (start, _) in itertools.pairwise(ranges))
    give_back(places, taken)
    places.close()


def test_large_ones_have_their_own() -> None:
    places = Places()
    before = n_fds()
    taken = [places.create(PACKED_BELOW), places.create(PACKED_BELOW)]
    assert n_fds() == before + 2
    assert len({place.segment.ident for place in taken}) == 2
    give_back(places, taken)
    assert n_fds() == before
    assert places.n_bytes == 0


def test_memory_is_cleared_before_its_next_use() -> None:
    places = Places()

    def write(target: Mapping, start: int, stop: int) -> None:
        target.writer[start:stop] = 0xAB

    first = places.create(1000, write)
    kept = places.create(8)
    segment, start = first.segment, first.start
    assert (first.mapping.reader == 0xAB).all()
    places.discard(first)
    del first
    second = places.create(900)
    assert (second.segment, second.start) == (segment, start)
    # The whole block, with what lies behind the array.
    assert not segment.mapping.part(start, 960).reader.any()
    give_back(places, [second, kept])
    places.close()


def test_a_place_in_use_is_given_to_nobody() -> None:
    """An operation under way, or a view that was handed out, outlives the array."""
    places = Places()
    place = places.create(256)
    view = place.mapping.writer[8:16]
    segment, start = place.segment, place.start
    places.discard(place)
    del place
    others = [places.create(256) for _ in range(20)]
    assert start not in {other.start for other in others}
    view[...] = 7
    assert not any(other.mapping.reader.any() for other in others)
    del view
    again = places.create(256)
    assert (again.segment, again.start) == (segment, start)
    assert not again.mapping.reader.any()
    give_back(places, [*others, again])
    del others, again
    places.close()


def test_empty_segments_are_let_go_of_but_for_one() -> None:
    places = Places()
    before = n_fds()
    taken = [places.create(100_000) for _ in range(300)]
    assert places.n_segments() > 10
    assert n_fds() == before + places.n_segments()
    give_back(places, taken)
    assert places.n_segments() == 1
    assert n_fds() == before + 1
    for _ in range(50):
        give_back(places, [places.create(100_000)])
    assert places.n_segments() == 1
    places.close()


def test_a_failing_writer_takes_nothing() -> None:
    places = Places(max_bytes=10 * PACKED_BELOW)
    before = n_fds()

    def fail(target: Mapping, start: int, stop: int) -> None:
        raise KeyError("writer")

    for n_bytes in (100, PACKED_BELOW):
        for _ in range(50):
            with pytest.raises(KeyError):
                places.create(n_bytes, fail)
    gc.collect()
    places.collect()
    assert places.n_bytes == 0
    assert n_fds() == before + 1
    places.close()


def test_the_bound_counts_what_is_being_made() -> None:
    """Two threads cannot both take the last of it."""
    places = Places(max_bytes=3 * PACKED_BELOW)
    entered, leave = threading.Event(), threading.Event()
    made: list[Place] = []

    def wait(target: Mapping, start: int, stop: int) -> None:
        entered.set()
        assert leave.wait(30)

    thread = threading.Thread(target=lambda: made.append(places.create(2 * PACKED_BELOW, wait)))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(HostMemoryError, match="max_bytes") as caught:
        places.create(2 * PACKED_BELOW)
    assert (caught.value.need_bytes, caught.value.free_bytes) == (2 * PACKED_BELOW, PACKED_BELOW)
    leave.set()
    thread.join()
    fd, _ = create_segment(2 * PACKED_BELOW)
    with pytest.raises(HostMemoryError, match="max_bytes"):
        places.adopt(fd, 2 * PACKED_BELOW)
    os.close(fd)
    small = [places.create(PACKED_BELOW // 2) for _ in range(2)]
    with pytest.raises(HostMemoryError, match="max_bytes"):
        places.create(1)
    give_back(places, [*small, *made])
    assert places.n_bytes == 0
    small.clear()
    made.clear()
    places.close()


def test_many_threads_never_get_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_SHARED", 1024 * 1024)
    places = Places()
    failures: list[str] = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        mine: list[tuple[Place, int]] = []
        for step in range(400):
            if mine and rng.random() < 0.5:
                place, mark = mine.pop(int(rng.integers(len(mine))))
                if not (place.mapping.reader == mark).all():
                    failures.append(f"thread {number}, step {step}")
                places.discard(place)
                del place
                continue
            place = places.create(int(rng.integers(1, 5000)))
            if place.mapping.reader.any():
                failures.append(f"thread {number}, step {step}: not clear")
            place.mapping.writer.fill(number)
            mine.append((place, number))
        for place, _ in mine:
            places.discard(place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    places.collect()
    assert not failures
    assert places.n_bytes == 0
    assert places.n_segments() == 1
    places.close()


def test_parts_do_not_reach_their_neighbours() -> None:
    fd, mapping = create_segment(1000)
    os.close(fd)
    part = mapping.part(64, 100)
    assert (part.address, part.n_bytes) == (mapping.address + 64, 100)
    with pytest.raises(TypeError):
        np.ndarray((101,), np.uint8, part.writer)
    for start, n_bytes in ((-1, 10), (995, 10), (0, 1001), (0, 0), (0, -1)):
        with pytest.raises(ProtocolError):
            mapping.part(start, n_bytes)
