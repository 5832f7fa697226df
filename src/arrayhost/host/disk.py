"""A host's directory: each named array is a plain ``.npy`` file, mapped as it is.

The kernel keeps what was written to a mapping when the writer is killed, so that a host started anew finds every array
with its last write; only a crash of the machine can take what `flush` has not written yet. Which writes were cut short
is told by the control table, which lies in the directory, too: an odd version there has lost its writer.

Files of the directory's own begin with ``.arrayhost``: state, control table, undo records, attributes, lock. An array's
file must not be cut off by others while the host runs: unlike a sealed memory file nothing prevents that, and whoever
then reads what was cut off is killed by SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from arrayhost.core.layout import Layout, check_mappable
from arrayhost.core.names import check_name
from arrayhost.errors import ProtocolError, ReferentExistsError, UnsupportedDTypeError
from arrayhost.host.diskattrs import AttributeFiles
from arrayhost.host.diskstate import OWN, STATE, FileRow, LastState
from arrayhost.host.restoring import LastHost
from arrayhost.host.undo import UNDO, UNDO_BYTES, SmallRecords, Undo, small_undo_path, undo_path
from arrayhost.memory.control import ROW_WORDS, ControlTable
from arrayhost.memory.descriptors import descriptor_limit
from arrayhost.memory.files import replaced, reserve
from arrayhost.memory.filling import view_of
from arrayhost.memory.segments import map_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    from arrayhost.host.places import Place, Places
    from arrayhost.host.store import ArrayReferent

__all__ = ["Directory"]

log = logging.getLogger(__name__)
_NEW = f"{OWN}-new-"
_ENDING = ".npy"
_SLOTS = 1 << 20
_LOCK_SECONDS = 0.5
_in_use: set[Path] = set()


class NewFile(NamedTuple):
    """A file that is being made; see `Directory.creating`.

    Attributes
    ----------
    place : Place
    inode : int
    state, notes : Path
        What the directory's state, and the array's attributes if it has any, are written to.
    """

    place: Place
    inode: int
    state: Path
    notes: Path | None


class Directory:
    """The files of one host, which no other host uses at the same time.

    Parameters
    ----------
    folder : path_like
        Made if it is not there.
    undo_bytes : int
        Writes that may touch no more than this are undone if the host is killed in their middle.

    Raises
    ------
    OSError
        Another host uses it (EBUSY, naming the process), or it cannot be used at all.
    """

    def __init__(self, folder: str | os.PathLike[str], undo_bytes: int = UNDO_BYTES) -> None:
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self._lock_fd = self._take()
        self._rows: dict[str, FileRow] = {}
        self._last = LastHost(self.folder)
        self.undo_bytes = undo_bytes
        self._ident = uuid.uuid4().hex
        self._control = f"{OWN}-control-{self._ident}"
        self._small = SmallRecords(small_undo_path(self.folder, self._ident))
        self.attributes = AttributeFiles(self.folder / f"{OWN}-attributes")

    # -- one host ------------------------------------------------------------------------------------------------

    def _take(self) -> int:
        path = self.folder / f"{OWN}-lock"
        if self.folder in _in_use:
            raise OSError(errno.EBUSY, "another host of this process uses the directory", str(self.folder))
        # A lock of the process, not of the open file: children that the host forks must not keep it.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock_soon(fd)
        except OSError as error:
            pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise OSError(
                errno.EBUSY,
                f"the host in process {pid} uses this directory; connect to it, or stop it",
                str(self.folder),
            ) from error
        os.truncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        _in_use.add(self.folder)
        return fd

    def close(self) -> None:
        """Let another host use the directory."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
            _in_use.discard(self.folder)
            self._small.close()

    # -- the control table, and what the last one said -----------------------------------------------------------

    def create_table(self) -> tuple[int, ControlTable]:
        """Make this host's control table, in a file."""
        n_bytes = _SLOTS * ROW_WORDS * 8
        fd = os.open(self.folder / self._control, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, n_bytes)
        return fd, ControlTable.open(fd, n_bytes)

    def restore(self, arrays: Mapping[str, ArrayReferent], inodes: Mapping[str, int]) -> None:
        """Carry over what the last host left of the arrays found, and begin anew.

        Until the new state is saved the old one with its undo records stays: a host killed here is no loss.

        Parameters
        ----------
        inodes : dict of str to int
            The arrays' files.
        """
        self._last.carry_over(arrays, inodes, self.attributes)
        for name, array in arrays.items():
            self._note(name, array, inodes[name])
        self._save_state()
        for pattern in (f"{UNDO}*", f"{OWN}-control-*", f"{_NEW}*"):
            for path in self.folder.glob(pattern):
                if self._ident not in path.name:
                    path.unlink(missing_ok=True)

    def _note(self, name: str, array: ArrayReferent, inode: int) -> None:
        """Note whose row a file's state is in, and have its writes recorded."""
        guard = array.guard
        if self.undo_bytes:
            path = undo_path(self.folder, self._ident, guard.slot)
            guard.undo = Undo(self._small, path, guard, inode, array.mapping.writer, self.undo_bytes)
        self._rows[name] = FileRow(guard.slot, guard.generation, inode, array.created, array.creator)

    def _state(self) -> LastState:
        return LastState(self._control, os.stat(self.folder).st_ino, self._rows)

    def _save_state(self) -> None:
        with replaced(self.folder / STATE, _NEW) as path:
            path.write_text(self._state().to_text())

    # -- files ---------------------------------------------------------------------------------------------------

    def found(self, places: Places) -> Iterator[tuple[str, Place, Layout]]:
        """Map every array in the directory; what is none is reported in the log and left alone."""
        for path in sorted(self.folder.glob(f"*{_ENDING}")):
            if path.name.startswith("."):
                continue
            try:
                name = path.name.removesuffix(_ENDING)
                if check_name(name) != name:
                    raise ValueError("no name of an array")
                place, layout = self._open(path, places)
            except (OSError, ValueError, EOFError, SyntaxError, ProtocolError, UnsupportedDTypeError) as error:
                log.warning("%s is left alone: %s", path, error)
                continue
            yield name, place, layout

    def _open(self, path: Path, places: Places) -> tuple[Place, Layout]:
        with descriptor_limit("an array's file"):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                raise ValueError("no plain file of this user's")
            with open(fd, "rb", closefd=False) as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read:
                    raise ValueError(f"version {version} of NumPy's format")
                shape, fortran, dtype = read[version](file)
                start = file.tell()
            check_mappable(dtype)
            layout = Layout.contiguous(shape, dtype, "F" if fortran else "C")
            if start + layout.nbytes > about.st_size:
                raise ValueError(f"it was cut off: {about.st_size} of {start + layout.nbytes} bytes")
            return self._place(fd, start, layout, places), layout
        except BaseException:
            os.close(fd)
            raise

    def _place(self, fd: int, start: int, layout: Layout, places: Places) -> Place:
        mapping = map_segment(fd, start + layout.nbytes, huge_pages=False)
        # Without elements there is nothing behind the header to be mapped, and nothing of it to be seen.
        return places.of_file(fd, mapping, *((start, layout.nbytes) if layout.nbytes else (0, 8)))

    @contextlib.contextmanager
    def creating(
        self,
        name: str,
        layout: Layout,
        order: str,
        places: Places,
        fill: Callable[[npt.NDArray[Any]], None],
        attrs: Mapping[str, Any],
    ) -> Iterator[NewFile]:
        """Write a new array's file, with all that is kept of it, under other names; with the block they change over.

        An error until then, for want of room say, leaves everything as it was. The caller holds `lock`, and calls
        `NewFile.describe` in the block.

        Raises
        ------
        OSError
            There is no room for it; nothing has changed.
        ReferentExistsError
            A file of that name is there that is none of the host's.
        """
        file = self._file_of(name)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._row_kept(name))
            state = stack.enter_context(replaced(self.folder / STATE, _NEW))
            notes = stack.enter_context(self.attributes.replaced(name)) if attrs else None
            # The last one entered changes over first. Until the others do, the file is one that nothing is known of.
            path = stack.enter_context(replaced(file, _NEW))
            place, inode = self._written(path, file, layout, order, places, fill)
            yield NewFile(place, inode, state, notes)
        if not attrs:
            self.attributes.remove(name)

    def _file_of(self, name: str) -> Path:
        """The file of a name that is to be given."""
        file = self.folder / f"{name}{_ENDING}"
        if name.startswith("."):
            raise ValueError(f"array name {name!r}: in a directory, hidden files are not arrays'; leave the dot out")
        if len(file.name.encode()) > 255:
            raise ValueError(f"array name {name[:40]!r}...: with a directory, 251 bytes are the most")
        if name not in self._rows and os.path.lexists(file):
            raise ReferentExistsError(f"{file} is there and is not this host's; move it away, or take another name")
        return file

    def _written(
        self,
        path: Path,
        file: Path,
        layout: Layout,
        order: str,
        places: Places,
        fill: Callable[[npt.NDArray[Any]], None],
    ) -> tuple[Place, int]:
        """Write all of an array's file, and map it."""
        about = {
            "descr": np.lib.format.dtype_to_descr(layout.dtype),
            "fortran_order": order == "F",
            "shape": layout.shape,
        }
        with descriptor_limit("an array's file"), open(path, "r+b") as target:
            np.lib.format.write_array_header_2_0(target, about)
            target.flush()
            start = target.tell()
            reserve(target.fileno(), start + layout.nbytes, file)
            fd = os.dup(target.fileno())
            try:
                place = self._place(fd, start, layout, places)
                fill(view_of(place.mapping.writer, layout))
            except BaseException:
                os.close(fd)
                raise
        return place, os.fstat(fd).st_ino

    def describe(self, name: str, array: ArrayReferent, new: NewFile) -> None:
        """Write what is kept of a new file's array, under other names; called in the block of `creating`."""
        with self.attributes.lock:
            before = self._rows.get(name)
            self._note(name, array, new.inode)
        new.state.write_text(self._state().to_text())
        if new.notes is not None:
            new.notes.write_text(self.attributes.text(new.inode, array.attrs), encoding="utf-8")
        if before is not None:
            undo_path(self.folder, self._ident, before.slot).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _row_kept(self, name: str) -> Iterator[None]:
        """Have a name's row be what it was if the block fails."""
        before = self._rows.get(name)
        try:
            yield
        except BaseException:
            with self.attributes.lock:
                self._rows.pop(name, None)
                if before is not None:
                    self._rows[name] = before
            raise

    def keep_attributes(self, array: ArrayReferent, attrs: dict[str, Any]) -> None:
        """Keep an array's attributes if it is one of the files; the caller holds ``attributes.lock``.

        Raises
        ------
        OSError
            They cannot be kept.
        """
        row = (array.guard.slot, array.guard.generation)
        for name, known in self._rows.items():
            if known[:2] == row:
                self.attributes.write(name, known.inode, attrs)

    def delete(self, name: str) -> None:
        """Remove an array's file; those who have it mapped keep it."""
        with self.lock, self.attributes.lock:
            row = self._rows.pop(name, None)
            if row is not None:
                undo_path(self.folder, self._ident, row.slot).unlink(missing_ok=True)
                (self.folder / f"{name}{_ENDING}").unlink(missing_ok=True)
                self.attributes.remove(name)
                try:
                    self._save_state()
                except OSError as error:
                    # The name is free and its file gone; a row of no file does no harm.
                    log.warning("%s: the state cannot be written: %s", self.folder, error)

    def flush(self) -> None:
        """Write everything to the disk, for the case that the machine crashes."""
        with self.lock:
            paths = [self.folder / f"{name}{_ENDING}" for name in self._rows] + [self.folder / self._control]
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # deleted meanwhile
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _lock_soon(fd: int) -> None:
    """Lock a file, or raise OSError; a host that was killed a moment ago may not have let go of it yet."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)
