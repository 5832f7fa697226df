"""Open-file-description locks: one byte of a lock file for each array, freed by the kernel when their holder dies.

An open file description (OFD) *is* the lock's owner. Two threads on one OFD would not exclude each other and a forked
child shares its parent's, so each acquisition takes an OFD of its own from a pool, and a child throws the inherited
pool away. A lock file is never mapped: a mapping would keep the OFD, and with it the lock, alive after a close.

Each OFD is owned by an object. Whatever an interrupt leaves half done, an OFD that nobody refers to any more is closed,
and the kernel frees what was locked through it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import weakref
from typing import TYPE_CHECKING

from arrayhost.memory.descriptors import descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXCLUSIVE", "SHARED", "LockFiles", "OpenLockFile", "lock_request", "try_lock", "unlock_request"]

EXCLUSIVE = fcntl.F_WRLCK
SHARED = fcntl.F_RDLCK
# A lock file slows down with the number of byte ranges held on it (14 µs at 1,000), hence several of them.
N_LOCK_FILES = 16
# How many descriptors of each file are kept open for the next acquisition.
MAX_IDLE = 4
_FLOCK = struct.Struct("hhqqi4x")
_SETLK = fcntl.F_OFD_SETLK
_fcntl = fcntl.fcntl

_pools: weakref.WeakSet[LockFiles] = weakref.WeakSet()
# Held while a file is opened and noted, and by whoever forks: a child could not close what nobody had noted yet, and
# its copy would keep a lock that the parent took later, after the parent's death. Reentrant, because the collector may
# run anybody's finalizer while it is held.
_opening = threading.RLock()


class OpenLockFile:
    """One open file description of a lock file: the owner of at most one lock, which ends with it.

    Attributes
    ----------
    fd : int
        -1 once closed.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it, and so free what is locked through it; safe to repeat."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close(fd)

    def __del__(self) -> None:
        self.close()


class LockFiles:
    """One host's lock files, as one process holds them.

    Parameters
    ----------
    fds : list of int
        One descriptor a file, owned by this object from here on. Never locked through: only opened anew.
    writeable : bool
        False if they are to be opened for reading only, which is enough for shared locks.

    Notes
    -----
    Safety: any thread; fork: the child closes what it inherited and opens its own.
    """

    def __init__(self, fds: list[int], *, writeable: bool = True) -> None:
        self._fds = fds
        self._flags = (os.O_RDWR if writeable else os.O_RDONLY) | os.O_CLOEXEC
        self._idle: list[list[OpenLockFile]] = [[] for _ in fds]
        self._all: weakref.WeakSet[OpenLockFile] = weakref.WeakSet()
        weakref.finalize(self, _close_all, fds).atexit = False
        _pools.add(self)

    def take(self, slot: int) -> OpenLockFile:
        """Return an open lock file for locking `slot` that nobody else uses."""
        number = slot % len(self._fds)
        try:
            return self._idle[number].pop()
        except IndexError:
            return self._open(number)

    def _open(self, number: int) -> OpenLockFile:
        with _opening, descriptor_limit("an array's lock"):
            # Through /proc: a dup would share the file description, and so the locks.
            file = OpenLockFile(os.open(f"/proc/self/fd/{self._fds[number]}", self._flags))
            self._all.add(file)
        return file

    def give_back(self, slot: int, file: OpenLockFile) -> None:
        """Return an unlocked file to the pool, which keeps a few."""
        idle = self._idle[slot % len(self._fds)]
        if len(idle) < MAX_IDLE:
            idle.append(file)
        else:
            file.close()

    def fds(self) -> list[int]:
        """Descriptors of the files themselves, to pass to another process."""
        return self._fds

    def after_fork(self) -> None:
        """Forget the parent's locks; closing our copies does not free them, unlocking would."""
        for idle in self._idle:
            idle.clear()
        for file in list(self._all):
            file.close()


def create_lock_files() -> LockFiles:
    """Make the lock files of a new host."""
    fds: list[int] = []
    try:
        for _ in range(N_LOCK_FILES):
            fd = os.memfd_create("arrayhost:locks", os.MFD_CLOEXEC)
            fds.append(fd)
            os.fchmod(fd, 0o600)
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return LockFiles(fds)


def lock_request(slot: int, mode: int, n_files: int = N_LOCK_FILES) -> bytes:
    """The kernel's description of a lock on `slot`'s byte."""
    return _FLOCK.pack(mode, os.SEEK_SET, slot // n_files, 1, 0)


def unlock_request(slot: int, n_files: int = N_LOCK_FILES) -> bytes:
    """The kernel's description of freeing `slot`'s byte."""
    return _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, slot // n_files, 1, 0)


def try_lock(fd: int, request: bytes) -> bool:
    """Lock, change or free a byte without waiting; False if another holder is in the way."""
    try:
        _fcntl(fd, _SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def blocking_mode(fd: int, request: bytes) -> int | None:
    """Return the mode of a lock that is in a request's way, None if there is none any more."""
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request))[0]
    return None if found == fcntl.F_UNLCK else found


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _before_fork() -> None:
    _opening.acquire()


def _after_fork_in_parent() -> None:
    _opening.release()


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()
    for pool in list(_pools):
        pool.after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
