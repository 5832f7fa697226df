"""Blocks in shared segments: aligned, disjoint, merged again."""

import numpy as np
import pytest

from arrayhost.core.arena import ALIGNMENT, Arena, _class_of


def test_classes_grow_with_the_size_without_a_gap() -> None:
    classes = [_class_of(units * ALIGNMENT) for units in range(1, 5000)]
    assert classes == sorted(classes)
    assert set(np.diff(classes)) <= {0, 1}


def test_blocks_start_and_end_at_cache_lines() -> None:
    arena = Arena()
    arena.add_region(1 << 32, 4096)
    starts = [arena.allocate(n) for n in (0, 1, 64, 65, 130)]
    assert all(start is not None and start % ALIGNMENT == 0 for start in starts)
    assert [arena.size(start) for start in starts if start is not None] == [64, 64, 64, 128, 192]


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    arena = Arena()
    assert arena.allocate(1) is None
    arena.add_region(0, 1024)
    assert arena.allocate(1025) is None
    assert arena.allocate(1024) == 0
    assert arena.allocate(1) is None
    assert len(arena) == 1


def test_freed_neighbours_become_one_block_again() -> None:
    arena = Arena()
    arena.add_region(0, 64 * 9)
    starts = [arena.allocate(64) for _ in range(9)]
    for start in (starts[1::2] + starts[0::2])[:-1]:
        assert start is not None
        assert arena.free(start) is None
    last = starts[8]
    assert last is not None
    assert arena.free(last) == 0
    assert arena.allocate(64 * 9) == 0


def test_a_block_is_freed_once() -> None:
    arena = Arena()
    arena.add_region(0, 1024)
    start = arena.allocate(100)
    assert start == 0
    arena.free(start)
    with pytest.raises(KeyError):
        arena.free(start)
    with pytest.raises(KeyError):
        arena.free(64)


def test_only_an_empty_region_is_removed() -> None:
    arena = Arena()
    arena.add_region(0, 1024)
    arena.add_region(1 << 20, 1024)
    start = arena.allocate(1024)
    other = arena.allocate(1024)
    assert start is not None
    assert other is not None
    with pytest.raises(ValueError, match="in use"):
        arena.remove_region(start)
    assert arena.free(start) == start
    arena.remove_region(start)
    assert arena.allocate(64) is None
    assert arena.free(other) == other


def test_random_use_never_overlaps_and_ends_empty(rng: np.random.Generator) -> None:
    arena = Arena()
    regions = {n << 32: 64 * 1024 for n in range(4)}
    owners = {start: np.zeros(n_bytes // ALIGNMENT, np.int64) for start, n_bytes in regions.items()}
    for start, n_bytes in regions.items():
        arena.add_region(start, n_bytes)
    blocks: dict[int, tuple[int, int]] = {}
    n_refused = 0
    for number in range(1, 6000):
        if blocks and rng.random() < 0.48:
            ident = int(rng.choice(list(blocks)))
            start, size = blocks.pop(ident)
            region, first = start >> 32 << 32, (start & 0xFFFFFFFF) // ALIGNMENT
            assert (owners[region][first : first + size // ALIGNMENT] == ident).all()
            owners[region][first : first + size // ALIGNMENT] = 0
            arena.free(start)
            continue
        n_bytes = int(2 ** rng.uniform(0, 14))
        start_or_none = arena.allocate(n_bytes)
        if start_or_none is None:
            n_refused += 1
            continue
        start, size = start_or_none, arena.size(start_or_none)
        region, first = start >> 32 << 32, (start & 0xFFFFFFFF) // ALIGNMENT
        assert size >= n_bytes
        assert not owners[region][first : first + size // ALIGNMENT].any()
        owners[region][first : first + size // ALIGNMENT] = number
        blocks[number] = (start, size)
    assert n_refused < 3000
    for start, _ in blocks.values():
        arena.free(start)
    for start, n_bytes in regions.items():
        arena.remove_region(start)
        assert n_bytes
    assert len(arena) == 0
    assert arena.allocate(64) is None
