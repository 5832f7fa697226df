"""`UnmappedArray`: a proxy that knows where the array lies and asks the host for everything else.

It is what ``a.on_host`` gives, and all that a client has whose link cannot pass memory. Facts come from the layout,
basic indices are worked out on it, and every other operation is one request. Inside a section of the caller's own it
works on the mapped memory, as the host would wait for the section to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client import session as sessions
from arrayhost.client.array import HostedArray
from arrayhost.client.evaluating import evaluate, evaluate_in_host
from arrayhost.client.links import ways_of
from arrayhost.evaluation.hosted import state
from arrayhost.evaluation.operations import HOSTED, METHOD, OPERATOR, Operation
from arrayhost.memory.filling import layout_of, view_of
from arrayhost.wire.codec import pack_handle, unpack_handle
from arrayhost.wire.hello import READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from arrayhost.client.links import Source
    from arrayhost.core.layout import Layout

__all__ = ["UnmappedArray"]

_COPY = Operation(METHOD, "copy")
_GET_ITEM = Operation(OPERATOR, "getitem")
_STATE = Operation(HOSTED, "state")


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

        Who writes to what `numpy.asarray` returns means the array, which a copy would leave as it is.
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
            return private.astype(dtype)
        private.flags.writeable = bool(copy)
        return private

    def _state(self) -> list[Any]:
        if self._source.hold() is not None:
            return state(self)
        row: list[Any] = evaluate_in_host(_STATE, (self,), {})
        return row

    def __reduce__(self) -> tuple[Any, ...]:
        self._source.export()
        link = self._source.link
        packed = pack_handle(self._source.handle_for(self._layout))
        return _from_handle, (link.address, link.host_id, packed, *ways_of(link))


# As for `MappedArray`.
UnmappedArray.__name__ = HostedArray.__name__


def _from_handle(
    address: str, host_id: bytes, packed: bytes, mode: str = READ_WRITE, elsewhere: tuple[str, ...] = ()
) -> UnmappedArray:
    """Unpickle: find or make the way to the host, and lease the array."""
    link: Any = sessions.find_link(address, host_id, mode=mode, elsewhere=elsewhere)
    return UnmappedArray.of(link.attach(packed), unpack_handle(packed).layout)
