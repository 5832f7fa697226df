"""The standard library's side of each row: first as it comes, then with the help that its users write for it.

As it comes, a manager refuses a one-dimensional array on NumPy 2 altogether (its scan for methods trips over ``.mT``),
and has neither attributes nor indices. `exposed=` and a proxy class of one's own help, and so both are tried: it would
prove nothing to be faster than a twin that was used badly.
"""

import threading
from multiprocessing.managers import AcquirerProxy, BaseManager, BaseProxy  # type: ignore[attr-defined]  # no AcquirerProxy
from multiprocessing.util import get_temp_dir
from typing import Any

import numpy as np

from arrayhost.cli.demo.processes import die_with_parent
from arrayhost.cli.demo.referents import Box, LockedBox
from arrayhost.cli.demo.source import Array

PUBLIC_METHODS = tuple(name for name in dir(np.ndarray) if name[0] != "_" and callable(getattr(np.ndarray, name)))
_remembered: list[Array] = []  # in the host only: the array that `same` hands out under another proxy class


class ArrayProxy(BaseProxy):
    """The proxy class that a patient user writes: attributes and indices by round trip."""

    _exposed_ = ("__getattribute__", "__getitem__", "__setitem__")

    def __getattr__(self, name: str) -> Any:
        """Attribute of the array in the host."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self._callmethod("__getattribute__", (name,))

    def __getitem__(self, index: Any) -> Any:
        """Elements, copied."""
        return self._callmethod("__getitem__", (index,))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Set elements."""
        self._callmethod("__setitem__", (index, value))


def ones(shape: tuple[int, ...]) -> Array:
    """Make ones in the host."""
    return _remember(np.ones, shape)


def asarray(array: Array) -> Array:
    """Host an array that came by pickle."""
    return _remember(np.asarray, array)


def _remember(make: Any, argument: Any) -> Array:
    _remembered.clear()  # before making: a first try that was refused must not cost memory
    _remembered.append(make(argument))
    return _remembered[0]


def same() -> Array:
    """Give the array hosted last once more: a view, because a host keeps one set of exposed names for an object."""
    return _remembered[0].view()


def zeros(size: int) -> Array:
    """Make a small array of integers."""
    return np.zeros(size, np.int64)


class Twin(BaseManager):
    """The standard library's manager, with everything the story needs."""

    def start_quietly(self) -> None:
        """Start the host; it dies with this process and keeps NumPy's warnings to itself."""
        get_temp_dir()  # ours, and so removed when we end: where the host puts its socket even if it is killed
        self.start(_settle)


def _settle() -> None:
    die_with_parent()
    np.seterr(all="ignore")


Twin.register("plain_ones", ones)
Twin.register("plain_asarray", asarray)
Twin.register("ones", ones, exposed=PUBLIC_METHODS)
Twin.register("asarray", asarray, exposed=PUBLIC_METHODS)
Twin.register("same", same, proxytype=ArrayProxy)
Twin.register("zeros", zeros, proxytype=ArrayProxy)
Twin.register("Lock", threading.Lock, AcquirerProxy)
Twin.register("Box", Box)
Twin.register("LockedBox", LockedBox)
