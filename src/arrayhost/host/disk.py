"""A host's directory: each named array is a plain ``.npy`` file, mapped as it is.

The kernel keeps what was written to a mapping when the writer is killed, so that a host started anew finds every array
with its last write; only a crash of the machine can take what `flush` has not written yet. Which writes were cut short
is told by the control table, which lies in the directory, too: an odd version there has lost its writer.

Files of the directory's own begin with ``.arrayhost``. A file must not be cut off by others while the host runs: unlike
a sealed memory file nothing prevents that, and whoever then reads what was cut off is killed by SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from arrayhost.core.layout import Layout, check_mappable
from arrayhost.core.names import check_name
from arrayhost.errors import ProtocolError, ReferentExistsError, UnsupportedDTypeError
from arrayhost.host.undo import UNDO_BYTES, Undo, decode
from arrayhost.memory.control import GENERATION, ROW_WORDS, TORN, TORN_PID, VERSION, WRITER_PID, ControlTable
from arrayhost.memory.descriptors import descriptor_limit
from arrayhost.memory.files import replaced, reserve
from arrayhost.memory.filling import view_of
from arrayhost.memory.segments import map_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from arrayhost.host.places import Place, Places
    from arrayhost.sync.guards import Guard

__all__ = ["Directory"]

log = logging.getLogger(__name__)
_OWN = ".arrayhost"
_UNDO = f"{_OWN}-undo-"
_NEW = f"{_OWN}-new-"
_ENDING = ".npy"
_SLOTS = 1 << 20
_in_use: set[Path] = set()


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
        self._rows: dict[str, tuple[Guard, int]] = {}
        self._before, self._old_control = self._read_state()
        self.undo_bytes = undo_bytes
        self._control = f"{_OWN}-control-{uuid.uuid4().hex}"

    # -- one host ------------------------------------------------------------------------------------------------

    def _take(self) -> int:
        path = self.folder / f"{_OWN}-lock"
        if self.folder in _in_use:
            raise OSError(errno.EBUSY, "another host of this process uses the directory", str(self.folder))
        # A lock of the process, not of the open file: children that the host forks must not keep it.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

    # -- the control table, and what the last one said -----------------------------------------------------------

    def create_table(self) -> tuple[int, ControlTable]:
        """Make this host's control table, in a file."""
        n_bytes = _SLOTS * ROW_WORDS * 8
        fd = os.open(self.folder / self._control, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, n_bytes)
        return fd, ControlTable.open(fd, n_bytes)

    def _read_state(self) -> tuple[dict[str, list[int]], Path | None]:
        """Rows by name, and the file that they are rows of, as the last host left them."""
        try:
            state = json.loads((self.folder / f"{_OWN}-state").read_text())
            control = self.folder / Path(state["control"]).name
            return state["rows"], control if control.exists() else None
        except FileNotFoundError:
            return {}, None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: the state of the last host cannot be read (%s)", self.folder, error)
            return {}, None

    def restore(self, guards: dict[str, tuple[Guard, int]], memory: dict[str, npt.NDArray[np.uint8]]) -> None:
        """Carry the last host's versions and torn marks over to the rows of the arrays found, and begin anew.

        Until the new state is saved the old one with its undo records stays: a host killed here is no loss.
        """
        if self._old_control is not None:
            old = np.fromfile(self._old_control, np.uint64, count=_SLOTS * ROW_WORDS) if guards else np.empty(0)
            for name, (guard, inode) in guards.items():
                self._restore_row(name, guard, inode, old, memory[name])
        self._rows = guards
        for name, (guard, inode) in guards.items():
            self._keep_undo(guard, inode, memory[name])
        self._save_state()
        for path in self.folder.glob(f"{_UNDO}*"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"{_OWN}-control-*"):
            if path.name != self._control:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(f"{_NEW}*"):
            path.unlink(missing_ok=True)

    def _restore_row(
        self, name: str, guard: Guard, inode: int, old: npt.NDArray[Any], memory: npt.NDArray[np.uint8]
    ) -> None:
        slot, generation, old_inode = self._before.get(name, (0, 0, 0))
        row = [int(word) for word in old[slot * ROW_WORDS : (slot + 1) * ROW_WORDS]]
        # Another file than the row's was put in its place as a whole.
        if len(row) != ROW_WORDS or row[GENERATION] != generation or old_inode != inode or not generation:
            return
        words, base = guard.words, guard.base
        words[base + VERSION] = (row[VERSION] + 3) & ~1
        if self._undo(slot, inode, row, memory):
            log.info("array %r: the write that process %d did not complete was undone", name, row[WRITER_PID])
            return
        if row[VERSION] & 1 or row[TORN]:
            words[base + TORN_PID] = row[TORN_PID] if row[TORN] else row[WRITER_PID]
            words[base + TORN] = 1
            log.warning("array %r: process %d was in the middle of a write", name, words[base + TORN_PID])

    def _undo(self, slot: int, inode: int, row: list[int], memory: npt.NDArray[np.uint8]) -> bool:
        """Put the old bytes back if the array's last write was the record's, was cut short, and no other followed."""
        try:
            record = decode(self._undo_path(slot, cast("Path", self._old_control).name).read_bytes())
        except FileNotFoundError:
            return False
        if record is None or (record.generation, record.inode) != (row[GENERATION], inode):
            return False
        end = record.start + len(record.old)
        # Of a torn array no record is made: a mark that is there was set by whoever found this write cut short.
        cut = row[VERSION] == record.version + 1 and row[WRITER_PID] == record.pid
        noticed = row[VERSION] == record.version + 2 and row[TORN] and row[TORN_PID] == record.pid
        if not (cut or noticed) or end > memory.nbytes:
            return False
        memory[record.start : end] = np.frombuffer(record.old, np.uint8)
        return True

    def _undo_path(self, slot: int, control: str) -> Path:
        return self.folder / f"{_UNDO}{control.rpartition('-')[2]}-{slot}"

    def _keep_undo(self, guard: Guard, inode: int, memory: npt.NDArray[np.uint8]) -> None:
        if self.undo_bytes:
            guard.undo = Undo(self._undo_path(guard.slot, self._control), guard, inode, memory, self.undo_bytes)

    def _save_state(self) -> None:
        rows = {name: [guard.slot, guard.generation, inode] for name, (guard, inode) in self._rows.items()}
        with replaced(self.folder / f"{_OWN}-state", _NEW) as path:
            path.write_text(json.dumps({"control": self._control, "rows": rows}))

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

    def create(
        self, name: str, layout: Layout, order: str, places: Places, fill: Callable[[npt.NDArray[Any]], None]
    ) -> tuple[Place, int]:
        """Write a new array's file, complete before it takes the name of an older one; the caller holds `lock`.

        Returns
        -------
        place : Place
        inode : int

        Raises
        ------
        OSError
            There is no room for it; nothing has changed.
        ReferentExistsError
            A file of that name is there that is none of the host's.
        """
        file = self.folder / f"{name}{_ENDING}"
        if name.startswith("."):
            raise ValueError(f"array name {name!r}: in a directory, hidden files are not arrays'; leave the dot out")
        if len(file.name.encode()) > 255:
            raise ValueError(f"array name {name[:40]!r}...: with a directory, 251 bytes are the most")
        if name not in self._rows and os.path.lexists(file):
            raise ReferentExistsError(f"{file} is there and is not this host's; move it away, or take another name")
        about = {
            "descr": np.lib.format.dtype_to_descr(layout.dtype),
            "fortran_order": order == "F",
            "shape": layout.shape,
        }
        with replaced(file, _NEW) as path, descriptor_limit("an array's file"), open(path, "r+b") as target:
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

    def bound(self, name: str, guard: Guard, inode: int, memory: npt.NDArray[np.uint8]) -> None:
        """Note whose row a file's state is in; the caller holds `lock`."""
        if name in self._rows:
            self._undo_path(self._rows[name][0].slot, self._control).unlink(missing_ok=True)
        self._keep_undo(guard, inode, memory)
        self._rows[name] = (guard, inode)
        self._save_state()

    def delete(self, name: str) -> None:
        """Remove an array's file; those who have it mapped keep it."""
        with self.lock:
            row = self._rows.pop(name, None)
            if row is not None:
                self._undo_path(row[0].slot, self._control).unlink(missing_ok=True)
                (self.folder / f"{name}{_ENDING}").unlink(missing_ok=True)
                self._save_state()

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
