"""The control table: 128 bytes of state for each hosted array, mapped by every process that uses one.

Each row is sixteen machine words, nine of them in use. Aligned words are read and written whole on every platform that
NumPy runs on; on x86-64 they also become visible in the order written, which the sequence-checked reads rely on.
"""

from __future__ import annotations

import os
import platform

from arrayhost.memory.segments import Mapping, create_file, map_segment

__all__ = [
    "GENERATION",
    "ORDERED_STORES",
    "READER_PID",
    "ROW_WORDS",
    "TORN",
    "TORN_PID",
    "VERSION",
    "WAITER",
    "WAITER_BEAT",
    "WATCHED",
    "WRITER_PID",
    "ControlTable",
]  # fmt: skip

ROW_WORDS = 16
GENERATION = 0  # which of the row's successive arrays this is; 0 for none
VERSION = 1  # odd while somebody writes; never goes back, also over generations
TORN = 2  # 1 after a writer died in mid-write
WRITER_PID = 3  # who holds, or held last, the exclusive lock
TORN_PID = 4  # who died
WAITER = 5  # monotonic nanoseconds since when the longest waiter for the lock has waited; 0 for nobody
WAITER_BEAT = 6  # when that waiter last looked, and its pid; an old one is dead
READER_PID = 7  # who took the shared lock last
WATCHED = 8  # monotonic nanoseconds until which somebody may be waiting for the version to change; 0 for nobody

# Off x86-64 a store may overtake another, and Python has no fence: readers there never read optimistically.
ORDERED_STORES = platform.machine() in ("x86_64", "AMD64")


class ControlTable:
    """The mapped table.

    Attributes
    ----------
    words : memoryview of uint64
        ``words[ROW_WORDS * slot + field]``.
    address : int
        Where the words are in this process.
    n_slots : int
    read_only : bool
        This process may only look.
    """

    __slots__ = ("_mapping", "address", "n_slots", "read_only", "words")

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self.address = mapping.address
        self.read_only = not mapping.is_writeable
        self.words = mapping.writer.data.cast("B").cast("Q")
        self.n_slots = mapping.n_bytes // (8 * ROW_WORDS)

    @classmethod
    def create(cls, n_slots: int) -> tuple[int, ControlTable]:
        """Make an empty table; return its descriptor and it. Rows that were never used take no memory."""
        size = n_slots * 8 * ROW_WORDS
        fd = create_file(size, "control")
        return fd, cls.open(fd, size)

    @classmethod
    def open(cls, fd: int, n_bytes: int, *, writeable: bool = True) -> ControlTable:
        """Map a table received from its host."""
        return cls(map_segment(fd, n_bytes, writeable=writeable, huge_pages=False))

    @classmethod
    def private(cls, n_slots: int) -> ControlTable:
        """Make a table for this process alone: what it knows of the rows of a host that it cannot map."""
        fd, table = cls.create(n_slots)
        os.close(fd)
        return table
