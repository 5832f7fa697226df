"""A hosted array beside the ndarray it stands for: the same results, views as proxies, values as ndarrays."""

import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray
from arrayhost.client.session import round_trips
from tests.support import assert_same

SAMPLES = {
    "float64": np.linspace(-3, 5, 24).reshape(4, 6),
    "int32": (np.arange(24, dtype="i4") * 7 % 11 + 1).reshape(4, 6),
    "bool": (np.arange(24) % 3 == 0).reshape(4, 6),
    "complex": (np.arange(24) * (1 - 2j)).reshape(4, 6),
    "big-endian": np.arange(24, dtype=">f4").reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(24, dtype="u2").reshape(4, 6)),
}


@pytest.fixture(params=SAMPLES, ids=str)
def sample(request: pytest.FixtureRequest) -> np.ndarray:
    return SAMPLES[request.param].copy("K")


def plain(value: Any) -> Any:
    """A result with its proxies copied."""
    if isinstance(value, HostedArray):
        return value.copy()
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(plain, value))
    return [plain(item) for item in value] if isinstance(value, list) else value


def outcome(work: Callable[[Any], Any], array: Any) -> Any:
    try:
        return work(array)
    except Exception as error:
        return type(error) if type(error).__module__ == "builtins" else error.__class__.__mro__[1]


def check(work: Callable[[Any], Any], hosted: HostedArray, array: np.ndarray) -> None:
    """The same result (or error) on both, and the same contents after it."""
    ours, theirs = outcome(work, hosted), outcome(work, array)
    if isinstance(theirs, np.ndarray) and theirs.size:
        # R1: what shares memory is a proxy, what was computed is an ndarray.
        assert isinstance(ours, HostedArray) == np.shares_memory(theirs, array)
    if isinstance(theirs, type) and issubclass(theirs, Exception):
        assert isinstance(ours, type)
        assert issubclass(ours, theirs) or issubclass(theirs, ours)
    else:
        assert_same(plain(ours), theirs)
    assert_same(hosted.copy(), array)


@pytest.mark.parametrize(
    "name", ["shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "T", "real", "imag", "mT"]
)
def test_attributes(manager: ArrayManager, sample: np.ndarray, name: str) -> None:
    hosted = manager.array(sample)
    if name == "imag" and sample.dtype.kind != "c":
        assert_same(plain(hosted.imag), sample.imag)
    else:
        check(lambda x: getattr(x, name), hosted, sample)
    assert hosted.flags.c_contiguous == sample.flags.c_contiguous
    assert_same(plain(hosted.flat[3]), sample.flat[3])


METHODS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(),
    "sum0": lambda x: x.sum(axis=0, keepdims=True),
    "mean": lambda x: x.mean(1),
    "min": lambda x: x.min(),
    "argmax": lambda x: x.argmax(axis=1),
    "std": lambda x: x.std(),
    "prod": lambda x: x.prod(),
    "cumsum": lambda x: x.cumsum(0),
    "any": lambda x: x.any(),
    "all": lambda x: x.all(1),
    "ptp": lambda x: np.ptp(x),
    "reshape": lambda x: x.reshape(3, 8),
    "ravel": lambda x: x.ravel(),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(1, 0),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "squeeze": lambda x: x[:1].squeeze(),
    "view": lambda x: x.view(),
    "diagonal": lambda x: x.diagonal(),
    "trace": lambda x: x.trace(),
    "astype": lambda x: x.astype(complex),
    "tolist": lambda x: x.tolist(),
    "item": lambda x: x.item(2, 3),
    "tobytes": lambda x: x.tobytes(),
    "take": lambda x: x.take([3, 1], axis=1),
    "repeat": lambda x: x.repeat(2),
    "choose": lambda x: np.choose([0, 1, 0, 1, 1, 0], x),
    "compress": lambda x: x.compress([True, False, True], axis=1),
    "clip": lambda x: x.clip(1, 3),
    "round": lambda x: x.round(1),
    "dot": lambda x: x.dot(x.T),
    "argsort": lambda x: x.argsort(),
    "nonzero": lambda x: x.nonzero(),
    "searchsorted": lambda x: x[0].searchsorted(2),
    "conj": lambda x: x.conj(),
    "byteswap": lambda x: x.byteswap(),
    "copyF": lambda x: x.copy("F"),
    "partition": lambda x: np.partition(x, 2),
    "fill": lambda x: x.fill(1),
    "sort": lambda x: x.sort(axis=0),
    "put": lambda x: x.put([1, 5], [1, 0]),
    "sortbad": lambda x: x.sort(axis=7),
    "none": lambda x: x.no_such_thing,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(manager: ArrayManager, sample: np.ndarray, name: str) -> None:
    check(METHODS[name], manager.array(sample), sample)


OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.and_,
    operator.or_,
    operator.xor,
    operator.lshift,
    operator.lt,
    operator.ge,
    operator.eq,
    operator.ne,
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ifloordiv,
    operator.ipow,
    operator.iand,
    operator.ior,
    operator.ixor,
    operator.ilshift,
]


@pytest.mark.parametrize("operate", OPERATORS, ids=lambda f: f.__name__)
def test_binary_operators(manager: ArrayManager, sample: np.ndarray, operate: Callable[[Any, Any], Any]) -> None:
    hosted = manager.array(sample)
    with np.errstate(all="ignore"):
        check(lambda x: operate(x, 2), hosted, sample)
        check(lambda x: operate(x, np.arange(1, 7)), hosted, sample)
        if sample.dtype.kind == "f" and operate in (operator.iadd, operator.imul):
            assert operate(hosted, 2) is hosted
            operate(sample, 2)
        if operate.__name__[:1] != "i":
            check(lambda x: operate(3, x), hosted, sample)
            check(lambda x: operate(x, x), hosted, sample)


@pytest.mark.parametrize("operate", [operator.neg, operator.pos, operator.abs, operator.invert])
def test_unary_operators(manager: ArrayManager, sample: np.ndarray, operate: Callable[[Any], Any]) -> None:
    check(operate, manager.array(sample), sample)


def test_matmul(manager: ArrayManager) -> None:
    sample = SAMPLES["float64"].copy()
    hosted = manager.array(sample)
    check(lambda x: x @ x.T, hosted, sample)
    check(lambda x: np.ones(4) @ x, hosted, sample)


INDICES: list[Any] = [
    0,
    -1,
    (1, 2),
    slice(1, 3),
    (slice(None), 2),
    (slice(None, None, -2), slice(1, None, 3)),
    ...,
    (..., 0),
    None,
    (slice(None), None, 1),
    (),
    [0, 2],
    ([0, 3], [1, 5]),
    (slice(1, 3), [0, 0, 5]),
    np.arange(24).reshape(4, 6) % 2 == 0,
    (np.array([True, False, True, False]), 1),
    np.array([[0, 1], [2, 3]]),
    np.ix_([0, 2], [1, 4]),
    True,
    False,
    9,
    (1, 2, 3),
    "a",
    1.5,
    [True, False],
    np.int64(2),
    np.array(1),
    slice(3, 1),
]


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i)[:30].replace("\n", ""))
def test_indexing(manager: ArrayManager, sample: np.ndarray, index: Any) -> None:
    hosted = manager.array(sample)
    check(lambda x: x[index], hosted, sample)
    check(lambda x: x.__setitem__(index, 1), hosted, sample)
    check(lambda x: x.__setitem__(index, x[index]), hosted, sample)
    check(lambda x: x.__setitem__(index, np.arange(7)), hosted, sample)


def test_in_place_on_an_index(manager: ArrayManager) -> None:
    sample = SAMPLES["int32"].copy()
    hosted = manager.array(sample)
    mask = sample > 4
    for x in (hosted, sample):
        x[1:3] += 10
        x[0, 0] -= 5
        x[[0, 3]] *= 2
        x[mask] //= 3
        x.T[2] |= 64
    assert_same(hosted.copy(), sample)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "copyto": lambda x: np.copyto(x, 1),
    "copyto-where": lambda x: np.copyto(x, 0, where=x > 2),
    "put": lambda x: np.put(x, [0, 7], [1, 0]),
    "place": lambda x: np.place(x, x != 1, [0, 1]),
    "putmask": lambda x: np.putmask(x, x != 1, 1),
    "fill_diagonal": lambda x: np.fill_diagonal(x, 1),
    "put_along": lambda x: np.put_along_axis(x, np.zeros((4, 1), int), 1, axis=1),
    "add-out": lambda x: np.multiply(x, x, out=x),
    "out-tuple": lambda x: np.logical_not(x, out=(x,), casting="unsafe"),
    "add-where": lambda x: np.negative(x, out=x, where=np.arange(6) % 2 == 0, casting="unsafe"),
    "add.at": lambda x: (
        np.logical_or.at(x, ([0, 0, 1], [1, 1, 2]), True) if x.dtype == bool else np.add.at(x, ([0, 0], [1, 1]), 2)
    ),
    "cumsum-out": lambda x: np.cumsum(x, axis=1, out=x),
    "sort": lambda x: np.sort(x, axis=None),
    "reduce": lambda x: np.add.reduce(x, axis=1),
    "outer": lambda x: np.add.outer(x[0], x[1]),
    "accumulate": lambda x: np.maximum.accumulate(x, axis=1),
    "concatenate": lambda x: np.concatenate([x, x]),
    "stack": lambda x: np.stack([x, x]),
    "where": lambda x: np.where(x > 1, x, 0),
    "split": lambda x: np.split(x, 2),
    "unique": lambda x: np.unique(x, return_counts=True),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 4, 6)),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "flip": lambda x: np.flip(x, 0),
    "roll": lambda x: np.roll(x, 1),
    "einsum": lambda x: np.einsum("ij,ij->i", x, x),
    "median": lambda x: np.median(x),
    "isclose": lambda x: np.allclose(x, x),
    "expand_dims": lambda x: np.expand_dims(x, 0),
    "shape": lambda x: np.shape(x),
    "diff": lambda x: np.diff(x),
    "lexsort": lambda x: np.lexsort(x),
    "zeros_like": lambda x: np.zeros_like(x),
    "modf": lambda x: np.modf(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_functions(manager: ArrayManager, sample: np.ndarray, name: str) -> None:
    check(FUNCTIONS[name], manager.array(sample), sample)


def test_ufuncs_with_out_into_an_ndarray_and_a_proxy(manager: ArrayManager) -> None:
    sample = SAMPLES["float64"]
    hosted, target, mine = manager.array(sample), manager.zeros((4, 6)), np.zeros((4, 6))
    assert np.add(hosted, 1, out=mine) is mine
    assert np.add(sample, 1, out=target) is target
    assert_same(mine, sample + 1)
    assert_same(target.copy(), sample + 1)
    whole, part = manager.zeros((4, 6)), manager.zeros((4, 6))
    result = np.modf(hosted, out=(part, whole))
    assert result[0] is part
    assert result[1] is whole
    assert_same((part.copy(), whole.copy()), np.modf(sample))


def test_views_write_through_and_values_do_not(manager: ArrayManager) -> None:
    hosted = manager.zeros((4, 6))
    views = [hosted[1:3], hosted.T, hosted.reshape(24), hosted[::-1, ::2], hosted[0][2:]]
    for number, view in enumerate(views, 1):
        assert isinstance(view, HostedArray)
        view[...] = number
        assert (np.asarray(hosted) == number).any()
        assert_same(view.copy(), np.full(view.shape, float(number)))
    kept = hosted.copy()
    for value in (hosted + 0, hosted[[0, 1]], hosted[hosted > 0], hosted.copy(), np.array(hosted), hosted._getvalue()):
        assert type(value) is np.ndarray
        value[...] = -9
    assert_same(hosted.copy(), kept)


def test_asarray_is_live_read_only_and_free(manager: ArrayManager) -> None:
    hosted = manager.zeros(1000)
    before = round_trips()
    live = np.asarray(hosted)
    assert live is not np.asarray(hosted)
    assert np.shares_memory(live, np.asarray(hosted[10:]))
    assert hosted[3] == 0.0
    assert round_trips() == before
    hosted[3] = 7
    assert live[3] == 7
    with pytest.raises(ValueError, match="read-only"):
        live[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        live.flags.writeable = True
    assert np.array(hosted).flags.writeable
    assert np.asarray(hosted, dtype="f4").dtype == np.float32
    with pytest.raises(ValueError, match="avoid copy"):
        np.asarray(hosted, dtype="f4", copy=False)


def test_containers_protocols(manager: ArrayManager, sample: np.ndarray) -> None:
    hosted = manager.array(sample)
    assert len(hosted) == 4
    rows = list(hosted)
    assert all(isinstance(row, HostedArray) for row in rows)
    assert_same(plain(rows), list(sample))
    assert_same(list(hosted[1]), list(sample[1]))
    assert (sample[1, 2] in hosted) == (sample[1, 2] in sample)
    assert str(hosted) == repr(sample)
    assert f"{hosted}" == str(hosted)
    assert repr(hosted).startswith(f"<HostedArray shape=(4, 6) dtype={sample.dtype} ")
    for work in (bool, int, float, operator.index, hash, len):
        check(work, hosted, sample)
    with pytest.raises(TypeError):
        len(manager.array(5))
    with pytest.raises(TypeError):
        iter(manager.array(5)).__next__()


@pytest.mark.parametrize("value", [3, 2.5, True, 1 + 2j])
def test_conversions_of_one_element(manager: ArrayManager, value: Any) -> None:
    sample = np.array(value)
    hosted = manager.array(sample)
    for work in (
        bool,
        int,
        float,
        complex,
        operator.index,
        lambda x: x.item(),
        lambda x: x[()],
        lambda x: format(x, ""),
    ):
        if work is int or work is float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert outcome(work, hosted) == outcome(work, sample)
        elif hasattr(work, "__name__") and work.__name__ == "<lambda>" and isinstance(outcome(work, sample), str):
            assert outcome(work, hosted) == repr(sample)
        else:
            assert_same(outcome(work, hosted), outcome(work, sample))


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "u8", "f2", "g", "c8", "G", ">i4", "S4", "U3", "M8[ns]", "m8[s]", [("a", "i4"), ("b", "f8", (2,))]],
    ids=str,
)
def test_dtypes(manager: ArrayManager, dtype: Any) -> None:
    sample = np.zeros((3, 2), dtype)
    other = np.frombuffer(np.arange(sample.nbytes, dtype="u1").tobytes(), "u1") % 2
    hosted = manager.array(sample)
    assert hosted.dtype == sample.dtype
    if sample.dtype.kind in "SU":
        sample[1] = hosted[1] = "ab"
    elif sample.dtype.names:
        sample["b"][...] = 2.5
        hosted["b"][...] = 2.5
        assert isinstance(hosted["a"], HostedArray)
    else:
        sample[1] = other[:2].astype(sample.dtype)
        hosted[1] = other[:2].astype(sample.dtype)
    assert_same(hosted.copy(), sample)
    assert_same(hosted[1, 1], sample[1, 1])
    assert_same(manager.empty((0, 3), dtype).copy(), np.empty((0, 3), dtype))


def test_warnings_and_errstate_of_the_caller_hold_for_writes_in_the_host(manager: ArrayManager) -> None:
    hosted = manager.ones(5)
    with pytest.warns(RuntimeWarning, match="divide by zero") as caught:
        hosted /= 0
    assert caught[0].filename == __file__
    assert np.isinf(np.asarray(hosted)).all()
    hosted.fill(1)
    with np.errstate(divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        hosted /= 0
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError, match="divide"):
        np.true_divide(1, manager.zeros(3), out=hosted[:3])
    with pytest.warns(np.exceptions.ComplexWarning):
        manager.ones(3)[...] = np.ones(3) * 1j


def test_callmethod(manager: ArrayManager) -> None:
    sample = SAMPLES["float64"].copy()
    hosted = manager.array(sample)
    for work in (
        lambda call: call("sum"),
        lambda call: call("mean", (0,)),
        lambda call: call("sum", kwds={"axis": 1}),
        lambda call: call("__add__", (5,)),
        lambda call: call("__len__"),
        lambda call: call("__getitem__", (slice(1, 3),)),
    ):
        ours = work(hosted._callmethod)
        theirs = work(lambda name, args=(), kwds=None: getattr(sample, name)(*args, **(kwds or {})))
        assert_same(plain(ours), theirs)
    assert hosted._callmethod("__getattr__", ("shape",)) == (4, 6)
    hosted._callmethod("__setitem__", ((0, 0), 99))
    assert hosted[0, 0] == 99
    with pytest.raises(AttributeError):
        hosted._callmethod("no_such_method")


INDICES: dict[str, Any] = {
    "numbers": np.array([1, 2, 4]),
    "mask": np.array([True, False, True, False, True, False]),
    "number": np.array(3),
    "no number": np.array([], dtype=int),
}
# Given what hosts an array, and numbers of the shape that is assigned to.
VALUES: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "a number": lambda host, numbers: 5.0,
    "an ndarray": lambda host, numbers: numbers,
    "a list": lambda host, numbers: numbers.tolist(),
    "a hosted array": lambda host, numbers: host(numbers),
    "a hosted array of another type": lambda host, numbers: host(numbers.astype("i4")),
    "a hosted text": lambda host, numbers: host(numbers.astype("U5")),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("where", [lambda i: i, lambda i: (i,), lambda i: (i, ...)])
def test_assigning_at_a_hosted_index(
    manager: ArrayManager, index: str, value: str, where: Callable[[Any], Any]
) -> None:
    expected = np.arange(6.0)
    a = manager.array(expected)
    shape = np.shape(expected[INDICES[index]])
    numbers = np.arange(10.0, 10.0 + math.prod(shape)).reshape(shape)
    expected[where(INDICES[index])] = VALUES[value](lambda values: values, numbers)
    a[where(manager.array(INDICES[index]))] = VALUES[value](manager.array, numbers)
    assert_same(a.copy(), expected)
    with a.write():
        a[where(manager.array(INDICES[index]))] = 7
    expected[where(INDICES[index])] = 7
    assert_same(a.copy(), expected)
