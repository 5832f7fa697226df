"""The story: programs written for the standard library's manager, with only the import line changed."""

import itertools
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import HostedArray
from arrayhost.managers import BaseManager
from tests.support import assert_same

# Elements: 400 MB of float64. The environment may say less, for a machine that has less.
N = int(os.environ.get("ARRAYHOST_STORY_N", "50000000"))
METHODS = ["fork", "spawn", "forkserver"]
# `ctypes` and `data` are addresses in the process that asks, `base` says who owns the memory, `device` is tested alike.
PRIVATE = {"base", "ctypes", "data"}
ATTRIBUTES = sorted(
    name
    for name in dir(np.ndarray)
    if not name.startswith("_") and not callable(getattr(np.ndarray, name)) and name not in PRIVATE
)


class Wrapper:
    """What people wrote around an array, since the standard library's proxies showed neither attributes nor slices."""

    def __init__(self, n: int) -> None:
        self.array = np.arange(n, dtype=float)

    def attribute(self, name: str) -> Any:
        return getattr(self.array, name)

    def sum(self) -> Any:
        return self.array.sum()

    def getdata(self, index: Any) -> Any:
        return self.array[index]


class Locked(Wrapper):
    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.array[:] = 0
        self.lock = multiprocessing.Lock()

    def add(self, index: Any, value: float) -> None:
        with self.lock:
            self.array[index] = self.array[index] + value


class Arrays(BaseManager):
    pass


def squares(n: int) -> np.ndarray:
    return np.arange(n) ** 2


RNG = np.random.default_rng(7)

Arrays.register("shared_array", np.ones)
Arrays.register("wrapper", Wrapper)
Arrays.register("locked", Locked, exposed=["add", "attribute", "sum", "getdata"])
Arrays.register("squares", squares)
Arrays.register("normal", RNG.normal)
Arrays.register("linspace_", np.linspace)


# One host for all tests that need no start method of their own: a fixture's manager outlives the census of its test.
@pytest.fixture(scope="module")
def manager() -> Iterator[Arrays]:
    with Arrays() as manager:
        manager.shared_array(1).sum()  # the connection is made now
        yield manager


def send_sum(proxy: Any, writer: Any) -> None:
    writer.send((os.getpid(), float(proxy.sum())))
    writer.close()


def add_often(proxy: Any, times: int) -> None:
    for _ in range(times):
        proxy.add(0, 1.0)
        proxy.add(slice(1, 3), 2.0)


def joined(*processes: Any) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    for process in processes:
        process.close()


def test_a_printing_the_proxy_shows_the_array(manager: Arrays, capsys: pytest.CaptureFixture[str]) -> None:
    a = manager.shared_array(N)
    print(a)
    printed = capsys.readouterr().out
    assert printed.startswith("array([1., 1., 1., ..., 1., 1., 1.]")
    assert printed == f"{np.ones(N)!r}\n"  # NumPy 2.2 and later add the shape of what they shorten
    assert str(manager.shared_array((2,), dtype=int)) == "array([1, 1])"
    assert f"shape=({N},)" in repr(a)
    assert "float64" in repr(a)
    assert manager.address in repr(a)


def test_b_sum(manager: Arrays) -> None:
    assert_same(manager.shared_array(N).sum(), np.ones(N).sum())


def test_c_sum_of_a_copy(manager: Arrays) -> None:
    copy = manager.shared_array(N)._getvalue()
    assert_same(copy, np.ones(N))
    assert copy.sum() == N


@pytest.mark.parametrize("method", METHODS)
def test_d_a_child_sums_the_same_array(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Arrays(ctx=context) as manager:
        a = manager.shared_array(N)
        a[0] = 5
        reader, writer = context.Pipe(duplex=False)
        with reader:
            joined(context.Process(target=send_sum, args=(a, writer)))
            writer.close()
            pid, total = reader.recv()
        assert pid != os.getpid()
        assert total == N + 4
        assert float(a.sum()) == N + 4


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_e_every_attribute_of_ndarray(manager: Arrays, name: str) -> None:
    a, expected = manager.shared_array(N), np.ones(N)
    if name == "mT":  # of two dimensions and more only, for everybody
        for array in (a, expected):
            with pytest.raises(ValueError, match="ndim < 2"):
                getattr(array, name)
        return
    got, wanted = getattr(a, name), getattr(expected, name)
    if name == "flags":
        assert (got.c_contiguous, got.f_contiguous, got.aligned) == (True, True, True)
    elif name == "flat":
        assert len(got) == N
        assert sum(itertools.islice(got, 1_000_000)) == min(N, 1_000_000)
    elif isinstance(wanted, np.ndarray):
        assert_same(np.array(got[:1000]), wanted[:1000])
        assert (got.shape, got.dtype, got.strides) == (wanted.shape, wanted.dtype, wanted.strides)
        assert np.array_equal(np.asarray(got), wanted)
    else:
        assert_same(got, wanted)


def test_e_shape_of_arrays_with_more_dimensions(manager: Arrays) -> None:
    a = manager.shared_array((10, N // 100, 10))
    assert_same(a.shape, (10, N // 100, 10))
    assert_same(a.T.strides, np.ones((10, N // 100, 10)).T.strides)


def test_f_attribute_through_callmethod(manager: Arrays) -> None:
    a = manager.shared_array(N)
    assert_same(a._callmethod("__getattr__", args=("shape",)), (N,))
    assert_same(a._callmethod("__getattr__", args=("dtype",)), np.dtype(float))
    assert_same(a._callmethod("sum"), np.float64(N))


def test_g_wrapper_class(manager: Arrays) -> None:
    wrapper = manager.wrapper(N)
    assert_same(wrapper.attribute("shape"), (N,))
    assert_same(wrapper.attribute("nbytes"), 8 * N)
    assert_same(wrapper.sum(), np.arange(N, dtype=float).sum())


def test_h_slices(manager: Arrays) -> None:
    a, expected = manager.shared_array(N), np.ones(N)
    a[3:6] = expected[3:6] = [7, 8, 9]
    assert isinstance(a[:10], HostedArray)
    assert_same(np.array(a[:10]), expected[:10])
    assert_same(np.array(a[5:2:-1]), expected[5:2:-1])
    assert_same(a[4], expected[4])


def test_i_slice_through_callmethod(manager: Arrays) -> None:
    a = manager.shared_array(N)
    a[9] = 3
    assert_same(np.array(a._callmethod("__getitem__", args=(slice(0, 10),))), np.array([1.0] * 9 + [3.0]))


def test_j_wrapper_class_with_slices(manager: Arrays) -> None:
    wrapper = manager.wrapper(N)
    assert_same(np.array(wrapper.getdata(slice(2, 7))), np.arange(2.0, 7.0))
    assert_same(wrapper.getdata(11), np.float64(11))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_k_eight_processes_add_under_the_wrappers_lock(method: str) -> None:
    context = multiprocessing.get_context(method)
    times = 50
    with Arrays(ctx=context) as manager:
        wrapper = manager.locked(N)
        joined(*(context.Process(target=add_often, args=(wrapper, times)) for _ in range(8)))
        assert_same(np.array(wrapper.getdata(slice(0, 4))), np.array([8.0 * times, 16.0 * times, 16.0 * times, 0.0]))
        assert float(wrapper.sum()) == 40 * times


@pytest.mark.parametrize("method", METHODS)
def test_results_of_registered_functions_are_hosted(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Arrays(ctx=context) as manager:
        mine = manager.squares(1000)
        assert isinstance(mine, HostedArray)
        assert_same(np.array(mine), squares(1000))
        assert_same(np.array(manager.linspace_(0, 1, num=11)), np.linspace(0, 1, 11))
        # The generator goes to the host as it stands here, and moves on there.
        expected = np.random.default_rng(7)
        assert_same(np.array(manager.normal(size=100)), expected.normal(size=100))
        assert_same(np.array(manager.normal(10, 2, (3, 4))), expected.normal(10, 2, (3, 4)))


def test_one_dimensional_arrays_of_every_numeric_kind(manager: Arrays) -> None:
    for dtype in "?bBhHiIlLqQefdgFDGSU":
        if dtype in "SU":
            dtype += "3"
        assert_same(np.array(manager.shared_array(17, dtype=dtype)), np.ones(17, dtype=dtype))
