"""`UnmappedArray`: a proxy that knows where the array lies and asks the host for everything else.

It is what ``a.on_host`` gives, and all that a client has whose link cannot pass memory. Facts come from the layout,
basic indices are worked out on it, and every other operation is one request. Inside a section of the caller's own it
works on the mapped memory, as the host would wait for the section to end.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.attributing import call_for_caller
from arrayhost.client.evaluating import evaluate, evaluate_in_host
from arrayhost.client.passing import reduced, restored
from arrayhost.client.returning import follow
from arrayhost.evaluation.hosted import state
from arrayhost.evaluation.operations import HOSTED, METHOD, OPERATOR, Operation
from arrayhost.memory.filling import layout_of, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Source
    from arrayhost.core.layout import Layout

__all__ = ["UnmappedArray"]

_COPY = Operation(METHOD, "copy")
_GET_ITEM = Operation(OPERATOR, "getitem")
_STATE = Operation(HOSTED, "state")
_ABOUT_MEMORY = (np.may_share_memory, np.shares_memory)
# What owns the memory of copies that `numpy.asarray` made and that are still in use, by its id: a reference that ends
# the entry, and which array of which host.
_stand_ins: dict[int, tuple[weakref.ref[npt.NDArray[Any]], tuple[bytes, int]]] = {}


def _stands_for(copy: npt.NDArray[Any], source: Source) -> None:
    """Note that a copy is taken for the array's memory as long as it is in use."""
    owner = _owner(copy)
    key = id(owner)
    _stand_ins[key] = weakref.ref(owner, lambda _: _stand_ins.pop(key, None)), (source.link.host_id, source.ident)


def _owner(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.base if isinstance(array.base, np.ndarray) else array


def _is_stand_in(*pair: Any) -> bool:
    """Whether one of two is a proxy, and the other a copy of its array, or a view of one."""
    for proxy, other in itertools.permutations(pair):
        if isinstance(proxy, UnmappedArray) and isinstance(other, np.ndarray):
            found = _stand_ins.get(id(_owner(other)))
            if found is not None and found[1] == (proxy._source.link.host_id, proxy._source.ident):
                return True
    return False


class UnmappedArray(HostedArray):
    """A proxy whose every operation is evaluated in the host.

    Notes
    -----
    Cost: one round trip an operation, none for facts and for views by basic indexing. Iterating over an array of one
    axis copies it once; with more axes it yields views. Safety: as `HostedArray`.
    """

    __slots__ = ()
    mapped = False
    _layout: Layout

    @classmethod
    def of(cls, source: Source, layout: Layout) -> UnmappedArray:
        """Make the proxy of a view."""
        proxy = object.__new__(cls)
        proxy._source = source
        proxy._layout = layout
        proxy._reference = None
        return proxy

    @property
    def layout(self) -> Layout:
        """Where the view lies in its segment."""
        return self._layout

    @property
    def on_host(self) -> HostedArray:
        """The proxy itself: it is one."""
        return self

    def _move(self, source: Source, layout: Layout) -> None:
        self._source, self._layout, self._reference = source, layout, None

    def _with_layout(self, layout: Layout) -> UnmappedArray:
        return UnmappedArray.of(self._source, layout)

    # -- an operand, inside a section of the caller's own ----------------------------------------------------------

    @property
    def live(self) -> npt.NDArray[Any]:
        """The memory itself, read-only."""
        return view_of(self.mapping.reader, self._layout)

    @property
    def writer(self) -> npt.NDArray[Any]:
        """The memory itself, writeable where NumPy's own view would be."""
        return view_of(self.mapping.writer, self._layout)

    def viewed(self, view: npt.NDArray[Any]) -> UnmappedArray:
        """Make the proxy of a view of the same memory."""
        return self._with_layout(layout_of(view, self.mapping))

    def locked_copies(self, views: Sequence[Any]) -> list[npt.NDArray[Any]]:
        """Copy views of this array under its shared lock, taken once, by the host. Cost: one round trip."""
        return self._source.link.snapshot(views)

    # -- elements --------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        part = self._layout.indexed(index)
        return evaluate(_GET_ITEM, (self, index), {}) if part is None else self._with_layout(part)

    def _shows_same(self, index: Any, other: HostedArray) -> bool:
        return self._layout.indexed(index) == other.layout

    def _iterated(self) -> Iterator[Any]:
        if len(self._layout.shape) == 1:
            return iter(self._private_copy())
        return (self[i] for i in range(self._layout.shape[0]))

    def _private_copy(self) -> npt.NDArray[Any]:
        copy: npt.NDArray[Any] = evaluate(_COPY, (self, "K"), {})
        return copy

    def __array__(  # type: ignore[override]  # takes dtype by name, too
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Copy into an ndarray of this process: read-only like the mapped memory, unless a copy was asked for.

        Who writes to what `numpy.asarray` returns means the array, which a copy would leave as it is. For the same
        reason `numpy.may_share_memory` says that such a copy shares the array's: who asks will copy before writing.
        Cost: one round trip.

        Raises
        ------
        ValueError
            ``copy=False``: the memory is not here.
        """
        if copy is False:
            raise ValueError(
                "Unable to avoid copy while creating an array as requested: this proxy is evaluated in the host, and "
                "its memory is not mapped here"
            )
        private = self._private_copy()
        if dtype is not None and np.dtype(dtype) != private.dtype:
            converted: npt.NDArray[Any] = call_for_caller(private.astype, dtype)
            return converted
        if not copy:
            private.flags.writeable = False
            _stands_for(private, self._source)
        return private

    def __array_function__(  # type: ignore[override]  # NumPy passes a tuple, whatever it declares
        self, func: Callable[..., Any], types: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func in _ABOUT_MEMORY and _is_stand_in(*args[:2]):
            return True
        return super().__array_function__(func, types, args, kwargs)

    def _state(self) -> list[Any]:
        if self._source.hold() is not None:
            return state(self)
        row: list[Any] = evaluate_in_host(_STATE, (self,), {})
        return row

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self, _from_handle)


# As for `MappedArray`.
UnmappedArray.__name__ = HostedArray.__name__


def _from_handle(*handle: Any) -> UnmappedArray:
    """Unpickle: find or make the way to the host."""
    proxy = UnmappedArray.of(*restored(*handle))
    follow(proxy)
    return proxy
