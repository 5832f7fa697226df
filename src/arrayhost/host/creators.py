"""What makes new hosted arrays: constants written straight into their segment, adopted buffers, copied results."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.layout import Layout
from arrayhost.memory.filling import copied_segment, filled_segment, view_of
from arrayhost.memory.segments import Mapping, map_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["CONSTANTS", "Segment", "segment_of"]

# A descriptor, its mapping and the array's layout in it.
Segment = tuple[int, Mapping, Layout]


def segment_of(
    array: npt.NDArray[Any], attachments: Sequence[npt.NDArray[np.uint8]], fds: Sequence[int], *, huge_pages: bool
) -> Segment:
    """Give an ndarray a segment: the caller's own if the array came as an attachment, else a copy.

    A client writes a large array into a sealed memory file and passes that; it becomes the segment as it is.
    """
    for buffer, fd in zip(attachments, fds, strict=False):
        if array.base is buffer and array.flags.forc:
            mapping = map_segment(fd, buffer.nbytes)
            return os.dup(fd), mapping, Layout(0, array.shape, array.strides, array.dtype)
    return copied_segment(array, huge_pages=huge_pages)


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


def _ones(shape: Any, dtype: Any = None, order: str = "C", *, huge_pages: bool) -> Segment:
    return filled_segment(_shape(shape), np.dtype(dtype), _order(order), 1, huge_pages=huge_pages)


def _zeros(shape: Any, dtype: Any = float, order: str = "C", *, huge_pages: bool) -> Segment:
    return filled_segment(_shape(shape), np.dtype(dtype), _order(order), np.zeros((), dtype), huge_pages=huge_pages)


def _full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, huge_pages: bool) -> Segment:
    value = np.asarray(fill_value)
    kind = value.dtype if dtype is None else np.dtype(dtype)
    fd, mapping, layout = filled_segment(
        _shape(shape), kind, _order(order), fill_value if value.ndim == 0 else np.zeros((), kind), huge_pages=huge_pages
    )
    if value.ndim:
        try:
            view_of(mapping.writer, layout)[...] = value
        except BaseException:
            os.close(fd)
            raise
    return fd, mapping, layout


def _like(fill_value: Any) -> Callable[..., Segment]:
    def make(
        prototype: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, huge_pages: bool
    ) -> Segment:
        array = np.asarray(prototype)
        kind = array.dtype if dtype is None else np.dtype(dtype)
        value = np.zeros((), kind) if fill_value is None else fill_value
        sizes = array.shape if shape is None else _shape(shape)
        return filled_segment(sizes, kind, _order(order, array), value, huge_pages=huge_pages)

    return make


# A registered function that stands here is not called: its array is written where it will live, so that hosting it
# takes neither twice the memory nor twice the time.
CONSTANTS: dict[Any, Callable[..., Segment]] = {
    np.ones: _ones,
    np.zeros: _zeros,
    np.empty: _zeros,
    np.full: _full,
    np.ones_like: _like(1),
    np.zeros_like: _like(None),
    np.empty_like: _like(None),
}
