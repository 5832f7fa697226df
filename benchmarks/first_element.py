"""What the processes of `rows_handoff` run. It imports no library itself: each contender's process has only its own.

(arrayhost imports modules that the stdlib's proxies otherwise import at their first use.)
"""

from __future__ import annotations

import importlib
import pickle
import time


def prepare(library: str) -> None:
    """Import NumPy and the library, but connect to nothing."""
    importlib.import_module("numpy")
    importlib.import_module(library)


def first_element(payload: bytes) -> float:
    """Seconds to unpickle a proxy (or an ndarray) and to read an element."""
    start = time.perf_counter()
    a = pickle.loads(payload)
    element = a[0]
    seconds = time.perf_counter() - start
    _check(element)
    return seconds


def first_element_stdlib(payload: bytes) -> float:
    """Seconds to unpickle a stdlib proxy and to read an element."""
    start = time.perf_counter()
    p = pickle.loads(payload)
    element = p._callmethod("__getitem__", (0,))
    seconds = time.perf_counter() - start
    _check(element)
    return seconds


def _check(element: float) -> None:
    if element != 1.0:
        raise ValueError(f"the first element of ones was {element}")
