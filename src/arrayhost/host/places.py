"""Places: the memory of hosted arrays. Small arrays share segments, a large one has a segment of its own.

A segment costs a descriptor, a mapping in every process and at least a page, so that a hundred thousand small arrays
could not have one each. A place in a shared segment is given to another array only when nothing in the host uses it any
more, views and operations under way included; it is cleared first.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from arrayhost.core.arena import Arena, rounded
from arrayhost.errors import HostMemoryError
from arrayhost.memory.descriptors import descriptor_limit
from arrayhost.memory.segments import create_segment, map_segment, segment_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrayhost.memory.filling import WritePiece
    from arrayhost.memory.segments import Mapping

__all__ = ["PACKED_BELOW", "Place", "Places", "Segment", "nothing_to_settle"]

# Arrays from this size have a segment of their own: 4,000 descriptors for each gigabyte, and no copy where a client has
# sent one.
PACKED_BELOW = 256 * 1024
# Shared segments grow with their number, so that there are few of them without much unused memory.
_SMALLEST_SHARED = 1024 * 1024
_LARGEST_SHARED = 16 * 1024 * 1024
_GROWTH = 8
# The arena's addresses: the segment's id above, the offset below.
_OFFSET_BITS = 32


class Segment:
    """One memory file with its mapping in the host.

    Attributes
    ----------
    ident : int
        Never used again.
    fd : int
    mapping : Mapping
    used_bytes : int
        Of a shared segment: what lies above was never given to an array, and is clear.
    """

    __slots__ = ("fd", "ident", "mapping", "used_bytes")

    def __init__(self, ident: int, fd: int, mapping: Mapping) -> None:
        self.ident = ident
        self.fd = fd
        self.mapping = mapping
        self.used_bytes = 0

    def close(self) -> None:
        """Close the descriptor; safe to repeat. The memory lives as long as somebody has it mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Place:
    """The memory of one array.

    Attributes
    ----------
    segment : Segment
    start : int
        Where it begins in the segment.
    mapping : Mapping
        This part of it. Arrays made from it keep the place.
    counted_bytes : int
        What it takes of the host's bound.
    """

    __slots__ = ("__weakref__", "counted_bytes", "is_shared", "mapping", "segment", "start")

    def __init__(self, segment: Segment, start: int, n_bytes: int, counted_bytes: int, *, is_shared: bool) -> None:
        self.segment = segment
        self.start = start
        self.mapping = segment.mapping.part(start, n_bytes, owner=self)
        self.counted_bytes = counted_bytes
        self.is_shared = is_shared


def nothing_to_settle() -> bool:
    """Say that all has been freed that could be: where nobody serves, clients give nothing up."""
    return False


class Places:
    """All memory of a host's arrays.

    Parameters
    ----------
    max_bytes : int, optional
        Bound on all places together.
    huge_pages : bool

    Attributes
    ----------
    settle : callable
        Called before memory is refused: returns True once everything has been freed that was given up before.

    Notes
    -----
    Safety: any thread. The lock is held for bookkeeping, and while a new shared segment gets its pages (at most a few
    milliseconds); finalizers never take it.
    """

    def __init__(self, max_bytes: int | None = None, *, huge_pages: bool = True) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self.settle: Callable[[], bool] = nothing_to_settle
        self._huge_pages = huge_pages
        self._lock = threading.Lock()
        self._arena = Arena()
        self._shared: dict[int, Segment] = {}
        self._shared_bytes = 0
        self._empty: int | None = None
        self._idents = itertools.count(1)
        self._unused: deque[int] = deque()

    def create(self, n_bytes: int, write_piece: WritePiece = None) -> Place:
        """Make memory for an array: zeros, or what `write_piece` writes (see `create_segment`).

        Raises
        ------
        HostMemoryError
            It would exceed `max_bytes`, or what the machine or a control group has free.
        DescriptorLimitError
        """
        return self._made(lambda: self._create(n_bytes, write_piece))

    def _create(self, n_bytes: int, write_piece: WritePiece) -> Place:
        if n_bytes < PACKED_BELOW:
            return self._create_shared(max(n_bytes, 8), n_bytes, write_piece)
        counted = segment_size(n_bytes)
        self._count(counted)
        try:
            fd, mapping = create_segment(n_bytes, write_piece=write_piece, huge_pages=self._huge_pages)
        except BaseException:
            self._uncount(counted)
            raise
        return self._own_place(fd, mapping, counted)

    def adopt(self, fd: int, n_bytes: int) -> Place:
        """Make a memory file that a client has sent an array's segment. The descriptor stays the caller's.

        Raises
        ------
        HostMemoryError, DescriptorLimitError
        """
        return self._made(lambda: self._adopt(fd, n_bytes))

    def _adopt(self, fd: int, n_bytes: int) -> Place:
        self._count(n_bytes)
        try:
            mapping = map_segment(fd, n_bytes)
            with descriptor_limit("an array's segment"):
                own = os.dup(fd)
        except BaseException:
            self._uncount(n_bytes)
            raise
        return self._own_place(own, mapping, n_bytes)

    def of_file(self, fd: int, mapping: Mapping, start: int, n_bytes: int) -> Place:
        """Make part of a mapped file an array's place, which owns the descriptor; it takes none of the bound."""
        return Place(Segment(next(self._idents), fd, mapping), start, n_bytes, 0, is_shared=False)

    def discard(self, place: Place) -> None:
        """Give a place back: its memory is free once nobody uses it."""
        self._uncount(place.counted_bytes)
        if not place.is_shared:
            place.segment.close()

    def collect(self) -> None:
        """Let go of shared segments that have become empty, but for one."""
        if self._unused:
            with self._lock:
                self._take_back()

    def n_segments(self) -> int:
        """How many shared segments there are."""
        return len(self._shared)

    def close(self) -> None:
        """Close the shared segments' descriptors; what is mapped stays so."""
        with self._lock:
            for segment in self._shared.values():
                segment.close()

    def _made(self, make: Callable[[], Place]) -> Place:
        """Make a place, and try again if there is no room before all has been freed that clients have dropped."""
        try:
            return make()
        except HostMemoryError:
            if not self.settle():
                raise
        return make()

    # -- how much --------------------------------------------------------------------------------------------------

    def _count(self, n_bytes: int) -> None:
        """Count memory before it is made: two threads cannot both take the last of it."""
        with self._lock:
            if self.max_bytes is not None and self.n_bytes + n_bytes > self.max_bytes:
                raise HostMemoryError(n_bytes, max(self.max_bytes - self.n_bytes, 0), "this host (max_bytes)")
            self.n_bytes += n_bytes

    def _uncount(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes

    # -- where -----------------------------------------------------------------------------------------------------

    def _own_place(self, fd: int, mapping: Mapping, counted: int) -> Place:
        return Place(Segment(next(self._idents), fd, mapping), 0, mapping.n_bytes, counted, is_shared=False)

    def _create_shared(self, part_bytes: int, n_bytes: int, write_piece: WritePiece) -> Place:
        counted = rounded(part_bytes)
        self._count(counted)
        try:
            address, segment, dirty = self._take(part_bytes)
        except BaseException:
            self._uncount(counted)
            raise
        start = address & ((1 << _OFFSET_BITS) - 1)
        place = Place(segment, start, part_bytes, counted, is_shared=True)
        weakref.finalize(place, self._unused.append, address).atexit = False
        try:
            if dirty:
                segment.mapping.part(start, counted).writer.fill(0)
            if write_piece is not None:
                write_piece(place.mapping, 0, n_bytes)
        except BaseException:
            self._uncount(counted)
            raise
        return place

    def _take(self, n_bytes: int) -> tuple[int, Segment, bool]:
        """Find room in a shared segment; also tell whether an array was there before."""
        with self._lock:
            self._take_back()
            address = self._arena.allocate(n_bytes)
            if address is None:
                self._add_segment()
                address = self._arena.allocate(n_bytes)
                assert address is not None
            ident = address >> _OFFSET_BITS
            if ident == self._empty:
                self._empty = None
            segment = self._shared[ident]
            start = address - (ident << _OFFSET_BITS)
            dirty = start < segment.used_bytes
            segment.used_bytes = max(segment.used_bytes, start + self._arena.size(address))
            return address, segment, dirty

    def _add_segment(self) -> None:
        size = min(max(self._shared_bytes // _GROWTH, _SMALLEST_SHARED), _LARGEST_SHARED)
        size = -(-size // _SMALLEST_SHARED) * _SMALLEST_SHARED
        fd, mapping = create_segment(size, huge_pages=False, label="small")
        ident = next(self._idents)
        self._shared[ident] = Segment(ident, fd, mapping)
        self._shared_bytes += mapping.n_bytes
        self._arena.add_region(ident << _OFFSET_BITS, mapping.n_bytes)

    def _take_back(self) -> None:
        """Free the blocks whose places have died; of the segments that are empty by that, keep one."""
        while self._unused:
            region = self._arena.free(self._unused.popleft())
            if region is None:
                continue
            ident = region >> _OFFSET_BITS
            if self._empty is None:
                self._empty = ident
            elif self._empty != ident:
                self._arena.remove_region(region)
                segment = self._shared.pop(ident)
                self._shared_bytes -= segment.mapping.n_bytes
                segment.close()
