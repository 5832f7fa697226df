"""What a case is: a call with arrays in it, and the data that the tables are written with.

An ndarray anywhere among a case's arguments, in lists, tuples and dicts too, is an operand: the walker hosts it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call of a function of NumPy's."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = [*map(_short, self.args), *(f"{key}={_short(value)}" for key, value in self.kwargs.items())]
        return f"{getattr(self.function, '__name__', self.function)}({', '.join(given)})"


def c(*args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Case]:
    """Arguments of a case; the function is its row's."""
    return lambda function: Case(function, args, kwargs)


def via(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Case]:
    """A case that reaches the row's function through `call`."""
    return lambda function: Case(call, args, kwargs)


def leaves(value: Any) -> Iterator[np.ndarray]:
    """Every operand in a nest of arguments."""
    if type(value) is np.ndarray and not value.dtype.hasobject:
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)


def filled(value: Any, operands: Iterator[Any]) -> Any:
    """Copy a nest of arguments with its operands replaced, in the order of `leaves`."""
    if type(value) is np.ndarray:
        return value.copy() if value.dtype.hasobject else next(operands)
    if type(value) in (tuple, list):
        return type(value)(filled(item, operands) for item in value)
    if type(value) is dict:
        return {key: filled(item, operands) for key, item in value.items()}
    return value


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str if value.dtype.names is None else 'record'}{list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(_short, value))})"
    return getattr(value, "__name__", None) or repr(value)[:40]


def zeros(*shape: int, dtype: Any = float) -> np.ndarray:
    """Something to write to."""
    return np.zeros(shape, dtype)


# Each letter's array: F G floats, I J ints, B bools, C complex (3, 4); V W U vectors; S T square; X with NaN.
F = np.linspace(-3, 5, 12).reshape(3, 4)
G = np.array([[4.0, 0.5, 2, 1], [1, 1, 3, 8], [0.25, 6, 1, 7]])
I = np.arange(12).reshape(3, 4) * 7 % 11 + 1  # noqa: E741  # the letter for integers
J = (np.arange(12, dtype="i4").reshape(3, 4) * 5) % 7
B = np.arange(12).reshape(3, 4) % 3 == 0
C = F * (1 - 2j)
X = np.where(B, np.nan, F)
V = np.array([3.0, -1.0, 2.5, 0.5])
W = np.array([2, 0, 3, 1])
U = np.array([1.0, 2.0, 4.0, 8.0])
P = np.array([True, False, True, True])
S = np.array([[4.0, 1, 0.5], [1, 3, 0.25], [0.5, 0.25, 5]])
T = np.array([[0.0, 2, 1], [1, 1, 0], [3, 0, 2]])
K = np.arange(24.0).reshape(2, 3, 4)
L = np.asfortranarray(K + 0.5)
ZERO = np.array(2.5)  # no dimension
NONE = np.zeros((0, 4))  # no element
DAYS = np.array(["2024-02-28", "2024-03-01", "2024-03-04", "NaT"], "M8[D]")
SPANS = np.array([1, -2, 30, 0], "m8[h]")
TEXT = np.array([" Ab c", "xyz ", "12", ""])
BYTES = np.array([b" Ab c", b"xyz ", b"12", b""])
PACKED = np.array([[2, 7, 23], [1, 0, 255]], "u1")
RECORD = np.array([(1, 2.5, "ab"), (3, -1.0, "c"), (1, 0.0, "d")], [("i", "i4"), ("f", "f8"), ("s", "U3")])
POINTS = np.array([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)], [("x", "f8"), ("y", "f8")])
