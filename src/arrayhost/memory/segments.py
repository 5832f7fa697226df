"""Segments: sealed memory files without a name, on huge pages where the kernel has them.

A segment is a memfd: nothing of it can be left in a file system, and the kernel frees it when the last descriptor and
mapping of it are gone, whatever became of their owners. It is sealed against shrinking, so that no holder can turn
another's read into SIGBUS.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arrayhost.errors import ProtocolError
from arrayhost.memory import _libc
from arrayhost.memory.budget import claimed, refused
from arrayhost.memory.descriptors import descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["HUGE_PAGE", "CreatedSegment", "Mapping", "create_file", "create_segment", "map_segment"]

HUGE_PAGE = 2 * 1024 * 1024
# A collapse takes about 0.15 ms a huge page; on fragmented memory the kernel compacts first and can take ten times
# that. It then costs more than it gives, so a slow one is given up.
_COLLAPSE_SECONDS_PER_PAGE = 12e-3
_COLLAPSE_SECONDS_FREE = 0.1
_PAGE = 4096
# Below this a second thread costs more than it saves.
_THREADS_FROM = 64 * 1024 * 1024
_MAX_THREADS = 4
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


# Longer than any mapping: a type for each length would cost more than the mapping itself.
_Range = ctypes.c_ubyte * sys.maxsize


def huge_pages_wanted() -> bool:
    """Whether huge pages are to be tried: the environment's ``ARRAYHOST_HUGE_PAGES=0`` says no."""
    return os.environ.get("ARRAYHOST_HUGE_PAGES", "1") != "0"


class Mapping:
    """One process's mapping of a segment, or of the part of it that one array has.

    The memory stays mapped as long as any ndarray made from it lives: each keeps the buffer below alive, and the
    buffer's end unmaps. Dropping the Mapping alone never invalidates an array.

    Parameters
    ----------
    memory : memoryview of bytes
        Read-only where the segment was mapped so.
    address : int
    owner : object, optional
        Kept alive by every ndarray made from this mapping: whoever has to outlive the last use of the memory. The
        mapping itself does not keep it, so that the owner may have the mapping.

    Attributes
    ----------
    address, n_bytes : int
        Where it lies in this process.
    """

    __slots__ = ("__weakref__", "_memory", "_owner", "_reader", "_writer", "address", "n_bytes")

    def __init__(self, memory: memoryview, address: int, owner: object = None) -> None:
        self._memory = memory
        self._owner = None if owner is None else weakref.ref(owner)
        self._reader: weakref.ref[npt.NDArray[np.uint8]] | None = None
        self._writer: weakref.ref[npt.NDArray[np.uint8]] | None = None
        self.address = address
        self.n_bytes = memory.nbytes

    @classmethod
    def of_range(cls, address: int, n_bytes: int, *, writeable: bool = True) -> Mapping:
        """Take over a range that was mapped; it is unmapped with the last use of it."""
        buffer = _Range.from_address(address)
        finalizer = weakref.finalize(buffer, _libc.unmap, address, n_bytes)
        finalizer.atexit = False  # the kernel does it, and arrays may still be read by other exit handlers
        memory = memoryview(buffer).cast("B")[:n_bytes]
        return cls(memory if writeable else memory.toreadonly(), address)

    def part(self, start: int, n_bytes: int, owner: object = None) -> Mapping:
        """Return a part of this mapping; arrays made from it cannot reach the rest.

        Raises
        ------
        ProtocolError
            The part is not inside.
        """
        if start < 0 or n_bytes <= 0 or start + n_bytes > self.n_bytes:
            raise ProtocolError(f"bytes {start} to {start + n_bytes} of a segment that has {self.n_bytes}")
        return Mapping(self._memory[start : start + n_bytes], self.address + start, owner)

    @property
    def is_writeable(self) -> bool:
        """Whether this process may write to it at all."""
        return not self._memory.readonly

    @property
    def reader(self) -> npt.NDArray[np.uint8]:
        """All of it, read-only. Every array of this mapping is a view of this or of `writer`."""
        root = self._reader() if self._reader is not None else None
        if root is None:
            # A read-only buffer, not a cleared flag: NumPy refuses to make an array over it writeable again.
            root = np.frombuffer(self._memory.toreadonly(), np.uint8)
            self._reader = self._keep_owner(root)
        return root

    @property
    def writer(self) -> npt.NDArray[np.uint8]:
        """All of it, writeable; `reader` where it was mapped read-only."""
        if self._memory.readonly:
            return self.reader
        root = self._writer() if self._writer is not None else None
        if root is None:
            root = np.frombuffer(self._memory, np.uint8)
            self._writer = self._keep_owner(root)
        return root

    def _keep_owner(self, root: npt.NDArray[np.uint8]) -> weakref.ref[npt.NDArray[np.uint8]]:
        owner = None if self._owner is None else self._owner()
        if owner is None:
            return weakref.ref(root)
        ref = weakref.ref(root, _let_go)
        _kept[id(ref)] = (ref, owner)
        return ref

    def let_go(self, start: int, stop: int) -> None:
        """Take the pages around a range of bytes from this process, which gets them back when it next touches them.

        They stay in the segment, with what was written to them: a mapping of a segment is shared. For a process that
        is judged by its resident memory, and reads more of a segment than it is allowed to have.
        """
        low = (self.address + start) // _PAGE * _PAGE
        _libc.madvise(low, self.address + stop - low, _libc.MADV_DONTNEED)

    def covers(self, address: int) -> bool:
        """Whether an address lies in this mapping."""
        return self.address <= address < self.address + self.n_bytes


# Owners of mappings of which ndarrays exist: an exact ndarray can have no attributes, so this stands for one.
_kept: dict[int, tuple[weakref.ref[Any], object]] = {}


def _let_go(ref: weakref.ref[Any], kept: dict[int, tuple[weakref.ref[Any], object]] = _kept) -> None:
    kept.pop(id(ref), None)


class CreatedSegment(NamedTuple):
    """A new segment: its descriptor, which the caller owns, and this process's mapping."""

    fd: int
    mapping: Mapping


def create_file(n_bytes: int, label: str) -> int:
    """Create a memfd of `n_bytes` that only this user may open and nobody can shrink; return the descriptor."""
    with descriptor_limit("a memory file"):
        fd = os.memfd_create(f"arrayhost:{label}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, n_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def segment_size(n_bytes: int) -> int:
    """Size of the segment for an array of `n_bytes`: whole huge pages from 2 MiB on, never 0."""
    if n_bytes < HUGE_PAGE:
        return max(n_bytes, 8)
    return -(-n_bytes // HUGE_PAGE) * HUGE_PAGE


def create_segment(
    n_bytes: int,
    *,
    write_piece: Callable[[Mapping, int, int], None] | None = None,
    huge_pages: bool = True,
    label: str = "array",
) -> CreatedSegment:
    """Create, map and fill a segment for an array of `n_bytes`.

    Parameters
    ----------
    n_bytes : int
    write_piece : callable, optional
        ``write_piece(mapping, start, stop)`` writes these bytes of the segment; called for successive pieces that
        cover ``0..n_bytes``, from several threads at once where the segment is large. Zeros without it.
    huge_pages : bool
    label : str
        Shown in ``/proc/PID/maps``.

    Returns
    -------
    CreatedSegment

    Raises
    ------
    HostMemoryError
        Less is free than it needs. Checked before anything is allocated, because beyond a control group's limit the
        kernel kills instead of failing.
    DescriptorLimitError

    Notes
    -----
    All pages are present on return, so that nobody is killed for touching one later; from 2 MiB on as huge pages where
    the kernel can. Each piece is written while its freshly cleared page is still in the processor's cache, which is
    what makes hosting ones as fast as making them (measured: 1.1 x, and 1.6 x with one pass for each).
    """
    size = segment_size(n_bytes)
    with claimed(size):
        fd = _reserved_file(size, label)
        try:
            mapping = _mapped(fd, size)
            if size >= HUGE_PAGE:
                _fill(mapping, n_bytes, write_piece, huge_pages=huge_pages and huge_pages_wanted())
            elif write_piece is not None:
                write_piece(mapping, 0, n_bytes)
        except BaseException:
            os.close(fd)
            raise
    return CreatedSegment(fd, mapping)


def _reserved_file(size: int, label: str) -> int:
    """Create a memory file; a small one gets its pages here, a large one while it is filled."""
    try:
        fd = create_file(size, label)
    except OSError as error:
        raise refused(error, size) from error
    if size < HUGE_PAGE:
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            os.close(fd)
            raise refused(error, size) from error
    return fd


def _mapped(fd: int, size: int) -> Mapping:
    try:
        return map_segment(fd, size)
    except OSError as error:
        raise refused(error, size) from error


def map_segment(fd: int, n_bytes: int, *, writeable: bool = True, huge_pages: bool = True) -> Mapping:
    """Map the first `n_bytes` of a file, where huge pages fit unless told otherwise; `fd` may be closed afterwards.

    Raises
    ------
    ProtocolError
        The file is smaller than `n_bytes`: reading its mapping would be a SIGBUS.
    """
    if n_bytes <= 0 or os.fstat(fd).st_size < n_bytes:
        raise ProtocolError(f"a segment of {n_bytes} bytes on a file that has {os.fstat(fd).st_size}")
    prot = _libc.PROT_READ | (_libc.PROT_WRITE if writeable else 0)
    address = _libc.map_shared(n_bytes, prot, fd, HUGE_PAGE if huge_pages and n_bytes >= HUGE_PAGE else 1)
    return Mapping.of_range(address, n_bytes, writeable=writeable)


def check_sealed(fd: int) -> None:
    """Raise unless a descriptor received from another process is a memfd that cannot shrink.

    Raises
    ------
    ProtocolError
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ProtocolError("a segment that is not a memory file") from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise ProtocolError("a segment that its sender could still shrink")


def _fill(
    mapping: Mapping, n_bytes: int, write_piece: Callable[[Mapping, int, int], None] | None, *, huge_pages: bool
) -> None:
    """Make every page of a fresh mapping present, huge where possible, and write it piece by piece."""
    n_threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS) if mapping.n_bytes >= _THREADS_FROM else 1
    n_pages = mapping.n_bytes // HUGE_PAGE
    bounds = [n_pages * i // n_threads * HUGE_PAGE for i in range(n_threads + 1)]
    failures: list[BaseException] = []

    def work(start: int, stop: int) -> None:
        try:
            _fill_range(mapping, n_bytes, write_piece, start, stop, huge_pages=huge_pages)
        except Exception as error:  # raised again below, in the thread that asked
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(bounds[i], bounds[i + 1]), name="arrayhost-fill", daemon=True)
        for i in range(1, n_threads)
    ]
    for thread in threads:
        thread.start()
    try:
        work(bounds[0], bounds[1])
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _fill_range(
    mapping: Mapping,
    n_bytes: int,
    write_piece: Callable[[Mapping, int, int], None] | None,
    start: int,
    stop: int,
    *,
    huge_pages: bool,
) -> None:
    memory: np.ndarray[Any, np.dtype[np.uint8]] = mapping.writer
    spent = 0.0
    for done in range(start, stop, HUGE_PAGE):
        piece_end = min(done + HUGE_PAGE, stop)
        # A huge page can only be collapsed where at least one of its small pages exists already. Touched by reading:
        # the last element of the piece before may have been written into this page by now.
        int(memory[done])
        if huge_pages:
            before = time.monotonic()
            collapsed = _libc.madvise(mapping.address + done, piece_end - done, _libc.MADV_COLLAPSE) == 0
            spent += time.monotonic() - before
            allowed = _COLLAPSE_SECONDS_PER_PAGE * ((piece_end - start) // HUGE_PAGE) + _COLLAPSE_SECONDS_FREE
            huge_pages = collapsed and spent < allowed
        if not huge_pages:
            int(memory[done:piece_end:_PAGE].max())
        if write_piece is not None and done < n_bytes:
            write_piece(mapping, done, min(piece_end, n_bytes))
