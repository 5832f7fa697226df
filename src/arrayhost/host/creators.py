"""What makes new hosted arrays: constants written straight into their place, adopted buffers, copied results."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.layout import Layout
from arrayhost.host.places import PACKED_BELOW, Place, Places
from arrayhost.memory.filling import copied, filled, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["CONSTANTS", "Made", "host_copy"]

# A new array's memory, and where in it the array lies.
Made = tuple[Place, Layout]


def host_copy(
    array: npt.NDArray[Any], attachments: Sequence[npt.NDArray[np.uint8]], fds: Sequence[int], places: Places
) -> Made:
    """Give an ndarray a place: the caller's own segment if a large array came as an attachment, else a copy.

    A client writes a large array into a sealed memory file and passes that; it becomes the segment as it is.
    """
    for buffer, fd in zip(attachments, fds, strict=False):
        if array.base is buffer and array.flags.forc and buffer.nbytes >= PACKED_BELOW:
            return places.adopt(fd, buffer.nbytes), Layout(0, array.shape, array.strides, array.dtype)
    return copied(array, places.create)


def _shape(shape: Any) -> tuple[int, ...]:
    """Normalise a shape argument, with NumPy's errors."""
    try:
        sizes: tuple[int, ...] = (operator.index(shape),)
    except TypeError:
        sizes = tuple(operator.index(n) for n in shape)
    if any(n < 0 for n in sizes):
        raise ValueError("negative dimensions are not allowed")
    if len(sizes) > 64:
        raise ValueError(f"maximum supported dimension for an ndarray is currently 64, found {len(sizes)}")
    return sizes


def _order(order: str, prototype: npt.NDArray[Any] | None = None) -> str:
    if order in ("C", "F"):
        return order
    if order in ("K", "A") and prototype is not None:
        return "F" if prototype.flags.fnc else "C"
    raise ValueError(f"order must be 'C' or 'F' (got {order!r})")


def _ones(shape: Any, dtype: Any = None, order: str = "C", *, places: Places) -> Made:
    return filled(_shape(shape), np.dtype(dtype), _order(order), 1, places.create)


def _zeros(shape: Any, dtype: Any = float, order: str = "C", *, places: Places) -> Made:
    return filled(_shape(shape), np.dtype(dtype), _order(order), np.zeros((), dtype), places.create)


def _full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, places: Places) -> Made:
    value = np.asarray(fill_value)
    kind = value.dtype if dtype is None else np.dtype(dtype)
    if value.ndim == 0:
        return filled(_shape(shape), kind, _order(order), fill_value, places.create)
    place, layout = filled(_shape(shape), kind, _order(order), np.zeros((), kind), places.create)
    try:
        view_of(place.mapping.writer, layout)[...] = value
    except BaseException:
        places.discard(place)
        raise
    return place, layout


def _like(fill_value: Any) -> Callable[..., Made]:
    def make(
        prototype: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, places: Places
    ) -> Made:
        array = np.asarray(prototype)
        kind = array.dtype if dtype is None else np.dtype(dtype)
        value = np.zeros((), kind) if fill_value is None else fill_value
        sizes = array.shape if shape is None else _shape(shape)
        return filled(sizes, kind, _order(order, array), value, places.create)

    return make


# A registered function that stands here is not called: its array is written where it will live, so that hosting it
# takes neither twice the memory nor twice the time.
CONSTANTS: dict[Any, Callable[..., Made]] = {
    np.ones: _ones,
    np.zeros: _zeros,
    np.empty: _zeros,
    np.full: _full,
    np.ones_like: _like(1),
    np.zeros_like: _like(None),
    np.empty_like: _like(None),
}
