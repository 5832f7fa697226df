"""Every dtype and every layout: hosted, viewed, calculated with and written to as an ndarray of the same."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray
from tests.conformance.cases import Case
from tests.conformance.outcomes import check
from tests.conformance.ways import WAYS, Way, ways_over
from tests.support import assert_same

_POINT = np.dtype([("x", "f4"), ("y", "f4")])


def numbers(code: str) -> np.ndarray:
    values = np.array([1, 0, 3, 2, 5, 4, 100])
    return (values - 2 if np.dtype(code).kind in "ifc" else values).astype(code)


def records(dtype: Any) -> np.ndarray:
    array = np.zeros(7, dtype)
    for name in array.dtype.names or ():
        if array.dtype[name].kind in "iufSU":
            array[name] = np.array([3, 1, 2, 1, 0, 5, 4])
    return array


DTYPES: dict[str, np.ndarray] = {
    **{order + code: numbers(order + code) for code in "bhilqefdg?BHILQFDG" for order in "<>"},
    "S5": np.array([b"b", b"a\0c", b"", b"abcde", b"b", b"x", b"y"]),
    "U3": np.array(["b", "a", "", "abc", "é", "\U0001f600", "y"]),
    ">U3": np.array(["b", "a", "", "abc", "é", "\U0001f600", "y"], ">U3"),
    "S0": np.zeros(7, "S0"),
    "M8[D]": np.array(["2024-02-29", "NaT", "1969-12-31", "2024-03-01", "NaT", "2000-01-01", "2024-01-01"], "M8[D]"),
    ">M8[ns]": np.arange(7).astype(">M8[ns]"),
    "M8[25s]": np.arange(7).astype("M8[25s]"),
    "m8[h]": np.array([1, -5, 0, 7, "NaT", 2, 3], "m8[h]"),
    ">m8[us]": np.arange(7).astype(">m8[us]"),
    "m8": np.arange(7).astype("m8"),
    "void": np.frombuffer(bytes(range(49)), "V7"),
    "record": records([("i", "i4"), ("f", ">f8"), ("s", "S3"), ("t", "U2")]),
    "nested record": records([("id", "u1"), ("box", [("from", _POINT), ("to", _POINT)]), ("end", "i2")]),
    "record with sub-arrays": records([("m", "f4", (2, 3)), ("n", "i2", (1,)), ("p", _POINT, (2,))]),
    "aligned record": records(np.dtype([("a", "u1"), ("b", "f8"), ("c", "i2")], align=True)),
    "record with gaps": records(
        {"names": ["a", "b"], "formats": ["i4", "f4"], "offsets": [8, 0], "itemsize": 20}
    ),
    "overlapping record": records({"names": ["all", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]}),
    "record with titles": records([(("Title", "a"), "i4"), (("Other", "b"), "f8")]),
    "record without fields": np.zeros(7, []),
    "record of dates": records([("at", "M8[s]"), ("for", ">m8[D]"), ("flag", "?")]),
}  # fmt: skip

# tolist() and item() give a record's arrays as views of it, in NumPy; here a record is a value, and so are its parts.
HAS_ARRAYS = [DTYPES["record with sub-arrays"].dtype]

# The bytes between a record's fields are nobody's, and swapped text or padding of long doubles may be nothing at all.
# np.unique gives another result each time for swapped complex long doubles.
WORK: list[Callable[[Any], Any]] = [
    lambda x: x[0],
    lambda x: x[2:5],
    lambda x: x[::-2],
    lambda x: x[[1, 0, 1]],
    lambda x: x[np.arange(len(x)) % 2 == 0],
    lambda x: x.copy(),
    lambda x: x.tolist() if x.dtype not in HAS_ARRAYS else None,
    lambda x: x.tobytes() if x.dtype.names is None else None,
    lambda x: x.item(3) if x.dtype not in HAS_ARRAYS else None,
    lambda x: list(x)[1],
    lambda x: x.sum(),
    lambda x: x.max(),
    lambda x: x.argmin(),
    lambda x: x.mean(),
    lambda x: np.sort(x),
    lambda x: np.argsort(x, kind="stable"),
    lambda x: np.unique(x) if x.dtype.str != ">c32" else None,
    lambda x: np.concatenate([x, x[:1]]),
    lambda x: np.zeros_like(x),
    lambda x: x == x[0],
    lambda x: x < x[::-1],
    lambda x: x + x,
    lambda x: x * 2,
    lambda x: -x,
    lambda x: x.astype("f8"),
    lambda x: x.astype("S4"),
    lambda x: x.view("u1") if x.dtype.names is None else None,
    lambda x: x.byteswap() if x.dtype.char not in "UVgG" else None,
    lambda x: x.nonzero(),
    lambda x: bool(x[0]) if x.dtype.names is None else x.dtype,
    lambda x: x.fill(x[1]),
    lambda x: x.sort(),
    lambda x: operator.setitem(x, 0, x[3]),
    lambda x: operator.setitem(x, slice(1, 3), x[4:6]),
    lambda x: operator.setitem(x, [0, 2], x[1]),
    lambda x: operator.setitem(x, 1, 7),
    lambda x: operator.setitem(x, 1, "1"),
    lambda x: operator.iadd(x[1:], x[:-1]) is None,
    lambda x: np.copyto(x, x[::-1]),
    lambda x: repr(np.asarray(x)),
]  # fmt: skip
_SOME_WAYS = [way for way in WAYS if way.name in ("mapped", "strided view", "on_host")]


@pytest.mark.parametrize("name", DTYPES)
def test_dtype(manager: ArrayManager, link: str, host: Callable[[np.ndarray], Any], name: str) -> None:
    array = DTYPES[name]
    hosted = manager.array(array)
    assert hosted.dtype == array.dtype
    assert repr(hosted.dtype) == repr(array.dtype)  # alignment, titles and byte order
    assert_same(hosted.copy(), array)
    assert str(hosted) == repr(array)
    for field in array.dtype.names or ():
        assert isinstance(hosted[field], HostedArray)
        assert_same(hosted[field].copy(), np.asarray(array[field], order="C"))
    check([Case(work, (array,)) for work in WORK], ways_over(link, _SOME_WAYS), host)


def test_count() -> None:
    print(f"{len(DTYPES)} dtypes, {len(LAYOUTS)} layouts, {len(WORK)} operations on each")


_FLAT = np.arange(48.0) % 13
LAYOUTS: dict[str, Way] = {
    "no dimension": Way("", lambda a: a[:1].reshape(()).copy()),
    "no element": Way("", lambda a: a[:0].reshape(3, 0, 2).copy()),
    "one element": Way("", lambda a: a[:1].reshape(1, 1).copy()),
    "C": Way("", lambda a: a.reshape(4, 3, 4).copy()),
    "F": Way("", lambda a: a.reshape(4, 3, 4).copy("F")),
    "axes exchanged": Way("", lambda a: a.reshape(4, 3, 4).copy(), lambda x: x.transpose(1, 0, 2)),
    "gaps": Way("", lambda a: a.reshape(4, 12).copy(), lambda x: x[::2, 1::3]),
    "negative strides": Way("", lambda a: a.reshape(4, 12).copy(), lambda x: x[::-1, ::-2]),
    "one negative stride": Way("", lambda a: a.reshape(4, 12).copy(), lambda x: x[1:, ::-1]),
    "zero strides": Way("", lambda a: a.copy(), lambda x: np.broadcast_to(x[:4], (3, 4))),
    "all strides zero": Way("", lambda a: a.copy(), lambda x: np.broadcast_to(x[3, ...], (2, 2))),
    "overlapping": Way("", lambda a: a.copy(), lambda x: np.lib.stride_tricks.sliding_window_view(x, 5)[::9]),
    "unaligned": Way("", lambda a: np.zeros(a.size * 8 + 1, "u1"), lambda x: x[1:].view("f8")),
    "32 dimensions": Way("", lambda a: a[:16].reshape((1, 2) * 4 + (1,) * 24).copy()),
    "64 dimensions": Way("", lambda a: a[:16].reshape((2,) + (1,) * 60 + (2, 2, 2)).copy()),
}

ON_LAYOUTS: list[Callable[[Any], Any]] = [
    lambda x: x[...],
    lambda x: x.T,
    lambda x: x.copy(),
    lambda x: x.copy("F"),
    lambda x: x.copy("K"),
    lambda x: x.ravel(),
    lambda x: x.ravel("K"),
    lambda x: x.reshape(-1),
    lambda x: x + 1,
    lambda x: x.sum(),
    lambda x: x.sum(axis=0) if x.ndim else x.sum(),
    lambda x: np.cumsum(x),
    lambda x: np.sqrt(x),
    lambda x: x @ x if x.ndim == 2 and x.shape[0] == x.shape[1] else x.ndim,
    lambda x: np.sort(x, axis=None),
    lambda x: x[x > 3],
    lambda x: np.real_if_close(x),
    lambda x: x.tolist(),
    lambda x: x.tobytes("A"),
    lambda x: x.flat[-1],
    lambda x: x.squeeze(),
    lambda x: np.expand_dims(x, 0),
    lambda x: x.strides if x.size else (),  # of an array without elements, NumPy's depend on how it was made
    lambda x: operator.setitem(x, ..., 7),
    lambda x: operator.setitem(x, x > 3, 1),
    lambda x: operator.iadd(x, 1) is None,
    lambda x: np.add(x, x, out=x),
    lambda x: x.sort() if x.ndim else None,
    lambda x: np.put(x, [0], [9]),
]  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(link: str, host: Callable[[np.ndarray], Any], name: str) -> None:
    way = LAYOUTS[name]
    ways = ways_over(link, [way, Way("on_host", way.base, way.take, on_host=True)])
    check([Case(work, (_FLAT,)) for work in ON_LAYOUTS], ways, host)


def test_more_dimensions_than_numpy_has(manager: ArrayManager) -> None:
    with pytest.raises(ValueError, match="maximum supported dimension") as theirs:
        np.zeros((1,) * 65)
    with pytest.raises(ValueError) as ours:
        manager.zeros((1,) * 65)
    assert str(ours.value) == str(theirs.value)
