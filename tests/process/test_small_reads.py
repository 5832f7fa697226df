"""Small operations on mapped proxies: no round trip, ndarray's results to the last bit, never a mix of two writes."""

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, StaleProxyError, TornArrayError
from arrayhost.client.session import round_trips
from arrayhost.client.steady import MISSED, steady_binary
from arrayhost.memory.control import GENERATION, TORN
from tests.support import assert_same, child

SMALL: dict[str, Callable[[Any, Any], Any]] = {
    "a[i]": lambda a, b: a[3],
    "a.shape": lambda a, b: a.shape,
    "a + b": lambda a, b: a + b,
    "a + 1": lambda a, b: a + 1,
    "1 - a": lambda a, b: 1 - a,
    "a ** 2": lambda a, b: a**2,
    "a < b": lambda a, b: a < b,
    "a @ b": lambda a, b: a @ b,
    "a + ndarray": lambda a, b: a + np.arange(10.0),
    "ndarray * a": lambda a, b: np.arange(10.0) * a,
    "divmod": lambda a, b: divmod(a, 2),
    "a.sum()": lambda a, b: a.sum(),
    "a.std": lambda a, b: a.std(ddof=1, keepdims=True),
    "a.argmax": lambda a, b: a.argmax(axis=0),
    "a.item": lambda a, b: a.item(2),
    "in": lambda a, b: 3.0 in a,
    "bool": lambda a, b: bool(a[:1]),
    "np.add": lambda a, b: np.add(a, b),
    "np.multiply.outer": lambda a, b: np.multiply.outer(a, b),
    "np.maximum.reduce": lambda a, b: np.maximum.reduce(a),
    "np.mean": lambda a, b: np.mean(a, axis=0),
    "np.sum": lambda a, b: np.sum(a, where=np.arange(10) > 4),
    "out": lambda a, b: np.sum(a, out=np.zeros(())),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_round_trip_and_the_same_result(manager: ArrayManager, rng: np.random.Generator, name: str) -> None:
    x, y = rng.random(10), rng.random(10)
    a, b = manager.array(x), manager.array(y)
    before = round_trips()
    result = SMALL[name](a, b)
    assert round_trips() == before
    assert_same(result, SMALL[name](x, y))


def test_sums_are_the_same_to_the_last_bit(manager: ArrayManager, rng: np.random.Generator) -> None:
    x = rng.random((20, 30))
    a = manager.array(x)
    for pick in (lambda v: v, lambda v: v.T, lambda v: v[:, ::3], lambda v: v[::-1], lambda v: v[3:9, 1:]):
        assert pick(a).sum() == pick(x).sum()
        assert np.mean(pick(a)) == np.mean(pick(x))


def test_hosted_arrays_among_the_other_arguments_are_written_to_or_used(manager: ArrayManager) -> None:
    a, out, mask = manager.arange(4), manager.zeros((), int), manager.array([True, False, True, False])
    assert a.sum(out=out) is out
    assert out[()] == 6
    assert a.sum(where=mask) == 2
    assert np.sum(a, out=out) is out
    assert np.add(a, 1, out=a) is a
    assert_same(a.copy(), np.arange(1, 5))


class Counting:
    """An object that counts what is done with it, and then cannot do it."""

    def __init__(self) -> None:
        self.n_added = 0

    def __radd__(self, other: Any) -> Any:
        self.n_added += 1
        raise TypeError("not to be added")


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("add", [lambda a, x: a + x, lambda a, x: np.add(a, x), lambda a, x: np.add.outer(a[:1], x)])
def test_code_of_the_callers_runs_once(manager: ArrayManager, size: int, add: Callable[[Any, Any], Any]) -> None:
    counting = Counting()
    with pytest.raises(TypeError, match="not to be added"):
        add(manager.ones(size), np.array([counting] * size if size == 3 else [counting], dtype=object))
    assert counting.n_added == 1


def test_warnings_and_errors_are_numpys(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        1 / a
    with pytest.warns(RuntimeWarning, match="invalid value"):
        a / a
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        a / a
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        1 / a
    with pytest.raises(ValueError, match="could not be broadcast together"):
        a + np.ones(3)
    with pytest.raises(TypeError):
        a + "text"
    with pytest.raises(TypeError):
        a.sum(no_such=1)


class Deferring:
    """An operand that asks to be given the operation."""

    __array_ufunc__ = None

    def __radd__(self, other: Any) -> str:
        return f"given a {type(other).__name__}"


def test_operands_of_other_types_have_their_say(manager: ArrayManager) -> None:
    a = manager.ones(3)
    assert a + Deferring() == "given a HostedArray"
    masked = np.ma.array([1.0, 2, 3], mask=[0, 1, 0])
    assert type(a + masked) is np.ma.MaskedArray
    assert type(masked + a) is np.ma.MaskedArray


WRITER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["small"]
print("ready", flush=True)
k = 0
while True:
    k += 1
    with a.write() as x:
        x.fill(0)
        x.fill(k)
"""


def test_small_reads_show_one_write(manager: ArrayManager) -> None:
    manager["small"] = np.zeros(200)
    a = manager["small"]
    half = a[:100]
    whole = a[100:]
    with child(WRITER, manager.address) as writer, np.errstate(all="raise"):
        writer.expect("ready")
        seen: set[float] = set()
        n_reads = 0
        while n_reads < 3000 or (len(seen) < 3 and n_reads < 1_000_000):  # the writer may get little of a busy machine
            n_reads += 1
            total = a.sum()
            assert total == a.size * np.rint(total / a.size)
            seen.add(total)
            # Two operands, one moment, unless both had to be copied one after the other under a writer's nose.
            difference = steady_binary(operator.sub, half, whole)
            assert difference is MISSED or not difference.any()
            # No warning of what is there for a moment only.
            a / (a + 1)
        writer.kill()
    assert len(seen) > 2


@pytest.mark.parametrize("read", [operator.itemgetter(0), lambda a: a + 1, lambda a: a.sum(), lambda a: a.copy()])
def test_a_version_once_found_good_hides_neither_tears_nor_other_arrays(
    manager: ArrayManager, read: Callable[[Any], Any]
) -> None:
    a = manager.ones(3)
    read(a)
    guard = a.guard
    # What a later holder of the lock does on finding the version odd, and what the host does with a freed row.
    guard.words[guard.base + 1] += 1
    guard._note_dead_writer()
    with pytest.raises(TornArrayError):
        read(a)
    a.recover()
    read(a)
    assert guard.row[TORN] == 0
    generation = guard.row[GENERATION]
    guard.row[GENERATION] = generation + 1
    guard.row[1] += 2
    with pytest.raises(StaleProxyError):
        read(a)
    guard.row[GENERATION] = generation
    read(a)
