"""The guard of one hosted array in one process: its lock, its sequence word, and who holds the lock here.

A guard joins a row of the control table with a byte of a lock file. Writers lock the byte and keep the row's version
odd while they write; readers look at the version before and after and lock nothing. Whoever is handed the lock and
finds the version odd knows that the last writer died in mid-write.

Locks are polled, not waited for in the kernel: ``F_OFD_SETLKW`` has no time limit and cannot be interrupted outside
the main thread. A waiter sleeps 20 µs at first and 1 ms later: looking more often makes processes that contend take
turns at every section, and each turn moves the array to another processor's cache (measured: 130,000 short sections a
second with 0.5 ms, 210,000 so). One that has waited for 5 ms leaves word in the row, and whoever comes then lets it go
first. Without that word a loop of sections starves everybody else, since the lock is free for a few microseconds only.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from _thread import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from arrayhost.errors import LockTimeoutError, StaleProxyError, TornArrayError, WouldDeadlock
from arrayhost.memory._libc import futex_wake
from arrayhost.memory.control import (
    GENERATION,
    ORDERED_STORES,
    READER_PID,
    ROW_WORDS,
    TORN,
    TORN_PID,
    VERSION,
    WAITER,
    WAITER_BEAT,
    WATCHED,
    WRITER_PID,
)
from arrayhost.sync.filelocks import EXCLUSIVE, SHARED, blocking_mode, lock_request, try_lock, unlock_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from arrayhost.memory.control import ControlTable
    from arrayhost.sync.filelocks import LockFiles, OpenLockFile

__all__ = ["BUSY", "OWNED", "Guard", "Hold", "caller_holds", "caller_is", "current_owner", "held_here", "waiters_of"]

BUSY = -1  # somebody else writes at this moment
OWNED = -2  # the caller itself holds the lock: its reads go direct

_FIRST_DELAY = 20e-6
_LONGEST_DELAY = 1e-3
_URGENT_DELAY = 100e-6
_GROWTH = 3.0
_PATIENCE_NS = 5_000_000
_BEAT_EXPIRES_NS = 20_000_000
# A beat's word: about milliseconds above, the waiter's pid (at most 2**22 on Linux) below.
_BEAT_SHIFT = 20
_PID_BITS = 24
_PID_MASK = (1 << _PID_BITS) - 1

_active: dict[int, Hold] = {}
# Who waits in this process, by the hold that is to be: the guard, since when, for which process.
_waiting: dict[int, tuple[Guard, int, int]] = {}
_pid = os.getpid()
_get_running_loop: Callable[[], Any] | None = None
_current_task: Callable[..., Any] | None = None


def current_owner() -> Any:
    """Who asks: this thread or, inside an event loop, this task of it."""
    if _get_running_loop is None and ("asyncio" not in sys.modules or not _find_asyncio()):
        return get_ident()
    if _get_running_loop() is None:  # type: ignore[misc]  # set by _find_asyncio
        return get_ident()
    return (get_ident(), _current_task())  # type: ignore[misc]  # likewise


def _find_asyncio() -> bool:
    global _get_running_loop, _current_task
    asyncio = sys.modules["asyncio"]
    if not hasattr(asyncio, "current_task"):  # its import is under way in another thread
        return False
    _current_task = asyncio.current_task
    _get_running_loop = asyncio._get_running_loop
    return True


class UndoLog(Protocol):
    """Keeps what a write is about to change."""

    def save(self, extent: tuple[int, int] | None) -> None:
        """Keep these bytes, or all, before a write begins."""

    def completed(self) -> None:
        """Note that the write has ended."""


class Hold:
    """One acquisition of one array's lock, with the open file description that carries it.

    Attributes
    ----------
    guard : Guard
    owner : object
        As `current_owner`.
    mode : int
        `EXCLUSIVE` or `SHARED`.
    depth, write_depth : int
        Nested sections, and those among them that write.
    nets : list of weakref.ref
        One for each section that is open: should the section die without having been closed, as an interrupt at the
        first instruction of its ``__exit__`` makes it, its level ends with it.
    """

    __slots__ = ("depth", "file", "guard", "mode", "nets", "owner", "write_depth")

    def __init__(self, guard: Guard, owner: Any, mode: int) -> None:
        self.guard = guard
        self.owner = owner
        self.mode = mode
        self.depth = 1
        self.write_depth = 0
        self.file: OpenLockFile | None = None
        self.nets: list[weakref.ref[Any]] = []

    def begin_write(self, extent: tuple[int, int] | None = None) -> None:
        """Make the version odd: readers keep out until `end_write`.

        Parameters
        ----------
        extent : (int, int), optional
            The bytes of the array that may change; all, if not given.

        Raises
        ------
        OSError
            The array is a file and there is no room for its undo record; no write has begun.
        """
        if self.write_depth == 0:
            guard = self.guard
            if guard.undo is not None:
                guard.undo.save(extent)
            guard.words[guard.base + WRITER_PID] = _pid
            guard.words[guard.base + VERSION] += 1
        self.write_depth += 1

    def end_write(self) -> None:
        """Make the version even again."""
        if self.write_depth == 1 and self.file is not None:
            guard = self.guard
            guard.words[guard.base + VERSION] += 1
            if guard.undo is not None:
                guard.undo.completed()
            if guard.row[WATCHED]:
                guard.wake()
        self.write_depth -= 1

    def release(self) -> None:
        """End one level; the last one frees the lock. Safe to repeat after an interrupt, and from any thread."""
        if self.depth > 1:
            self.depth -= 1
            return
        self.free()

    def watch(self, section: Any) -> weakref.ref[Any]:
        """End one level when `section` dies; not if what is returned has been taken out of `nets` before."""
        net = weakref.ref(section, self._died)
        self.nets.append(net)
        return net

    def _died(self, net: weakref.ref[Any]) -> None:
        if net in self.nets:
            self.nets.remove(net)
            self.release()

    def disown(self) -> None:
        """In a forked child: the lock is the parent's."""
        self.file = None

    def free(self) -> None:
        """Free the lock whatever the depth. Does nothing the second time, or in a forked child."""
        file = self.file
        if file is None:
            return
        guard = self.guard
        if guard.exclusive is self:
            if self.write_depth and guard.words[guard.base + VERSION] & 1:
                guard.words[guard.base + VERSION] += 1
                self.write_depth = 0
                guard.wake()
            guard.exclusive = None
        elif self in guard.shared:
            guard.shared.remove(self)
        _active.pop(id(self), None)
        # Interrupted before this, the lock ends with its file, which ends with this object.
        try_lock(file.fd, guard.unlock_bytes)
        self.file = None
        self.nets.clear()
        guard.files.give_back(guard.slot, file)


class Guard:
    """One array's lock and sequence word, as this process sees them.

    Parameters
    ----------
    table : ControlTable
    files : LockFiles
    slot, generation : int

    Notes
    -----
    Safety: any thread. There is one guard for an array in a process; two would not see each other's holds.
    """

    __slots__ = (
        "__weakref__", "base", "exclusive", "exclusive_bytes", "files", "generation", "good", "row", "shared",
        "shared_bytes", "slot", "table", "undo", "unlock_bytes", "words",
    )  # fmt: skip

    def __init__(self, table: ControlTable, files: LockFiles, slot: int, generation: int) -> None:
        self.table = table
        self.words = table.words
        self.files = files
        self.slot = slot
        self.generation = generation
        self.base = slot * ROW_WORDS
        self.row = table.words[self.base : self.base + ROW_WORDS]
        # The version last found to be of this array and whole. It stays so: whoever tears or frees the array changes
        # the version, so a reader that finds this one need not look at the rest of the row.
        self.good = -1
        self.undo: UndoLog | None = None  # in the host, for an array that is a file
        self.exclusive: Hold | None = None
        self.shared: list[Hold] = []
        self.exclusive_bytes = lock_request(slot, EXCLUSIVE)
        self.shared_bytes = lock_request(slot, SHARED)
        self.unlock_bytes = unlock_request(slot)

    # -- state ---------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version of the last completed write: even, grows by 2 with each."""
        return self.words[self.base + VERSION] & ~1

    @property
    def torn(self) -> bool:
        """Whether a writer died in mid-write and nobody mended it since."""
        return bool(self.words[self.base + TORN])

    @property
    def writer_pid(self) -> int:
        """Who holds, or held last, the exclusive lock; 0 for nobody yet."""
        return self.words[self.base + WRITER_PID]

    def check_current(self) -> None:
        """Raise `StaleProxyError` if the row belongs to another array by now."""
        if self.words[self.base + GENERATION] != self.generation:
            raise StaleProxyError(
                "this proxy's array has been freed by its host (its last lease and the grace of its handles ended); "
                "create it again, or give it a name so that it stays"
            )

    def check_whole(self) -> None:
        """Raise `TornArrayError` if the array may hold half a write."""
        if self.words[self.base + TORN]:
            raise TornArrayError(self.words[self.base + TORN_PID])

    def certify(self, version: int) -> bool:
        """Whether a version that was just read says that the array is whole and nobody writes."""
        row = self.row
        if version & 1 or not ORDERED_STORES or row[TORN] or row[GENERATION] != self.generation:
            return False
        self.good = version
        return True

    def stamp(self) -> int:
        """What a reader notes before it reads: the version, `BUSY`, or `OWNED` inside a section of one's own.

        Raises
        ------
        StaleProxyError, TornArrayError
        """
        version = self.row[VERSION]
        if self.exclusive is not None and self.holds(current_owner()):
            return OWNED
        if version == self.good or self.certify(version):
            return version
        self.check_current()
        if version & 1:
            return BUSY
        self.check_whole()
        return BUSY  # only where stores are not ordered: no reader may go by versions there

    def unchanged(self, stamp: int) -> bool:
        """Whether nothing was written since `stamp` was noted."""
        return stamp == OWNED or (
            self.words[self.base + VERSION] == stamp and self.words[self.base + GENERATION] == self.generation
        )

    def holds(self, owner: Any) -> Hold | None:
        """The hold of `owner` on this array, if it has one."""
        if self.exclusive is not None and self.exclusive.owner == owner:
            return self.exclusive
        for hold in self.shared:
            if hold.owner == owner:
                return hold
        return None

    def mend(self) -> None:
        """Take back the torn mark. The caller holds the exclusive lock."""
        self.words[self.base + TORN] = 0
        self.words[self.base + TORN_PID] = 0

    @property
    def version_address(self) -> int:
        """Where the half of the version that changes lies in this process: what watchers sleep on."""
        return self.table.address + 8 * (self.base + VERSION) + (0 if sys.byteorder == "little" else 4)

    def wake(self) -> None:
        """Wake whoever waits for the version to change, and forget those who do not any more."""
        futex_wake(self.version_address)
        if self.row[WATCHED] < time.monotonic_ns():
            self.row[WATCHED] = 0

    # -- locking -------------------------------------------------------------------------------------------------

    def acquire(self, mode: int, timeout: float, what: str) -> Hold:
        """Wait for the lock.

        Parameters
        ----------
        mode : int
            `EXCLUSIVE` or `SHARED`.
        timeout : float
            Seconds.
        what : str
            For the error's text.

        Raises
        ------
        LockTimeoutError, StaleProxyError, WouldDeadlock
        """
        hold = self.prepare(mode)
        if hold.depth > 1:
            return hold
        try:
            if not self.attempt(hold):
                for delay in self.waits(hold, timeout, what):
                    time.sleep(delay)
                    if self.attempt(hold):
                        break
        except BaseException:
            self.abandon(hold)
            raise
        return hold

    def prepare(self, mode: int, *, may_await: bool = False) -> Hold:
        """Begin an acquisition: refuse what could never end, nest where the caller holds the lock already.

        Returns
        -------
        Hold
            Of a depth above 1 if the caller had it: nothing more to do.
        """
        owner = current_owner()
        if self.exclusive is not None or self.shared:
            own = self.holds(owner)
            if own is not None:
                if mode == EXCLUSIVE and own.mode == SHARED:
                    raise WouldDeadlock(
                        "this thread holds a.read() on the array and would wait for itself to end it; "
                        "use a.write() for the whole section"
                    )
                own.depth += 1
                return own
            self._refuse_own_thread(owner, mode, may_await=may_await)
        if _serves and _caller_holds(self.slot, mode):
            raise WouldDeadlock(
                "the caller of this function holds a section on the array and waits for the function: "
                "end the section before the call, or pass a copy"
            )
        return Hold(self, owner, mode)

    def attempt(self, hold: Hold) -> bool:
        """Try once to lock; on success note the hold and look at what the last holder left."""
        words, base = self.words, self.base
        file = hold.file
        if file is None:
            if words[base + WAITER]:
                self._let_pass()
            file = hold.file = self.files.take(self.slot)
        exclusive = hold.mode == EXCLUSIVE
        if not try_lock(file.fd, self.exclusive_bytes if exclusive else self.shared_bytes):
            return False
        if words[base + GENERATION] != self.generation:
            self.check_current()
        if words[base + VERSION] & 1:
            self._note_dead_writer()
        _active[id(hold)] = hold
        if exclusive:
            words[base + WRITER_PID] = _pid
            self.exclusive = hold
        else:
            words[base + READER_PID] = _pid
            self.shared.append(hold)
        return True

    def abandon(self, hold: Hold) -> None:
        """Undo an acquisition that failed or was interrupted anywhere."""
        hold.free()

    def waits(self, hold: Hold, timeout: float, what: str) -> Iterable[float]:
        """Yield the delays between attempts until `timeout` is over.

        Raises
        ------
        LockTimeoutError
            In place of the delay that would be too late, or when the program is ending because of an error.
        """
        words, base = self.words, self.base
        since = time.monotonic_ns()
        deadline = since + int(timeout * 1e9)
        delay = _FIRST_DELAY
        pid = _caller.pid or _pid
        _waiting[id(hold)] = (self, since, pid)
        try:
            while True:
                now = time.monotonic_ns()
                if now >= deadline or main_thread_failed():
                    raise LockTimeoutError(what, min(timeout, (now - since) / 1e9), self._blocker_pid(hold))
                if not words[base + WAITER] or _beat_expired(words[base + WAITER_BEAT], now):
                    words[base + WAITER] = since
                delay = min(delay * _GROWTH, _LONGEST_DELAY)
                if words[base + WAITER] == since:
                    words[base + WAITER_BEAT] = now >> _BEAT_SHIFT << _PID_BITS | pid
                    # Its turn is about to come: others will stand back for it, and idly if it looks too seldom.
                    if now - since > _PATIENCE_NS:
                        delay = min(delay, _URGENT_DELAY)
                yield min(delay, (deadline - now) / 1e9)
        finally:
            _waiting.pop(id(hold), None)
            if words[base + WAITER] == since:
                words[base + WAITER] = 0

    def _blocker_pid(self, hold: Hold) -> int:
        """Who is in the way of an acquisition, as far as the row tells."""
        request = self.exclusive_bytes if hold.mode == EXCLUSIVE else self.shared_bytes
        assert hold.file is not None
        field = READER_PID if blocking_mode(hold.file.fd, request) == SHARED else WRITER_PID
        return self.words[self.base + field]

    def _let_pass(self) -> None:
        """Give way to somebody who has waited long, if it is still alive."""
        words, base = self.words, self.base
        since = words[base + WAITER]
        now = time.monotonic_ns()
        if now - since < _PATIENCE_NS or _beat_expired(words[base + WAITER_BEAT], now):
            return
        for _ in range(10):
            time.sleep(100e-6)
            if words[base + WAITER] != since:
                return

    def _note_dead_writer(self) -> None:
        """Set the torn mark: the lock is ours and the version odd, so its writer is dead.

        Several shared holders may do this at once; all write the same values.
        """
        words, base = self.words, self.base
        version = words[base + VERSION]
        if version & 1:
            words[base + TORN_PID] = words[base + WRITER_PID]
            words[base + TORN] = 1
            words[base + VERSION] = version + 1
            self.wake()

    def is_written_by(self, pid: int) -> bool:
        """Whether a process has begun a write and not ended it."""
        return self.writer_pid == pid and bool(self.words[self.base + VERSION] & 1)

    def judge_writer(self) -> bool | None:
        """Set the torn mark if a write was not ended, and tell whether it was not; None while somebody has the lock."""
        hold = Hold(self, None, SHARED)
        try:
            file = hold.file = self.files.take(self.slot)
            if not try_lock(file.fd, self.shared_bytes):
                return None
            is_torn = bool(self.words[self.base + VERSION] & 1)
            if is_torn:
                self._note_dead_writer()
            return is_torn
        finally:
            hold.free()

    def _refuse_own_thread(self, owner: Any, mode: int, *, may_await: bool) -> None:
        """Refuse to wait for a hold that cannot end while the calling thread waits.

        That is one of another task of the same event loop, unless the waiting leaves the loop running, and one that
        the thread took outside of the loop that it runs now.
        """
        holders = [self.exclusive] if self.exclusive is not None else []
        if mode == EXCLUSIVE:
            holders += self.shared
        for hold in holders:
            if thread_of(hold.owner) != thread_of(owner) or (may_await and isinstance(hold.owner, tuple)):
                continue
            raise WouldDeadlock(
                "this thread holds the array already, in another task or outside of the running event loop, and could "
                "never end that section while it waits here; use 'async with a.write()' or 'async with a.read()' in "
                "every task, or end the outer section first"
            )


def note_active(hold: Hold) -> None:
    """Note an acquisition, so that it is freed at exit and disowned after a fork."""
    _active[id(hold)] = hold


def forget(hold: Hold) -> None:
    """Forget what `note_active` noted."""
    _active.pop(id(hold), None)


def held_here() -> list[Hold]:
    """Every hold of the calling thread, in whichever of its tasks."""
    if not _active:
        return []
    thread = get_ident()
    return [hold for hold in list(_active.values()) if thread_of(hold.owner) == thread]


def waiters_of(guard: Guard) -> set[tuple[int, int]]:
    """Who waits for a lock: process, and since when (monotonic nanoseconds).

    Everybody who waits in this process, for itself or in a host for a client; of all others the one that the row tells.
    """
    found = {(pid, since) for other, since, pid in list(_waiting.values()) if other is guard}
    since, beat = guard.words[guard.base + WAITER], guard.words[guard.base + WAITER_BEAT]
    if since and not _beat_expired(beat, time.monotonic_ns()):
        found.add((beat & _PID_MASK, since))
    return found


def _beat_expired(beat: int, now: int) -> bool:
    """Whether a waiter has not looked for so long that it must be dead or stopped."""
    return now - (beat >> _PID_BITS << _BEAT_SHIFT) > _BEAT_EXPIRES_NS


class _Caller(threading.local):
    modes: Mapping[int, int] = MappingProxyType({})
    pid = 0


_caller = _Caller()
# Whether this process has ever served a client that held something: most never do, and need not look.
_serves = False


def caller_holds(modes: Mapping[int, int]) -> None:
    """In a host's thread: note the slots that the client now being served holds itself, and how."""
    global _serves
    if modes:
        _serves = True
    _caller.modes = modes


def caller_is(pid: int) -> None:
    """In a host's thread: note the client process for which it waits from now on."""
    _caller.pid = pid


def _caller_holds(slot: int, mode: int) -> bool:
    """Whether the client being served would wait for itself."""
    held = _caller.modes.get(slot)
    return held is not None and EXCLUSIVE in (held, mode)


def main_thread_failed() -> bool:
    """Whether the main thread has ended by an exception, Ctrl-C say: Python then waits for all other threads.

    One that waits for a lock would keep the interpreter for as long as its timeout. After an orderly end of the main
    thread it may go on, as any thread may.
    """
    return not threading.main_thread().is_alive() and getattr(sys, "last_type", None) is not None


def thread_of(owner: Any) -> Any:
    """The thread of an owner, which may be a task in it."""
    return owner[0] if isinstance(owner, tuple) else owner


def _after_fork_in_child() -> None:
    """Disown the parent's holds: the child neither frees them nor may write under them."""
    global _pid
    _pid = os.getpid()
    for hold in list(_active.values()):
        hold.disown()
        hold.guard.exclusive = None
        hold.guard.shared = []
        nets, hold.nets = hold.nets, []
        for net in nets:
            section = net()
            if section is not None:
                section.forked()
    _active.clear()
    _waiting.clear()


def _free_at_exit() -> None:
    """Free what is still held when the interpreter ends, as an interrupted section may be.

    Not what another thread holds that still runs: a daemon thread may be in the middle of a write, and the kernel frees
    its lock in a way that tells the next holder.
    """
    others = sys._current_frames().keys() - {get_ident()}
    for hold in list(_active.values()):
        if thread_of(hold.owner) not in others:
            hold.free()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_free_at_exit)
