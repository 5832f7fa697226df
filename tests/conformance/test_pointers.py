"""Arrays whose elements hold pointers (objects, variable-width strings) are refused wherever one could become hosted.

The error says what to use. As values beside hosted arrays they are NumPy's business.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArgumentEncodingError, ArrayManager, UnsupportedDTypeError
from arrayhost.errors import UnsupportedError
from tests.support import assert_same
from tests.support.remote import TCP, managed

OBJECTS = np.array([1, "x", None], object)
RECORDS = np.zeros(2, [("a", "O"), ("b", "f8")])
POINTERS = {"objects": OBJECTS, "records": RECORDS}
if hasattr(np.dtypes, "StringDType"):
    POINTERS["strings"] = np.array(["a", "bb"], "T")


class Arrays(ArrayManager):
    pass


def same(value: Any) -> Any:
    return value


def make(kind: str) -> np.ndarray:
    return POINTERS[kind].copy()


class Maker:
    def array(self, kind: str) -> np.ndarray:
        return make(kind)


Arrays.register("same", same)
Arrays.register("make", make)
Arrays.register("zeros_", np.zeros)
Arrays.register("full_like_", np.full_like)
Arrays.register("Maker", Maker, method_to_typeid={"array": "same"})


@pytest.fixture(scope="module")
def manager(link: str) -> Iterator[ArrayManager]:
    with managed(link, Arrays) as running:
        yield running


ENTRIES: dict[str, Callable[[Any, str, np.ndarray], Any]] = {
    "array": lambda m, kind, x: m.array(x),
    "asarray": lambda m, kind, x: m.asarray(x),
    "array of a list": lambda m, kind, x: m.array(x.tolist(), dtype=x.dtype),
    "empty": lambda m, kind, x: m.empty(3, dtype=x.dtype),
    "zeros": lambda m, kind, x: m.zeros(3, x.dtype),
    "ones": lambda m, kind, x: m.ones((2, 2), dtype=x.dtype),
    "full": lambda m, kind, x: m.full(3, x[0], dtype=x.dtype),
    "registered function": lambda m, kind, x: m.make(kind),
    "registered function, argument": lambda m, kind, x: m.same(x),
    "registered constant": lambda m, kind, x: m.zeros_(3, dtype=x.dtype),
    "registered method": lambda m, kind, x: m.Maker().array(kind),
    "run": lambda m, kind, x: m.run(make, kind),
    "run, argument": lambda m, kind, x: m.run(same, x),
    "name": lambda m, kind, x: m.__setitem__("pointers", x),
}


# Over TCP these are refused before, since neither functions nor what has to be pickled travels.
TRAVELS_NOT = {
    "registered function, argument": (ArgumentEncodingError, "cannot travel over the network"),
    "registered constant": (ArgumentEncodingError, "cannot travel over the network"),
    "run": (UnsupportedError, "functions do not travel"),
    "run, argument": (UnsupportedError, "functions do not travel"),
}


@pytest.mark.parametrize("kind", POINTERS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_refused(manager: Arrays, link: str, entry: str, kind: str) -> None:
    before = manager.statistics().n_arrays
    error, text = UnsupportedDTypeError, r"fixed-size dtype \(for text: dtype='U20'"
    if link == TCP:
        error, text = TRAVELS_NOT.get(entry, (error, text))
    with pytest.raises(error, match=text):
        ENTRIES[entry](manager, kind, POINTERS[kind])
    assert manager.statistics().n_arrays == before
    assert "pointers" not in list(manager)


def test_lists_that_numpy_makes_objects_of_are_refused(manager: Arrays) -> None:
    with pytest.raises(UnsupportedDTypeError):
        manager.array([1, None])
    with pytest.raises(UnsupportedDTypeError):
        manager["mixed"] = [1, None]
    with pytest.raises(UnsupportedDTypeError):
        manager.full(3, None)


@pytest.mark.parametrize("kind", POINTERS)
@pytest.mark.parametrize("on_host", [False, True])
def test_results_come_by_value(manager: Arrays, kind: str, on_host: bool) -> None:
    array = np.array([1.5, 2.0])
    hosted = manager.array(array)
    each = hosted.on_host if on_host else hosted
    dtype = POINTERS[kind].dtype
    for result, expected in [
        (each.astype(dtype), array.astype(dtype)),
        (np.empty_like(each, dtype=dtype), np.empty_like(array, dtype=dtype)),
        (each._callmethod("astype", (dtype,)), array.astype(dtype)),
        (np.asarray(each, dtype=dtype), array.astype(dtype)),
    ]:
        assert type(result) is np.ndarray
        assert_same(result.tolist(), expected.tolist())
        assert result.dtype == dtype


@pytest.mark.parametrize("on_host", [False, True])
def test_as_operands(manager: Arrays, on_host: bool) -> None:
    array = np.array([1.5, 2.0, 3.0])
    hosted = manager.array(array)
    each = hosted.on_host if on_host else hosted
    numbers = np.array([1, 2.5, True], object)
    assert_same(each + numbers, array + numbers)
    assert_same(np.concatenate([each, OBJECTS]), np.concatenate([array, OBJECTS]))
    assert_same(each == OBJECTS, array == OBJECTS)
    out = np.empty(3, object)
    assert np.add(each, 1, out=out) is out
    assert_same(out, np.add(array, 1, dtype=object))
    each[...] = numbers
    assert_same(hosted.copy(), numbers.astype(float))


@pytest.mark.parametrize("on_host", [False, True])
def test_errors_are_numpys(manager: Arrays, on_host: bool) -> None:
    array = np.ones(3)
    hosted = manager.array(array)
    each = hosted.on_host if on_host else hosted
    for work in (
        lambda x: x.view(object),
        lambda x: x.__setitem__(slice(None), OBJECTS),
        lambda x: x.__setitem__(0, RECORDS),
        lambda x: np.copyto(x, OBJECTS),
        lambda x: x + OBJECTS,
    ):
        with pytest.raises((TypeError, ValueError)) as theirs:
            work(array.copy())
        with pytest.raises((TypeError, ValueError)) as ours:
            work(each)
        assert (type(ours.value), str(ours.value)) == (type(theirs.value), str(theirs.value))
        assert_same(hosted.copy(), array)
