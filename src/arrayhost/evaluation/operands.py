"""Operands and results: hosted arrays inside nested arguments, views inside nested results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

LeafT = TypeVar("LeafT")

__all__ = ["foreign_as_ndarrays", "grouped", "leaves", "map_nested", "map_results"]

# A scalar or a text holds no array; asking these few types first makes the common case cheap.
_LEAVES = frozenset([int, float, complex, bool, str, bytes, type(None), slice, type(...), np.ndarray, type, np.dtype])


def map_nested(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Copy a nest of tuples, lists and dicts with every other value replaced.

    Parameters
    ----------
    value : object
    replace : callable
        Given a leaf, returns what to put in its place. Not asked for plain scalars, texts and ndarrays.

    Returns
    -------
    object
        `value` itself where nothing in it was replaced.
    """
    kind = type(value)
    if kind in _LEAVES:
        if kind is slice and not _plain_slice(value):
            return slice(*(map_nested(part, replace) for part in (value.start, value.stop, value.step)))
        return value
    if kind is tuple or kind is list:
        items = [map_nested(item, replace) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return tuple(items) if kind is tuple else items
    if kind is dict:
        entries = {key: map_nested(item, replace) for key, item in value.items()}
        return value if all(entries[key] is value[key] for key in value) else entries
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return kind._make(map_nested(item, replace) for item in value)
    return replace(value)


def _plain_slice(value: slice) -> bool:
    return all(part is None or type(part) is int for part in (value.start, value.stop, value.step))


def leaves(args: Sequence[Any], kwargs: Mapping[str, Any], kind: type[LeafT]) -> list[LeafT]:
    """Return every value of a kind in nested arguments, in order, as often as it occurs."""
    found: list[LeafT] = []

    def note(leaf: Any) -> Any:
        if isinstance(leaf, kind):
            found.append(leaf)
        return leaf

    for value in args:
        map_nested(value, note)
    for value in kwargs.values():
        map_nested(value, note)
    return found


def grouped(operands: Iterable[LeafT], array_of: Callable[[LeafT], Hashable]) -> list[list[LeafT]]:
    """Return the operands of each array together, every object once, in the order in which they come.

    Parameters
    ----------
    array_of : callable
        Returns what stands for an operand's array: the same for all views of it.
    """
    groups: dict[Hashable, dict[int, LeafT]] = {}
    for operand in operands:
        groups.setdefault(array_of(operand), {})[id(operand)] = operand
    return [list(group.values()) for group in groups.values()]


def foreign_as_ndarrays(value: Any) -> Any:
    """Copy a nest with what other libraries call an array (a tensor, a data set in a file) converted to ndarrays.

    NumPy would convert them, too. Done where they are, since many cannot travel, or not without their library. Types
    that override what NumPy does with them are left as they are.
    """
    return map_nested(value, _foreign_as_ndarray)


def _foreign_as_ndarray(leaf: Any) -> Any:
    kind = type(leaf)
    if (
        not hasattr(kind, "__array__")
        or hasattr(kind, "__array_ufunc__")
        or hasattr(kind, "__array_function__")
        or issubclass(kind, np.generic)
    ):
        return leaf
    return np.asarray(leaf)


def map_results(result: Any, wrap: Callable[[np.ndarray[Any, Any]], Any]) -> Any:
    """Copy a result with every exact ndarray in it passed through `wrap`.

    A structured scalar, which NumPy makes as a view, is copied out: it is a value here.
    """
    kind = type(result)
    if kind is np.ndarray:
        return wrap(result)
    if kind is np.void:
        return result.copy() if result.base is not None else result
    if kind is tuple or kind is list:
        return kind(map_results(item, wrap) for item in result)
    if isinstance(result, tuple) and hasattr(kind, "_make"):
        return kind._make(map_results(item, wrap) for item in result)
    return result
