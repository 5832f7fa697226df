"""Segments: sealed memory files without a name, on huge pages where the kernel has them.

A segment is a memfd: nothing of it can be left in a file system, and the kernel frees it when the last descriptor and
mapping of it are gone, whatever became of their owners. It is sealed against shrinking, so that no holder can turn
another's read into SIGBUS.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import HostMemoryError, ProtocolError
from arrayhost.memory import _libc
from arrayhost.memory.budget import check_free

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HUGE_PAGE", "Mapping", "create_file", "create_segment", "map_segment"]

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


def huge_pages_wanted() -> bool:
    """Whether huge pages are to be tried: the environment's ``ARRAYHOST_HUGE_PAGES=0`` says no."""
    return os.environ.get("ARRAYHOST_HUGE_PAGES", "1") != "0"


class Mapping:
    """One process's mapping of one segment.

    The memory stays mapped as long as any ndarray made from it lives: each keeps the buffer below alive, and the
    buffer's end unmaps. Dropping the Mapping alone never invalidates an array.

    Attributes
    ----------
    address, n_bytes : int
        Where it lies in this process.
    reader, writer : ndarray of uint8, shape (n_bytes,)
        The whole segment, read-only and writeable. Every array of this segment is a view of one of the two, so
        ``result.base is mapping.reader`` tells a view from a value. `writer` is `reader` when mapped read-only.
    """

    __slots__ = ("address", "n_bytes", "reader", "writer")

    def __init__(self, address: int, n_bytes: int, mapped_bytes: int, *, writeable: bool = True) -> None:
        self.address = address
        self.n_bytes = n_bytes
        buffer = (ctypes.c_ubyte * n_bytes).from_address(address)
        finalizer = weakref.finalize(buffer, _libc.unmap, address, mapped_bytes)
        finalizer.atexit = False  # the kernel does it, and arrays may still be read by other exit handlers
        memory = memoryview(buffer)
        # A read-only buffer, not a cleared flag: NumPy refuses to make an array over it writeable again.
        self.reader = np.frombuffer(memory.toreadonly(), np.uint8)
        self.writer = np.frombuffer(memory, np.uint8) if writeable else self.reader

    def covers(self, address: int) -> bool:
        """Whether an address lies in this mapping."""
        return self.address <= address < self.address + self.n_bytes


def create_file(n_bytes: int, label: str) -> int:
    """Create a memfd of `n_bytes` that only this user may open and nobody can shrink; return the descriptor."""
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
) -> tuple[int, Mapping]:
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
    fd : int
        Owned by the caller.
    mapping : Mapping

    Raises
    ------
    HostMemoryError
        Less is free than it needs. Checked before anything is allocated, because beyond a control group's limit the
        kernel kills instead of failing.

    Notes
    -----
    From 2 MiB on all pages are present on return, as huge pages where the kernel can; smaller segments get theirs
    when first touched. Each piece is written while its freshly cleared page is still in the processor's cache, which
    is what makes hosting ones as fast as making them (measured: 1.1 x, and 1.6 x with one pass for each).
    """
    size = segment_size(n_bytes)
    check_free(size)
    try:
        fd = create_file(size, label)
        try:
            mapping = map_segment(fd, size)
        except OSError:
            os.close(fd)
            raise
    except OSError as error:
        if error.errno not in (errno.ENOMEM, errno.ENOSPC, errno.EFBIG):
            raise
        raise HostMemoryError(size, 0, "this process's address space") from error
    try:
        if size >= HUGE_PAGE:
            _fill(mapping, n_bytes, write_piece, huge_pages=huge_pages and huge_pages_wanted())
        elif write_piece is not None:
            write_piece(mapping, 0, n_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd, mapping


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
    return Mapping(address, n_bytes, n_bytes, writeable=writeable)


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
