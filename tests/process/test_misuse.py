"""Bad use: a clear error that says what to do, before anything has changed."""

import multiprocessing
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from sklearn import datasets

from arrayhost import (
    ArgumentEncodingError,
    ArrayManager,
    HostGoneError,
    HostMemoryError,
    NoHostError,
    NotAuthorizedError,
    UnsupportedDTypeError,
    connect,
    ones,
)


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        yield running


def test_more_than_the_machine_has(manager: ArrayManager) -> None:
    with pytest.raises(HostMemoryError, match=r"needs .* free") as caught:
        manager.ones(10**13)
    assert caught.value.need_bytes >= 8 * 10**13 > caught.value.free_bytes
    assert manager.statistics().n_arrays == 0


def test_shapes_and_types_are_refused_as_by_numpy(manager: ArrayManager) -> None:
    a, b = manager.ones((3, 4)), np.ones((3, 4))
    for operate in (
        lambda x: x.__setitem__(0, [1, 2, 3]),
        lambda x: x.__setitem__((5, 5), 1),
        lambda x: x + np.ones(7),
        lambda x: np.add(x, 1j, out=x),
        lambda x: x.reshape(5),
        lambda x: x.__setitem__(0, "text"),
    ):
        with pytest.raises(Exception) as wanted:  # whatever NumPy raises is compared below
            operate(b)
        public = next(kind for kind in type(wanted.value).__mro__ if kind.__module__ == "builtins")
        with pytest.raises(public):
            operate(a)
    assert (np.array(a) == 1).all()


def test_live_memory_is_read_only(manager: ArrayManager) -> None:
    a = manager.ones(3)
    x = np.asarray(a)
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        x.flags.writeable = True
    assert np.shares_memory(x, np.asarray(a))


def test_what_cannot_travel(manager: ArrayManager) -> None:
    with pytest.raises(ArgumentEncodingError, match="cannot be pickled"):
        manager.run(len, threading.Lock())
    with pytest.raises(UnsupportedDTypeError, match="fixed-size"):
        manager.array([object()])
    assert manager.statistics().n_objects == 0


def test_a_lambda_under_spawn() -> None:
    class Arrays(ArrayManager):
        pass

    Arrays.register("make", lambda: np.ones(3))
    with pytest.raises(ArgumentEncodingError, match="type 'make'"):
        Arrays(ctx=multiprocessing.get_context("spawn")).start()


def test_registering_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        ArrayManager.register("three", 3)  # type: ignore[arg-type]


def test_after_shutdown() -> None:
    manager = ArrayManager()
    manager.start()
    a = manager.ones(3)
    manager.shutdown()
    assert a.sum() == 3
    with pytest.raises(HostGoneError):
        a[0] = 2
    with pytest.raises(HostGoneError):
        connect(str(manager.address))


def test_a_wrong_key(manager: ArrayManager) -> None:
    with pytest.raises(NotAuthorizedError, match="authkey"):
        connect(str(manager.address), authkey=b"wrong")


def test_outside_of_a_host() -> None:
    with pytest.raises(NoHostError, match=r"manager\.ones"):
        ones(3)


def test_the_digits_summed_by_four_workers(manager: ArrayManager) -> None:
    for data in (datasets.load_digits().data, datasets.load_sample_image("china.jpg")):
        hosted = manager.array(data)
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            parts = pool.map(_total, [hosted[i::4] for i in range(4)])
            pool.close()
            pool.join()
        assert sum(parts) == data.sum(dtype=float)
        np.testing.assert_array_equal(np.array(hosted), data)


def _total(part: np.ndarray) -> float:
    return float(part.sum(dtype=float))
