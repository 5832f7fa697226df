"""Warnings name the caller's line, and filters count by it: as for an ndarray, wherever the evaluation takes place."""

import contextlib
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray

LARGE = 5_000  # elements of float64: more than what is copied for a small read


def zeros(size: int) -> np.ndarray:
    values = np.zeros(size)
    values[0] = 3
    return values


def warned(call: Callable[[Any], Any], x: Any) -> list[tuple[str, int, type, str]]:
    """The warnings of a call: file, line, category, text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(x)
    return [(one.filename, one.lineno, one.category, str(one.message)) for one in caught]


# Where an operation is evaluated: how many elements, and a section to be in.
WAYS: dict[str, tuple[int, Callable[[HostedArray], contextlib.AbstractContextManager[Any]]]] = {
    "small": (10, lambda a: contextlib.nullcontext()),
    "large": (LARGE, lambda a: contextlib.nullcontext()),
    "in a section": (10, lambda a: a.write()),
    "in a section that reads": (LARGE, lambda a: a.read()),
}

# Each warns, once or more, of zeros behind a 3.
READS: dict[str, Callable[[Any], Any]] = {
    "operator": lambda x: x / 0,
    "operator on the right": lambda x: 1 / x,
    "ndarray on the left": lambda x: np.ones(x.shape) / x,
    "two operands": lambda x: x / x,
    "several": lambda x: (x * 1e308) * (1 / x),
    "power": lambda x: x**-1,
    "divmod": lambda x: divmod(x, 0.0),
    "ufunc": lambda x: np.log(x),
    "ufunc of two": lambda x: np.divide(1.0, x),
    "reduce": lambda x: np.divide.reduce(x),
    "outer": lambda x: np.divide.outer(x[:2], x[:2]),
    "ufunc with out": lambda x: np.divide(1.0, x, out=np.empty(x.shape)),
    "method": lambda x: x[:1].prod(dtype="f4", initial=3e38),
    "conversion": lambda x: x.view(complex).astype(float),
    "asarray": lambda x: np.asarray(x.view(complex), float),
    "mean of nothing": lambda x: x[:0].mean(),
    "deviation of one": lambda x: x[:1].std(ddof=1),
    "function": lambda x: np.dot(x[:1] * 1e308, x[:1] * 1e308),
    "function in Python": lambda x: np.prod(x[:1], dtype="f4", initial=3e38),
    "mean as a function": lambda x: np.mean(x[:0]),
    "median": lambda x: np.median(x[:0]),
    "nested": lambda x: np.stack([x / 0, x]),
}


def warns_alike(manager: ArrayManager, way: str, work: Callable[[Any], Any]) -> None:
    size, section = WAYS[way]
    a, values = manager.array(zeros(size)), zeros(size)
    expected = warned(work, values)
    assert expected
    with section(a):
        assert warned(work, a) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", READS)
def test_reads_warn_of_the_line_that_ndarray_warns_of(manager: ArrayManager, way: str, name: str) -> None:
    warns_alike(manager, way, READS[name])


@pytest.mark.parametrize("name", READS)
def test_what_the_host_evaluates_warns_of_this_file(manager: ArrayManager, name: str) -> None:
    a, values = manager.array(zeros(10)), zeros(10)
    line = READS[name].__code__.co_firstlineno
    expected = [(__file__, line, category, text) for _, _, category, text in warned(READS[name], values)]
    assert warned(READS[name], a.on_host) == expected


def put(x: Any) -> None:
    x[...] = np.ones(x.shape) * 1j


def add(x: Any) -> None:
    x += 1e308
    x *= 1e308


WRITES: dict[str, Callable[[Any], Any]] = {
    "in place": add,
    "assignment": put,
    "out": lambda x: np.divide(1.0, x, out=x),
    "at": lambda x: np.divide.at(x, 0, 0.0),
}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "in a section that reads"])
@pytest.mark.parametrize("name", WRITES)
def test_writes_warn_of_the_line_that_ndarray_warns_of(manager: ArrayManager, way: str, name: str) -> None:
    warns_alike(manager, way, WRITES[name])


def counted(action: Any, x: Any) -> int:
    """How many warnings a filter lets through, of a loop and of another line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        for _ in range(3):
            1 / x
        1 / x
    return len(caught)


@pytest.mark.parametrize("action", ["default", "module", "once", "always", "ignore"])
@pytest.mark.parametrize("way", [*WAYS, "on host"])
def test_filters_count_by_the_callers_line(manager: ArrayManager, way: str, action: str) -> None:
    size, section = WAYS.get(way, WAYS["small"])
    a = manager.array(zeros(size))
    if way == "on host":
        a = a.on_host
    once: dict[Any, Any] = warnings.onceregistry  # type: ignore[attr-defined]  # missing in the stubs
    once.clear()
    expected = counted(action, zeros(size))
    once.clear()
    assert expected == {"default": 2, "module": 1, "once": 1, "always": 4, "ignore": 0}[action]
    with section(a):
        assert counted(action, a) == expected
    once.clear()


@pytest.mark.parametrize("way", [*WAYS, "on host"])
def test_filters_that_raise_are_obeyed(manager: ArrayManager, way: str) -> None:
    size, section = WAYS.get(way, WAYS["small"])
    a = manager.array(zeros(size))
    if way == "on host":
        a = a.on_host
    with section(a), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="divide by zero"):
            1 / a
        with np.errstate(all="ignore"):
            1 / a


def test_a_filter_for_this_module_alone(manager: ArrayManager) -> None:
    for a in (manager.zeros(10), manager.zeros(LARGE), manager.zeros(10).on_host):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module=__name__.replace(".", r"\."))
            a / 0
        assert len(caught) == 1


def test_settings_that_call_back_are_called_back_once(manager: ArrayManager) -> None:
    for a in (manager.zeros(10), manager.zeros(LARGE)):
        told: list[tuple[str, int]] = []
        with np.errstate(all="call", call=lambda *condition, told=told: told.append(condition)):
            1 / a
        assert told == [("divide by zero", 1)]


def test_a_traceback_shows_where_numpy_was_called_from(manager: ArrayManager) -> None:
    with np.errstate(all="raise"):
        try:
            manager.zeros(LARGE) / 0
        except FloatingPointError as error:
            lines = traceback.extract_tb(error.__traceback__)
    assert (lines[-1].filename, lines[-1].lineno, lines[-1].name) == (__file__, lines[0].lineno, "called_by_arrayhost")
