"""`MappedArray`: a proxy that reads the array where this process has mapped it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.attributing import call_for_caller
from arrayhost.client.evaluating import evaluate
from arrayhost.client.links import MappedSource
from arrayhost.client.passing import reduced, restored
from arrayhost.client.proxies import register_proxies
from arrayhost.client.returning import follow
from arrayhost.client.unmapped import UnmappedArray
from arrayhost.core.layout import Layout
from arrayhost.errors import HostGoneError
from arrayhost.evaluation.hosted import state
from arrayhost.evaluation.operations import OPERATOR, Operation, function_operation
from arrayhost.evaluation.reading import snapshot
from arrayhost.memory.control import VERSION
from arrayhost.memory.filling import layout_of, view_of
from arrayhost.sync.guards import OWNED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Source
    from arrayhost.sync.guards import Guard

__all__ = ["MappedArray", "proxy_of"]

_ndarray, _void = np.ndarray, np.void  # looked up once: `a[i]` is to cost little more than ndarray's
_PLAIN_INDEX = frozenset([int, slice, type(None), type(...), np.int64, np.intp])
_GET_ITEM = Operation(OPERATOR, "getitem")
_REPR = function_operation(np.array_repr)
_SMALL_BYTES = 16 * 1024  # copied in about the time that a look at the versions and settings takes otherwise


class MappedArray(HostedArray):
    """A proxy whose reads are evaluated in this process, on mapped memory."""

    __slots__ = ("_guard", "_is_small", "_row", "_view", "_writer")
    mapped = True

    _source: MappedSource
    _view: npt.NDArray[Any]
    _guard: Guard
    _row: memoryview
    _is_small: bool | None
    _writer: npt.NDArray[Any] | None

    # -- an operand of reads ---------------------------------------------------------------------------------------

    @property
    def guard(self) -> Guard:
        """The array's lock and sequence word in this process."""
        return self._guard

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

    def viewed(self, view: npt.NDArray[Any]) -> MappedArray:
        """Make the proxy of a view of the same memory, writeable as `view` is."""
        return self._with_layout(layout_of(view, self._source.mapping))

    def _with_layout(self, layout: Layout) -> MappedArray:
        return _new(self._source, view_of(self._source.mapping.reader, layout), layout)

    def _move(self, source: Source, layout: Layout) -> None:
        moved: Any = proxy_of(source, layout)
        for name in ("_source", "_view", "_guard", "_row", "_is_small", "_reference", "_writer", "_layout"):
            setattr(self, name, getattr(moved, name))

    def _become(self, other: HostedArray) -> None:
        super()._become(other)
        self._view, self._writer, self._is_small = other.live, None, None

    @property
    def on_host(self) -> UnmappedArray:
        """The same view, with every operation evaluated in the host."""
        return UnmappedArray.of(self._source, self.layout)

    def _part(self, view: npt.NDArray[Any]) -> MappedArray:
        """Make the proxy of a part of this view, writeable as this is."""
        layout = self._layout
        if layout is not None and not layout.writeable:
            return _new(self._source, view, layout_of(view, self._source.mapping))
        return _new(self._source, view, None)

    def locked_copies(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Copy views of this array under its shared lock, taken once, by the host. Cost: one round trip."""
        try:
            copies = self._source.link.snapshot(views)
        except HostGoneError:
            # Without a host nobody else judges what a dead writer left, so this process does.
            with self.read():
                return [view.live.copy("K") for view in views]
        return [copy if copy.flags.writeable else copy.copy("K") for copy in copies]

    # -- items -----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        kind = type(index)
        if kind in _PLAIN_INDEX or (kind is tuple and _PLAIN_INDEX.issuperset(map(type, index))):
            row, guard = self._row, self._guard
            version = row[VERSION]
            if version == guard.good or guard.certify(version):
                result = self._view[index]
                kind = type(result)
                if kind is _ndarray:
                    return self._part(result)
                if kind is _void:
                    result = result.copy()
                if row[VERSION] == version:
                    return result
        return evaluate(_GET_ITEM, (self, index), {})

    def _shows_same(self, index: Any, other: HostedArray) -> bool:
        if not (type(index) in _PLAIN_INDEX or (type(index) is tuple and _PLAIN_INDEX.issuperset(map(type, index)))):
            return False
        mine = self._view[index]
        theirs = other.live
        return (
            type(mine) is np.ndarray
            and mine.__array_interface__["data"] == theirs.__array_interface__["data"]
            and mine.shape == theirs.shape
            and mine.strides == theirs.strides
            and mine.dtype == theirs.dtype
        )

    def _iterated(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self._view)))

    # -- copies and state ------------------------------------------------------------------------------------------

    def __array__(  # type: ignore[override]  # takes dtype by name, too
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if dtype is not None and np.dtype(dtype) != self._view.dtype:
            if copy is False:
                raise ValueError(
                    "Unable to avoid copy while creating an array as requested: the hosted array's dtype is "
                    f"{self._view.dtype} and {np.dtype(dtype)} was asked for"
                )
            converted: npt.NDArray[Any] = call_for_caller(self._private_copy().astype, dtype, copy=False)
            return converted
        if copy:
            return self._private_copy()
        guard = self._source.guard
        if guard.exclusive is None or guard.stamp() != OWNED:
            guard.check_current()
            guard.check_whole()
        return self._view.view()

    def _steady(self) -> npt.NDArray[Any] | None:
        view, is_small = self._view, self._is_small
        if is_small is None:
            # Only where the copy has the view's strides: the order of additions, and so the last bit, depends on them.
            self._is_small = is_small = view.nbytes <= _SMALL_BYTES and view.flags.forc
        if not is_small:
            return None
        row, guard = self._row, self._guard
        version = row[VERSION]
        if version == guard.good or guard.certify(version):
            copy = view.copy("K")
            if row[VERSION] == version:
                return copy
        return None

    def __str__(self) -> str:
        # Of a large array a few elements are shown, so that a copy of all would be a waste.
        return str(evaluate(_REPR, (self,), {}))

    def _private_copy(self) -> npt.NDArray[Any]:
        follow(self)
        copy = self._steady()
        return snapshot(self) if copy is None else copy

    @property
    def version(self) -> int:
        """Grows with each completed write to the array, through whatever view. Cost: no round trip."""
        return self._source.guard.version

    def _state(self) -> list[Any]:
        return state(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, _from_handle)


# What errors of Python's and NumPy's call it. Its qualified name is as it was: by that the class itself pickles.
MappedArray.__name__ = HostedArray.__name__


def _new(source: MappedSource, view: npt.NDArray[Any], layout: Layout | None) -> MappedArray:
    proxy = object.__new__(MappedArray)
    proxy._source = source
    proxy._view = view
    guard = source.guard
    proxy._guard = guard
    proxy._row = guard.row
    proxy._is_small = None
    proxy._reference = None
    proxy._writer = None
    proxy._layout = layout
    return proxy


def proxy_of(source: Source, layout: Layout) -> HostedArray:
    """Make the proxy of a view, given its place: mapped if the array is, and read-only if that is."""
    if isinstance(source, MappedSource):
        if layout.writeable and not source.mapping.is_writeable:
            layout = replace(layout, writeable=False)
        return _new(source, view_of(source.mapping.reader, layout), layout)
    return UnmappedArray.of(source, layout)


def _from_handle(*handle: Any) -> HostedArray:
    """Unpickle: find or make the way to the host, and map the array where that can be done."""
    proxy: Any = proxy_of(*restored(*handle))
    follow(proxy)
    return cast("HostedArray", proxy)


register_proxies(Layout, proxy_of, HostedArray, HostedArray.reference)
