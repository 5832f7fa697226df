"""The contract of engines, as tests: whatever hosts arrays for a manager is held to it.

A test module makes a fixture ``manager`` and derives a class::

    class TestMine(EngineContract):
        pass

    @pytest.fixture(scope="module")
    def manager():
        with ContractArrays("dask://local?workers=2") as manager:
            yield manager

Needs pytest.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from arrayhost.client.array import HostedArray, locked
from arrayhost.client.transaction import transaction
from arrayhost.errors import (
    LockTimeoutError,
    ReferentExistsError,
    ReferentNotFoundError,
    TransactionConflictError,
    WouldDeadlock,
)
from arrayhost.manager import ArrayManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ContractArrays", "EngineContract"]

_ELSEWHERE = """
import pickle, sys
import numpy as np
if __name__ == "__main__":
    array = pickle.loads(bytes.fromhex(sys.argv[1]))
    array += 1
    print(float(array.sum()))
"""


class Counter:
    """An ordinary class, whose instances are hosted."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, n: int) -> int:
        """Count."""
        self.count += n
        return self.count


def squares(n: int) -> Any:
    """An ordinary function that makes an array."""
    return np.arange(n) ** 2


class ContractArrays(ArrayManager):
    """A manager of what the contract's tests make."""


ContractArrays.register("shared_array", np.ones)
ContractArrays.register("squares", squares)
ContractArrays.register("Counter", Counter)


def same(found: Any, expected: Any) -> None:
    """Assert that something equals what NumPy gives: type of scalars, dtype, shape and elements."""
    if isinstance(found, HostedArray):
        found = found.copy()
    assert isinstance(found, np.ndarray) == isinstance(expected, np.ndarray), (type(found), type(expected))
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12, strict=True)


VALUES = np.arange(60.0).reshape(10, 6)

READS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda a: a.sum(),
    "sum of an axis": lambda a: a.sum(axis=1),
    "sum keepdims": lambda a: a.sum(axis=0, keepdims=True),
    "mean": np.mean,
    "std with ddof": lambda a: a.std(axis=0, ddof=1),
    "min and max": lambda a: a.max(axis=1) - a.min(axis=1),
    "argmax": lambda a: a.argmax(axis=0),
    "any": lambda a: (a > 58).any(),
    "plus": lambda a: a + 1,
    "right minus": lambda a: 1 - a,
    "power": lambda a: a**2,
    "compare": lambda a: a >= 12,
    "negative": lambda a: -a,
    "with itself": lambda a: a * a - a,
    "rows and rows": lambda a: a[1:] - a[:-1],
    "ufunc": np.sqrt,
    "two ufuncs": lambda a: np.exp(-np.sin(a)),
    "reduce": lambda a: np.add.reduce(a, axis=1),
    "accumulate": lambda a: np.add.accumulate(a, axis=0),
    "matmul": lambda a: a.T @ a,
    "where": lambda a: np.where(a > 30, a, 0),
    "concatenate": lambda a: np.concatenate([a, a], axis=1),
    "stack with an ndarray": lambda a: np.stack([a, np.ones(a.shape)]),
    "cumsum": lambda a: np.cumsum(a, axis=1),
    "clip": lambda a: a.clip(5, 20),
    "round": lambda a: (a / 7).round(2),
    "astype": lambda a: a.astype("i4"),
    "transpose": lambda a: a.T[2:4] + 0,
    "reshape": lambda a: a.reshape(6, 10) + 0,
    "ravel": lambda a: a.ravel() + 0,
    "element": lambda a: a[3, 4],
    "negative element": lambda a: a[-1, -1],
    "row": lambda a: a[3] + 0,
    "steps": lambda a: a[1:8:3, ::-2] + 0,
    "new axis": lambda a: a[:, None, 1] + 0,
    "ellipsis": lambda a: a[..., 2] + 0,
    "list": lambda a: a[[1, 5, 1]],
    "two lists": lambda a: a[[1, 5], [0, 2]],
    "mask of rows": lambda a: a[np.arange(10) % 2 == 0],
    "mask": lambda a: a[a > 55],
    "take": lambda a: np.take(a, [2, 3], axis=1),
    "sort": lambda a: np.sort(-a, axis=0),
    "argsort": lambda a: a[:, 1].argsort(),
    "median": lambda a: np.median(a, axis=0),
    "det": lambda a: np.linalg.det(a[:6] + np.eye(6)),
    "interp": lambda a: np.interp([0.5, 2.5], np.arange(6.0), a[0]),
    "unique": lambda a: np.unique(a // 10),
    "histogram": lambda a: np.histogram(a, bins=4, range=(0, 60))[0],
    "einsum": lambda a: np.einsum("ij->j", a),
    "float": lambda a: np.float64(float(a[0, 1])),
    "list of elements": lambda a: np.array(a[0].tolist()),
    "iteration": lambda a: np.array([row[0] for row in a]),
    "private copy": lambda a: a.copy(),
}

WRITES: dict[str, Callable[[Any], Any]] = {
    "element": lambda a: a.__setitem__((1, 2), 99),
    "row": lambda a: a.__setitem__(3, -1),
    "slice": lambda a: a.__setitem__((slice(2, 9, 2), slice(None, None, -1)), np.arange(6.0)),
    "everything": lambda a: a.__setitem__(..., 5),
    "broadcast": lambda a: a.__setitem__((slice(None), slice(0, 3)), np.arange(10.0)[:, None]),
    "list": lambda a: a.__setitem__([9, 0], 7),
    "list of rows": lambda a: a.__setitem__([1, 8], np.ones((2, 6))),
    "two lists": lambda a: a.__setitem__(([1, 8], [2, 3]), [50, 51]),
    "mask": lambda a: a.__setitem__(np.arange(60).reshape(10, 6) % 7 == 0, 0),
    "mask of rows": lambda a: a.__setitem__(np.arange(10) > 6, 0),
    "mask with values": lambda a: a.__setitem__(VALUES > 57, [1, 2]),
    "through a view": lambda a: a[2:5].__setitem__((0, slice(1, 3)), 8),
    "through a transposed view": lambda a: a.T.__setitem__(1, np.arange(10.0)),
    "iadd": lambda a: a.__iadd__(1),
    "imul of a view": lambda a: a[1:3].__imul__(3),
    "isub of an array": lambda a: a.__isub__(np.arange(6.0)),
    "itruediv of itself": lambda a: a[5:].__itruediv__(a[:5] + 1),
    "fill": lambda a: a[4:6].fill(2.5),
    "sort": lambda a: a.T.sort(),
    "put": lambda a: a.put([0, 59], [7, 8]),
    "ufunc out": lambda a: np.add(a, 1, out=a),
    "ufunc out of a view": lambda a: np.multiply(a[0], 2, out=a[1]),
    "ufunc where": lambda a: np.negative(a, out=a, where=VALUES > 20),
    "ufunc at": lambda a: np.add.at(a, [0, 0, 1], 1),
    "copyto": lambda a: np.copyto(a, np.arange(6.0)),
    "copyto where": lambda a: np.copyto(a, -1, where=VALUES > 40),
    "putmask": lambda a: np.putmask(a, VALUES > 50, 3),
    "place": lambda a: np.place(a, VALUES > 50, [1, 2]),
    "fill_diagonal": lambda a: np.fill_diagonal(a, 9),
    "put_along_axis": lambda a: np.put_along_axis(a, np.zeros((10, 1), int), 5, axis=1),
    "cumsum out": lambda a: np.cumsum(a, axis=0, out=a),
    "flat": lambda a: a.flat.__setitem__(slice(None), 1),
    "atomic add": lambda a: a.atomic.add((0, 0), 2),
    "atomic add of rows": lambda a: a.atomic.add(slice(1, 3), 2),
    "exchange": lambda a: a.atomic.exchange([3, 4], 2),
    "apply": lambda a: a.apply(np.ndarray.sort, axis=0),
}


@contextlib.contextmanager
def _noted(name: str) -> Iterator[None]:
    """Say in what goes wrong inside which row of a table it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the row {name!r}")
        raise


class EngineContract:
    """What every engine does. Derive a class, and make the fixture ``manager``."""

    @pytest.fixture
    def a(self, manager: ContractArrays) -> Any:
        """A hosted array of two axes, in several pieces where the engine cuts arrays."""
        return manager.array(VALUES, chunks=(4, 4))

    # -- making ----------------------------------------------------------------------------------------------------

    def test_creators(self, manager: ContractArrays) -> None:
        for made, expected in [
            (manager.zeros((3, 4)), np.zeros((3, 4))),
            (manager.empty(3), np.zeros(3)),
            (manager.ones(5, "i2"), np.ones(5, "i2")),
            (manager.full((2, 2), 7), np.full((2, 2), 7)),
            (manager.arange(2, 20, 3), np.arange(2, 20, 3)),
            (manager.linspace(0, 1, 7), np.linspace(0, 1, 7)),
            (manager.array([[1, 2], [3, 4]], dtype="f4"), np.array([[1, 2], [3, 4]], "f4")),
            (manager.array(np.array(["a", "bc"])), np.array(["a", "bc"])),
            (manager.array(3.5), np.array(3.5)),
            (manager.shared_array((4,)), np.ones(4)),  # type: ignore[attr-defined]  # registered
            (manager.squares(6), np.arange(6) ** 2),  # type: ignore[attr-defined]  # likewise
            (manager.run(np.eye, 3), np.eye(3)),
        ]:
            assert isinstance(made, HostedArray)
            found = made.copy()
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert (found == expected).all()

    def test_a_copy_of_a_hosted_array_is_another_array(self, manager: ContractArrays, a: Any) -> None:
        b = manager.array(a)
        b[0] = -5
        same(a[0] + 0, VALUES[0])
        assert manager.asarray(a) is a

    def test_facts(self, a: Any) -> None:
        for name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
            assert getattr(a, name) == getattr(VALUES, name)
            assert a._callmethod("__getattr__", (name,)) == getattr(VALUES, name)
        assert len(a) == 10
        assert (a.flags.c_contiguous, a.T.flags.c_contiguous) == (True, False)
        assert a[2:5, ::2].strides == VALUES[2:5, ::2].strides

    def test_text(self, manager: ContractArrays, a: Any) -> None:
        assert str(a) == repr(VALUES)
        assert f"{a}" == repr(VALUES)
        assert "shape=(10, 6)" in repr(a)
        assert str(manager.address) in repr(a)
        long = manager.arange(10_000.0, chunks=3_000)
        assert str(long) == repr(np.arange(10_000.0))
        assert str(long[5:]) == repr(np.arange(10_000.0)[5:])

    # -- reading ---------------------------------------------------------------------------------------------------

    def test_reads(self, a: Any) -> None:
        for name, read in READS.items():
            with _noted(name):
                same(read(a), read(VALUES))

    def test_basic_indices_give_views(self, a: Any) -> None:
        view = a[2:6, ::2]
        assert isinstance(view, HostedArray)
        view[1] = 100
        assert a[3, 0] == 100
        assert a[3, 1] == VALUES[3, 1]

    def test_values_are_private(self, a: Any) -> None:
        values = a + 0
        values[:] = -1
        copied = a.copy()
        copied[:] = -1
        same(a.sum(), VALUES.sum())
        with pytest.raises(ValueError, match="read-only"):
            np.asarray(a)[0] = 1

    @pytest.mark.parametrize(
        "wrong", [lambda a: a + np.ones(5), lambda a: a[99], lambda a: a[0, 0, 0], lambda a: a.nothing,
                  lambda a: bool(a), lambda a: float(a), lambda a: a.sum(axis=7)],
    )  # fmt: skip
    def test_errors_are_numpys(self, a: Any, wrong: Any) -> None:
        with pytest.raises(Exception) as expected:  # noqa: PT011  # whichever NumPy raises
            wrong(VALUES)
        with pytest.raises(expected.type):
            wrong(a)

    # -- writing ---------------------------------------------------------------------------------------------------

    def test_writes(self, manager: ContractArrays) -> None:
        for name, write in WRITES.items():
            with _noted(name):
                a, expected = manager.array(VALUES, chunks=(4, 4)), VALUES.copy()
                before = a.version
                write(a)
                _ON_NDARRAYS.get(name, write)(expected)
                same(a, expected)
                assert a.version > before

    def test_in_place_operators_return_the_array(self, a: Any) -> None:
        b = a
        b += 1
        assert b is a
        part = a[2:4]
        a[2:4] += 1
        same(part, VALUES[2:4] + 2)

    @pytest.mark.parametrize(
        "wrong",
        [lambda a: a.__setitem__((0, 0), "text"), lambda a: a.__setitem__(slice(0, 2), np.ones(5)),
         lambda a: a.__setitem__(99, 1), lambda a: np.add(a, np.ones((3, 1, 1)), out=a),
         lambda a: np.copyto(a, 1j), lambda a: a.__iadd__(1j), lambda a: a.__delitem__(0)],
    )  # fmt: skip
    def test_a_write_that_fails_changes_nothing(self, a: Any, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError, IndexError)):
            wrong(a)
        same(a, VALUES)

    def test_atomic_updates_return_what_was_before(self, a: Any) -> None:
        same(a.atomic.add((2, 1), 5), VALUES[2, 1])
        same(a.atomic.exchange(0, 1), VALUES[0])
        same(a.atomic.compare_exchange((2, 1), VALUES[2, 1] + 5, 0), VALUES[2, 1] + 5)
        same(a.atomic.compare_exchange((2, 1), 17, 1), np.float64(0))
        assert a[2, 1] == 0

    # -- sections --------------------------------------------------------------------------------------------------

    def test_a_section_writes(self, a: Any) -> None:
        with a.write() as x:
            assert isinstance(x, np.ndarray)
            x[0] = 3
            x[1] += x[0]
            assert a[0, 0] == 3  # this thread sees its own
            a[2] = 4
        expected = VALUES.copy()
        expected[0], expected[2] = 3, 4
        expected[1] += 3
        same(a, expected)

    def test_a_section_of_a_view(self, a: Any) -> None:
        with a[2:4].write() as x:
            x *= 2
        same(a[2:4] + 0, VALUES[2:4] * 2)
        same(a[4:] + 0, VALUES[4:])

    def test_reading_sections(self, a: Any) -> None:
        with a.read() as x:
            same(x.sum(), VALUES.sum())
            with pytest.raises(ValueError, match="read-only"):
                x[0] = 1
            with pytest.raises(WouldDeadlock), a.write():
                pass

    def test_sections_nest(self, a: Any) -> None:
        with a.write() as x, a[1:3].write() as y:
            y[:] = 0
            assert x[1, 1] == 0
        assert a[2, 2] == 0

    def test_several_arrays(self, manager: ContractArrays, a: Any) -> None:
        b = manager.zeros(3)
        with locked(a, b) as (x, y):
            y[:] = x[0, :3]
        same(b, VALUES[0, :3])

    def test_the_lock_is_exclusive(self, a: Any) -> None:
        failed = []

        def attempt() -> None:
            try:
                with a.write(timeout=0.2):
                    pass
            except LockTimeoutError as error:
                failed.append(error)

        with a.lock:
            a[0] = 1  # the holder's own
            other = threading.Thread(target=attempt)
            other.start()
            other.join()
        assert len(failed) == 1
        with a.write(timeout=5):
            pass

    def test_transactions(self, manager: ContractArrays, a: Any) -> None:
        b = manager.zeros((2, 2))
        with transaction(a, b) as (x, y):
            x[0] = y[0, 0] = 11
        assert (a[0, 5], b[0, 0]) == (11, 11)
        with pytest.raises(TransactionConflictError), transaction(a, b) as (x, y):
            y[1] = 5
            a[3] = 1
        same(b[1] + 0, np.zeros(2))

    def test_waiting_for_a_change(self, a: Any) -> None:
        since = a.version
        assert a.wait_changed(since, timeout=0) == since
        writer = threading.Timer(0.05, a.__setitem__, (0, 1))
        writer.start()
        assert a.wait_changed(since, timeout=30) > since
        writer.join()

    # -- passing and naming ----------------------------------------------------------------------------------------

    def test_proxies_travel(self, a: Any) -> None:
        data = pickle.dumps(a[1:3])
        assert len(data) < 1000
        elsewhere = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, data.hex()], capture_output=True, text=True, timeout=60, check=False
        )
        assert elsewhere.returncode == 0, elsewhere.stderr
        assert float(elsewhere.stdout) == VALUES[1:3].sum() + 12
        same(a[1:3] + 0, VALUES[1:3] + 1)
        same(pickle.loads(data), VALUES[1:3] + 1)
        assert type(copy.copy(a)) is np.ndarray

    def test_names(self, manager: ContractArrays, a: Any) -> None:
        manager["contract"] = VALUES[:2]
        try:
            assert "contract" in manager
            assert list(manager) == ["contract"]
            found = manager["contract"]
            found[0, 0] = 50
            assert manager["contract"][0, 0] == 50
            with pytest.raises(ReferentExistsError):
                manager.put("contract", a)
            same(manager.put("contract", a, overwrite=True), VALUES)
            a[0] = 1
            same(manager["contract"][0] + 0, np.ones(6))
            same(found[0, 0], np.float64(50))  # who has the old one keeps it
            manager["part"] = a[1:3]
            manager["part"][0] = 2
            same(a[1] + 0, np.full(6, 2.0))
        finally:
            manager.pop("part", None)
            del manager["contract"]
        assert list(manager) == []
        with pytest.raises(ReferentNotFoundError):
            manager["contract"]
        with pytest.raises(ReferentNotFoundError):
            del manager["contract"]

    def test_creating_by_name(self, manager: ContractArrays) -> None:
        made = manager.create("counts", (4, 3), "i8", fill_value=2)
        try:
            same(made, np.full((4, 3), 2))
            again = manager.create("counts", (4, 3), "i8", exist_ok=True)
            again[0] = 9
            assert made[0, 0] == 9
            for wrong in ({}, {"exist_ok": True, "dtype": "f4"}):
                with pytest.raises(ReferentExistsError):
                    manager.create("counts", (4, 3), **wrong)  # type: ignore[arg-type]  # of two types
        finally:
            del manager["counts"]

    def test_attributes(self, a: Any) -> None:
        a.attrs.update(unit="m", scale=2.5)
        assert dict(a[1:].attrs) == {"unit": "m", "scale": 2.5}
        del a.attrs["unit"]
        assert a.attrs.setdefault("scale", 3) == 2.5
        assert dict(a.attrs) == {"scale": 2.5}

    # -- objects ---------------------------------------------------------------------------------------------------

    def test_objects(self, manager: ContractArrays) -> None:
        counter = manager.Counter()  # type: ignore[attr-defined]  # registered
        assert counter.add(3) == 3
        assert pickle.loads(pickle.dumps(counter)).add(4) == 7
        assert counter.count == 7

    def test_statistics(self, manager: ContractArrays, a: Any) -> None:
        statistics = manager.statistics()
        assert statistics.n_arrays >= 1
        assert statistics.n_bytes >= a.nbytes


# What ndarray spells in another way.
_ON_NDARRAYS: dict[str, Callable[[Any], Any]] = {
    "atomic add": lambda a: a.__setitem__((0, 0), a[0, 0] + 2),
    "atomic add of rows": lambda a: a[1:3].__iadd__(2),
    "exchange": lambda a: a.__setitem__([3, 4], 2),
    "apply": lambda a: a.sort(axis=0),
}
