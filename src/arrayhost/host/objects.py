"""Hosted objects: what of them may be reached, and how a call on one is made."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Iterator as IteratorABC
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arrayhost.errors import ReferentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from arrayhost.host.store import ObjectReferent

__all__ = ["Registration", "call", "public_methods"]

# What a class without `exposed=` shows beside its public names.
_CONTAINER_METHODS = (
    "__call__", "__contains__", "__delitem__", "__enter__", "__exit__", "__getitem__", "__iter__", "__len__",
    "__next__", "__setitem__",
)  # fmt: skip
# When these return the object itself, it is still the hosted one that is meant, and not a copy.
_RETURNING_ITSELF = frozenset(
    ["__enter__", "__iter__", "__iadd__", "__iand__", "__ifloordiv__", "__ilshift__", "__imatmul__", "__imod__",
     "__imul__", "__ior__", "__ipow__", "__irshift__", "__isub__", "__itruediv__", "__ixor__"]
)  # fmt: skip
ITERATOR = "Iterator"
ITERATOR_METHODS = ("__iter__", "__next__", "close", "send", "throw")
# Understood for every object, as in the standard library.
_ALWAYS: dict[str, Callable[[Any], Any]] = {"__repr__": repr, "__str__": str}


@dataclass(frozen=True, slots=True)
class Registration:
    """One registered type of hosted things.

    Attributes
    ----------
    callable : callable or None
        Makes an instance; None where instances only come from methods of others.
    exposed : tuple of str or None
        The only names that proxies reach; None for every public name.
    method_to_typeid : dict
        Methods whose results are hosted, and as what.
    serialize : bool
        Calls on one instance run one at a time.
    """

    callable: Callable[..., Any] | None
    exposed: tuple[str, ...] | None = None
    method_to_typeid: dict[str, str] = field(default_factory=dict)
    serialize: bool = False


def public_methods(value: Any) -> tuple[str, ...]:
    """Names of an object's public methods, and of those special methods that make it a container or a function.

    Looked up without running properties: evaluating ``value.name`` for every name, as the standard library does,
    fails on NumPy 2's arrays.
    """
    names = [name for name in dir(value) if not name.startswith("_")]
    names += [name for name in _CONTAINER_METHODS if hasattr(type(value), name)]
    return tuple(name for name in names if _is_callable(value, name))


def _is_callable(value: Any, name: str) -> bool:
    try:
        found = inspect.getattr_static(value, name)
    except AttributeError:
        return False
    if isinstance(found, property):
        return False
    return callable(found) or isinstance(found, (staticmethod, classmethod))


def call(referent: ObjectReferent, name: str, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
    """Call a method of a hosted object, or read, set or delete a public attribute.

    Raises
    ------
    AttributeError
        The name is not exposed.
    Exception
        Whatever the method raises.
    """
    with referent.serial or contextlib.nullcontext():
        return _call(referent, name, tuple(args), kwargs)


def _call(referent: ObjectReferent, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, handle = referent.value, referent.handle
    if name == "#GETVALUE":
        return value
    if name in handle.methods:
        return getattr(value, name)(*args, **kwargs)
    if name in ("__getattribute__", "__getattr__", "__setattr__", "__delattr__") and args:
        _check_attribute(referent, args[0])
        action: Any = {"__setattr__": setattr, "__delattr__": delattr}.get(name, getattr)
        return action(value, *args)
    if name in _ALWAYS:
        return _ALWAYS[name](value)
    raise AttributeError(_refusal(referent, name))


def _check_attribute(referent: ObjectReferent, name: Any) -> None:
    allowed = isinstance(name, str) and not name.startswith("_") and referent.handle.attributes
    if not allowed and name not in referent.handle.methods:
        raise AttributeError(_refusal(referent, name))


def _refusal(referent: ObjectReferent, name: Any) -> str:
    exposed = ", ".join(referent.handle.methods) or "nothing"
    kind = type(referent.value).__name__
    if isinstance(name, str) and name.startswith("_"):
        return f"{kind!r} object: {name!r} is private and not exposed; expose it with register(..., exposed=[...])"
    return f"{kind!r} object does not expose {name!r}; exposed are: {exposed}"


def is_unpicklable_iterator(value: Any) -> bool:
    """Whether a method returned a generator or the like, which can only stay in the host."""
    if not isinstance(value, IteratorABC):
        return False
    try:
        pickle.dumps(value)
    except (TypeError, pickle.PicklingError, AttributeError):
        return True
    return False


def is_itself(referent: ObjectReferent, name: str, result: Any) -> bool:
    """Whether a special method returned its own object, as ``__enter__`` often does."""
    return result is referent.value and name in _RETURNING_ITSELF


def find_registration(registry: dict[str, Registration], typeid: str) -> Registration:
    """Return a registered type.

    Raises
    ------
    ReferentNotFoundError
    """
    try:
        return registry[typeid]
    except KeyError:
        if typeid == ITERATOR:  # known to every host, as to the standard library's SyncManager
            return Registration(None, ITERATOR_METHODS)
        known = ", ".join(sorted(registry)) or "none"
        raise ReferentNotFoundError(
            f"the host knows no type {typeid!r}; registered when it started: {known}. Register it before start()"
        ) from None
