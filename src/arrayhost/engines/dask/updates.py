"""What arrays on a cluster have beyond ndarray: versions, waiting, updates of elements, transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.engines.dask.assigning import assign
from arrayhost.engines.dask.commits import Update, commit, publish
from arrayhost.engines.dask.computing import block_values, fetched, values
from arrayhost.errors import GatherLimitError, TransactionConflictError, WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["HOSTED_OPERATIONS"]


def _state(array: Any) -> list[Any]:
    version = array._source.snapshot().version
    return [0, 0, version, False, False, 0, 0]


def _recover(array: Any, timeout: float) -> None:
    """Nothing is ever torn: a version is published whole."""


def _wait(array: Any, since: int, timeout: float) -> int:
    version: int = array._source.link.call(
        "wait", seconds=timeout, ident=array._source.ident, since=since, timeout=timeout
    )
    return version


def _inside(array: Any) -> Any:
    """The ndarray of this thread's own section, if it is in one that may be written to."""
    section = array._source.section
    if section is None:
        return None
    inside = section.shown(array._selection)
    if inside is None or not section.writeable:
        raise WouldDeadlock("this thread is inside a section on the array that does not cover this write")
    return inside


def _updated(array: Any, index: Any, change: Callable[[Any, np.dtype[Any]], Any]) -> Any:
    """Read elements and write others to their places, both of one version; return those from before."""
    inside = _inside(array)
    if inside is not None:
        before = np.copy(inside[index])[()]
        new = change(before, inside.dtype)
        if new is not None:
            inside[index] = new
        return before

    def attempt() -> tuple[list[Update], Any]:
        source, base = array._source, array._source.snapshot()
        selection = array._selection.assigned(index)
        if selection is None or not selection.is_basic:
            whole = block_values(source.link, array._selection.of(base.array))
            before = np.copy(whole[index])[()]
            new = change(before, base.dtype)
            if new is None:
                return [Update(source, base)], before
            whole[index] = new
            return [assign(source, base, array._selection, whole)], before
        (before,) = values(source.link, [selection.of(base.array)])
        new = change(before, base.dtype)
        return [Update(source, base) if new is None else assign(source, base, selection, new)], before

    return commit(array._source.link, lambda: fetched(array._source, attempt))


def _add(array: Any, index: Any, value: Any, timeout: float) -> Any:
    def change(before: Any, dtype: np.dtype[Any]) -> Any:
        after = np.array(before)
        after += value
        return after

    return _updated(array, index, change)


def _exchange(array: Any, index: Any, value: Any, timeout: float) -> Any:
    return _updated(array, index, lambda before, dtype: value)


def _compare_exchange(array: Any, index: Any, expected: Any, new: Any, timeout: float) -> Any:
    def change(before: Any, dtype: np.dtype[Any]) -> Any:
        wanted = np.asarray(expected)
        equal = np.all((before == wanted) | ((before != before) & (wanted != wanted)))
        return new if equal else None

    return _updated(array, index, change)


def _transaction(arrays: Sequence[Any], versions: Sequence[int], changed: Sequence[Any], timeout: float) -> None:
    """Publish changes of several arrays at once, if all of them are as they were."""
    link = arrays[0]._source.link
    link.check_writable()
    updates = []
    for array, version, values_ in zip(arrays, versions, changed, strict=True):
        source, base = array._source, array._source.snapshot()
        if base.version != version:
            raise TransactionConflictError(version, base.version)
        updates.append(Update(source, base) if values_ is None else assign(source, base, array._selection, values_))
    answer = publish(link, updates, timeout)
    if answer["refused"] is not None:
        expected = {array._source.ident: version for array, version in zip(arrays, versions, strict=True)}
        raise TransactionConflictError(expected[answer["ident"]], answer["version"])


def _apply(array: Any, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function with a copy that is written back."""
    inside = _inside(array)
    if inside is not None:
        result = function(inside, *args, **kwargs)
        return array if result is inside else result

    def attempt() -> tuple[list[Update], Any]:
        source, base = array._source, array._source.snapshot()
        view = array._selection.of(base.array)
        if view.nbytes > source.link.gather_limit:
            raise GatherLimitError("apply", int(view.nbytes), source.link.gather_limit)
        copy = block_values(source.link, view)
        result = function(copy, *args, **kwargs)
        return [assign(source, base, array._selection, copy)], array if result is copy else result

    return commit(array._source.link, lambda: fetched(array._source, attempt))


HOSTED_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "state": _state, "recover": _recover, "wait": _wait, "add": _add, "exchange": _exchange,
    "compare_exchange": _compare_exchange, "commit": _transaction, "apply": _apply,
}  # fmt: skip
