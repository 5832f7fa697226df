"""The store: every hosted array and object, their rows of the control table, and their leases."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from arrayhost.core.handles import ArrayHandle, ObjectHandle
from arrayhost.core.leases import LeaseTable
from arrayhost.core.records import HostStatistics
from arrayhost.errors import HostMemoryError, ProtocolError, StaleProxyError
from arrayhost.host.clients import current_client
from arrayhost.host.names import NameTable
from arrayhost.host.places import Place, Places
from arrayhost.host.snapshots import LockedCopies
from arrayhost.memory.control import GENERATION, ROW_WORDS, TORN, TORN_PID, VERSION, WATCHED, WRITER_PID, ControlTable
from arrayhost.memory.filling import layout_of, view_of
from arrayhost.sync.filelocks import EXCLUSIVE, create_lock_files, try_lock
from arrayhost.sync.guards import Guard, Hold
from arrayhost.wire.codec import unpack_handle

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import numpy.typing as npt

    from arrayhost.core.layout import Layout
    from arrayhost.core.records import Creator
    from arrayhost.host.disk import Directory
    from arrayhost.memory.segments import Mapping

__all__ = ["ArrayReferent", "ObjectReferent", "Operand", "Store"]

log = logging.getLogger(__name__)

# Kept operands, so that a handle that comes again need not be decoded: of all arrays, of one array, and the longest
# handle. A client may send any number of handles of one array, each of any length, in any spelling.
_MAX_KEPT_OPERANDS = 4096
_MAX_KEPT_VIEWS = 64
_MAX_KEPT_HANDLE_BYTES = 1024
# Rows never used take no memory: the table is a sparse file of 128 MiB.
N_SLOTS = 1 << 20


class ArrayReferent:
    """One hosted array: the owner of its segment.

    Attributes
    ----------
    attrs : dict
        What users noted about it; replaced, never changed in place.
    created : float
        Seconds since 1970.
    creator : Creator
    """

    __slots__ = ("attrs", "created", "creator", "guard", "ident", "layout", "mapping", "place", "snapshots", "views")

    def __init__(
        self, ident: int, guard: Guard, place: Place, layout: Layout, lock_timeout: float, creator: Creator
    ) -> None:
        self.ident = ident
        self.guard = guard
        self.place = place
        self.mapping = place.mapping
        self.layout = layout
        self.snapshots = LockedCopies(guard, lock_timeout)
        self.views: list[bytes] = []  # handles under which the store keeps operands of it
        self.attrs: dict[str, Any] = {}
        self.created = time.time()
        self.creator = creator

    def handle(self, layout: Layout) -> ArrayHandle:
        """The handle of one view of this array."""
        place = self.place
        return ArrayHandle(
            self.ident, self.guard.slot, self.guard.generation, place.segment.ident, place.start,
            self.mapping.n_bytes, layout,
        )  # fmt: skip


class ObjectReferent:
    """One hosted object."""

    __slots__ = ("handle", "ident", "method_typeids", "serial", "value")

    def __init__(self, handle: ObjectHandle, value: Any, method_typeids: dict[str, str], *, serialize: bool) -> None:
        self.ident = handle.ident
        self.handle = handle
        self.value = value
        self.method_typeids = method_typeids
        self.serial = threading.RLock() if serialize else None


class Operand:
    """One view of a hosted array inside the host; what `evaluation.reading` calls an operand.

    Attributes
    ----------
    referent : ArrayReferent
    live : ndarray
        Read-only.
    layout : Layout
        Where it lies in its array's place.
    """

    __slots__ = ("_writer", "layout", "live", "referent")

    def __init__(self, referent: ArrayReferent, live: npt.NDArray[Any], layout: Layout) -> None:
        self.referent = referent
        self.live = live
        self.layout = layout
        self._writer: npt.NDArray[Any] | None = None

    @property
    def guard(self) -> Guard:
        r"""The array\'s guard."""
        return self.referent.guard

    @property
    def mapping(self) -> Mapping:
        r"""The host\'s mapping of the array\'s place."""
        return self.referent.mapping

    @property
    def writer(self) -> npt.NDArray[Any]:
        """The view, writeable where NumPy's own would be."""
        if self._writer is None:
            self._writer = view_of(self.referent.mapping.writer, self.layout)
        return self._writer

    @property
    def is_whole(self) -> bool:
        """Whether the view shows every element of its array."""
        return self.layout.nbytes == self.referent.layout.nbytes

    def locked_copies(self, views: Sequence[Operand]) -> list[npt.NDArray[Any]]:
        """Copy views of this array under one hold of the shared lock, as soon as writers leave room for it."""
        return self.referent.snapshots.copies(views)

    def viewed(self, view: npt.NDArray[Any]) -> Operand:
        """Wrap a view of the same memory; the operand is writeable as `view` is."""
        layout = layout_of(view, self.referent.mapping)
        return Operand(self.referent, view_of(self.referent.mapping.reader, layout), layout)

    def handle(self) -> ArrayHandle:
        """The view's handle."""
        return self.referent.handle(self.layout)


class Store:
    """Everything a host owns.

    Parameters
    ----------
    handle_grace : float
        Seconds that a referent survives its last lease after a handle of it was pickled.
    max_bytes : int, optional
        Bound on all arrays together.
    lock_timeout : float
        Seconds that a consistent copy waits for a section to end.
    huge_pages : bool
        Put large arrays on huge pages where the kernel can.
    disk : Directory, optional
        Where named arrays are files; the store closes it.

    Notes
    -----
    Safety: any thread; one lock, held for bookkeeping only, never while memory is filled or a lock is waited for.
    """

    def __init__(
        self,
        handle_grace: float = 60.0,
        max_bytes: int | None = None,
        lock_timeout: float = 60.0,
        *,
        huge_pages: bool = True,
        disk: Directory | None = None,
    ) -> None:
        self.lock_timeout = lock_timeout
        self.lock = threading.RLock()
        self.leases = LeaseTable(handle_grace)
        self.places = Places(max_bytes, huge_pages=huge_pages)
        self.disk = disk
        self.control_fd, self.table = ControlTable.create(N_SLOTS) if disk is None else disk.create_table()
        self.files = create_lock_files()
        self.started = time.time()
        self.names = NameTable(self)
        self._arrays: dict[int, ArrayReferent] = {}
        self._objects: dict[int, ObjectReferent] = {}
        self._operands: dict[bytes, Operand] = {}
        self._next_ident = 1
        self._n_slots = 0
        self._free_slots: list[int] = []
        # Freed arrays on which somebody is still inside a section: their row and their place stay until that ends.
        self._lingering: list[ArrayReferent] = []

    # -- referents -----------------------------------------------------------------------------------------------

    def add_array(self, place: Place, layout: Layout, holder: Hashable) -> Operand:
        """Take a place over and lease its array to `holder`; the place is the store's from here on, come what may."""
        try:
            with self.lock:
                ident = self._new_ident()
                guard = self._new_guard(ident)
                creator = current_client()
                referent = ArrayReferent(ident, guard, place, layout, self.lock_timeout, creator)
                self._arrays[ident] = referent
                self.leases.add(ident, place.segment.ident)
                self.leases.grant(ident, holder)
        except BaseException:
            self.places.discard(place)
            raise
        log.info("array %d created: %s %s for process %d", ident, layout.dtype, layout.shape, creator.pid)
        return self.operand(referent, layout)

    def add_object(
        self,
        value: Any,
        typeid: str,
        methods: tuple[str, ...],
        holder: Hashable,
        *,
        attributes: bool,
        method_typeids: dict[str, str],
        serialize: bool,
    ) -> ObjectReferent:
        """Host an object and lease it to `holder`."""
        with self.lock:
            handle = ObjectHandle(self._new_ident(), typeid, methods, attributes)
            referent = ObjectReferent(handle, value, method_typeids, serialize=serialize)
            self._objects[handle.ident] = referent
            self.leases.add(handle.ident)
            self.leases.grant(handle.ident, holder)
            return referent

    def operand(self, referent: ArrayReferent, layout: Layout) -> Operand:
        """Make the operand of one view."""
        return Operand(referent, view_of(referent.mapping.reader, layout), layout)

    def find_array(self, handle: ArrayHandle) -> Operand:
        """Return the view that a handle names.

        Raises
        ------
        StaleProxyError
            The array has been freed.
        """
        referent = self._arrays.get(handle.ident)
        if referent is None or referent.guard.generation != handle.generation:
            raise StaleProxyError(
                f"array {handle.ident} of shape {handle.layout.shape} is not hosted any more: its last lease and the "
                "grace of its handles ended; create it again, or give it a name so that it stays"
            )
        handle.layout.check(referent.mapping.n_bytes)
        if handle.layout.nbytes and not referent.layout.nbytes:
            # Its place is a few bytes all the same: of a file, those of the header.
            raise ProtocolError(f"a view of {handle.layout.nbytes} bytes of an array that has none")
        return self.operand(referent, handle.layout)

    def find_packed(self, packed: bytes) -> Operand:
        """As `find_array`, for a handle as it travels; the operand is kept for the next time.

        Raises
        ------
        StaleProxyError, ProtocolError
        """
        operand = self._operands.get(packed)
        if operand is None:
            operand = self.find_array(unpack_handle(packed))
            if len(packed) <= _MAX_KEPT_HANDLE_BYTES:
                self._keep_operand(packed, operand)
        return operand

    def _keep_operand(self, packed: bytes, operand: Operand) -> None:
        with self.lock:
            referent = operand.referent
            if referent.ident not in self._arrays or packed in self._operands:
                return
            if len(self._operands) >= _MAX_KEPT_OPERANDS:
                for kept in self._operands.values():
                    kept.referent.views.clear()
                self._operands.clear()
            if len(referent.views) >= _MAX_KEPT_VIEWS:
                self._forget_operands(referent)
            self._operands[packed] = operand
            referent.views.append(packed)

    def _forget_operands(self, referent: ArrayReferent) -> None:
        for packed in referent.views:
            self._operands.pop(packed, None)
        referent.views.clear()

    def find_object(self, ident: int) -> ObjectReferent:
        """Return a hosted object.

        Raises
        ------
        StaleProxyError
            It has been freed.
        """
        try:
            return self._objects[ident]
        except KeyError:
            raise StaleProxyError(
                f"object {ident} is not hosted any more: its last lease and the grace of its handles ended"
            ) from None

    # -- leases --------------------------------------------------------------------------------------------------

    def grant(self, ident: int, holder: Hashable) -> None:
        """Lease a referent.

        Raises
        ------
        StaleProxyError
            It has been freed.
        """
        with self.lock:
            try:
                self.leases.grant(ident, holder)
            except KeyError:
                raise StaleProxyError(f"referent {ident} is not hosted any more") from None

    def release(self, ident: int, holder: Hashable, count: int = 1) -> None:
        """Take leases back, and free what nobody holds any more."""
        with self.lock:
            free = [ident] if self.leases.release(ident, holder, count, time.monotonic()) else []
        self._free(free)

    def drop_holder(self, holder: Hashable) -> None:
        """End all leases of a holder that is gone."""
        with self.lock:
            free = self.leases.drop_holder(holder, time.monotonic())
        self._free(free)

    def written_by(self, holder: Hashable, pid: int) -> list[int]:
        """List the arrays of a holder that a process is writing, or was writing when it ended."""
        with self.lock:
            found = [self._arrays[ident] for ident in self.leases.holdings(holder) if ident in self._arrays]
        return [array.ident for array in found if array.guard.is_written_by(pid)]

    def judge_writer(self, ident: int, pid: int) -> bool:
        """Mark an array as torn if the process that was writing it is dead; False if its lock is still held."""
        array = self._arrays.get(ident)
        if array is None or not array.guard.is_written_by(pid):
            return True
        is_torn = array.guard.judge_writer()
        if is_torn:
            log.warning("array %d is torn: process %d died while it wrote", ident, pid)
        return is_torn is not None

    def expire(self) -> float | None:
        """Free what outlived its grace; return when (monotonic seconds) to look again."""
        with self.lock:
            free = self.leases.expire(time.monotonic())
        self._free(free)
        with self.lock:
            return self.leases.next_expiry()

    def _free(self, idents: Iterable[int]) -> None:
        for ident in idents:
            with self.lock:
                self.leases.forget(ident)
                array = self._arrays.pop(ident, None)
                value = self._objects.pop(ident, None)
                if array is not None:
                    self._forget_operands(array)
                    self._retire(array)
            if array is not None:
                log.info("array %d freed", ident)
            # Outside of the lock: the object's own finalizers may run, and they may use the host.
            del value, array
        self.places.collect()

    # -- rows of the control table -------------------------------------------------------------------------------

    def _new_ident(self) -> int:
        ident = self._next_ident
        self._next_ident += 1
        return ident

    def _new_guard(self, generation: int) -> Guard:
        if self._lingering:
            self._lingering = [array for array in self._lingering if not self._try_retire(array.guard)]
        if self._free_slots:
            slot = self._free_slots.pop()
        elif self._n_slots < self.table.n_slots:
            slot = self._n_slots
            self._n_slots += 1
        else:
            raise HostMemoryError(ROW_WORDS * 8, 0, f"the control table ({self.table.n_slots} arrays)")
        base = slot * ROW_WORDS
        self.table.words[base + WRITER_PID] = 0
        self.table.words[base + GENERATION] = generation
        return Guard(self.table, self.files, slot, generation)

    def _retire(self, array: ArrayReferent) -> None:
        self.places.discard(array.place)
        if not self._try_retire(array.guard):
            self._lingering.append(array)

    def _try_retire(self, guard: Guard) -> bool:
        """Take an array's row back, if nobody is inside a section on it any more."""
        hold = Hold(guard, None, EXCLUSIVE)
        try:
            file = hold.file = self.files.take(guard.slot)
            if not try_lock(file.fd, guard.exclusive_bytes):
                return False
            words, base = self.table.words, guard.base
            words[base + GENERATION] = 0
            words[base + TORN] = words[base + TORN_PID] = 0
            # Changed in any case: whoever reads the memory at this moment, which may soon be another array's, or knows
            # the old version to be good, looks at the version afterwards.
            words[base + VERSION] += 2 - (words[base + VERSION] & 1)
            guard.wake()
            words[base + WATCHED] = 0
        finally:
            hold.free()
        self._free_slots.append(guard.slot)
        return True

    # -- facts ---------------------------------------------------------------------------------------------------

    def statistics(self, *, n_sessions: int, n_connections: int, n_requests: int) -> HostStatistics:
        """Describe the store."""
        with self.lock:
            return HostStatistics(
                pid=os.getpid(),
                n_arrays=len(self._arrays),
                n_objects=len(self._objects),
                n_bytes=self.places.n_bytes,
                n_names=len(self.names),
                n_leases=len(self.leases),
                n_sessions=n_sessions,
                n_connections=n_connections,
                n_slots=self._n_slots - len(self._free_slots),
                n_requests=n_requests,
                max_bytes=self.places.max_bytes,
                started=self.started,
            )

    def arrays(self) -> list[ArrayReferent]:
        """Every array, in the order of creation."""
        with self.lock:
            return list(self._arrays.values())

    def describe_objects(self) -> str:
        """One line for each referent, as the stdlib's ``_debug_info``."""
        with self.lock:
            lines = [
                f"  {ident}: {referent.layout.dtype} {referent.layout.shape}, leases {len(self.leases.holders(ident))}"
                for ident, referent in self._arrays.items()
            ]
            lines += [
                f"  {ident}: {referent.handle.typeid} {type(referent.value).__qualname__}, "
                f"leases {len(self.leases.holders(ident))}"
                for ident, referent in self._objects.items()
            ]
        return "\n".join(lines)

    def close(self) -> None:
        """Give everything back; for a host that ends while its process goes on."""
        with self.lock:
            arrays, self._arrays = list(self._arrays.values()), {}
            objects, self._objects = self._objects, {}
            self.names.clear()
            for array in [*arrays, *self._lingering]:
                array.place.segment.close()
            self.places.close()
            if self.disk is not None:
                self.disk.close()
            os.close(self.control_fd)
        del objects
