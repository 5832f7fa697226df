"""Arrays of a host that is reached over the network: their locks, which the host holds, and copies made under them.

A section works on a copy of the whole array, fetched under the lock and written back at the section's end. The lock is
a lease of one connection: if that is lost, the host frees the lock, and the end of the section says that nothing was
written. Inside a section the process's proxies of the array work on the copy, as those of a mapped array work on the
memory.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.links import Source
from arrayhost.errors import HostGoneError, LockTimeoutError, TransportError
from arrayhost.memory.control import GENERATION, TORN, TORN_PID, VERSION, WRITER_PID
from arrayhost.sync.filelocks import EXCLUSIVE
from arrayhost.sync.guards import Guard, Hold, current_owner, forget, note_active
from arrayhost.wire.codec import array_reference, pack_handle
from arrayhost.wire.frames import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from arrayhost.core.handles import ArrayHandle
    from arrayhost.memory.control import ControlTable

__all__ = ["RemoteGuard", "RemoteHold", "RemoteSource"]

# Between two questions for a lock by a task that must not block its thread.
_FIRST_DELAY, _LONGEST_DELAY = 1e-3, 50e-3


class Replica:
    """A copy of an array's memory, with what a `Mapping` of it has."""

    __slots__ = ("address", "n_bytes", "reader", "writer")

    def __init__(self, values: npt.NDArray[np.uint8]) -> None:
        self.writer = values
        self.reader = np.frombuffer(values.data.toreadonly(), np.uint8)
        self.address: int = values.__array_interface__["data"][0]
        self.n_bytes = values.nbytes

    def covers(self, address: int) -> bool:
        """Whether an address lies in it."""
        return self.address <= address < self.address + self.n_bytes


class RemoteHold(Hold):
    """A lock that the host holds for this process.

    Attributes
    ----------
    connection : object or None
        Over which it is held; None when it is not.
    replica : Replica or None
        The array as it was when it was first asked for.
    """

    __slots__ = ("connection", "mended", "replica", "wrote")

    guard: RemoteGuard

    def __init__(self, guard: RemoteGuard, owner: Any, mode: int) -> None:
        super().__init__(guard, owner, mode)
        self.connection: Any = None
        self.replica: Replica | None = None
        self.wrote = False
        self.mended = False

    def begin_write(self, extent: tuple[int, int] | None = None) -> None:
        """Note that the copy has to be written back."""
        self.wrote = True
        super().begin_write(extent)

    def end_write(self) -> None:
        """End one level of `begin_write`."""
        if self.write_depth == 1 and self.connection is not None:
            self.guard.words[self.guard.base + VERSION] += 1
        self.write_depth -= 1

    def disown(self) -> None:
        """In a forked child: the connection is the parent's."""
        self.connection = self.replica = None

    def discard(self) -> None:
        """Forget what was changed, so that it is not written back."""
        self.wrote = False

    def free(self) -> None:
        """Write back what was changed, and have the host free the lock. Does nothing the second time.

        Raises
        ------
        HostGoneError
            The connection was lost, and the lock with it: nothing was written.
        """
        connection, self.connection = self.connection, None
        if connection is None:
            return
        guard = self.guard
        if guard.exclusive is self:
            guard.exclusive = None
        elif self in guard.shared:
            guard.shared.remove(self)
        forget(self)
        self.nets.clear()
        replica, self.replica = self.replica, None
        values = replica.writer if replica is not None and self.wrote else None
        session = guard.session
        try:
            session.request_on(connection, Kind.UNLOCK, [guard.ident, values, self.mended])
        except HostGoneError as error:
            if values is None:
                return  # there was nothing to write, and the lock is free
            raise HostGoneError(f"the section is void and nothing was written: {error}") from error
        finally:
            session.spare_connection(connection)


class RemoteGuard(Guard):
    """The lock of one array in a host over the network.

    Parameters
    ----------
    session : Session
    table : ControlTable
        The session's own: rows are as they were when this process was given the lock.
    array : ArrayHandle
    """

    __slots__ = ("_blocker_known", "_reference", "ident", "session")

    def __init__(self, session: Any, table: ControlTable, array: ArrayHandle) -> None:
        super().__init__(table, None, array.slot, array.generation)  # type: ignore[arg-type]  # no files to lock here
        self.session = session
        self.ident = array.ident
        self._reference = array_reference(pack_handle(array))
        self._blocker_known = 0

    def prepare(self, mode: int, *, may_await: bool = False) -> Hold:
        """Begin an acquisition; see `Guard.prepare`."""
        hold = super().prepare(mode, may_await=may_await)
        return hold if hold.depth > 1 else RemoteHold(self, hold.owner, mode)

    def acquire(self, mode: int, timeout: float, what: str) -> Hold:
        """Wait for the lock; see `Guard.acquire`. Cost: one round trip."""
        hold = self.prepare(mode)
        if isinstance(hold, RemoteHold) and hold.depth == 1:
            self._take(hold, timeout)
        return hold

    def attempt(self, hold: Hold) -> bool:
        """Ask once for the lock. Cost: one round trip."""
        assert isinstance(hold, RemoteHold)
        try:
            self._take(hold, 0.0)
        except LockTimeoutError as error:
            self._blocker_known = error.holder_pid
            return False
        return True

    def abandon(self, hold: Hold) -> None:
        """Undo an acquisition that failed or was interrupted anywhere."""
        with contextlib.suppress(TransportError):
            hold.free()

    def waits(self, hold: Hold, timeout: float, what: str) -> Iterable[float]:
        """Yield the delays between attempts until `timeout` is over; then raise `LockTimeoutError`."""
        deadline = time.monotonic() + timeout
        delay = _FIRST_DELAY
        while (left := deadline - time.monotonic()) > 0:
            yield min(delay, left)
            delay = min(2 * delay, _LONGEST_DELAY)
        raise LockTimeoutError(what, timeout, self._blocker_known)

    def mend(self) -> None:
        """Have the torn mark taken back with the lock."""
        super().mend()
        hold = self.holds(current_owner())
        assert isinstance(hold, RemoteHold)
        hold.mended = True

    def fetched(self) -> Replica:
        """Return the copy that the caller's section works on. Cost: one round trip the first time.

        Raises
        ------
        HostGoneError
            The connection, and with it the lock, was lost.
        """
        hold = self.holds(current_owner())
        if not isinstance(hold, RemoteHold):
            raise RuntimeError("no section of this thread is open on the array")
        if hold.replica is None:
            values = self.session.request_on(hold.connection, Kind.FETCH, self.ident)
            hold.replica = Replica(values if values.flags.writeable else values.copy())
        return hold.replica

    def _take(self, hold: RemoteHold, timeout: float) -> None:
        connection = self.session.lock_connection()
        try:
            row = self.session.request_on(connection, Kind.LOCK, [self._reference, hold.mode, timeout])
        except BaseException:
            # Interrupted, the connection has been closed: whatever it would have held ends with it.
            self.session.spare_connection(connection)
            raise
        hold.connection = connection
        self._learn(row)
        note_active(hold)
        if hold.mode == EXCLUSIVE:
            self.exclusive = hold
        else:
            self.shared.append(hold)

    def _learn(self, row: list[Any]) -> None:
        _, generation, version, _, torn, torn_pid, writer_pid = row
        known = {GENERATION: generation, VERSION: version, TORN: int(torn), TORN_PID: torn_pid, WRITER_PID: writer_pid}
        for field, value in known.items():
            self.words[self.base + field] = value


class RemoteSource(Source):
    """One array of a host over the network, as this process knows it.

    Attributes
    ----------
    guard : RemoteGuard
    """

    __slots__ = ("guard",)

    def __init__(self, link: Any, array: ArrayHandle, guard: RemoteGuard) -> None:
        super().__init__(link, array)
        self.guard = guard

    def hold(self) -> Hold | None:
        """Return the hold that the calling thread or task has on the array's lock, if it has one in this process."""
        guard = self.guard
        return guard.holds(current_owner()) if guard.exclusive is not None or guard.shared else None

    def reach(self) -> Any:
        """Return what sections work on: the lock, and the copy made under it."""
        return self

    @property
    def mapping(self) -> Replica:
        """The copy that the caller's section works on."""
        return self.guard.fetched()
