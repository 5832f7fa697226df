"""What a directory's last host left of its arrays, carried over to those that the next one has found there."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.records import Creator
from arrayhost.host.clients import user_name
from arrayhost.host.diskstate import STATE, read_state
from arrayhost.host.undo import read_records, small_undo_path, undo_path
from arrayhost.memory.control import GENERATION, ROW_WORDS, TORN, TORN_PID, VERSION, WRITER_PID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.host.diskattrs import AttributeFiles
    from arrayhost.host.diskstate import FileRow
    from arrayhost.host.store import ArrayReferent

__all__ = ["LastHost"]

log = logging.getLogger(__name__)


class LastHost:
    """The last host of a directory; nothing of it is changed here.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = read_state(folder / STATE)
        # In a copy of a directory no inode is what it was, and names are all there is to go by.
        self._is_copy = self._state.folder != os.stat(folder).st_ino

    def carry_over(
        self, arrays: Mapping[str, ArrayReferent], inodes: Mapping[str, int], attributes: AttributeFiles
    ) -> None:
        """Give the arrays found their versions, torn marks and attributes, and who made them; undo what was cut short.

        Parameters
        ----------
        arrays : mapping
            By name.
        inodes : mapping
            Of the arrays' files, by name.
        """
        old = self._rows() if arrays else np.empty(0, np.uint64)
        for name, array in arrays.items():
            kept, inode = self._state.rows.get(name), inodes[name]
            is_same = kept is not None and kept.inode == inode
            if kept is not None and is_same:
                self._restore_row(name, array, kept, old)
            if kept is not None and (is_same or self._is_copy):
                array.created, array.creator = kept.created, kept.creator
            else:
                array.created, array.creator = _made_elsewhere(array.place.segment.fd)
            array.attrs = attributes.read(name, inode, is_copy=self._is_copy)

    def _rows(self) -> npt.NDArray[np.uint64]:
        """The last control table, up to the last row that matters."""
        n_rows = 1 + max((row.slot for row in self._state.rows.values()), default=-1)
        try:
            return np.fromfile(self._folder / self._state.control, np.uint64, count=n_rows * ROW_WORDS)
        except OSError:
            return np.empty(0, np.uint64)  # there is none

    def _restore_row(self, name: str, array: ArrayReferent, kept: FileRow, old: npt.NDArray[Any]) -> None:
        row = [int(word) for word in old[kept.slot * ROW_WORDS : (kept.slot + 1) * ROW_WORDS]]
        if len(row) != ROW_WORDS or row[GENERATION] != kept.generation or not kept.generation:
            return
        words, base = array.guard.words, array.guard.base
        words[base + VERSION] = (row[VERSION] + 3) & ~1
        if self._undo(kept, row, array.mapping.writer):
            log.info("array %r: the write that process %d did not complete was undone", name, row[WRITER_PID])
            return
        if row[VERSION] & 1 or row[TORN]:
            words[base + TORN_PID] = row[TORN_PID] if row[TORN] else row[WRITER_PID]
            words[base + TORN] = 1
            log.warning("array %r: process %d was in the middle of a write", name, words[base + TORN_PID])

    def _undo(self, kept: FileRow, row: list[int], memory: npt.NDArray[np.uint8]) -> bool:
        """Put the old bytes back if the array's last write was a record's, was cut short, and no other followed."""
        ident = self._state.control.rpartition("-")[2]
        small, large = small_undo_path(self._folder, ident), undo_path(self._folder, ident, kept.slot)
        for record in read_records(small, large, kept.slot):
            end = record.start + len(record.old)
            # Of a torn array no record is made: a mark that is there was set by whoever found this write cut short.
            cut = row[VERSION] == record.version + 1 and row[WRITER_PID] == record.pid
            noticed = row[VERSION] == record.version + 2 and row[TORN] and row[TORN_PID] == record.pid
            is_its = (record.generation, record.inode) == (row[GENERATION], kept.inode)
            if is_its and (cut or noticed) and end <= memory.nbytes:
                memory[record.start : end] = np.frombuffer(record.old, np.uint8)
                return True
        return False


def _made_elsewhere(fd: int) -> tuple[float, Creator]:
    """When and by whom a file was written that no host knows of."""
    about = os.fstat(fd)
    return about.st_mtime, Creator(0, user_name(about.st_uid), "")
