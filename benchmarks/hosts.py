"""One host of each kind: arrayhost's and the standard library's, both spawned, with the same things registered."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from multiprocessing import managers
from multiprocessing.managers import BaseManager, BaseProxy
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost import ArrayManager
from benchmarks.workers import SPAWN

if TYPE_CHECKING:
    from collections.abc import Iterator

# NumPy 2 breaks the stdlib's own scan for public methods (`.mT` of a 1-D array raises), so they must be listed.
EXPOSED = ["sum", "__getitem__", "__setitem__"]


class Counter:
    """A hosted object with one cheap method."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, amount: int) -> int:
        """Add `amount` and return the total."""
        self.total += amount
        return self.total


class Arrays(ArrayManager):
    """Ours."""


class StdlibArrays(BaseManager):
    """S."""


Arrays.register("registered_ones", np.ones)
Arrays.register("Counter", Counter)

StdlibArrays.register("ones", np.ones, exposed=EXPOSED)
# AutoProxy would define `__getattribute__` on the proxy too, and recurse for ever.
StdlibArrays.register("ones_with_attributes", np.ones, BaseProxy, exposed=["__getattribute__"])
StdlibArrays.register("array", np.array, exposed=EXPOSED)
StdlibArrays.register("zeros", np.zeros, exposed=EXPOSED)
StdlibArrays.register("Counter", Counter)
StdlibArrays.register("Lock", threading.Lock, managers.AcquirerProxy)  # type: ignore[attr-defined]  # typeshed lacks it


@contextmanager
def both() -> Iterator[tuple[Any, Any]]:
    """Start arrayhost's host and the stdlib's, and end both afterwards.

    Yields
    ------
    ours : Arrays
    stdlib : StdlibArrays
    """
    with Arrays(ctx=SPAWN) as ours, StdlibArrays(ctx=SPAWN) as stdlib:
        yield ours, stdlib


def stdlib_pid(manager: Any) -> int:
    """Return the pid of the stdlib manager's process, which it does not publish."""
    return int(manager._process.pid)
