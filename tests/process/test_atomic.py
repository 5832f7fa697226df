"""Read-modify-write in one step: `a.atomic`, `a.apply`, transactions over several arrays, and blocks for pools."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

import arrayhost
from arrayhost import (
    ArgumentEncodingError,
    ArrayManager,
    HostedArray,
    TransactionConflictError,
    WouldDeadlock,
    transaction,
)
from arrayhost.client.session import round_trips
from tests.support import assert_same, child, run_python

# -- atomic ---------------------------------------------------------------------------------------------------------

RECORD = np.dtype([("x", "i4"), ("y", "f8")])
INDICES: list[Any] = [0, -1, (1, 2), slice(1, 3), (slice(None), 2), ..., [0, 2], ([0, 3], [1, 5]), (), None,
                      np.arange(24).reshape(4, 6) % 2 == 0, 9, (1, 2, 3), "a", 1.5, slice(3, 1)]  # fmt: skip


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return type(error), str(error)


def numpy_add(array: np.ndarray, index: Any, value: Any) -> Any:
    old = array[index].copy()
    array[index] += value
    return old


def numpy_exchange(array: np.ndarray, index: Any, value: Any) -> Any:
    old = array[index].copy()
    array[index] = value
    return old


@pytest.mark.parametrize("inside", [False, True], ids=["in the host", "in a section"])
@pytest.mark.parametrize("dtype", ["f8", ">i4", "c16"])
@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i)[:30].replace("\n", ""))
def test_updates_are_numpys_and_one_round_trip(manager: ArrayManager, index: Any, dtype: str, inside: bool) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    for kind in (lambda a: a, lambda a: a.on_host):
        for value in (3, np.arange(6), np.arange(7), 2.5, "text"):
            for update, by_hand in (("add", numpy_add), ("exchange", numpy_exchange)):
                expected = array.copy()
                hosted = manager.array(array)
                method = getattr(kind(hosted).atomic, update)
                with np.errstate(all="ignore"):
                    theirs = outcome(lambda: by_hand(expected, index, value))  # noqa: B023  # called in this round only
                    before = round_trips()
                    if inside:
                        with hosted.write():
                            ours = outcome(lambda: method(index, value))  # noqa: B023  # called in this round only
                        assert round_trips() == before
                    else:
                        ours = outcome(lambda: method(index, value))  # noqa: B023  # called in this round only
                        assert round_trips() == before + 1
                if isinstance(theirs, tuple) and isinstance(theirs[0], type):
                    assert issubclass(ours[0], theirs[0].__mro__[0]) or issubclass(theirs[0], ours[0])
                    assert_same(hosted.copy(), array)
                else:
                    assert_same(ours, theirs)
                    assert_same(hosted.copy(), expected)


def test_other_dtypes(manager: ArrayManager) -> None:
    records = manager.zeros(3, RECORD)
    assert records.atomic.exchange(1, (7, 0.5)).tolist() == (0, 0.0)
    assert records.atomic.add("x", 2).tolist() == [0, 7, 0]
    assert records.copy().tolist() == [(2, 0.0), (9, 0.5), (2, 0.0)]
    texts = manager.array(np.array(["a", "bcd"], "U5"))
    assert texts.atomic.exchange(0, "hello") == "a"
    assert texts[0] == "hello"
    dates = manager.array(np.array(["2024-01-31"], "M8[D]"))
    assert dates.atomic.add(0, np.timedelta64(1, "D")) == np.datetime64("2024-01-31")
    assert dates[0] == np.datetime64("2024-02-01")


def test_compare_exchange(manager: ArrayManager) -> None:
    a = manager.array([1.0, np.nan, 3.0])
    before = round_trips()
    assert a.atomic.compare_exchange(0, 1.0, 5.0) == 1.0
    assert a.atomic.compare_exchange(0, 1.0, 6.0) == 5.0
    assert np.isnan(a.atomic.compare_exchange(1, np.nan, 2.0))
    assert a.atomic.compare_exchange(slice(1, 3), [2.0, 4.0], 0).tolist() == [2.0, 3.0]
    assert a.atomic.compare_exchange(slice(1, 3), [2.0, 3.0], 9).tolist() == [2.0, 3.0]
    assert round_trips() == before + 5
    assert a.tolist() == [5.0, 9.0, 9.0]
    with pytest.raises(IndexError):
        a.atomic.compare_exchange(7, 0, 1)


def test_hosted_indices_and_values(manager: ArrayManager) -> None:
    a, index, value = manager.zeros(4), manager.array([0, 2]), manager.array([1.0, 2.0])
    a.atomic.add(index, value)
    assert a.tolist() == [1, 0, 2, 0]
    with a.write():
        a.atomic.add(index, value.on_host)
    assert a.tolist() == [2, 0, 4, 0]
    with a.read(), pytest.raises(WouldDeadlock):
        a.atomic.add(0, 1)
    with pytest.raises(ValueError, match="read-only"):
        np.broadcast_to(a, (2, 4)).atomic.add(0, 1)


COUNTER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["counters"]
print("ready", flush=True)
sys.stdin.readline()
wins = 0
for _ in range(300):
    a.atomic.add(0, 1)
    a.atomic.add([1, 3], [1, 2])
    while True:
        value = a[2]
        if a.atomic.compare_exchange(2, value, value + 1) == value:
            break
print("done", flush=True)
"""


def test_nothing_is_lost_between_processes(manager: ArrayManager) -> None:
    manager["counters"] = np.zeros(4, int)
    with child(COUNTER, manager.address) as one, child(COUNTER, manager.address) as two:
        for helper in (one, two):
            helper.expect("ready")
        for helper in (one, two):
            helper.send()
        for helper in (one, two):
            helper.expect("done")
    assert manager["counters"].tolist() == [600, 600, 600, 1200]


# -- apply ----------------------------------------------------------------------------------------------------------


def halve(x: np.ndarray, shift: float = 0.0) -> Any:
    x /= 2
    x += shift
    return x


def spoil(x: np.ndarray) -> None:
    x[0] = -1
    raise KeyError("spoilt")


def top(x: np.ndarray, other: Any) -> Any:
    other[0] = x.max()
    return x[-2:]


def test_apply(manager: ArrayManager) -> None:
    a = manager.arange(4.0)
    before = round_trips()
    assert a.apply(halve, shift=1) is a
    assert a.tolist() == [1, 1.5, 2, 2.5]
    rng = np.random.default_rng(7)
    assert a[1:].apply(rng.shuffle) is None
    shuffled = np.array([1.5, 2, 2.5])
    np.random.default_rng(7).shuffle(shuffled)
    assert a.tolist() == [1, *shuffled]
    # The caller's generator has not moved.
    assert rng.integers(1000) == np.random.default_rng(7).integers(1000)
    other = manager.zeros(1)
    assert_same(a.apply(top, other), a.copy()[-2:])
    assert other[0] == 2.5
    assert round_trips() == before + 4
    with pytest.raises(KeyError, match="spoilt") as caught:
        a.apply(spoil)
    assert "in spoil" in caught.value.__notes__[0]
    assert a[0] == 1
    assert np.broadcast_to(a, (2, 4)).apply(np.sum) == 2 * a.sum()
    with pytest.raises(TypeError, match="needs a function"):
        a.apply(3)


def test_functions_that_cannot_be_imported(manager: ArrayManager, monkeypatch: pytest.MonkeyPatch) -> None:
    a = manager.arange(3)
    step = 5

    def shift(x: np.ndarray) -> int:
        x += step
        return int(x.sum())

    assert a.apply(shift) == 18
    assert a.apply(lambda x: x[0]) == 5
    assert manager.run(lambda: np.full(2, step)).tolist() == [5, 5]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ArgumentEncodingError, match=r"arrayhost\[closures\]"):
        a.apply(lambda x: x[0])


def test_apply_inside_a_section(manager: ArrayManager) -> None:
    a = manager.arange(3.0)
    with a.write() as x:
        before = round_trips()
        assert a.apply(halve) is a
        assert x.tolist() == [0, 0.5, 1]
        assert round_trips() == before
    with a.read(), pytest.raises(WouldDeadlock):
        a.apply(halve)


# -- transactions ---------------------------------------------------------------------------------------------------


def test_a_transaction_happens_as_a_whole(manager: ArrayManager) -> None:
    a, b, c = manager.arange(4.0), manager.zeros((2, 2)), manager.ones(3)
    unchanged = manager.ones(2)
    also = manager.ones(2)
    versions = a.version, b.version, c.version, unchanged.version - 2, also.version - 2
    with transaction(a, b[1], c.on_host, unchanged, also.on_host) as (x, y, z, w, _):
        x[0] = 9
        y += x[:2]
        assert a[0] == 0
        assert w.sum() == 2
        z[1] = 3
    assert a.tolist() == [9, 1, 2, 3]
    assert b.tolist() == [[0, 0], [9, 1]]
    assert c.tolist() == [1, 3, 1]
    # What was only read has not been written.
    now = a.version, b.version, c.version, unchanged.version, also.version
    assert now == tuple(version + 2 for version in versions)
    with pytest.raises(KeyError), transaction(a, b) as (x, y):
        x[:] = y[:] = 5
        raise KeyError
    assert a[0] == 9
    assert b[1, 0] == 9


def test_a_conflict_changes_nothing(manager: ArrayManager) -> None:
    a, b = manager.arange(4.0), manager.zeros(2)
    with pytest.raises(TransactionConflictError, match="run it again"), transaction(a, b) as (x, y):
        y[0] = x.sum()
        a[3] = 100  # an array that the block has only read
    assert b.tolist() == [0, 0]
    with transaction(a, b) as (x, y):
        y[0] = x.sum()
    assert b[0] == 103


def test_bad_use_of_transactions(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    for arrays, error in (((), TypeError), ((np.ones(2),), TypeError), ((a, a[1:]), ValueError)):
        with pytest.raises(error):
            transaction(*arrays)
    with ArrayManager() as other, pytest.raises(ValueError, match="one host"):
        transaction(a, other.zeros(1))
    with a.write(), pytest.raises(WouldDeadlock), transaction(a):
        pass
    one = transaction(a)
    with one:
        pass
    with pytest.raises(RuntimeError), one:
        pass


TRANSFER = """
import sys, arrayhost
manager = arrayhost.connect(sys.argv[1])
a, b = manager["from"], manager["to"]
print("ready", flush=True)
sys.stdin.readline()
done = 0
while done < int(sys.argv[2]):
    try:
        with arrayhost.transaction(a, b) as (x, y):
            x -= 1
            y += 1
        done += 1
    except arrayhost.TransactionConflictError:
        pass
print("done", flush=True)
"""


def test_transactions_of_several_processes_and_a_killed_one(manager: ArrayManager) -> None:
    manager["from"], manager["to"] = np.full(100, 1000), np.zeros(100, int)
    with (
        child(TRANSFER, manager.address, 60) as one,
        child(TRANSFER, manager.address, 60) as two,
        child(TRANSFER, manager.address, 10**9) as doomed,
    ):
        for helper in (one, two, doomed):
            helper.expect("ready")
        for helper in (one, two, doomed):
            helper.send()
        for _ in range(50):
            x, y = manager["from"][50:60].copy(), manager["to"][50:60].copy()
            assert len({*x.tolist()}) == len({*y.tolist()}) == 1
        doomed.kill()
        for helper in (one, two):
            helper.expect("done")
    a, b = manager["from"], manager["to"]
    assert len({*a.tolist()}) == len({*b.tolist()}) == 1
    assert a[0] + b[0] == 1000
    assert b[0] >= 120
    assert not a.statistics().torn


def test_who_has_connected_for_reading_updates_nothing(manager: ArrayManager) -> None:
    manager["read"] = np.zeros(3)
    code = """
import sys, arrayhost
from arrayhost.errors import ReadOnlyError
def update(a):
    with arrayhost.transaction(a) as (x,):
        x[0] = 1
for a in (arrayhost.connect(sys.argv[1], mode="r")["read"], arrayhost.connect(sys.argv[1], mode="r")["read"].on_host):
    for work in (lambda a: a.atomic.add(0, 1), lambda a: a.atomic.exchange(0, 1), update, lambda a: a.apply(sum),
                 lambda a: a.atomic.compare_exchange(0, 0, 1), lambda a: a.recover()):
        try:
            work(a)
        except ReadOnlyError:
            print("refused", flush=True)
    print(a.wait_changed(a.version - 2) == a.version, a.wait_changed(timeout=0.01) == a.version)
"""
    printed = run_python(code, manager.address).stdout.split()
    assert printed == [*["refused"] * 6, "True", "True"] * 2
    assert manager["read"].tolist() == [0, 0, 0]


# -- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "axis"), [(1, 0), (3, 0), (4, 1), (9, 1), (2, -1)])
def test_blocks_are_array_splits(manager: ArrayManager, n: int, axis: int) -> None:
    array = np.arange(28).reshape(7, 4)
    hosted = manager.array(array)
    for kind in (hosted, hosted.on_host):
        before = round_trips()
        blocks = kind.blocks(n, axis)
        assert round_trips() == before
        assert all(isinstance(block, HostedArray) for block in blocks)
        for ours, theirs in zip(blocks, np.array_split(array, n, axis), strict=True):
            assert_same(ours.copy(), theirs)


def test_blocks_refuse_what_array_split_refuses(manager: ArrayManager) -> None:
    a = manager.zeros((2, 2))
    for arguments, error in (((0,), ValueError), ((2, 5), IndexError)):
        with pytest.raises(error):
            np.array_split(a.copy(), *arguments)
        with pytest.raises(error):
            a.blocks(*arguments)


def increment(block: HostedArray) -> int:
    with block.write() as x:
        x += 1
    return int(block.size)


def test_a_pool_works_on_blocks(manager: ArrayManager) -> None:
    a = manager.zeros((10, 3))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert sum(pool.map(increment, a.blocks(4))) == 30
    assert_same(a.copy(), np.ones((10, 3)))
    assert arrayhost.transaction is transaction
