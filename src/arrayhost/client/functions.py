"""Functions that are to run in a host: by reference where they can be imported there, else by value."""

from __future__ import annotations

import pickle
from typing import Any

from arrayhost.errors import ArgumentEncodingError

__all__ = ["sendable"]


class _ByValue:
    """A function as cloudpickle writes it; unpickling this gives the function."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def sendable(function: Any) -> Any:
    """Return a function, or what unpickles to it where it is defined in no module: a lambda, a closure.

    Raises
    ------
    ArgumentEncodingError
        It can be sent by value only, and cloudpickle is not installed or fails too.
    """
    try:
        pickle.dumps(function, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        try:
            import cloudpickle  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise ArgumentEncodingError(
                f"{name} cannot be imported in the host ({error}); define it at the top level of a module, or install "
                "cloudpickle to send it by value: pip install 'arrayhost[closures]'"
            ) from error
        try:
            return _ByValue(cloudpickle.dumps(function))
        except (pickle.PicklingError, TypeError, AttributeError) as failure:
            raise ArgumentEncodingError(f"{name} cannot be sent to the host: {failure}") from failure
    return function
