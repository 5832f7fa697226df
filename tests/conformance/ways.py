"""The ways to hold an array: each turns an ndarray into a proxy, and into the ndarray that this proxy must behave as.

A way is a row: what memory is hosted for an array, and which view of it is the array. Both are applied to an ndarray,
too, so that the two differ in nothing but who owns the memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.remote import MAPPED


@dataclass(frozen=True)
class Way:
    """One way to hold an array.

    Attributes
    ----------
    name : str
    base : callable
        Given the array, an ndarray of the memory to host.
    take : callable
        Given `base` or its proxy, the view that has the array's values.
    on_host : bool
        Use the ``on_host`` of the view's proxy.
    every : int
        Host each `every`-th operand only.
    """

    name: str
    base: Callable[[np.ndarray], np.ndarray] = lambda array: array.copy("K")
    take: Callable[[Any], Any] = lambda base: base
    on_host: bool = False
    every: int = 1

    def turn(self, proxy: Any) -> Any:
        """Given the proxy of the view, the proxy to use."""
        return proxy.on_host if self.on_host else proxy


def _strided(array: np.ndarray) -> np.ndarray:
    """Memory in which the array is every second element of the last axis."""
    if not array.ndim:
        return np.repeat(array, 3)
    memory = np.zeros((*array.shape[:-1], 2 * array.shape[-1] + 1), array.dtype)
    memory[..., 1::2] = array
    return memory


def _every_second(base: Any) -> Any:
    return base[1, ...] if base.shape == (3,) else base[..., 1::2]


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.T.copy("C")


def _transpose(base: Any) -> Any:
    return base.T


WAYS = [
    Way("mapped"),
    Way("strided view", _strided, _every_second),
    Way("transposed view", _transposed, _transpose),
    Way("on_host", on_host=True),
    Way("strided view on_host", _strided, _every_second, on_host=True),
    Way("mixed with ndarrays", every=2),
]


def ways_over(link: str, ways: list[Way] = WAYS) -> list[Way]:
    """The ways that differ: over TCP a proxy is its own ``on_host``."""
    return [way for way in ways if link == MAPPED or not way.on_host]
