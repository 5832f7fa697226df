"""Large arrays a piece at a time: copied with a progress bar, read while nobody writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["copy_pieces", "over_quiet", "pieces"]

T = TypeVar("T")
_PIECE_BYTES = 16 * 1024 * 1024
_ATTEMPTS = 2


class _ChangedError(Exception):
    """Somebody wrote while the array was read."""


def pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield an array's elements in the order of memory, as views of one axis and at most 16 MiB.

    An array that is not in one piece of memory comes as a whole.
    """
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
    elif array.flags.f_contiguous:
        flat = array.T.reshape(-1)
    else:
        yield array
        return
    step = max(_PIECE_BYTES // max(array.dtype.itemsize, 1), 1)
    for start in range(0, flat.size, step):
        yield flat[start : start + step]


def copy_pieces(source: npt.NDArray[Any], target: npt.NDArray[Any], done: Callable[[int], None]) -> None:
    """Copy an array into another of the same shape, dtype and order, telling after each piece how much is done."""
    copied = 0
    for read, written in zip(pieces(source), pieces(target), strict=True):
        written[...] = read
        copied += read.nbytes
        done(copied)


def over_quiet(array: HostedArray, use: Callable[[Iterator[npt.NDArray[Any]]], T]) -> T:
    """Have `use` go through the pieces of one consistent state of an array.

    The pieces come from the live memory, so that an array of any size is read without a copy of it. If somebody writes
    meanwhile, `use` starts again; after that it gets a private copy.

    Parameters
    ----------
    use : callable
        Given an iterator over private pieces; may be called several times, and its last result counts.
    """
    for _ in range(_ATTEMPTS):
        before = array.statistics()
        if before.writing or before.torn:
            continue
        try:
            return use(_watched(array, before.version))
        except _ChangedError:
            continue
    return use(pieces(array.copy("K")))


def _watched(array: HostedArray, version: int) -> Iterator[npt.NDArray[Any]]:
    live = np.asarray(array)
    if not (live.flags.c_contiguous or live.flags.f_contiguous):
        raise _ChangedError  # one that cannot be cut is copied
    for piece in pieces(live):
        private = piece.copy()
        _check(array, version)
        yield private
    _check(array, version)


def _check(array: HostedArray, version: int) -> None:
    now = array.statistics()
    if now.writing or now.version != version:
        raise _ChangedError
