"""Undo records: the bytes that a write is about to change, put into a file before the first of them changes.

The row of the control table says whether a record counts: it holds for the one write that made the version it names
odd, so a write that ends makes its record void without touching it. Nothing is made durable here: the kernel keeps what
a killed process wrote, and against a crash of the machine only `flush` helps.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.errors import format_bytes
from arrayhost.host.diskstate import OWN
from arrayhost.memory.descriptors import descriptor_limit
from arrayhost.memory.files import NO_ROOM

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from arrayhost.sync.guards import Guard

__all__ = ["UNDO", "UNDO_BYTES", "SmallRecords", "Undo", "UndoRecord", "decode", "encode", "read_records",
           "small_undo_path", "undo_path"]  # fmt: skip

UNDO = f"{OWN}-undo-"
UNDO_BYTES = 64 * 1024 * 1024
_MAGIC = b"AHUNDO1\n"
# Magic, checksum of all that follows, then the fields of `UndoRecord` with the number of old bytes.
_HEAD = struct.Struct("<8sI")
_FIELDS = struct.Struct("<6Q")
# A larger record is removed after its write, so that it takes no room.
_KEPT_BYTES = 1024 * 1024
# A row's region of the file for small records, and what fits there behind the record's head.
_REGION_BYTES = 16 * 1024
_SMALL_BYTES = _REGION_BYTES - _HEAD.size - _FIELDS.size


def small_undo_path(folder: Path, ident: str) -> Path:
    """The file for the small records of the host that has the control table of this name."""
    return folder / f"{UNDO}{ident}"


def undo_path(folder: Path, ident: str, slot: int) -> Path:
    """The file for the larger records of one array."""
    return folder / f"{UNDO}{ident}-{slot}"


class UndoRecord(NamedTuple):
    """What stood in part of an array before a write.

    Attributes
    ----------
    pid : int
        The host that was about to write.
    generation, inode : int
        The array's, and its file's.
    version : int
        Before the write: even.
    start : int
        Where `old` stood, in bytes from the array's first one.
    old : buffer
    """

    pid: int
    generation: int
    inode: int
    version: int
    start: int
    old: Any


def encode(record: UndoRecord) -> bytes:
    """The record's head, which stands before the old bytes."""
    old = memoryview(record.old)
    fields = _FIELDS.pack(*record[:5], old.nbytes)
    return _HEAD.pack(_MAGIC, zlib.crc32(old, zlib.crc32(fields))) + fields


def decode(data: bytes) -> UndoRecord | None:
    """Read a record; None unless it is there in full and unchanged. Bytes after it are those of a longer, older one."""
    start = _HEAD.size + _FIELDS.size
    if len(data) < start:
        return None
    magic, checksum = _HEAD.unpack_from(data)
    pid, generation, inode, version, first, n_bytes = _FIELDS.unpack_from(data, _HEAD.size)
    end = start + n_bytes
    if magic != _MAGIC or len(data) < end or zlib.crc32(memoryview(data)[_HEAD.size : end]) != checksum:
        return None
    return UndoRecord(pid, generation, inode, version, first, data[start:end])


class SmallRecords:
    """One file for the small records of all arrays, with a region for each row of the control table.

    A record there costs one system call. What an array's last record was stays, and is void.

    Parameters
    ----------
    path : Path
        Made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._opening = threading.Lock()

    def write(self, slot: int, head: bytes, old: Any) -> None:
        """Write one record; the caller has the exclusive lock of the row's array.

        Raises
        ------
        OSError
        """
        if self._fd < 0:
            self._open()
        offset = slot * _REGION_BYTES
        parts = [head, old]
        n_bytes = len(head) + old.nbytes
        done = os.pwritev(self._fd, parts, offset)
        if done < n_bytes:
            # The disk is full: what is missing tells how full. Half a record is none.
            rest = b"".join(parts)[done:]
            _write_at(self._fd, offset + done, rest)

    def _open(self) -> None:
        with self._opening:
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                with descriptor_limit("undo records"):
                    self._fd = os.open(self.path, flags, 0o600)

    def close(self) -> None:
        """Close the file; it stays for the next host."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_records(small: Path, large: Path, slot: int) -> list[UndoRecord]:
    """Read what a host may have recorded of one array: in its region of the one file, and in a file of its own."""
    found = []
    for path, offset, n_bytes in ((small, slot * _REGION_BYTES, _REGION_BYTES), (large, 0, -1)):
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                file.seek(offset)
                record = decode(file.read(n_bytes))
        except FileNotFoundError:
            continue
        if record is not None:
            found.append(record)
    return found


class Undo:
    """The record of one array; its calls are made under the array's exclusive lock.

    Parameters
    ----------
    small : SmallRecords
    path : Path
        A file of the array's own, for what is not small.
    guard : Guard
    inode : int
    memory : ndarray of uint8
        All of the array.
    limit_bytes : int
        Writes that may touch more are not recorded, nor are those to a torn array.
    """

    __slots__ = ("guard", "inode", "limit_bytes", "memory", "n_bytes", "path", "small")

    def __init__(
        self,
        small: SmallRecords,
        path: Path,
        guard: Guard,
        inode: int,
        memory: npt.NDArray[np.uint8],
        limit_bytes: int,
    ) -> None:
        self.small = small
        self.path = path
        self.guard = guard
        self.inode = inode
        self.memory = memory
        self.limit_bytes = limit_bytes
        self.n_bytes = 0  # in the file of its own

    def save(self, extent: tuple[int, int] | None) -> None:
        """Record the bytes from ``extent[0]`` to ``extent[1]``, or all, before a write that changes no others.

        Raises
        ------
        OSError
            The record cannot be written, for want of room say; the write must not begin.
        """
        old = self.memory if extent is None else self.memory[slice(*extent)]
        start = 0 if extent is None else extent[0]
        n_bytes = old.nbytes
        guard = self.guard
        if n_bytes > self.limit_bytes or guard.torn:
            return  # what was recorded before is void by its version
        data = old.data
        head = encode(UndoRecord(os.getpid(), guard.generation, self.inode, guard.version, start, data))
        try:
            if n_bytes <= _SMALL_BYTES:
                self.small.write(guard.slot, head, data)
                return
            self.n_bytes = n_bytes
            _write(self.path, head, data)
        except OSError as error:
            self.remove()
            what = "no room for the undo record" if error.errno in NO_ROOM else "cannot write the undo record"
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or 0)}: {what} of a write of {format_bytes(n_bytes)}; the array is as it "
                "was (undo_bytes=0 does without)",
                str(self.path.parent),
            ) from error

    def completed(self) -> None:
        """Free the room of a large record."""
        if self.n_bytes > _KEPT_BYTES:
            self.remove()

    def remove(self) -> None:
        """Remove the file of its own, if there is one."""
        self.n_bytes = 0
        self.path.unlink(missing_ok=True)


def _write(path: Path, *parts: Any) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        for part in parts:
            offset = _write_at(fd, offset, part)
    finally:
        os.close(fd)


def _write_at(fd: int, offset: int, part: Any) -> int:
    """Write all of a buffer; return where it ends."""
    rest = memoryview(part)
    while rest.nbytes:
        n = os.pwrite(fd, rest, offset)
        offset, rest = offset + n, rest[n:]
    return offset
