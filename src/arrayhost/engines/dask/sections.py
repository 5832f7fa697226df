"""Sections and locks of arrays on a cluster: the lock is a lease, the section a copy that is published whole."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from arrayhost.engines.dask.assigning import assign
from arrayhost.engines.dask.commits import LEASE_SECONDS, publish
from arrayhost.engines.dask.computing import block_values, fetched
from arrayhost.engines.dask.snapshots import Section
from arrayhost.errors import HostGoneError, LockTimeoutError, TransactionConflictError, WouldDeadlock
from arrayhost.memory.budget import check_free

if TYPE_CHECKING:
    import numpy.typing as npt

    from arrayhost.engines.dask.array import ClusterArray
    from arrayhost.engines.dask.commits import Update
    from arrayhost.engines.dask.snapshots import ClusterSource, Snapshot

__all__ = ["ClusterLock", "ReadSection", "SectionGroup", "WriteSection"]


class ClusterLock:
    """An array's lock: of several processes that take it, one has it.

    It is a lease of ten seconds, which a thread of this process renews for as long as it is held. If the process dies
    the lock is free at once; if it is stopped, after the lease. Writes of others wait for it.

    Parameters
    ----------
    source : ClusterSource
    timeout : float
        Seconds to wait for it unless a call says otherwise.
    """

    def __init__(self, source: ClusterSource, timeout: float) -> None:
        self._source, self._timeout = source, timeout
        self._released = threading.Event()
        self.token: str | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False if it was not free in time. As `threading.Lock.acquire`."""
        seconds = (self._timeout if timeout < 0 else timeout) if blocking else 0.0
        source, token = self._source, uuid.uuid4().hex
        taken = source.link.call(
            "lock", seconds=seconds, ident=source.ident, token=token, timeout=seconds, lease=LEASE_SECONDS
        )
        if taken:
            self.token = source.held = token
            self._released = threading.Event()
            arguments = (source, token, self._released)
            threading.Thread(target=_renew, args=arguments, name="arrayhost-lease", daemon=True).start()
        return bool(taken)

    def release(self) -> None:
        """Give the lock back.

        Raises
        ------
        RuntimeError
            It was not taken by this object.
        """
        token, self.token = self.token, None
        if token is None:
            raise RuntimeError("release unlocked lock")
        self._released.set()
        if self._source.held == token:
            self._source.held = None
        self._source.link.call("unlock", ident=self._source.ident, token=token)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockTimeoutError("lock of the array", self._timeout)
        return self

    def __exit__(self, *details: object) -> None:
        self.release()


def _renew(source: ClusterSource, token: str, released: threading.Event) -> None:
    """Keep a lock until it is released, or lost."""
    while not released.wait(LEASE_SECONDS / 4):
        try:
            if not source.link.call("renew", ident=source.ident, token=token, lease=LEASE_SECONDS):
                return
        except (HostGoneError, ReferenceError):
            return


class WriteSection:
    """What ``a.write()`` gives: exclusive, on a copy that is published as one version at the end."""

    def __init__(self, array: ClusterArray, timeout: float) -> None:
        self._array, self._timeout = array, timeout
        self._lock: ClusterLock | None = None
        self._base: Snapshot | None = None
        self._before: npt.NDArray[Any] | None = None

    def __enter__(self) -> npt.NDArray[Any]:
        array = self._array
        source = array._source
        source.link.check_writable()
        if source.section is not None:
            return self._inside(source.section)
        check_free(2 * array.layout.nbytes)  # the copy, and what it is compared with at the end
        self._lock = ClusterLock(source, self._timeout)
        self._lock.__enter__()
        try:
            self._base, values = fetched(source, self._copied)
            self._before = values.copy()
        except BaseException:
            self._lock.release()
            raise
        source.section = Section(array._selection, values, writeable=True)
        return values

    def _inside(self, section: Section) -> npt.NDArray[Any]:
        """Enter a section inside another one of the same thread."""
        values = section.shown(self._array._selection)
        if values is None or not section.writeable:
            raise WouldDeadlock("this thread is inside a section on the array: open one a.write() around it all")
        return values

    def _copied(self) -> tuple[Snapshot, npt.NDArray[Any]]:
        source = self._array._source
        base = source.snapshot()
        return base, block_values(source.link, self._array._selection.of(base.array))

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                _publish([self])
        finally:
            self._leave()

    def _update(self) -> Update | None:
        """What is to be published; None if nothing was changed, or a section around this one publishes it."""
        source = self._array._source
        section = source.section
        if self._base is None or section is None or _bytes_equal(self._before, section.values):
            return None
        return assign(source, self._base, self._array._selection, section.values)

    def _leave(self) -> None:
        lock, self._lock, self._base = self._lock, None, None
        if lock is not None:
            self._array._source.section = None
            lock.release()

    async def __aenter__(self) -> npt.NDArray[Any]:
        raise TypeError("sections on a cluster's arrays are for threads: use asyncio.to_thread for the whole section")

    async def __aexit__(self, *details: object) -> None:
        """Never entered."""


class SectionGroup:
    """Sections on several arrays at once, published as one: all of them or none.

    Their locks are taken in one order by everybody, so that two groups never wait for each other.
    """

    def __init__(self, sections: list[WriteSection]) -> None:
        self._sections = sections
        self._entered: list[WriteSection] = []

    def __enter__(self) -> tuple[npt.NDArray[Any], ...]:
        values: dict[int, npt.NDArray[Any]] = {}
        try:
            for section in sorted(self._sections, key=lambda one: str(one._array._source.ident)):
                values[id(section)] = section.__enter__()
                self._entered.append(section)
        except BaseException:
            self._leave()
            raise
        return tuple(values[id(section)] for section in self._sections)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                _publish(self._entered)
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._entered:
            self._entered.pop()._leave()


def _publish(sections: list[WriteSection]) -> None:
    """Publish what the blocks of sections have changed, in one step.

    Raises
    ------
    TransactionConflictError, LeaseLostError
        It was not done.
    """
    updates = [update for update in (section._update() for section in sections) if update is not None]
    if updates:
        answer = publish(updates[0].source.link, updates, sections[0]._timeout)
        if answer["refused"] is not None:
            raise TransactionConflictError(updates[0].base.version, answer["version"])


class ReadSection:
    """What ``a.read()`` gives: one version, in this process, read-only. It keeps nobody waiting."""

    def __init__(self, array: ClusterArray) -> None:
        self._array = array
        self._is_outer = False

    def __enter__(self) -> npt.NDArray[Any]:
        source = self._array._source
        check_free(self._array.layout.nbytes)
        values = self._array._private_copy()
        values.flags.writeable = False
        if source.section is None:
            self._is_outer = True
            source.section = Section(self._array._selection, values, writeable=False)
        return values

    def __exit__(self, *details: object) -> None:
        if self._is_outer:
            self._array._source.section = None


def _bytes_equal(one: Any, other: npt.NDArray[Any]) -> bool:
    as_bytes = f"V{one.dtype.itemsize}"
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return one.dtype.itemsize == 0 or bool((one.view(as_bytes) == other.view(as_bytes)).all())
