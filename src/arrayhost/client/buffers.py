"""The protocols by which others get at an array's bytes: Python's buffers, and NumPy's array interface.

NumPy prefers both to ``__array__``, and does not tell whether it is going to copy. An array that always had them would
have ``np.array(a)`` copy memory that somebody is writing to, and no copy of a hosted array shows half of a write. So
they are there where that cannot happen: while the calling thread has a section open or holds the array's lock. Outside
of it NumPy goes on to ``__array__``, and who asks for a buffer is told what to do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["METHODS", "section_memory"]

_WRITABLE, _FORMAT = 0x1, 0x4  # what CPython's buffer requests call PyBUF_WRITABLE and PyBUF_FORMAT
_HAS_BUFFERS = sys.version_info >= (3, 12)  # before it, no class written in Python can export one
_ADVICE = (
    "the memory of a hosted array is exported inside `with a.read():` or `with a.write():`, while nobody else writes "
    "to it; elsewhere use np.asarray(a), which is the live memory, or a.copy()"
)
_NO_INTERFACE = f"'HostedArray' object has no attribute '__array_interface__' here: {_ADVICE}"


def section_memory(array: HostedArray) -> npt.NDArray[Any] | None:
    """Return the memory as the calling thread's section or lock has it; None outside of both.

    It is writeable in ``a.write()`` only: with ``a.lock`` alone, readers would not know that it is being written to.
    """
    hold = array._source.hold()
    if hold is None or array.evaluator is not None:  # on a cluster, a section has a copy of its own
        return None
    return array.writer if hold.write_depth else array.live


def __array_interface__(self: HostedArray) -> dict[str, Any]:
    """Describe the memory, read-only, as ndarray's ``__array_interface__`` does; inside a section of this thread.

    Raises
    ------
    AttributeError
        The calling thread has no section open and does not hold the lock; or the array interface cannot describe the
        dtype, such as one with gaps between its fields.

    Notes
    -----
    The memory stays mapped as long as this proxy, or any array made from it, lives. Once the section has ended, others
    may write to it. Cost: no round trip.
    """
    memory = section_memory(self)
    if memory is None:
        raise AttributeError(_NO_INTERFACE)
    memory = _read_only(memory)
    description = memory.__array_interface__
    if memory.dtype.names is not None and not _is_same(np.dtype(description["descr"]), memory.dtype):
        raise AttributeError(f"__array_interface__ cannot describe {memory.dtype}; np.asarray(a) gives it")
    if not _HAS_BUFFERS:
        # Who reads "C order" takes the object itself for the bytes, as Pillow does; given strides, it asks for them.
        description["strides"] = memory.strides
    _pin(self, memory)
    return description


def __buffer__(self: HostedArray, flags: int) -> memoryview:
    """Export the memory for ``memoryview(a)`` and others (Python 3.12+); inside a section of this thread.

    Parameters
    ----------
    flags : int
        What is asked for; writeable memory (``file.readinto(a)``) is to be had inside ``a.write()``.

    Raises
    ------
    BufferError
        The calling thread has no section open and does not hold the lock; writeable memory was asked for and it has
        not opened ``a.write()``; or buffers cannot describe the dtype.

    Notes
    -----
    Once the section has ended, others may write to the memory; it must not be written to any more. Cost: no round trip.
    """
    memory = section_memory(self)
    if memory is None:
        raise BufferError(_ADVICE)
    if not flags & _WRITABLE:
        memory = _read_only(memory)
    elif not memory.flags.writeable:
        raise BufferError("writeable memory of a hosted array is to be had inside `with a.write():`")
    try:
        view = memoryview(memory)  # type: ignore[arg-type]  # before Python 3.12 no annotation says that it has one
        described = np.asarray(view).dtype
    except (ValueError, RuntimeError) as error:
        raise BufferError(f"{error}; np.asarray(a) gives the array") from None
    if flags & _FORMAT and not _is_same(described, memory.dtype):
        raise BufferError(f"buffers cannot describe {memory.dtype}; np.asarray(a) gives it")
    return view


def __bytes__(self: HostedArray) -> bytes:
    """Return what ``bytes()`` of an ndarray returns, of one moment. Python would take the elements for bytes."""
    return bytes(self._private_copy())


def _pin(array: HostedArray, memory: npt.NDArray[Any]) -> None:
    """Keep memory whose address was told as long as the proxy lives, also if that moves on to another array."""
    owner = memory if memory.base is None else memory.base
    pinned = getattr(array, "_pinned", [])
    if not any(one is owner for one in pinned):
        array._pinned = [*pinned, owner]


def _read_only(memory: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = memory.view()
    view.flags.writeable = False
    return view


def _is_same(described: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    return described == dtype and described.isalignedstruct == dtype.isalignedstruct


METHODS: dict[str, Callable[..., Any] | property] = {
    "__array_interface__": property(__array_interface__, doc=__array_interface__.__doc__),
    "__bytes__": __bytes__,
}
if _HAS_BUFFERS:
    METHODS["__buffer__"] = __buffer__
