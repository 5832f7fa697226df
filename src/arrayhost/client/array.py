"""`HostedArray`: the proxy of a hosted array, or of a view of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client import session as sessions
from arrayhost.core.handles import Written
from arrayhost.core.layout import Layout
from arrayhost.errors import HostGoneError, WouldDeadlock, format_bytes
from arrayhost.evaluation.operands import map_nested
from arrayhost.evaluation.operations import (
    GET,
    METHOD,
    OPERATOR,
    SET,
    Operation,
    apply,
    function_operation,
    ufunc_operation,
)
from arrayhost.evaluation.reading import evaluate_read, snapshot
from arrayhost.evaluation.tables import written_arguments
from arrayhost.memory.control import GENERATION, ORDERED_STORES, TORN, TORN_PID, VERSION
from arrayhost.memory.filling import layout_of, view_of
from arrayhost.sync.filelocks import EXCLUSIVE
from arrayhost.sync.guards import OWNED, current_owner
from arrayhost.sync.sections import ArrayLock, ReadSection, SectionGroup, WriteSection
from arrayhost.wire.codec import array_reference, pack_handle, unpack_handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Source
    from arrayhost.memory.segments import Mapping as SegmentMapping
    from arrayhost.sync.guards import Guard, Hold

__all__ = ["ArrayStatistics", "HostedArray", "locked"]

_PLAIN_INDEX = frozenset([int, slice, type(None), type(...), np.int64, np.intp])
_GET_ITEM = Operation(OPERATOR, "getitem")
_SET_ITEM = Operation(OPERATOR, "setitem")


@dataclass(frozen=True, slots=True)
class ArrayStatistics:
    """The state of a hosted array's row in the control table.

    Attributes
    ----------
    slot, generation : int
        The row, and which of its successive arrays this is.
    version : int
        Grows by 2 with each completed write.
    writing : bool
        Whether somebody writes at this moment.
    torn : bool
        Whether a writer died in mid-write.
    torn_pid : int
        That writer.
    writer_pid : int
        Who holds, or held last, the exclusive lock.
    """

    slot: int
    generation: int
    version: int
    writing: bool
    torn: bool
    torn_pid: int
    writer_pid: int


class HostedArray:
    """A proxy of an array that a host owns; use it as an ndarray.

    Made by a manager's methods, by indexing another proxy, or by unpickling one; not by calling the class.

    Notes
    -----
    *Views and values.* Where NumPy would return a view of the array, you get another proxy on the same memory; where
    it would compute, an ordinary ndarray or scalar of your own.

    *Reads and writes.* Reads are evaluated here, on mapped memory: no round trip, no lock, never a mix of two writes.
    Writes are evaluated in the host, under the array's exclusive lock: one round trip, whole or not at all. Inside
    ``with a.write()`` the same thread's reads and writes go straight to the memory.

    *Not promised*: ``np.asarray(a)`` is the live memory, read-only, and changes under you; ``a[i] += 1`` on a scalar
    is a read and then a write (``a[i:i + 1] += 1`` is one atomic write).

    Safety: any thread; forked children go on using it; pickles to a handle of a few hundred bytes, which can be
    unpickled any number of times by any process of the same user on this machine.
    """

    __slots__ = ("__weakref__", "_base", "_layout", "_reference", "_source", "_view", "_words", "_writer")
    __hash__ = None  # type: ignore[assignment]  # as ndarray: mutable
    __array_priority__ = 1000.0

    _source: Source
    _view: npt.NDArray[Any]
    _layout: Layout | None
    _reference: Any
    _words: memoryview
    _base: int
    _writer: npt.NDArray[Any] | None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Everything that ndarray has; see `arrayhost.client.surface`."""

    def __init__(self) -> None:
        raise TypeError("HostedArray is made by a manager: manager.array(values), manager.ones(shape), ...")

    # -- what the evaluator needs to know --------------------------------------------------------------------------

    @property
    def guard(self) -> Guard:
        """The array's lock and sequence word in this process."""
        return self._source.guard

    @property
    def mapping(self) -> SegmentMapping:
        """The mapping, in this process, of the array's segment."""
        return self._source.mapping

    @property
    def live(self) -> npt.NDArray[Any]:
        """The memory itself, as a read-only ndarray that changes when somebody writes."""
        return self._view

    @property
    def writer(self) -> npt.NDArray[Any]:
        """The memory itself, writeable where NumPy's own view would be. For this package's use, under a lock."""
        if self._writer is None:
            self._writer = view_of(self._source.mapping.writer, self.layout)
        return self._writer

    @property
    def layout(self) -> Layout:
        """Where the view lies in its segment."""
        if self._layout is None:
            # Left open only for parts of a writeable view, which are writeable themselves.
            self._layout = replace(layout_of(self._view, self._source.mapping), writeable=True)
        return self._layout

    def viewed(self, view: npt.NDArray[Any]) -> HostedArray:
        """Make the proxy of a view of the same memory, writeable as `view` is."""
        layout = layout_of(view, self._source.mapping)
        return _new(self._source, view_of(self._source.mapping.reader, layout), layout)

    def _part(self, view: npt.NDArray[Any]) -> HostedArray:
        """Make the proxy of a part of this view, writeable as this is."""
        layout = self._layout
        if layout is not None and not layout.writeable:
            return _new(self._source, view, layout_of(view, self._source.mapping))
        return _new(self._source, view, None)

    def locked_copy(self) -> npt.NDArray[Any]:
        """Copy the array under its shared lock, taken by the host. Cost: one round trip."""
        try:
            copy = self._source.link.snapshot(self)
        except HostGoneError:
            # Without a host nobody else judges what a dead writer left, so this process does.
            with self.read() as x:
                return x.copy("K")
        return copy if copy.flags.writeable else copy.copy("K")

    def reference(self) -> Any:
        """What stands for the array in a request: its handle, or its values where this thread holds its lock."""
        guard = self._source.guard
        if (guard.exclusive is not None or guard.shared) and guard.holds(current_owner()):
            # The host would wait for a lock that its caller holds.
            return self._view
        if self._reference is None:
            self._reference = array_reference(pack_handle(self._source.handle_for(self.layout)))
        return self._reference

    # -- items -----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        kind = type(index)
        if kind in _PLAIN_INDEX or (kind is tuple and _PLAIN_INDEX.issuperset(map(type, index))):
            words, base = self._words, self._base
            version = words[base + VERSION]
            if (
                not version & 1
                and ORDERED_STORES
                and not words[base + TORN]
                and words[base + GENERATION] == self._source.guard.generation
            ):
                result = self._view[index]
                if type(result) is np.ndarray:
                    return self._part(result)
                if type(result) is np.void:
                    result = result.copy()
                if words[base + VERSION] == version:
                    return result
        return evaluate_read(_GET_ITEM, (self, index), {}, _as_operand)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, HostedArray) and value._source is self._source and self._shows_same(index, value):
            # The second half of a[2:4] += 1: the first has written already, as one atomic write.
            return
        guard = self._source.guard
        if (guard.exclusive is not None or guard.shared) and guard.holds(current_owner()):
            evaluate(_SET_ITEM, (self, index, value), {})
            return
        self._source.link.set_item(self, index, value)

    def _shows_same(self, index: Any, other: HostedArray) -> bool:
        if not (type(index) in _PLAIN_INDEX or (type(index) is tuple and _PLAIN_INDEX.issuperset(map(type, index)))):
            return False
        mine = self._view[index]
        theirs = other._view
        return (
            type(mine) is np.ndarray
            and mine.__array_interface__["data"] == theirs.__array_interface__["data"]
            and mine.shape == theirs.shape
            and mine.strides == theirs.strides
            and mine.dtype == theirs.dtype
        )

    def __len__(self) -> int:
        return len(self._view)

    def __iter__(self) -> Iterator[Any]:
        if not self._view.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._view)))

    # -- copies ----------------------------------------------------------------------------------------------------

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Convert to an ndarray.

        Parameters
        ----------
        dtype : dtype_like, optional
        copy : bool, optional
            None: the live memory, read-only, or a copy if `dtype` needs one. True: a private copy. False: the live
            memory or ValueError.

        Notes
        -----
        The live memory is not protected: it changes while somebody writes. A copy is consistent.
        """
        if dtype is not None and np.dtype(dtype) != self._view.dtype:
            if copy is False:
                raise ValueError(
                    "Unable to avoid copy while creating an array as requested: the hosted array's dtype is "
                    f"{self._view.dtype} and {np.dtype(dtype)} was asked for"
                )
            return self._private_copy().astype(dtype, copy=False)
        if copy:
            return self._private_copy()
        guard = self._source.guard
        if guard.exclusive is None or guard.stamp() != OWNED:
            guard.check_current()
            guard.check_whole()
        return self._view.view()

    def copy(self, order: str = "C") -> npt.NDArray[Any]:
        """Copy the array into this process's own memory.

        Parameters
        ----------
        order : {"C", "F", "A", "K"}
            As for `numpy.ndarray.copy`.

        Returns
        -------
        ndarray of the same shape and dtype
            Yours: writing to it reaches nobody.

        Raises
        ------
        TornArrayError
            A writer died in mid-write.

        Notes
        -----
        Cost: no round trip, one copy; where somebody writes all the time, one round trip and the host's copy.
        Consistency: never a mix of two writes.
        """
        private = self._private_copy()
        wanted: Any = order
        if (order == "C" and private.flags.c_contiguous) or (order == "F" and private.flags.f_contiguous):
            return private
        return private if order in ("K", "A") else private.copy(wanted)

    def _private_copy(self) -> npt.NDArray[Any]:
        return snapshot(self)

    def _getvalue(self) -> npt.NDArray[Any]:
        """Return a consistent private copy, as `multiprocessing.managers.BaseProxy` does."""
        return self._private_copy()

    def _callmethod(self, methodname: str, args: Sequence[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Evaluate a method, also a special one, in the host.

        Parameters
        ----------
        methodname : str
            Any method of ndarray; ``__getattr__`` reads an attribute.
        args, kwds
            Its arguments; proxies may stand among them.

        Notes
        -----
        Cost: one round trip. Views come back as proxies, values by value.
        """
        if methodname in ("__getattr__", "__getattribute__"):
            return _in_host(Operation(GET, str(args[0])), (self,), {})
        if methodname == "__setattr__":
            return _in_host(Operation(SET, str(args[0])), (self, *args[1:]), {})
        if methodname == "__getitem__":
            return _in_host(_GET_ITEM, (self, *args), {})
        if methodname in ("__repr__", "__str__"):
            return str(self) if methodname == "__repr__" else str(self._private_copy())
        if not hasattr(np.ndarray, methodname):
            raise AttributeError(f"'HostedArray' object has no attribute {methodname!r}")
        return _in_host(Operation(METHOD, methodname), (self, *args), dict(kwds or {}))

    # -- sections and state ----------------------------------------------------------------------------------------

    def write(self, timeout: float | None = None) -> WriteSection:
        """Open a section of exclusive, direct access: ``with a.write() as x:``.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the lock; None waits as long as the host's ``lock_timeout`` (60 s).

        Returns
        -------
        WriteSection
            Its ``with`` target is a writeable ndarray of the memory itself; ``async with`` works too.

        Raises
        ------
        LockTimeoutError
            On entry: somebody else holds the lock; the error names the process.
        WouldDeadlock
            On entry: this thread is inside ``a.read()``.
        TornArrayWarning
            On entry, as a warning: the last writer died in mid-write.

        Notes
        -----
        Cost: no round trip. Readers elsewhere wait for the section's end, or get the values from before it.
        """
        return WriteSection(self._source.guard, self._writeable_view, self._timeout(timeout))

    def read(self, timeout: float | None = None) -> ReadSection:
        """Open a section of shared, direct access: ``with a.read() as x:``; nobody writes until it ends.

        Parameters
        ----------
        timeout : float, optional
            Seconds; as for `write`.

        Returns
        -------
        ReadSection
            Its ``with`` target is a read-only ndarray of the memory itself.

        Raises
        ------
        LockTimeoutError, TornArrayError
            On entry.

        Notes
        -----
        Cost: no round trip. Only needed for several reads that must agree: a single one is consistent by itself.
        """
        return ReadSection(self._source.guard, self._view.view, self._timeout(timeout))

    @property
    def lock(self) -> ArrayLock:
        """The array's exclusive lock, with the methods of `threading.Lock`; held across processes."""
        return ArrayLock(self._source.guard, self._source.link.lock_timeout)

    @property
    def version(self) -> int:
        """Grows with each completed write to the array, through whatever view. Cost: no round trip."""
        return self._source.guard.version

    def recover(self, timeout: float | None = None) -> None:
        """Accept what a dead writer left: reads work again.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the lock.
        """
        guard = self._source.guard
        hold = guard.acquire(EXCLUSIVE, self._timeout(timeout), "exclusive lock")
        try:
            guard.mend()
        finally:
            hold.release()

    def statistics(self) -> ArrayStatistics:
        """Return the array's row of the control table. Cost: no round trip."""
        guard = self._source.guard
        words, base = guard.words, guard.base
        return ArrayStatistics(
            slot=guard.slot,
            generation=guard.generation,
            version=guard.version,
            writing=bool(words[base + VERSION] & 1),
            torn=guard.torn,
            torn_pid=words[base + TORN_PID],
            writer_pid=guard.writer_pid,
        )

    def _writeable_view(self) -> npt.NDArray[Any]:
        return self.writer.view()

    def _timeout(self, timeout: float | None) -> float:
        if timeout is None:
            return self._source.link.lock_timeout
        if timeout < 0:
            raise ValueError(f"timeout is {timeout}: seconds, 0 or more, or None for the host's default")
        return timeout

    # -- being an ndarray to everybody -------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return evaluate(ufunc_operation(ufunc, method), inputs, kwargs)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        return evaluate(function_operation(func), args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        source.export()
        packed = pack_handle(source.handle_for(self.layout))
        return _from_handle, (source.link.address, source.link.host_id, packed)

    def __str__(self) -> str:
        return repr(self._private_copy())

    def __repr__(self) -> str:
        view = self._view
        return (
            f"<HostedArray shape={view.shape} dtype={view.dtype} {format_bytes(view.nbytes)} "
            f"at {self._source.link.address}>"
        )

    def __format__(self, spec: str) -> str:
        return format(self._private_copy(), spec) if spec else str(self)


# -- evaluation -----------------------------------------------------------------------------------------------------


def evaluate(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate an operation on proxies: reads here, writes in the host.

    Returns
    -------
    object
        What NumPy returns: views of hosted memory as proxies, targets of a write as the proxies that were passed.
    """
    targets = [target for target in written_arguments(operation, args, kwargs) if isinstance(target, HostedArray)]
    if not targets:
        return evaluate_read(operation, args, kwargs, _as_operand)
    owner = current_owner()
    holds = [target.guard.holds(owner) for target in targets]
    if any(holds):
        return _write_direct(operation, args, kwargs, targets, holds)
    result = targets[0]._source.link.evaluate(operation, args, kwargs)
    return map_nested(result, lambda leaf: targets[leaf.number] if isinstance(leaf, Written) else leaf)


def _write_direct(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    targets: list[HostedArray],
    holds: Sequence[Hold | None],
) -> Any:
    """Write to arrays whose lock this thread holds."""
    if not all(hold is not None and hold.mode == EXCLUSIVE for hold in holds):
        raise WouldDeadlock(
            "this thread is inside a.read() on an array that is to be written, or holds only some of the arrays: "
            "open a.write(), or arrayhost.locked(a, b, ...) for all of them"
        )
    memory: dict[int, Any] = {id(target): target.writer for target in targets}

    def substitute(leaf: Any) -> Any:
        if not isinstance(leaf, HostedArray):
            return leaf
        if id(leaf) not in memory:
            memory[id(leaf)] = leaf.live if leaf.guard.stamp() == OWNED else snapshot(leaf)
        return memory[id(leaf)]

    real_args = [map_nested(arg, substitute) for arg in args]
    real_kwargs = {key: map_nested(arg, substitute) for key, arg in kwargs.items()}
    begun: list[Hold] = []
    try:
        for hold in holds:
            if hold is not None:
                hold.begin_write()
                begun.append(hold)
        result = apply(operation, real_args, real_kwargs)
    finally:
        for hold in begun:
            hold.end_write()
    for target in targets:
        if result is memory[id(target)]:
            return target
    return result


def _in_host(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate in the host whatever it is, unless this thread holds a lock that the host would wait for."""
    proxy = args[0]
    targets = [target for target in written_arguments(operation, args, kwargs) if isinstance(target, HostedArray)]
    if proxy.guard.holds(current_owner()):
        return evaluate(operation, args, kwargs)
    result = proxy._source.link.evaluate(operation, args, kwargs)
    return map_nested(result, lambda leaf: targets[leaf.number] if isinstance(leaf, Written) else leaf)


def _as_operand(leaf: Any) -> HostedArray | None:
    return leaf if isinstance(leaf, HostedArray) else None


def locked(*arrays: HostedArray, timeout: float | None = None) -> SectionGroup[Any]:
    """Open exclusive sections on several arrays at once: ``with locked(a, b) as (x, y):``.

    Parameters
    ----------
    *arrays : HostedArray
        Of one host or of several; views count as their arrays.
    timeout : float, optional
        Seconds to wait for all locks together.

    Notes
    -----
    Locks are taken in one order by everybody, so that two such groups never wait for each other.
    Cost: no round trip.
    """
    if not arrays:
        raise TypeError("locked() needs at least one hosted array")
    for array in arrays:
        if not isinstance(array, HostedArray):
            raise TypeError(f"locked() takes hosted arrays, not a {type(array).__name__}")
    limit = max(array._timeout(timeout) for array in arrays)
    return SectionGroup([array.write(limit) for array in arrays], limit)


# -- making proxies ---------------------------------------------------------------------------------------------------


def _new(source: Source, view: npt.NDArray[Any], layout: Layout | None) -> HostedArray:
    proxy = object.__new__(HostedArray)
    proxy._source = source
    proxy._view = view
    guard = source.guard
    proxy._words = guard.words
    proxy._base = guard.base
    proxy._reference = None
    proxy._writer = None
    proxy._layout = layout
    return proxy


def proxy_of(source: Source, layout: Layout) -> HostedArray:
    """Make the proxy of a view, given its place."""
    return _new(source, view_of(source.mapping.reader, layout), layout)


def _from_handle(address: str, host_id: bytes, packed: bytes) -> HostedArray:
    """Unpickle: find or make the way to the host, and map the array."""
    link: Any = sessions.find_link(address, host_id)
    return proxy_of(link.attach(packed), unpack_handle(packed).layout)


sessions.register_proxies(Layout, proxy_of, HostedArray, HostedArray.reference)
