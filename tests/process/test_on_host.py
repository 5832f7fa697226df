"""`a.on_host`: every operation in the host, with the results, errors and warnings of ndarray."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, WouldDeadlock, locked
from arrayhost.client.links import Source
from arrayhost.client.session import round_trips
from arrayhost.client.unmapped import UnmappedArray, _stand_ins
from arrayhost.errors import UnsupportedError
from tests.process.test_array_surface import INDICES, METHODS, OPERATORS, SAMPLES, check, plain
from tests.support import assert_same, run_python

FEW = ["float64", "complex", "fortran"]


@pytest.fixture(scope="module")
def other() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        running.zeros(1)[0] = 1
        yield running


@pytest.fixture(params=FEW)
def sample(request: pytest.FixtureRequest) -> np.ndarray:
    return SAMPLES[request.param].copy("K")


@pytest.mark.parametrize("name", METHODS)
def test_methods(manager: ArrayManager, sample: np.ndarray, name: str) -> None:
    check(METHODS[name], manager.array(sample).on_host, sample)


@pytest.mark.parametrize("operate", OPERATORS, ids=lambda f: f.__name__)
def test_operators(manager: ArrayManager, sample: np.ndarray, operate: Callable[[Any, Any], Any]) -> None:
    hosted = manager.array(sample).on_host
    with np.errstate(all="ignore"):
        check(lambda x: operate(x, 2), hosted, sample)
        check(lambda x: operate(x, np.arange(1, 7)), hosted, sample)
        if operate.__name__[:1] != "i":
            check(lambda x: operate(3, x), hosted, sample)
            check(lambda x: operate(x, x), hosted, sample)


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i)[:30].replace("\n", ""))
def test_indexing(manager: ArrayManager, sample: np.ndarray, index: Any) -> None:
    hosted = manager.array(sample).on_host
    check(lambda x: x[index], hosted, sample)
    check(lambda x: x.__setitem__(index, 1), hosted, sample)
    check(lambda x: x.__setitem__(index, x[index]), hosted, sample)
    check(lambda x: x.__setitem__(index, np.arange(7)), hosted, sample)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "slice": lambda x: x[1:3, ::-2],
    "T": lambda x: x.T,
    "reshape": lambda x: x.reshape(-1),
    "real": lambda x: x.real,
    "diagonal": lambda x: x.diagonal(),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "swapaxes": lambda x: np.swapaxes(x, 0, 1),
    "view": lambda x: x.view("u1"),
    "split": lambda x: np.split(x, 2)[1],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_on_host_too_and_write_through(manager: ArrayManager, name: str) -> None:
    array = np.arange(24.0).reshape(4, 6)
    hosted = manager.array(array)
    ours, theirs = VIEWS[name](hosted.on_host), VIEWS[name](array)
    assert type(ours) is UnmappedArray
    assert (ours.shape, ours.strides, ours.dtype) == (theirs.shape, theirs.strides, theirs.dtype)
    assert ours.flags.writeable == theirs.flags.writeable
    for value in (ours, theirs):
        if theirs.flags.writeable:
            value[...] = 7
        else:
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 7
    assert_same(hosted.copy(), array)


def test_facts_and_views_cost_nothing_and_each_operation_one_round_trip(manager: ArrayManager) -> None:
    array = np.arange(24.0).reshape(4, 6)
    hosted = manager.array(array).on_host
    before = round_trips()
    for name in ("shape", "strides", "dtype", "ndim", "size", "nbytes", "itemsize"):
        assert getattr(hosted, name) == getattr(array, name)
    for flag in ("c_contiguous", "f_contiguous", "writeable", "aligned", "owndata"):
        assert getattr(hosted[:, 1:].flags, flag) == getattr(array[:, 1:].flags, flag)
    assert len(hosted) == 4
    assert hosted[1:, None, ..., 2].shape == array[1:, None, ..., 2].shape
    assert repr(hosted).startswith("<HostedArray shape=(4, 6) dtype=float64 192 B on host at ")
    assert round_trips() == before
    hosted.sum(), hosted[1, 2], hosted + 1, np.exp(hosted), hosted.copy(), hosted.version
    assert round_trips() == before + 6
    hosted[1:3] += 1
    assert round_trips() == before + 7
    assert_same(hosted[1:3].copy(), array[1:3] + 1)


def test_iteration(manager: ArrayManager) -> None:
    array = np.arange(12.0).reshape(3, 4)
    hosted = manager.array(array).on_host
    assert [type(row) for row in hosted] == [UnmappedArray] * 3
    before = round_trips()
    assert list(hosted[1]) == list(array[1])
    assert round_trips() == before + 1
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        iter(hosted[0, 0:1].reshape(()))
    with pytest.raises(TypeError, match="len\\(\\) of unsized object"):
        len(hosted[0, 0:1].reshape(()))


def test_conversion_copies(manager: ArrayManager) -> None:
    array = np.arange(12.0).reshape(3, 4)
    hosted = manager.array(array).on_host
    read_only = np.asarray(hosted)
    with pytest.raises(ValueError, match="read-only"):  # it would change nothing
        read_only[0, 0] = 99
    for private in (np.array(hosted), np.asarray(hosted, copy=True), np.asarray(hosted, dtype="c16"), hosted.copy()):
        private[0, 0] = 99
    assert_same(np.asarray(hosted), array)
    assert_same(np.array(hosted, dtype="i4"), array.astype("i4"))
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(hosted, copy=False)


@pytest.mark.parametrize("order", ["C", "F", "K", "A"])
def test_copies_keep_their_order(manager: ArrayManager, order: str) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    hosted = manager.array(array)
    for pick in (lambda x: x.transpose(2, 0, 1), lambda x: x.T, lambda x: x.T[::-2], lambda x: x[:, ::2]):
        for view in (pick(hosted), pick(hosted.on_host)):
            assert view.copy(order).strides == pick(array).copy(order).strides
            assert (view + 1).strides == (pick(array) + 1).strides


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # by NumPy 2.5
def test_setting_the_shape(manager: ArrayManager) -> None:
    for hosted in (manager.arange(6), manager.arange(6).on_host):
        hosted.shape = 2, 3
        assert_same(hosted.copy(), np.arange(6).reshape(2, 3))
        turned = hosted.T
        with pytest.raises(AttributeError, match="Incompatible shape for in-place modification"):
            turned.shape = 6


DTYPES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "same size": (lambda x: x[:], "i8"),
    "name": (lambda x: x[:], float),
    "smaller": (lambda x: x[:], ">i4"),
    "larger": (lambda x: x.view("i4")[:, :4], "f8"),
    "fields": (lambda x: x[:], [("p", "i4"), ("q", "f4")]),
    "does not divide": (lambda x: x.view("i4")[:, :3], "f8"),
    "gaps": (lambda x: x[:, ::2], "i4"),
    "order of columns": (lambda x: x.T, "i4"),
    "objects": (lambda x: x[:], object),
    "texts of any length": (lambda x: x[:], np.dtypes.StringDType()),
    "nothing of the kind": (lambda x: x[:], "no dtype"),
}


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("name", DTYPES)
def test_setting_the_dtype(manager: ArrayManager, name: str, on_host: bool) -> None:
    view, dtype = DTYPES[name]
    values = np.arange(12.0).reshape(2, 6)
    base = manager.array(values)
    part, expected = view(base.on_host if on_host else base), view(values)
    assert_same(set_dtype(part, dtype), set_dtype(expected, dtype))
    assert_same(part.copy("K"), np.array(expected, order="K"))
    assert part.strides == expected.strides
    assert base.dtype == float
    if part.dtype != float and part.dtype.names is None:
        part[0, 0] = expected[0, 0] = 77
        assert_same(base.copy(), values)


def set_dtype(array: Any, dtype: Any) -> list[Any]:
    """Set it; the type of the error, if there is one, and those of the warnings."""
    outcome: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            array.dtype = dtype
        except Exception as error:
            outcome.append(next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins"))
    return outcome + [(one.category, one.filename) for one in caught]


def test_warnings_and_errors_follow_the_caller(manager: ArrayManager) -> None:
    hosted = manager.array([1.0, 0.0]).on_host
    with pytest.warns(RuntimeWarning, match="divide by zero encountered in divide") as caught:
        1 / hosted
    assert caught[0].filename == __file__
    with warnings.catch_warnings(), np.errstate(divide="ignore"):
        warnings.simplefilter("error")
        1 / hosted
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        1 / hosted
    with pytest.raises(ValueError, match="could not be broadcast together"):
        hosted + np.ones(3)
    with pytest.raises(IndexError, match="index 9 is out of bounds"):
        hosted[9]
    with pytest.raises(AttributeError):
        hosted.no_such_thing


def test_operands_of_all_kinds_mix(manager: ArrayManager, other: ArrayManager) -> None:
    x, y = np.arange(6.0), np.linspace(1, 2, 6)
    kinds = {
        name: (lambda values, where=where, there=there: there(where.array(values)))
        for name, where, there in [
            ("mapped", manager, lambda a: a),
            ("on host", manager, lambda a: a.on_host),
            ("mapped elsewhere", other, lambda a: a),
            ("on host elsewhere", other, lambda a: a.on_host),
        ]
    }
    for first in kinds.values():
        for second in kinds.values():
            a, b = first(x), second(y)
            assert_same(a + b, x + y)
            assert_same(np.concatenate([a, b]), np.concatenate([x, y]))
            assert_same(np.hypot(x, b), np.hypot(x, y))
            assert_same(a[np.argsort(b)], x[np.argsort(y)])
            a[1:4] = b[2:5]
            a += b
            expected = x.copy()
            expected[1:4] = y[2:5]
            expected += y
            assert_same(a.copy(), expected)
            np.multiply(a, b, out=a)
            assert_same(a.copy(), expected * y)


def test_a_view_comes_back_as_on_host_when_an_operand_was(manager: ArrayManager) -> None:
    mapped, there = manager.ones(3), manager.zeros((2, 3)).on_host
    first, second = np.broadcast_arrays(mapped, there)
    assert type(first) is type(second) is UnmappedArray
    assert_same(plain(first), np.ones((2, 3)))


def test_passing(manager: ArrayManager) -> None:
    hosted = manager.arange(6).on_host[2:]
    again = pickle.loads(pickle.dumps(hosted))
    assert type(again) is UnmappedArray
    again[0] = 9
    assert hosted[0] == 9
    code = (
        "import pickle, sys, arrayhost\n"
        "arrayhost.connect(sys.argv[2])\n"
        "a = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "a[1] = a.sum()\n"
        "print(type(a).__qualname__, a.shape)\n"
    )
    completed = run_python(code, pickle.dumps(hosted).hex(), manager.address)
    assert completed.stdout.split() == ["UnmappedArray", "(4,)"]
    assert hosted[1] == 9 + 3 + 4 + 5
    assert_same(copy.copy(hosted), hosted.copy())


def test_another_hosts_arrays_reach_code_in_a_host_as_proxies(manager: ArrayManager, other: ArrayManager) -> None:
    elsewhere = other.arange(4)
    doubled = manager.run(_double_in_place, elsewhere)
    assert_same(elsewhere.copy(), np.arange(4) * 2)
    assert_same(doubled.copy(), np.arange(4) * 2 + 1)
    manager["taken over"] = elsewhere
    assert_same(manager["taken over"].copy(), elsewhere.copy())


def _double_in_place(array: HostedArray) -> Any:
    array *= 2
    return array + 1


def test_sections_use_the_arrays_lock(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    there = a.on_host
    with there.write() as x:
        before = round_trips()
        x[1:] = 5
        there[0] = 2  # inside one's own section everything goes direct
        there += 1
        assert there.sum() == 21
        assert type(there[1:].reshape(3, 1)) is UnmappedArray
        there[1:] -= 1
        assert a[3] == 5
        assert round_trips() == before
    assert_same(a.copy(), np.array([3.0, 5, 5, 5]))
    with there.read() as x, pytest.raises(WouldDeadlock):
        assert not x.flags.writeable
        there[0] = 1
    with locked(there, manager.ones(2)) as (x, y):
        x[:2] = y
    assert there.statistics().version == a.version == there.version
    there.recover()


def test_the_proxy_of_an_array_that_is_not_mapped(manager: ArrayManager) -> None:
    """What a link without memory will hand out: nothing but a lease and a layout."""
    a = manager.array(np.arange(6.0).reshape(2, 3))
    mapped = a._source
    source = Source(mapped.link, mapped.handle_for(a.layout))
    there = UnmappedArray.of(source, a.layout)
    assert_same(there.T[1:].copy(), a.T[1:].copy())
    there[0] += 1
    there[0, 0] = 7
    assert_same(a.copy(), np.array([[7.0, 2, 3], [3, 4, 5]]))
    assert there.version == a.version
    assert there.statistics() == a.statistics()
    assert_same(there @ a.T, a.copy() @ a.T.copy())
    for section in (there.write, there.read, lambda: there.lock):
        with pytest.raises(UnsupportedError, match="has not mapped"):
            section()


def test_what_asarray_gives_is_taken_for_the_memory(manager: ArrayManager) -> None:
    # Libraries that are to leave their argument as it is ask this before they write.
    a, b = manager.array(np.arange(12.0).reshape(3, 4)).on_host, manager.ones((3, 4)).on_host
    for ask in (np.may_share_memory, np.shares_memory):
        assert ask(np.asarray(a), a)
        assert ask(a[1:], np.asarray(a)[:2])
        assert not ask(np.asarray(a), b)
        assert not ask(a.copy(), a)
        assert not ask(np.array(a), a)
    kept = np.asarray(a)
    del kept
    assert not _stand_ins
