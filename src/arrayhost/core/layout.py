"""Where an array lies in its part of a segment: offset, shape, strides, dtype, and whether that is sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import ProtocolError, UnsupportedDTypeError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Layout", "check_mappable", "dtype_from_wire", "dtype_to_wire"]

MAX_NDIM = 64  # NumPy 2's own limit
_MAX_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """An array's place in a part of a segment.

    Attributes
    ----------
    offset : int
        Bytes from the part's start to element ``[0, 0, ...]``.
    shape, strides : tuple of int
        As NumPy's; strides in bytes, of any sign.
    dtype : numpy.dtype
    writeable : bool
        False where NumPy's own view would be read-only (``np.broadcast_to`` and the like).
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writeable: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, as ``ndarray.nbytes``: repeated elements count each time."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def phantom(self) -> npt.NDArray[Any]:
        """Make an ndarray of this form without its memory: NumPy's answers to what no element tells (flags, shapes).

        Reading or writing an element of it would be a fault.
        """
        element = np.empty(1, self.dtype)
        form = np.lib.stride_tricks.as_strided(element, self.shape, self.strides)
        if not self.writeable:
            form.flags.writeable = False
        return form

    def indexed(self, index: Any) -> Layout | None:
        """Place of the view that a basic index selects, as NumPy makes it.

        Returns
        -------
        Layout or None
            None where indexing would give an element or raise, and for other indices than integers, slices, ``...``
            and None.
        """
        items = index if type(index) is tuple else (index,)
        if not all(_is_plain(item) for item in items):
            return None
        n_ellipses = sum(item is ... for item in items)
        n_given = sum(item is not None and item is not ... for item in items)
        if n_ellipses > 1 or n_given > len(self.shape):
            return None
        offset, axis = self.offset, 0
        shape: list[int] = []
        strides: list[int] = []
        for item in items if n_ellipses else (*items, ...):
            if item is None:
                shape.append(1)
                strides.append(0)
            elif item is ...:
                end = axis + len(self.shape) - n_given
                shape += self.shape[axis:end]
                strides += self.strides[axis:end]
                axis = end
            elif type(item) is slice:
                start, stop, step = item.indices(self.shape[axis])
                n = len(range(start, stop, step))
                offset += start * self.strides[axis] if n else 0
                shape.append(n)
                strides.append(self.strides[axis] * (step if n else 1))  # as NumPy says of a part without elements
                axis += 1
            else:
                n = self.shape[axis]
                if not -n <= item < n:
                    return None
                offset += int(item) % n * self.strides[axis]
                axis += 1
        if not shape and not n_ellipses:
            return None
        if 0 in shape:
            offset = 0  # an index into axes beside the empty one may lead out of the memory, which has no element
        return Layout(offset, tuple(shape), tuple(strides), self.dtype, self.writeable)

    def extent(self) -> tuple[int, int]:
        """First byte that the array touches and the one after its last, from the part's start."""
        return self._extent(self.offset, 0)

    def _extent(self, offset: int, axis: int) -> tuple[int, int]:
        """As `extent`, of the part that begins at a byte and has the axes from `axis` on."""
        if 0 in self.shape:
            return offset, offset
        low = high = offset
        for n, stride in zip(self.shape[axis:], self.strides[axis:], strict=True):
            if stride < 0:
                low += (n - 1) * stride
            else:
                high += (n - 1) * stride
        return low, high + self.dtype.itemsize

    def touched(self, index: Any) -> tuple[int, int]:
        """Bounds, as of `extent`, of what assigning to an index may change: exact for basic ones, else everything."""
        items = index if type(index) is tuple else (index,)
        offset = self.offset
        for axis, (item, n, stride) in enumerate(zip(items, self.shape, self.strides, strict=False), 1):
            if type(item) not in _INTEGERS or not -n <= item < n:
                break
            offset += int(item) % n * stride
            if axis == len(items):
                return self._extent(offset, axis)  # an element, by far the most frequent
        part = self.indexed(items if any(item is ... for item in items) else (*items, ...))
        return (self if part is None else part).extent()

    def check(self, n_bytes: int) -> None:
        """Refuse a layout that would reach outside its part.

        NumPy itself accepts a negative offset or shape over a buffer and then reads foreign memory, so every
        layout that arrives from another process passes through here before an ndarray is made of it.

        Raises
        ------
        ProtocolError
            The layout does not fit `n_bytes`, or is not a layout at all.
        """
        if len(self.shape) != len(self.strides) or len(self.shape) > MAX_NDIM:
            raise ProtocolError(f"a layout with shape {self.shape} and strides {self.strides}")
        if self.offset < 0 or any(n < 0 for n in self.shape):
            raise ProtocolError(f"a layout with offset {self.offset} and shape {self.shape}")
        if self.nbytes > _MAX_BYTES:
            raise ProtocolError(f"a layout of {self.nbytes} bytes")
        check_mappable(self.dtype)
        low, high = self.extent()
        if low < 0 or high > n_bytes:
            raise ProtocolError(f"a layout over bytes {low} to {high} of a part that has {n_bytes}")

    @classmethod
    def contiguous(cls, shape: tuple[int, ...], dtype: npt.DTypeLike, order: str = "C") -> Layout:
        """Layout of a whole new array at offset 0.

        Parameters
        ----------
        shape : tuple of int
        dtype : dtype_like
        order : {"C", "F"}
        """
        dtype = np.dtype(dtype)
        strides = []
        step = dtype.itemsize
        for n in shape if order == "F" else reversed(shape):
            strides.append(step)
            step *= n
        return cls(0, shape, tuple(strides if order == "F" else reversed(strides)), dtype)


_INTEGERS = frozenset([int, np.int64, np.intp])


def _is_plain(item: Any) -> bool:
    """Whether part of an index is an integer, None, an ellipsis, or a slice that `slice.indices` takes."""
    kind = type(item)
    if kind is slice:
        parts = (item.start, item.stop, item.step)
        return all(part is None or type(part) is int for part in parts) and item.step != 0
    return item is None or item is ... or kind in _INTEGERS


def check_mappable(dtype: np.dtype[Any]) -> None:
    """Raise unless elements of `dtype` are plain bytes that mean the same in every process.

    Raises
    ------
    UnsupportedDTypeError
        `dtype` holds Python objects or variable-width strings.
    """
    if dtype.hasobject or dtype.kind == "T":
        raise UnsupportedDTypeError(
            f"an array of dtype {dtype} holds pointers and cannot be shared as memory; use a fixed-size dtype "
            "(for text: dtype='U20' or 'S20'), or register a class that keeps the objects in the host"
        )


def dtype_to_wire(dtype: np.dtype[Any]) -> Any:
    """Describe a dtype in strings, numbers and lists; `dtype_from_wire` rebuilds it exactly."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ["sub", dtype_to_wire(base), list(shape)]
    if dtype.names is not None and dtype.fields is not None:
        fields = [
            [name, dtype_to_wire(dtype.fields[name][0]), dtype.fields[name][1], _title(dtype.fields[name])]
            for name in dtype.names
        ]
        return ["rec", fields, dtype.itemsize, dtype.isalignedstruct]
    if dtype.char in "qQ":
        # Of the size of a long on most systems, and then spelled as one by dtype.str; but another type.
        return dtype.byteorder + dtype.char
    return dtype.str


def dtype_from_wire(wire: Any) -> np.dtype[Any]:
    """Rebuild a dtype from `dtype_to_wire`.

    Raises
    ------
    ProtocolError
        `wire` describes no dtype.
    """
    try:
        return _dtype_from_wire(wire, depth=0)
    except (TypeError, ValueError, KeyError, IndexError, SyntaxError) as error:
        raise ProtocolError(f"no dtype: {str(wire)[:100]}") from error


def _dtype_from_wire(wire: Any, depth: int) -> np.dtype[Any]:
    if depth > 32:
        raise ValueError("nested too deeply")
    if isinstance(wire, str):
        # Only the array-protocol spelling: np.dtype() would also parse lists and comma-separated records.
        if not 2 <= len(wire) <= 40 or wire[0] not in "<>|=" or wire[1] not in "biufcmMSUVOTqQ" or "," in wire:
            raise ValueError(wire)
        return np.dtype(wire)
    kind = wire[0]
    if kind == "sub":
        return np.dtype((_dtype_from_wire(wire[1], depth + 1), tuple(wire[2])))
    if kind != "rec":
        raise ValueError(kind)
    _, fields, itemsize, aligned = wire
    names = [(title, name) if title is not None else name for name, _, _, title in fields]
    described = {
        "names": [name for name, _, _, _ in fields],
        "formats": [_dtype_from_wire(inner, depth + 1) for _, inner, _, _ in fields],
        "offsets": [offset for _, _, offset, _ in fields],
        "itemsize": itemsize,
    }
    if any(isinstance(name, tuple) for name in names):
        described["titles"] = [title for _, _, _, title in fields]
    return np.dtype(described, align=bool(aligned))  # type: ignore[call-overload,no-any-return] # dict form is untyped


def _title(field: Any) -> str | None:
    return field[2] if len(field) > 2 else None
