"""New arrays written straight into their segment: constants, copies of an ndarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

from arrayhost.core.layout import Layout, check_mappable
from arrayhost.memory.segments import Mapping, create_segment

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["Create", "HasMapping", "WritePiece", "attachment_of", "copied", "filled", "layout_of", "view_of"]


class HasMapping(Protocol):
    """New memory, of whichever kind."""

    @property
    def mapping(self) -> Mapping:
        """Where it lies in this process."""


Place = TypeVar("Place", bound=HasMapping)
WritePiece: TypeAlias = "Callable[[Mapping, int, int], None] | None"
Create: TypeAlias = "Callable[[int, WritePiece], Place]"


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


def filled(
    shape: tuple[int, ...], dtype: np.dtype[Any], order: str, fill_value: Any, create: Create[Place]
) -> tuple[Place, Layout]:
    """Create an array that holds `fill_value` everywhere.

    The value is converted before anything is allocated, with ``ndarray.fill``'s rules and errors.

    Parameters
    ----------
    create : callable
        ``create(n_bytes, write_piece)`` makes its memory; as `arrayhost.memory.segments.create_segment`.
    """
    check_mappable(dtype)
    layout = Layout.contiguous(shape, dtype, order)
    element = np.zeros((), dtype)
    element[...] = fill_value
    if not element.tobytes().strip(b"\0"):
        return create(layout.nbytes, None), layout
    itemsize = dtype.itemsize

    def write_piece(target: Mapping, start: int, stop: int) -> None:
        # Elements that begin in this piece; the last may reach into the next.
        first, last = -(-start // itemsize), -(-stop // itemsize)
        view = np.ndarray((last - first,), dtype, target.writer, first * itemsize)
        view[...] = element

    return create(layout.nbytes, write_piece), layout


def copied(array: npt.NDArray[Any], create: Create[Place]) -> tuple[Place, Layout]:
    """Create a copy of an ndarray, in its memory order (C unless it is F-contiguous); `create` as for `filled`."""
    check_mappable(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    layout = Layout.contiguous(array.shape, array.dtype, order)
    straight = array.T if order == "F" else array
    if not array.nbytes:
        return create(0, None), layout
    if not straight.flags.c_contiguous:
        place = create(layout.nbytes, None)
        view_of(place.mapping.writer, layout)[...] = array
        return place, layout
    source = np.ndarray((array.nbytes,), np.uint8, _bytes_of(straight))

    def write_piece(target: Mapping, start: int, stop: int) -> None:
        target.writer[start:stop] = source[start:stop]

    return create(layout.nbytes, write_piece), layout


def attachment_of(array: npt.NDArray[Any]) -> int:
    """Copy an ndarray into a memory file of its own, to be sent; return the descriptor."""
    segment, _ = copied(array, lambda n_bytes, write_piece: create_segment(n_bytes, write_piece=write_piece))
    return segment.fd


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """Memory of a C-contiguous array as bytes; dtypes without a buffer format (datetime64) included."""
    return memoryview(array.reshape(-1).view(np.uint8).data)
