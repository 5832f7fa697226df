"""New arrays written straight into their segment: constants, copies of an ndarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.layout import Layout, check_mappable
from arrayhost.memory.segments import Mapping, create_segment

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["copied_segment", "filled_segment", "layout_of", "view_of"]


def view_of(memory: npt.NDArray[np.uint8], layout: Layout) -> npt.NDArray[Any]:
    """Make the ndarray that a layout describes, over a mapping's `reader` or `writer`."""
    view: npt.NDArray[Any] = np.ndarray(layout.shape, layout.dtype, memory, layout.offset, layout.strides)
    if not layout.writeable and view.flags.writeable:
        view.flags.writeable = False
    return view


def layout_of(view: npt.NDArray[Any], mapping: Mapping) -> Layout:
    """Describe an ndarray that lies in a mapping."""
    # Not from `view.flags`: asking these of what `np.broadcast_arrays` returns is a warning.
    address, read_only = view.__array_interface__["data"]
    return Layout(address - mapping.address if view.size else 0, view.shape, view.strides, view.dtype, not read_only)


def filled_segment(
    shape: tuple[int, ...], dtype: np.dtype[Any], order: str, fill_value: Any = 0, *, huge_pages: bool = True
) -> tuple[int, Mapping, Layout]:
    """Create a segment whose array holds `fill_value` everywhere.

    The value is converted before anything is allocated, with ``ndarray.fill``'s rules and errors.
    """
    check_mappable(dtype)
    layout = Layout.contiguous(shape, dtype, order)
    element = np.zeros((), dtype)
    element[...] = fill_value
    if not element.tobytes().strip(b"\0"):
        fd, mapping = create_segment(layout.nbytes, huge_pages=huge_pages)
        return fd, mapping, layout
    itemsize = dtype.itemsize

    def write_piece(target: Mapping, start: int, stop: int) -> None:
        # Elements that begin in this piece; the last may reach into the next.
        first, last = -(-start // itemsize), -(-stop // itemsize)
        view = np.ndarray((last - first,), dtype, target.writer, first * itemsize)
        view[...] = element

    fd, mapping = create_segment(layout.nbytes, write_piece=write_piece, huge_pages=huge_pages)
    return fd, mapping, layout


def copied_segment(array: npt.NDArray[Any], *, huge_pages: bool = True) -> tuple[int, Mapping, Layout]:
    """Create a segment that holds a copy of an ndarray, in its memory order (C unless it is F-contiguous)."""
    check_mappable(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    layout = Layout.contiguous(array.shape, array.dtype, order)
    straight = array.T if order == "F" else array
    if not straight.flags.c_contiguous or not array.nbytes:
        fd, mapping = create_segment(layout.nbytes, huge_pages=huge_pages)
        view_of(mapping.writer, layout)[...] = array
        return fd, mapping, layout
    source = np.ndarray((array.nbytes,), np.uint8, _bytes_of(straight))

    def write_piece(target: Mapping, start: int, stop: int) -> None:
        target.writer[start:stop] = source[start:stop]

    fd, mapping = create_segment(layout.nbytes, write_piece=write_piece, huge_pages=huge_pages)
    return fd, mapping, layout


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Memory of a C-contiguous array as bytes; dtypes without a buffer format (datetime64) included."""
    return memoryview(array.reshape(-1).view(np.uint8).data)
