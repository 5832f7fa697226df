"""What the hosts host besides plain arrays: ordinary classes, the same for arrayhost and for the standard library."""

import threading
from typing import Any

import numpy as np

from arrayhost.cli.demo.source import Array, load


class Box:
    """A class as users write it around an array so that a manager can host it.

    Parameters
    ----------
    size : int
        How many ones, if there is no file.
    path : str or None
        The ``.npy`` file to hold instead.
    """

    def __init__(self, size: int, path: str | None) -> None:
        data = load(size, path)
        self.data: Array = data if path is None else np.array(data)  # in the host's memory, not a mapped file

    def attribute(self, name: str) -> Any:
        """Attribute `name` of the array."""
        return getattr(self.data, name)

    def sum(self) -> Any:
        """Sum of all elements."""
        with np.errstate(all="ignore"):
            return self.data.sum()

    def getdata(self, index: Any) -> Any:
        """Elements that `index` selects."""
        return self.data[index]


class LockedBox(Box):
    """The same with a lock inside, around the plainest unsafe addition."""

    def __init__(self, size: int, path: str | None) -> None:
        super().__init__(size, path)
        self.tally = np.zeros(1, np.int64)
        self.guard = threading.Lock()

    def add(self, value: int) -> None:
        """Add `value` to the tally, whoever else does the same."""
        with self.guard:
            before = self.tally[0]
            self.tally[0] = before + value

    def total(self) -> int:
        """Sum of what was added."""
        return int(self.tally[0])
