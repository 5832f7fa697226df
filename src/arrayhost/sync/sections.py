"""Sections: direct access to an array's memory between the entry and the exit of a ``with`` block.

Ctrl-C may strike anywhere. Entry acquires inside a ``try``; what an interrupt leaves behind at the very first
instruction of ``__exit__``, before any ``try`` of ours is active, ends when the section object dies, at the latest
with the exception that is under way, or when the interpreter exits. That is noticed by a weak reference which exists
only while the section is open: a section that was closed dies without running any code of ours, which an interrupt
could hit in turn and get lost in.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arrayhost.errors import TornArrayError, TornArrayWarning
from arrayhost.memory.control import TORN, TORN_PID
from arrayhost.sync.filelocks import EXCLUSIVE, SHARED
from arrayhost.sync.guards import current_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from arrayhost.sync.guards import Guard, Hold

__all__ = ["ArrayLock", "ReadSection", "SectionGroup", "WriteSection"]

ViewT = TypeVar("ViewT")


class _Section:
    """What both kinds of section share: one hold at a time, entered as ``with`` or ``async with``."""

    __slots__ = ("__weakref__", "_guard", "_hold", "_make_view", "_net", "_timeout", "_view", "was_torn")
    _mode = EXCLUSIVE
    _what = "exclusive lock"

    def __init__(self, guard: Guard, make_view: Callable[[], npt.NDArray[Any]], timeout: float) -> None:
        self._guard = guard
        self._make_view = make_view
        self._timeout = timeout
        self._hold: Hold | None = None
        self._net: Any = None
        self._view: npt.NDArray[Any] | None = None
        self.was_torn = False

    def __enter__(self) -> npt.NDArray[Any]:
        self._refuse_second_entry()
        try:
            self._hold = self._guard.acquire(self._mode, self._timeout, self._what)
            return self._open()
        except BaseException:
            self._close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._close()
        finally:
            self._close()

    async def __aenter__(self) -> npt.NDArray[Any]:
        import asyncio

        self._refuse_second_entry()
        guard = self._guard
        hold = None
        try:
            hold = guard.prepare(self._mode, may_await=True)
            if hold.depth == 1 and not guard.attempt(hold):
                for delay in guard.waits(hold, self._timeout, self._what):
                    await asyncio.sleep(delay)
                    if guard.attempt(hold):
                        break
            self._hold = hold
            return self._open()
        except BaseException:
            if hold is not None and self._hold is None:
                guard.abandon(hold)
            self._close()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._close()

    def _refuse_second_entry(self) -> None:
        if self._hold is not None:
            raise RuntimeError("this section is already open; call a.write() or a.read() anew for each 'with'")

    def _open(self) -> npt.NDArray[Any]:
        raise NotImplementedError  # each kind's own

    def _close(self) -> None:
        """End the section; safe to repeat, so that one which was interrupted is done again."""
        hold = self._hold
        if hold is None:
            return
        self._end_view(hold)
        hold.release()
        self._hold = None
        if self._net in hold.nets:
            hold.nets.remove(self._net)

    def _end_view(self, hold: Hold) -> None:
        """What has to be done while the lock is still held."""

    def forked(self) -> None:
        """In a forked child: the lock is the parent's, so the memory is not the child's to write."""
        if self._view is not None:
            self._view.flags.writeable = False
        self._view = self._hold = None


class WriteSection(_Section):
    """Exclusive, direct access to an array: ``with a.write() as x:``.

    Attributes
    ----------
    was_torn : bool
        Whether the last writer died in mid-write; entry then also warns with `TornArrayWarning`. Write the whole
        array and call ``a.recover()``.

    Notes
    -----
    `x` is an ndarray of the memory itself, read-only again once the section has ended; copies of it stay, views of it
    must not be written to any more. Nests in one thread or task, also with sections on other views of the same array.

    Cost: no round trip. Safety: one section object is for one thread or task; a forked child does not inherit it.
    """

    __slots__ = ()

    def _open(self) -> npt.NDArray[Any]:
        guard = self._guard
        hold = self._hold
        assert hold is not None
        self._net = hold.watch(self)
        hold.begin_write()
        view = self._view = self._make_view()
        if guard.words[guard.base + TORN]:
            self.was_torn = True
            pid = guard.words[guard.base + TORN_PID]
            warnings.warn(TornArrayWarning(str(TornArrayError(pid))), stacklevel=3)
        return view

    def _end_view(self, hold: Hold) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.flags.writeable = False
            hold.end_write()


class ReadSection(_Section):
    """Shared, direct access to an array: ``with a.read() as x:``; writers wait until it ends.

    Notes
    -----
    `x` is a read-only ndarray of the memory itself. Several readers may be inside at once. Entry raises
    `TornArrayError` if a writer died in mid-write.

    Cost: no round trip. Safety: as `WriteSection`.
    """

    __slots__ = ()
    _mode = SHARED
    _what = "shared lock"

    def _open(self) -> npt.NDArray[Any]:
        hold = self._hold
        assert hold is not None
        self._net = hold.watch(self)
        if hold.mode == SHARED:
            self._guard.check_whole()
        return self._make_view()


class ArrayLock:
    """An array's exclusive lock by itself, with the interface of `threading.Lock`.

    While it is held, the holder's reads and writes of the array go direct and everybody else's writes wait; reads of
    others go on, unless a write is under way.

    Notes
    -----
    Cost: no round trip. Safety: any thread or process; the kernel frees it when its holder dies. Nests in one thread.
    """

    __slots__ = ("__weakref__", "_entered", "_guard", "_timeout")

    def __init__(self, guard: Guard, timeout: float) -> None:
        self._guard = guard
        self._timeout = timeout
        self._entered: list[tuple[Hold, Any]] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock.

        Parameters
        ----------
        blocking : bool
        timeout : float
            Seconds; -1 for the default of the array's host.

        Returns
        -------
        bool
            False if it could not be had at once (``blocking=False``) or within `timeout`. Without either, the end of
            the default timeout raises `LockTimeoutError`.
        """
        guard = self._guard
        if not blocking:
            hold = guard.prepare(EXCLUSIVE)
            if hold.depth > 1:
                return True
            try:
                if guard.attempt(hold):
                    return True
            except BaseException:
                guard.abandon(hold)
                raise
            guard.abandon(hold)
            return False
        try:
            guard.acquire(EXCLUSIVE, self._timeout if timeout < 0 else timeout, "exclusive lock")
        except TimeoutError:
            if timeout < 0:
                raise
            return False
        return True

    def release(self) -> None:
        """Give the lock back.

        Raises
        ------
        RuntimeError
            The caller does not hold it.
        """
        hold = self._guard.holds(current_owner())
        if hold is None or hold.mode != EXCLUSIVE:
            raise RuntimeError("release of a lock that this thread does not hold")
        hold.release()

    def locked(self) -> bool:
        """Whether some thread of this process holds the lock."""
        return self._guard.exclusive is not None

    def __enter__(self) -> bool:
        # As a section: what an interrupt keeps from being released ends when this object dies.
        hold = self._guard.acquire(EXCLUSIVE, self._timeout, "exclusive lock")
        try:
            self._entered.append((hold, hold.watch(self)))
        except BaseException:
            hold.release()
            raise
        return True

    def __exit__(self, *exc_info: object) -> None:
        hold, net = self._entered[-1]
        hold.release()
        if net in hold.nets:
            hold.nets.remove(net)
        self._entered.pop()

    def forked(self) -> None:
        """In a forked child: the lock is the parent's, and leaving the block here changes nothing."""


class SectionGroup(Generic[ViewT]):
    """Exclusive sections on several arrays at once, entered in the order of their slots.

    Everybody who locks several arrays this way does it in the same order, so two groups never wait for each other.
    """

    __slots__ = ("_entered", "_sections", "_timeout")

    def __init__(self, sections: Sequence[WriteSection], timeout: float) -> None:
        self._sections = list(sections)
        self._timeout = timeout
        self._entered: list[WriteSection] = []

    def __enter__(self) -> tuple[npt.NDArray[Any], ...]:
        deadline = time.monotonic() + self._timeout
        views: dict[int, npt.NDArray[Any]] = {}
        try:
            for section in sorted(self._sections, key=lambda one: one._guard.slot):
                section._timeout = max(deadline - time.monotonic(), 0.0)
                self._entered.append(section)
                views[id(section)] = section.__enter__()
        except BaseException:
            self._close()
            raise
        return tuple(views[id(section)] for section in self._sections)

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._entered:
            self._entered[-1]._close()
            self._entered.pop()
