"""Private copies that stand in for hosted memory in an evaluation, and the way back from a view of one.

What NumPy does depends on an array's strides: which results are views, which ``out`` it accepts, in which order it
adds. So a stand-in has the strides of what it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from arrayhost.memory.segments import Mapping

__all__ = ["corresponding_view", "laid_out_copy", "place_of", "placed"]

# A view with wider gaps than that is copied without them: one column of a large table must not cost the table.
_MOSTLY_GAPS = 4
_SMALL_BYTES = 1 << 20
_LINE = 64  # keeps a copy's alignment, which decides on the vector code that NumPy takes


class _Hosted(Protocol):
    @property
    def mapping(self) -> Mapping: ...

    @property
    def live(self) -> npt.NDArray[Any]: ...

    @property
    def writer(self) -> npt.NDArray[Any]: ...


def _bounds(array: npt.NDArray[Any], mapping: Mapping) -> tuple[int, int]:
    """First byte of an array in its mapping, rounded down, and the byte after its last."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return (low - mapping.address) & -_LINE, high - mapping.address


def _keeps_gaps(array: npt.NDArray[Any], n_bytes: int) -> bool:
    return n_bytes <= max(_MOSTLY_GAPS * array.nbytes, _SMALL_BYTES)


def laid_out_copy(operand: _Hosted) -> npt.NDArray[Any]:
    """Copy a hosted array with its strides; what lies between its elements is copied along.

    Cost: one copy, of up to four times the elements' bytes; dense, and then with strides of its own, beyond that.
    """
    live, mapping = operand.live, operand.mapping
    if live.flags.forc or not live.size:
        return live.copy("K")
    start, stop = _bounds(live, mapping)
    if not _keeps_gaps(live, stop - start):
        return live.copy("K")
    memory = mapping.reader[start:stop].copy()
    return _at(live, memory, live.__array_interface__["data"][0] - mapping.address - start)


def placed(values: npt.NDArray[Any], operand: _Hosted) -> npt.NDArray[Any]:
    """Lay a hosted array's values, copied by somebody else, out as `laid_out_copy` does."""
    live, mapping = operand.live, operand.mapping
    if live.flags.forc or not live.size:
        return values
    start, stop = _bounds(live, mapping)
    if not _keeps_gaps(live, stop - start):
        return values
    memory = np.empty(stop - start, np.uint8)
    private = _at(live, memory, live.__array_interface__["data"][0] - mapping.address - start)
    private[...] = values
    return private


def _at(like: npt.NDArray[Any], memory: npt.NDArray[np.uint8], offset: int) -> npt.NDArray[Any]:
    return np.ndarray(like.shape, like.dtype, memory, offset, like.strides)


def corresponding_view(
    result: npt.NDArray[Any], private: npt.NDArray[Any], operand: _Hosted
) -> npt.NDArray[Any] | None:
    """Find the view of hosted memory that shows what `result` shows of a private copy of it.

    Parameters
    ----------
    result : ndarray
        Anything.
    private : ndarray
        The copy of `operand` that was evaluated.
    operand : hosted array

    Returns
    -------
    ndarray or None
        Writeable where `operand` is. None if `result` is no view of `private`, or one of a dense copy that the hosted
        array's wider strides do not have: there NumPy would have copied, too.
    """
    writer = operand.writer
    place = place_of(result, private, writer.strides)
    if place is None:
        return None
    offset, strides = place
    start = writer.__array_interface__["data"][0] - operand.mapping.address + offset
    view: npt.NDArray[Any] = np.ndarray(result.shape, result.dtype, operand.mapping.writer, start, strides)
    view.flags.writeable = writer.flags.writeable
    return view


def place_of(
    result: npt.NDArray[Any], private: npt.NDArray[Any], strides: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Where in an array of these strides lies what `result` shows of a private copy of it.

    Returns
    -------
    (int, tuple of int) or None
        Bytes from the array's first element on, and strides. None as for `corresponding_view`.
    """
    if not private.size or not result.size:
        return None
    low, high = np.lib.array_utils.byte_bounds(private)
    address = result.__array_interface__["data"][0]
    if not low <= address < high:
        return None
    offset = address - private.__array_interface__["data"][0]
    return (offset, result.strides) if private.strides == strides else _spread(offset, result, private, strides)


def _spread(
    offset: int, result: npt.NDArray[Any], dense: npt.NDArray[Any], sparse: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Translate a view of a dense array to one of the same array with the strides `sparse`.

    A byte of the dense array is one index on each axis, the last of them counting bytes within an element. A step of
    the view is a step on each of these, and so has a length in the other array, as long as no index leaves its axis.
    """
    axes = sorted(
        (near, far, n)
        for near, far, n in zip((*dense.strides, 1), (*sparse, 1), (*dense.shape, dense.itemsize), strict=True)
        if n > 1
    )[::-1]

    def digits(position: int) -> list[int]:
        found = []
        for near, _, _ in axes:
            index, position = divmod(position, near)
            found.append(index)
        return found

    start = digits(offset)
    lowest, highest, strides = list(start), list(start), []
    for stride, n in zip(result.strides, result.shape, strict=True):
        steps = [b - a for a, b in zip(start, digits(offset + stride), strict=True)] if n > 1 else [0] * len(axes)
        strides.append(sum(step * far for step, (_, far, _) in zip(steps, axes, strict=True)))
        lowest = [low + min(step * (n - 1), 0) for low, step in zip(lowest, steps, strict=True)]
        highest = [high + max(step * (n - 1), 0) for high, step in zip(highest, steps, strict=True)]
    inside = all(low >= 0 and high < n for low, high, (_, _, n) in zip(lowest, highest, axes, strict=True))
    last_byte = highest[-1] if axes and axes[-1][0] == 1 and dense.itemsize > 1 else 0
    if not inside or last_byte + result.itemsize > dense.itemsize:
        return None
    return sum(index * far for index, (_, far, _) in zip(start, axes, strict=True)), tuple(strides)
