"""Selections: which elements of a whole array a view shows, worked out without the array.

A view made of basic indices and swapped axes takes of each of the array's axes either one position, a range of them,
or (only to be written to) a list of them.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.core.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["Piece", "Selection"]

Taken = Any
"""What is taken of one axis: an int, a range, or a 1-D array of positions."""


@dataclass(frozen=True)
class Piece:
    """What a selection takes of one block.

    Attributes
    ----------
    number : int
        The block's, in the order of their positions.
    local : tuple
        Index into the block; one entry for each axis.
    parts : tuple of slice or ndarray
        For each axis of the whole array that the view shows, in the array's own order: which of the view's elements
        along it these are.
    place : tuple of int
        For each of these axes, how many blocks come before among those that are touched.
    """

    number: int
    local: tuple[Any, ...] = ()
    parts: tuple[Any, ...] = ()
    place: tuple[int, ...] = ()


@dataclass(frozen=True)
class Selection:
    """A view of a whole array.

    Attributes
    ----------
    whole : tuple of int
        Shape of the array.
    taken : tuple of int, range or ndarray
        One for each axis of the array.
    axes : tuple of int or None
        For each axis of the view, which axis of the array it runs along; None for a new axis of length 1.
    """

    whole: tuple[int, ...]
    taken: tuple[Taken, ...]
    axes: tuple[int | None, ...]

    @classmethod
    def all(cls, shape: Sequence[int]) -> Selection:
        """Everything."""
        return cls(tuple(shape), tuple(range(n) for n in shape), tuple(range(len(shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the view."""
        return tuple(1 if axis is None else len(self.taken[axis]) for axis in self.axes)

    @property
    def is_whole(self) -> bool:
        """Whether it is the array as it stands."""
        return self.axes == tuple(range(len(self.whole))) and all(
            isinstance(part, range) and part == range(n) for part, n in zip(self.taken, self.whole, strict=True)
        )

    @property
    def is_basic(self) -> bool:
        """Whether NumPy would show it as a view."""
        return all(isinstance(part, (int, range)) for part in self.taken)

    # -- views of views ----------------------------------------------------------------------------------------------

    def indexed(self, index: Any) -> Selection | None:
        """The view that a basic index gives of this one; None for other indices.

        Raises
        ------
        IndexError
            As NumPy: an integer is out of bounds, or there are too many.
        """
        return self._indexed(index, lists=False)

    def assigned(self, index: Any) -> Selection | None:
        """What ``view[index] = x`` writes to, also with one list, or one mask of one axis, among basic indices."""
        return self._indexed(index, lists=True)

    def _indexed(self, index: Any, *, lists: bool) -> Selection | None:
        items = list(index) if isinstance(index, tuple) else [index]
        items = [_plain(item, lists=lists) for item in items]
        if any(item is NotImplemented for item in items):
            return None
        n_lists = sum(isinstance(item, np.ndarray) for item in items)
        if n_lists > 1 or (n_lists and any(isinstance(item, int) for item in items)):
            return None  # NumPy puts the axes of several lists, and of integers beside one, elsewhere
        n_ellipses = sum(item is ... for item in items)
        n_given = sum(item is not None and item is not ... for item in items)
        if n_ellipses > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        if n_given > len(self.axes):
            raise IndexError(
                f"too many indices for array: array is {len(self.axes)}-dimensional, but {n_given} were indexed"
            )
        if not n_ellipses:
            items.append(...)
        at = next(n for n, item in enumerate(items) if item is ...)
        items[at : at + 1] = [slice(None)] * (len(self.axes) - n_given)
        return self._taken(items)

    def _taken(self, items: Sequence[Any]) -> Selection | None:
        taken = list(self.taken)
        axes: list[int | None] = []
        old = iter(enumerate(self.axes))
        for item in items:
            if item is None:
                axes.append(None)
                continue
            number, axis = next(old)
            here = range(1) if axis is None else taken[axis]
            if isinstance(item, slice):
                if axis is None and len(here[item]) != 1:
                    return None
                axes.append(axis)
                if axis is not None:
                    taken[axis] = here[item]
            elif isinstance(item, np.ndarray):
                positions = _positions(item, len(here), number)
                if axis is None or positions is None:
                    return None
                axes.append(axis)
                taken[axis] = np.asarray(here)[positions]
            else:
                if not -len(here) <= item < len(here):
                    raise IndexError(f"index {item} is out of bounds for axis {number} with size {len(here)}")
                if axis is not None:
                    taken[axis] = int(here[item])
        return replace(self, taken=tuple(taken), axes=tuple(axes))

    def transposed(self, order: Sequence[int]) -> Selection:
        """The view with its axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    # -- how it lies -------------------------------------------------------------------------------------------------

    def layout(self, dtype: np.dtype[Any]) -> Layout:
        """Where it would lie in a contiguous array: for strides and flags."""
        steps = Layout.contiguous(self.whole, dtype).strides
        offset = 0
        strides: dict[int, int] = {}
        for axis, (part, step) in enumerate(zip(self.taken, steps, strict=True)):
            if isinstance(part, range):
                offset += (part.start if len(part) else 0) * step
                strides[axis] = step * (part.step if len(part) else 1)
            else:
                offset += int(part) * step
        return Layout(offset, self.shape, tuple(0 if axis is None else strides[axis] for axis in self.axes), dtype)

    def of(self, array: Any) -> Any:
        """Take it from an array of the whole shape: an ndarray or Dask's."""
        index = (*(_as_slice(part) if isinstance(part, range) else part for part in self.taken), ...)
        is_all = all(part == range(n) for part, n in zip(self.taken, self.whole, strict=True))
        shown = array if is_all else array[index]
        kept = [axis for axis in self.axes if axis is not None]
        order = [sorted(kept).index(axis) for axis in kept]
        if order != sorted(order):
            shown = shown.transpose(order)
        if None in self.axes:
            shown = shown[tuple(None if axis is None else slice(None) for axis in self.axes)]
        return shown

    def whole_axes(self, value: Any) -> Any:
        """Bring a value for the view into the order of the array's axes.

        Parameters
        ----------
        value : ndarray or dask array
            As NumPy broadcasts it to the view.

        Returns
        -------
        ndarray or dask array
            With one axis for each that the view shows, in the array's order; of length 1 where `value` is repeated.

        Raises
        ------
        ValueError
            It does not broadcast.
        """
        shape = self.shape
        missing = len(shape) - value.ndim
        if missing < 0:
            if any(n != 1 for n in value.shape[:-missing]):
                raise ValueError(
                    f"could not broadcast input array from shape {_text(value.shape)} into shape {_text(shape)}"
                )
            value = value.reshape(value.shape[-missing:])
            missing = 0
        full = value.reshape((1,) * missing + tuple(value.shape))
        if any(n not in (1, m) for n, m in zip(full.shape, shape, strict=True)):
            raise ValueError(
                f"could not broadcast input array from shape {_text(value.shape)} into shape {_text(shape)}"
            )
        dropped = tuple(0 if axis is None else slice(None) for axis in self.axes)
        kept = [axis for axis in self.axes if axis is not None]
        order = [kept.index(axis) for axis in sorted(kept)]
        if None in self.axes:
            full = full[dropped]
        return full.transpose(order) if order != sorted(order) else full

    # -- blocks ------------------------------------------------------------------------------------------------------

    def pieces(self, chunks: Sequence[Sequence[int]]) -> list[Piece]:
        """What it takes of each block, for those of which it takes something.

        Parameters
        ----------
        chunks : sequence of sequence of int
            Sizes of the blocks along each axis.
        """
        along = [_touched(part, sizes) for part, sizes in zip(self.taken, chunks, strict=True)]
        found = [Piece(0)]
        for sizes, touched, part in zip(chunks, along, self.taken, strict=True):
            is_shown = not isinstance(part, int)
            found = [
                Piece(
                    piece.number * len(sizes) + block,
                    (*piece.local, local),
                    (*piece.parts, which) if is_shown else piece.parts,
                    (*piece.place, place) if is_shown else piece.place,
                )
                for piece in found
                for place, (block, local, which) in enumerate(touched)
            ]
        return found

    def starts(self, chunks: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """How many elements of a basic view lie in each block that it touches, along each axis that it shows.

        Raises
        ------
        TypeError
            It takes a list of positions somewhere.
        """
        return tuple(
            tuple(len(range(*which.indices(len(part)))) for _, _, which in _touched(part, sizes)) or (0,)
            for part, sizes in zip(self.taken, chunks, strict=True)
            if not isinstance(part, int)
        )

    # -- on the wire -------------------------------------------------------------------------------------------------

    def to_wire(self) -> Any:
        """Describe a basic view in plain values."""
        taken = [part if isinstance(part, int) else [part.start, part.stop, part.step] for part in self.taken]
        return [list(self.whole), taken, [-1 if axis is None else axis for axis in self.axes]]

    @classmethod
    def from_wire(cls, wire: Any) -> Selection:
        """Rebuild a view from `to_wire`."""
        whole, taken, axes = wire
        return cls(
            tuple(whole),
            tuple(part if isinstance(part, int) else range(*part) for part in taken),
            tuple(None if axis == -1 else axis for axis in axes),
        )


def _plain(item: Any, *, lists: bool) -> Any:
    """An integer as int; slices, None and the ellipsis as they are; lists and masks as arrays; else NotImplemented."""
    if item is None or item is ...:
        return item
    if isinstance(item, slice):
        try:
            return slice(
                *(None if part is None else operator.index(part) for part in (item.start, item.stop, item.step))
            )
        except TypeError:
            raise TypeError("slice indices must be integers or None or have an __index__ method") from None
    if isinstance(item, (bool, np.bool_)):
        return NotImplemented
    if isinstance(item, (list, np.ndarray)):
        values = np.asarray(item)
        if values.ndim == 0 and values.dtype.kind in "iu":
            return int(values)
        is_list = values.ndim == 1 and (values.dtype.kind in "iub")
        return values if lists and is_list else NotImplemented
    try:
        return operator.index(item)
    except TypeError:
        return NotImplemented


def _positions(item: npt.NDArray[Any], n: int, axis: int) -> npt.NDArray[Any] | None:
    if item.dtype.kind == "b":
        if item.size != n:
            raise IndexError(
                f"boolean index did not match indexed array along axis {axis}; size of axis is {n} but size of "
                f"corresponding boolean axis is {item.size}"
            )
        return item.nonzero()[0]
    bad = item[(item < -n) | (item >= n)]
    if bad.size:
        raise IndexError(f"index {bad[0]} is out of bounds for axis {axis} with size {n}")
    return np.where(item < 0, item + n, item).astype(np.intp)


def _as_slice(part: range) -> slice:
    if not len(part):
        return slice(0, 0, 1)
    stop = part[-1] + (1 if part.step > 0 else -1)
    return slice(part.start, None if stop < 0 else stop, part.step)


def _touched(part: Taken, sizes: Sequence[int]) -> list[tuple[int, Any, Any]]:
    """For each block of an axis of which something is taken: its number, the index into it, and which these are."""
    found: list[tuple[int, Any, Any]] = []
    start = 0
    for block, size in enumerate(sizes):
        if isinstance(part, int):
            if start <= part < start + size:
                found.append((block, part - start, None))
        elif isinstance(part, range):
            which = _within(part, start, start + size)
            inside = part[which]
            if len(inside):
                local = _as_slice(range(inside.start - start, inside.stop - start, inside.step))
                found.append((block, local, which))
        else:
            (where,) = ((part >= start) & (part < start + size)).nonzero()
            if where.size:
                found.append((block, part[where] - start, where))
        start += size
    return found


def _within(part: range, start: int, stop: int) -> slice:
    """Which elements of a range lie in ``[start, stop)``: they are neighbours in it."""
    if part.step > 0:
        first = max(0, math.ceil((start - part.start) / part.step))
        last = max(0, math.ceil((stop - part.start) / part.step))
    else:
        first = max(0, math.ceil((part.start - stop + 1) / -part.step))
        last = max(0, math.ceil((part.start - start + 1) / -part.step))
    return slice(min(first, len(part)), min(last, len(part)))


def _text(shape: Sequence[int]) -> str:
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
