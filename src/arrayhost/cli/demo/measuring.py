"""Calls timed, and results compared with NumPy's."""

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_REPEAT_SECONDS = 0.05
_REPEATS = 1_000
_RTOL = {"e": 1e-2, "f": 1e-4, "F": 1e-4}  # another order of adding rounds otherwise; by dtype.char
_RTOL_ELSE = 1e-9


@dataclass(frozen=True)
class Measured:
    """A value and the seconds that it took; a step that knows better than a clock around it returns one."""

    value: Any
    seconds: float


class ShortfallError(Exception):
    """The standard library did something less than asked; the text is all there is to say."""


def measure(work: Callable[[], Any], *, once: bool) -> Measured:
    """Time `work`: the median of several goes where they are quick, a single one where not or if `once`."""
    first = _time(work)
    if once or first.seconds > _REPEAT_SECONDS:
        return first
    seconds = [first.seconds]
    end = time.perf_counter() + _REPEAT_SECONDS
    while time.perf_counter() < end and len(seconds) < _REPEATS:
        seconds.append(_time(work).seconds)
    return Measured(first.value, statistics.median(seconds))


def _time(work: Callable[[], Any]) -> Measured:
    start = time.perf_counter()
    value = work()
    seconds = time.perf_counter() - start
    return value if isinstance(value, Measured) else Measured(value, seconds)


def same(value: Any, expected: Any) -> bool:
    """Whether `value` is what NumPy gave: type, shape and dtype exactly, floating point up to the order of adding."""
    if isinstance(expected, tuple):
        return isinstance(value, tuple) and len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, np.ndarray | np.generic):
        return _same_numbers(value, expected)
    return type(value) is type(expected) and bool(value == expected)


def _same_numbers(value: Any, expected: np.ndarray[Any, Any] | np.generic) -> bool:
    numbers = np.asarray(value)
    if (numbers.shape, numbers.dtype) != (expected.shape, expected.dtype):
        return False
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(numbers, expected))
    rtol = _RTOL.get(expected.dtype.char, _RTOL_ELSE)
    return bool(np.allclose(numbers, expected, rtol=rtol, atol=0, equal_nan=True))


def shown(value: Any, width: int = 64) -> str:
    """Show `value` on one short line."""
    is_shape = isinstance(value, tuple) and all(type(item) is int for item in value)
    text = ", ".join(shown(item) for item in value) if isinstance(value, tuple) and not is_shape else str(value)
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


def refusal(error: BaseException) -> str:
    """Name an error on one line; of one that came with the host's traceback, its last line.

    >>> refusal(TypeError("'AutoProxy[ones]' object is not subscriptable"))
    "TypeError: 'AutoProxy[ones]' object is not subscriptable"
    """
    if isinstance(error, ShortfallError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip("- \t")]
    # A message that spans lines ends in the error's own line, "ValueError: ..."; what precedes it is the traceback.
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)] if len(lines) > 1 else []
    return f"{type(error).__name__}: {errors[-1] if errors else ' '.join(lines)}".rstrip(": ")
