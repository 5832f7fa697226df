"""Who has which part of the shared segments: free and used blocks, by address. Plain numbers, no memory.

Blocks are found by size class (segregated fit): a bitmap tells which classes have free blocks, so that finding one
takes no search, and a freed block is merged with free neighbours at once, so that nothing crumbles.
"""

from __future__ import annotations

__all__ = ["ALIGNMENT", "Arena"]

# A cache line: no two arrays share one, so that writers of neighbours do not slow each other down.
ALIGNMENT = 64
# Each power of two is divided into this many classes; more of them waste less and leave more of them empty.
_SUB_BITS = 3


class Arena:
    """Blocks in regions of an address space.

    Regions that touch would be merged: their owner leaves room between them. Not thread-safe: the owner serialises
    calls.

    Notes
    -----
    Cost: every method takes a few microseconds, however many blocks there are.
    """

    def __init__(self) -> None:
        self._regions: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._free: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._classes: dict[int, dict[int, None]] = {}
        self._filled = 0

    def __len__(self) -> int:
        return len(self._used)

    def add_region(self, start: int, n_bytes: int) -> None:
        """Add free addresses; both numbers are multiples of `ALIGNMENT`."""
        self._regions[start] = n_bytes
        self._insert(start, n_bytes)

    def remove_region(self, start: int) -> None:
        """Take a region back of which nothing is in use.

        Raises
        ------
        ValueError
            Part of it is.
        """
        n_bytes = self._regions[start]
        if self._free.get(start) != n_bytes:
            raise ValueError(f"region {start} is in use")
        del self._regions[start]
        self._remove(start)

    def allocate(self, n_bytes: int) -> int | None:
        """Take a block of at least `n_bytes`; return its address, a multiple of `ALIGNMENT`.

        Returns
        -------
        int or None
            None if no free block is large enough.
        """
        wanted = rounded(n_bytes)
        start = self._find(wanted)
        if start is None:
            return None
        found = self._free[start]
        self._remove(start)
        self._used[start] = wanted
        if found > wanted:
            self._insert(start + wanted, found - wanted)
        return start

    def size(self, start: int) -> int:
        """Size of the used block at an address, which may be larger than what was asked for."""
        return self._used[start]

    def free(self, start: int) -> int | None:
        """Give a block back.

        Returns
        -------
        int or None
            The start of a region that has become empty by this.

        Raises
        ------
        KeyError
            No used block begins there.
        """
        n_bytes = self._used.pop(start)
        before = self._ends.get(start)
        if before is not None:
            n_bytes += self._free[before]
            self._remove(before)
            start = before
        after = start + n_bytes
        if after in self._free:
            n_bytes += self._free[after]
            self._remove(after)
        self._insert(start, n_bytes)
        return start if self._regions.get(start) == n_bytes else None

    def _find(self, wanted: int) -> int | None:
        """A free block that is large enough: the newest of its own class, else one of the next class that has any."""
        number = _class_of(wanted)
        same = self._classes.get(number)
        if same:
            newest = next(reversed(same))
            if self._free[newest] >= wanted:
                return newest
        larger = self._filled >> (number + 1) << (number + 1)
        if not larger:
            return None
        # The lowest set bit is the smallest class whose blocks are all large enough.
        return next(reversed(self._classes[(larger & -larger).bit_length() - 1]))

    def _insert(self, start: int, n_bytes: int) -> None:
        self._free[start] = n_bytes
        self._ends[start + n_bytes] = start
        number = _class_of(n_bytes)
        self._classes.setdefault(number, {})[start] = None
        self._filled |= 1 << number

    def _remove(self, start: int) -> None:
        n_bytes = self._free.pop(start)
        del self._ends[start + n_bytes]
        number = _class_of(n_bytes)
        starts = self._classes[number]
        del starts[start]
        if not starts:
            self._filled &= ~(1 << number)


def rounded(n_bytes: int) -> int:
    """Size of the block for `n_bytes`."""
    return max(-(-n_bytes // ALIGNMENT), 1) * ALIGNMENT


def _class_of(n_bytes: int) -> int:
    """The size class of a block: grows with its size."""
    units = n_bytes // ALIGNMENT
    exponent = units.bit_length() - 1 - _SUB_BITS
    if exponent <= 0:
        return units
    return (exponent << _SUB_BITS) + (units >> exponent)
