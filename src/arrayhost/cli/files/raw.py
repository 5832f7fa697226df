"""Bare elements, without a word on what they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.files import Item
from arrayhost.cli.options import Failure

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.cli.files import Reading


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Map the elements of a file as an array of the given dtype and shape."""
    dtype = reading.dtype
    if dtype is None:
        raise Failure(
            f"{path}: a raw file does not say what it holds; give --dtype, and --shape unless it has one axis"
        )
    if dtype.hasobject or not dtype.itemsize:
        raise Failure(f"{path}: elements of dtype {dtype} cannot stand in a file")
    n_bytes = path.stat().st_size - reading.offset
    count, rest = divmod(n_bytes, dtype.itemsize)
    if n_bytes < 0 or rest:
        raise Failure(f"{path}: {max(n_bytes, 0)} bytes are no whole number of elements of {dtype.itemsize} bytes")
    shape = (count,) if reading.shape is None else _resolved(path, reading.shape, count)
    if not count:
        return [Item("", np.empty(shape, dtype))]
    return [Item("", np.memmap(path, dtype, "r", reading.offset, shape))]


def _resolved(path: Path, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    known = math.prod(n for n in shape if n >= 0)
    if -1 in shape and known and count % known == 0:
        shape = tuple(count // known if n < 0 else n for n in shape)
    if math.prod(shape) != count or min(shape, default=0) < 0:
        raise Failure(f"{path}: it holds {count} elements, which do not make the shape {shape}")
    return shape


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write the elements in C order."""
    with open(path, "wb") as file:
        array.tofile(file)
