"""Undo records: the bytes that a write is about to change, put into a file before the first of them changes.

The row of the control table says whether a record counts: it holds for the one write that made the version it names
odd, so a write that ends makes its record void without touching it. Nothing is made durable here: the kernel keeps what
a killed process wrote, and against a crash of the machine only `flush` helps.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.errors import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from arrayhost.sync.guards import Guard

__all__ = ["UNDO_BYTES", "Undo", "UndoRecord", "decode", "encode"]

UNDO_BYTES = 64 * 1024 * 1024
_MAGIC = b"AHUNDO1\n"
# Magic, checksum of all that follows, then the fields of `UndoRecord` with the number of old bytes.
_HEAD = struct.Struct("<8sI")
_FIELDS = struct.Struct("<6Q")
# A larger record is removed after its write, so that it takes no room.
_KEPT_BYTES = 1024 * 1024


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


class Undo:
    """The record of one array; its calls are made under the array's exclusive lock.

    Parameters
    ----------
    path : Path
    guard : Guard
    inode : int
    memory : ndarray of uint8
        All of the array.
    limit_bytes : int
        Writes that may touch more are not recorded, nor are those to a torn array.
    """

    __slots__ = ("guard", "inode", "limit_bytes", "memory", "n_bytes", "path")

    def __init__(self, path: Path, guard: Guard, inode: int, memory: npt.NDArray[np.uint8], limit_bytes: int) -> None:
        self.path = path
        self.guard = guard
        self.inode = inode
        self.memory = memory
        self.limit_bytes = limit_bytes
        self.n_bytes = 0

    def save(self, extent: tuple[int, int] | None) -> None:
        """Record the bytes from ``extent[0]`` to ``extent[1]``, or all, before a write that changes no others.

        Raises
        ------
        OSError
            There is no room for the record; the write must not begin.
        """
        old = self.memory if extent is None else self.memory[slice(*extent)]
        start = 0 if extent is None else extent[0]
        if old.nbytes > self.limit_bytes or self.guard.torn:
            self.remove()
            return
        record = UndoRecord(os.getpid(), self.guard.generation, self.inode, self.guard.version, start, old.data)
        self.n_bytes = old.nbytes
        try:
            _write(self.path, encode(record), record.old)
        except OSError as error:
            self.remove()
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or 0)}: no room for the undo record of a write of "
                f"{format_bytes(old.nbytes)}; the array is as it was (undo_bytes=0 does without)",
                str(self.path.parent),
            ) from error

    def completed(self) -> None:
        """Free the room of a large record."""
        if self.n_bytes > _KEPT_BYTES:
            self.remove()

    def remove(self) -> None:
        """Remove the record, if there is one."""
        self.n_bytes = 0
        self.path.unlink(missing_ok=True)


def _write(path: Path, *parts: Any) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        for part in parts:
            rest = memoryview(part)
            while rest.nbytes:
                n = os.pwrite(fd, rest, offset)
                offset, rest = offset + n, rest[n:]
    finally:
        os.close(fd)
