"""Read-modify-write in one step: under the exclusive lock, wherever the lock and the memory are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.errors import TransactionConflictError
from arrayhost.memory.budget import check_free
from arrayhost.memory.filling import layout_of
from arrayhost.sync.filelocks import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from arrayhost.evaluation.reading import Operand
    from arrayhost.sync.guards import Hold

__all__ = ["add", "apply_function", "commit", "compare_exchange", "exchange"]

_WHAT = "exclusive lock"


def add(operand: Operand, index: Any, value: Any, timeout: float) -> Any:
    """Carry out ``a[index] += value`` as one step; return what was there."""

    def changed(old: Any) -> Any:
        if not isinstance(old, np.ndarray):
            return old + value
        total = old.copy()
        total += value
        return total

    return _update(operand, index, changed, timeout)


def exchange(operand: Operand, index: Any, value: Any, timeout: float) -> Any:
    """Carry out ``a[index] = value`` and return what was there."""
    return _update(operand, index, lambda old: value, timeout)


def compare_exchange(operand: Operand, index: Any, expected: Any, value: Any, timeout: float) -> Any:
    """Carry out ``a[index] = value`` if everything there equals `expected`; return what was there. NaN equals NaN."""

    def changed(old: Any) -> Any:
        same = old == expected
        if old.dtype.kind in "fcmM":
            same = same | ((old != old) & (np.asarray(expected) != expected))
        return value if np.all(same) else None

    return _update(operand, index, changed, timeout)


def _update(operand: Operand, index: Any, change: Callable[[Any], Any], timeout: float) -> Any:
    """Replace the elements at an index by what `change` makes of a copy of them, unless that is None."""
    guard = operand.guard
    hold = guard.acquire(EXCLUSIVE, timeout, _WHAT)
    try:
        guard.check_whole()
        writer = operand.writer
        found = writer[index]
        old = found.copy() if isinstance(found, (np.ndarray, np.void)) else found
        new = change(old)
        if new is None:
            return old
        converted = _converted(new, old, operand.live.dtype)
        hold.begin_write(None if guard.undo is None else layout_of(operand.live, operand.mapping).touched(index))
        try:
            writer[index] = converted
        finally:
            hold.end_write()
        return old
    finally:
        hold.release()


def _converted(new: Any, old: Any, dtype: np.dtype[Any]) -> Any:
    """Convert what is to stand in the place of `old`: what does not fit raises before anything is written."""
    if isinstance(old, np.ndarray):
        array = np.empty(old.shape, old.dtype)
        array[...] = new
        return array
    # Not to the scalar's own dtype: that of a text is as long as the text.
    element = np.empty(1, dtype)
    element[0] = new
    return element[0]


def apply_function(
    operand: Operand, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], timeout: float
) -> Any:
    """Call a function with a copy of the array; write the copy back when it has returned.

    Returns
    -------
    object
        What the function returned; the operand if that is the array it was given.
    """
    check_free(operand.live.nbytes)
    guard = operand.guard
    hold = guard.acquire(EXCLUSIVE, timeout, _WHAT)
    try:
        guard.check_whole()
        copy = operand.writer.copy("K")
        copy.flags.writeable = operand.writer.flags.writeable
        result = function(copy, *args, **kwargs)
        if operand.writer.flags.writeable:
            hold.begin_write(None if guard.undo is None else layout_of(operand.live, operand.mapping).extent())
            try:
                operand.writer[...] = copy
            finally:
                hold.end_write()
        return operand if result is copy else result
    finally:
        hold.release()


def commit(
    operands: Sequence[Operand],
    versions: Sequence[int],
    values: Sequence[npt.NDArray[Any] | None],
    timeout: float,
) -> list[int]:
    """Write new values to several arrays at once, if none was written to since the versions given.

    Parameters
    ----------
    operands, versions
        All arrays that the values depend on.
    values : sequence of ndarray or None
        None for arrays that stay as they are.

    Returns
    -------
    list of int
        The versions after it.

    Raises
    ------
    TransactionConflictError
        Nothing was written.
    """
    holds: list[Hold] = []
    begun: list[Hold] = []
    try:
        for operand in sorted(operands, key=lambda one: one.guard.slot):
            holds.append(operand.guard.acquire(EXCLUSIVE, timeout, _WHAT))  # noqa: PERF401  # freed if one fails
        for operand, version in zip(operands, versions, strict=True):
            operand.guard.check_whole()
            if operand.guard.version != version:
                raise TransactionConflictError(version, operand.guard.version, operand.guard.writer_pid)
        written = [(operand, value) for operand, value in zip(operands, values, strict=True) if value is not None]
        for hold in holds:
            if any(operand.guard is hold.guard for operand, _ in written):
                hold.begin_write()
                begun.append(hold)
        for operand, value in written:
            operand.writer[...] = value
    finally:
        for hold in begun:
            hold.end_write()
        for hold in reversed(holds):
            hold.release()
    return [operand.guard.version for operand in operands]
