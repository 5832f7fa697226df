"""`HostedArray`: the proxy of a hosted array, or of a view of one; what all kinds of it have in common."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.atomic import Atomic
from arrayhost.client.attributes import Attributes
from arrayhost.client.changes import Changes, wait_for_change, wait_for_change_async
from arrayhost.client.dask_views import DaskSource, is_from_array
from arrayhost.client.declared import Declared, DTypeT, ShapeT
from arrayhost.client.evaluating import ArrayProxy, evaluate, evaluate_in_host, travelling
from arrayhost.client.returning import asked, follow, move_over
from arrayhost.client.steady import MISSED, steady_arguments, steady_ufunc
from arrayhost.client.untold import call, is_warning
from arrayhost.core.handles import Written
from arrayhost.core.records import ArrayStatistics
from arrayhost.errors import ArgumentEncodingError, HostGoneError, UnsupportedError, format_bytes
from arrayhost.evaluation.hosted import recover
from arrayhost.evaluation.operations import (
    GET,
    HOSTED,
    METHOD,
    OPERATOR,
    SET,
    Operation,
    function_operation,
    ufunc_operation,
)
from arrayhost.evaluation.tables import COMPUTING_FUNCTIONS, COMPUTING_VARIANTS
from arrayhost.evaluation.updates import apply_function
from arrayhost.memory.files import save_npy
from arrayhost.sync.sections import ArrayLock, ReadSection, SectionGroup, WriteSection
from arrayhost.wire.codec import array_reference, pack_handle

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Link
    from arrayhost.core.layout import Layout

__all__ = ["HostedArray", "locked"]

_GET_ITEM = Operation(OPERATOR, "getitem")
_SET_ITEM = Operation(OPERATOR, "setitem")
# Sent as they are.
_PLAIN = frozenset([int, float, complex, bool, str, bytes, type(None), type(...), np.ndarray, np.float64, np.int64])


class HostedArray(ArrayProxy, Declared[ShapeT, DTypeT]):
    """A proxy of an array that a host owns; use it as an ndarray.

    Made by a manager's methods, by indexing another proxy, or by unpickling one; not by calling the class.

    Notes
    -----
    *Views and values.* Where NumPy would return a view of the array, you get another proxy on the same memory; where
    it would compute, an ordinary ndarray or scalar of your own.

    *Reads and writes.* Reads are evaluated here, on mapped memory: no round trip, no lock, never a mix of two writes.
    Proxies without mapped memory, such as ``a.on_host``, have them evaluated in the host: one round trip.
    Writes are evaluated in the host, under the array's exclusive lock: one round trip, whole or not at all. Inside
    ``with a.write()`` the same thread's reads and writes go straight to the memory.

    *Not promised*: ``np.asarray(a)`` is the live memory, read-only, and changes under you; ``a[i] += 1`` on a scalar
    is a read and then a write (``a[i:i + 1] += 1`` is one atomic write).

    Safety: any thread; forked children go on using it; pickles to a handle of a few hundred bytes, which can be
    unpickled any number of times by any process of the same user on this machine.
    """

    __slots__ = ("_layout", "_pinned", "_reference")
    __hash__ = None  # as ndarray: mutable
    __array_priority__ = 1000.0

    _layout: Layout | None
    _reference: Any
    _pinned: list[Any]  # set by buffers.py

    def __init__(self) -> None:
        raise TypeError("HostedArray is made by a manager: manager.array(values), manager.ones(shape), ...")

    # -- what each kind has of its own -----------------------------------------------------------------------------

    @property
    def on_host(self) -> HostedArray:
        """The same view, with every operation evaluated in the host.

        Returns
        -------
        HostedArray
            Views of it are evaluated there, too; values come back by value.

        Notes
        -----
        Cost: none to make; one round trip for each operation, and the bytes of arguments and results that are not
        hosted. Worth it where a result is small and this process had better not read the memory.
        """
        raise NotImplementedError  # each kind's own

    def _with_layout(self, layout: Layout) -> HostedArray:
        """Make the proxy of another view of the same array, evaluated as this one is."""
        raise NotImplementedError  # each kind's own

    def _become(self, other: HostedArray) -> None:
        """Take the place of another proxy of the same kind and array."""
        self._layout, self._reference = other.layout, None

    def _shows_same(self, index: Any, other: HostedArray) -> bool:
        """Whether indexing with `index` gives exactly the view that `other` is."""
        raise NotImplementedError  # each kind's own

    def _state(self) -> list[Any]:
        """Return the fields of `ArrayStatistics`."""
        raise NotImplementedError  # each kind's own

    def reference(self, link: Link, *, by_value: bool) -> Any:
        """What stands for the array in a request to a host.

        Its handle; its values, read-only, where this thread holds its lock, because the host would wait for that. What
        another host owns goes by value if the request is evaluated, else by its pickle, for which None stands.
        """
        source = self._source
        if source.link.host_id != link.host_id:
            return self._private_copy() if by_value else None
        if source.hold() is not None:
            return self.live
        if self._reference is None:
            self._reference = array_reference(pack_handle(source.handle_for(self.layout)))
        return self._reference

    # -- items -----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError  # each kind's own

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, HostedArray) and value._source is self._source and self._shows_same(index, value):
            # The second half of a[2:4] += 1: the first has written already, as one atomic write.
            return
        if self._source.hold() is not None:
            evaluate(_SET_ITEM, (self, index, value), {})
            return
        if type(index) not in _PLAIN or type(value) not in _PLAIN:
            index, value = travelling(self, (index, value))
        try:
            self._source.link.set_item(self, index, value)
        except HostGoneError as error:
            if not error.nothing_sent or not move_over(self):
                raise
            self._source.link.set_item(self, index, value)
        except ArgumentEncodingError:
            if not self._source.link.is_remote:
                raise
            evaluate(_SET_ITEM, (self, index, value), {})

    def __len__(self) -> int:
        shape = self.layout.shape
        if not shape:
            raise TypeError("len() of unsized object")
        return shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.layout.shape:
            raise TypeError("iteration over a 0-d array")
        return self._iterated()

    def _iterated(self) -> Iterator[Any]:
        """Yield ``self[0]``, ``self[1]`` and so on."""
        raise NotImplementedError  # each kind's own

    # -- copies ----------------------------------------------------------------------------------------------------

    def __array__(  # type: ignore[override]  # takes dtype by name, too
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Convert to an ndarray.

        Parameters
        ----------
        dtype : dtype_like, optional
        copy : bool, optional
            None: the live memory, read-only, or a private copy if `dtype` needs one or this process has not mapped the
            array. True: a private copy. False: the live memory or ValueError.

        Notes
        -----
        The live memory is not protected: it changes while somebody writes. A copy is consistent.
        """
        raise NotImplementedError  # each kind's own

    def copy(self, order: str = "C") -> npt.NDArray[Any]:  # type: ignore[override]  # the copy is no proxy
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

        `dask.array.from_array`, which copies arrays before it looks at them, gets what it can slice later instead.
        """
        if self.evaluator is None and is_from_array(sys._getframe(1)):
            return DaskSource(self)  # type: ignore[return-value]  # Dask alone sees it
        private = self._private_copy()
        wanted: Any = order
        if order == "A":
            wanted = "F" if self.flags.fnc else "C"
        if (wanted == "C" and private.flags.c_contiguous) or (wanted == "F" and private.flags.f_contiguous):
            return private
        return private if wanted == "K" else private.copy(wanted)

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
            return evaluate_in_host(Operation(GET, str(args[0])), (self,), {})
        if methodname == "__setattr__":
            return evaluate_in_host(Operation(SET, str(args[0])), (self, *args[1:]), {})
        if methodname == "__getitem__":
            return evaluate_in_host(_GET_ITEM, (self, *args), {})
        if methodname in ("__repr__", "__str__"):
            return str(self) if methodname == "__repr__" else str(self._private_copy())
        if not hasattr(np.ndarray, methodname):
            raise AttributeError(f"'HostedArray' object has no attribute {methodname!r}")
        return evaluate_in_host(Operation(METHOD, methodname), (self, *args), dict(kwds or {}))

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
        if self._source.named is not None:
            follow(self, need_host=True)
        return WriteSection(self._source.reach().guard, self._writeable_view, self._timeout(timeout))

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
        if self._source.named is not None:
            follow(self)
        return ReadSection(self._source.reach().guard, self._readable_view, self._timeout(timeout))

    @staticmethod
    def _group(sections: list[WriteSection], timeout: float) -> SectionGroup[Any]:
        """Make one section of several."""
        return SectionGroup(sections, timeout)

    @property
    def lock(self) -> ArrayLock:
        """The array's exclusive lock, with the methods of `threading.Lock`; held across processes."""
        follow(self, need_host=True)
        return ArrayLock(self._source.reach().guard, self._source.link.lock_timeout)

    @property
    def version(self) -> int:
        """Grows with each completed write to the array, through whatever view. Cost: no round trip where mapped."""
        version: int = self._state()[2]
        return version

    def wait_changed(self, since: int | None = None, timeout: float | None = None) -> int:
        """Wait until somebody has written to the array.

        Parameters
        ----------
        since : int, optional
            The version that is known already; None is the present one.
        timeout : float, optional
            Seconds; None waits without end.

        Returns
        -------
        int
            The new version, at once if it is not `since`; `since` itself when the time is over.

        Raises
        ------
        StaleProxyError
            The array has been freed.

        Notes
        -----
        Writes by whomever count, through the host or in a section, once completed; also those to other views of the
        array. Sleeps until the writer wakes it, and looks by itself twice a second. That a writer died is noticed by
        the next one. Cost: no round trip where mapped, else one every two seconds. Safety: any thread; in an event loop
        use `wait_changed_async`.
        """
        return wait_for_change(self, self.version if since is None else since, self._wait_limit(timeout))

    async def wait_changed_async(self, since: int | None = None, timeout: float | None = None) -> int:
        """As `wait_changed`, for event loops: waits in a thread of its own, and can be cancelled."""
        return await wait_for_change_async(self, self.version if since is None else since, self._wait_limit(timeout))

    def changes(self, since: int | None = None, timeout: float | None = None) -> Changes:
        """Iterate over changes: ``for version in a.changes():`` or ``async for``.

        Parameters
        ----------
        since : int, optional
            The version that is known already; None is the present one.
        timeout : float, optional
            Seconds without a change after which the iteration ends; None goes on for ever.

        Returns
        -------
        Changes
            Yields the version after each change; changes that follow each other quickly may be one.
        """
        return Changes(self, self.version if since is None else since, self._wait_limit(timeout))

    @staticmethod
    def _wait_limit(timeout: float | None) -> float | None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout}: seconds, 0 or more, or None to wait without end")
        return timeout

    def recover(self, timeout: float | None = None) -> None:
        """Accept what a dead writer left: reads work again.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the lock.
        """
        limit = self._timeout(timeout)
        if self.mapped or self._source.hold() is not None:
            recover(self, limit)
        else:
            evaluate_in_host(Operation(HOSTED, "recover"), (self, limit), {})

    def statistics(self) -> ArrayStatistics:
        """Return the array's row of the control table. Cost: no round trip where mapped."""
        return ArrayStatistics(*self._state())

    @property
    def atomic(self) -> Atomic:
        """Updates of elements in one step: ``a.atomic.add(i, 1)``, ``.exchange``, ``.compare_exchange``."""
        return Atomic(self)

    def save(self, file: str | os.PathLike[str], timeout: float | None = None) -> Path:
        """Write the array to a file in NumPy's format, in one consistent state, whole or not at all.

        Parameters
        ----------
        file : path_like
            ``.npy`` is added where it is missing, as by `numpy.save`.
        timeout : float, optional
            Seconds to wait for the array's shared lock.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OSError
            There is no room for it, or the folder cannot be written to; an older file of that name is as it was.
        LockTimeoutError, TornArrayError

        Notes
        -----
        Cost: no round trip and no copy where mapped, else one of each; writers wait until it is written. It is written
        under a hidden name, made durable and renamed: whoever opens `file` finds the old one or the new one, also after
        a crash.
        """
        path = Path(file)
        if path.suffix != ".npy":
            path = path.with_name(path.name + ".npy")
        if not self.mapped:
            save_npy(path, self._private_copy())
            return path
        with self.read(timeout) as x:
            save_npy(path, x)
        return path

    def apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with the array in the host, under the array's exclusive lock.

        Parameters
        ----------
        function : callable
            Called there as ``function(x, *args, **kwargs)``, where `x` is an ndarray. It travels by reference if it can
            be imported, else (a lambda, a closure) by value, which needs cloudpickle. An object that it is bound to
            travels as a copy: ``a.apply(rng.shuffle)`` does not advance your `rng`, and would shuffle the same way the
            next time.
        *args, **kwargs
            Must pickle. Hosted arrays among them are proxies there, too.

        Returns
        -------
        object
            What the function returns, by value; this proxy if that is `x` itself.

        Raises
        ------
        Exception
            What the function raises, with the host's traceback as a note. The array is unchanged then.
        ArgumentEncodingError
            The function cannot be sent.

        Notes
        -----
        Cost: one round trip; the function works on a copy in the host, which is written back at the end. Consistency:
        others see the array from before the call or from after it. Inside ``with a.write()`` it runs here.

        Examples
        --------
        >>> a.apply(np.random.default_rng(7).shuffle)
        """
        limit = self._timeout(None)
        if self._source.hold() is not None:
            return apply_function(self, function, args, kwargs, limit)
        result = self._source.link.apply(self, function, args, kwargs, limit)
        return self if isinstance(result, Written) else result

    def blocks(self, n: int, axis: int = 0) -> list[HostedArray]:
        """Cut the array into views for a pool's workers, as `numpy.array_split` cuts.

        Parameters
        ----------
        n : int
            How many. If the axis does not divide, the first ones are longer by one; if it is short, the last are empty.
        axis : int

        Returns
        -------
        list of HostedArray
            Hosted views; each pickles to a handle.

        Raises
        ------
        ValueError
            `n` is not positive.
        AxisError

        Notes
        -----
        Cost: no round trip.
        """
        if n <= 0:
            raise ValueError("number sections must be larger than 0.")
        axis = np.lib.array_utils.normalize_axis_index(axis, len(self.layout.shape))
        length, longer = divmod(self.layout.shape[axis], n)
        bounds = [part * length + min(part, longer) for part in range(n + 1)]
        before = (slice(None),) * axis
        return [self[(*before, slice(start, stop))] for start, stop in itertools.pairwise(bounds)]

    @property
    def attrs(self) -> Attributes:
        """The array's attributes: a mapping of text to plain values, kept with the array in the host.

        One for the array and all its views. Assigning a mapping replaces them all. Cost: one round trip for each use.
        """
        return Attributes(self)

    @attrs.setter
    def attrs(self, values: Mapping[str, Any]) -> None:
        Attributes(self).replace(dict(values))

    def _attributes(self, changes: dict[str, Any], removed: tuple[str, ...], mode: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            source = self._source
            return source.link.attributes(source.handle_for(self.layout), changes, removed, mode)

        return asked((self,), ask)

    def _writeable_view(self) -> npt.NDArray[Any]:
        return self.writer.view()

    def _readable_view(self) -> npt.NDArray[Any]:
        return self.live.view()

    def _timeout(self, timeout: float | None) -> float:
        if timeout is None:
            return self._source.link.lock_timeout
        if timeout < 0:
            raise ValueError(f"timeout is {timeout}: seconds, 0 or more, or None for the host's default")
        return timeout

    # -- being an ndarray to everybody -------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and len(inputs) == 2 and not kwargs:
            result = steady_ufunc(ufunc, inputs)
            if result is not MISSED:
                return result
        elif method in COMPUTING_VARIANTS:
            values = steady_arguments(inputs, (), kwargs)
            if values is not None:
                try:
                    return call(getattr(ufunc, method), *values, **kwargs)
                except TypeError as error:
                    if not is_warning(error):
                        raise
        return evaluate(ufunc_operation(ufunc, method), inputs, kwargs)

    def __array_function__(  # type: ignore[override]  # NumPy passes a tuple, whatever it declares
        self, func: Callable[..., Any], types: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        operation = function_operation(func)
        if operation.name in COMPUTING_FUNCTIONS:
            values = steady_arguments(args[:1], args[1:], kwargs)
            if values is not None:
                try:
                    return call(func, *values, **kwargs)
                except TypeError as error:
                    if not is_warning(error):
                        raise
        return evaluate(operation, args, kwargs)

    def __str__(self) -> str:
        return repr(self._private_copy())

    def __repr__(self) -> str:
        layout = self.layout
        where = f"{'' if self.mapped else 'on host '}at {self._source.link.address}"
        return f"<HostedArray shape={layout.shape} dtype={layout.dtype} {format_bytes(layout.nbytes)} {where}>"

    def __format__(self, spec: str) -> str:
        return format(self._private_copy(), spec) if spec else str(self)


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
    if len({array.evaluator for array in arrays}) > 1:
        raise UnsupportedError("locked() takes arrays of hosts, or arrays of a cluster, but not of both")
    return arrays[0]._group([array.write(limit) for array in arrays], limit)
