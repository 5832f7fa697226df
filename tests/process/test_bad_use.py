"""Bad use: a clear error that says what to do, before anything has changed."""

import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import (
    ArgumentEncodingError,
    ArrayHostError,
    ArrayManager,
    HostGoneError,
    HostMemoryError,
    StaleProxyError,
    UnsupportedDTypeError,
    WouldDeadlock,
)
from tests.support import assert_same, run_python


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        yield running


@pytest.mark.parametrize("make", ["empty", "zeros", "ones", "full", "arange"])
def test_a_size_beyond_the_memory_that_is_free(manager: ArrayManager, make: str) -> None:
    args = (2**45, 5) if make == "full" else (2**45,)
    with pytest.raises(HostMemoryError, match=r"needs 256\.0 TiB and .* has .* free; drop arrays") as caught:
        getattr(manager, make)(*args)
    assert caught.value.need_bytes == 2**48
    assert 0 <= caught.value.free_bytes < 2**48
    assert manager.statistics().n_arrays == 0
    assert manager.ones(3).sum() == 3


BAD_WRITES: dict[str, Callable[[Any], Any]] = {
    "broadcast-set": lambda a: a.__setitem__(slice(None), np.ones(7)),
    "broadcast-iadd": lambda a: a.__iadd__(np.ones((5, 3))),
    "broadcast-out": lambda a: np.add(np.ones((9, 4)), 1, out=a),
    "dtype-iadd": lambda a: a.__iadd__(1j),
    "dtype-text": lambda a: a.__setitem__(0, "not a number"),
    "dtype-object": lambda a: a.__setitem__(0, object()),
    "index": lambda a: a.__setitem__((99, 0), 1),
    "mask": lambda a: a.__setitem__(np.ones(2, bool), 1),
    "copyto": lambda a: np.copyto(a, np.ones((3, 4)) * 1j),
}


@pytest.mark.parametrize("name", BAD_WRITES)
def test_a_write_that_numpy_refuses_is_refused_alike(manager: ArrayManager, name: str) -> None:
    hosted, sample = manager.zeros((3, 4)), np.zeros((3, 4))
    with pytest.raises((ValueError, TypeError, IndexError)) as expected:
        BAD_WRITES[name](sample)
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        BAD_WRITES[name](hosted)
    assert isinstance(expected.value, type(caught.value)) or isinstance(caught.value, type(expected.value))
    assert_same(hosted.copy(), np.zeros((3, 4)))
    assert not hosted.statistics().torn


def test_reads_that_do_not_broadcast(manager: ArrayManager) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        manager.ones(3) + manager.ones(4)


def test_writing_where_only_reading_is_allowed(manager: ArrayManager) -> None:
    a = manager.zeros(5)
    with a.read() as x:
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1
        with pytest.raises(WouldDeadlock, match="write"):
            a[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(a)[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.asarray(a).flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        np.broadcast_to(a, (2, 5))[0] = 1
    assert_same(a.copy(), np.zeros(5))


def test_a_stale_proxy() -> None:
    with ArrayManager(handle_grace=0) as short:
        a = short.ones(3)
        handle = pickle.dumps(a)
        del a
        gc.collect()
        short.ones(1)  # a round trip later the release has arrived
        with pytest.raises(StaleProxyError, match="not hosted any more"):
            for _ in range(1000):
                pickle.loads(handle).sum()
                short.statistics()


def test_a_proxy_after_shutdown() -> None:
    manager = ArrayManager()
    manager.start()
    a = manager.ones(5)
    manager.shutdown()
    for use in (lambda: a.fill(2), lambda: a.__setitem__(0, 1), lambda: manager.ones(3)):
        with pytest.raises((HostGoneError, ArrayHostError)):
            use()
    assert a.sum() == 5  # what is mapped can be read
    with pytest.raises(multiprocessing.ProcessError):
        manager.start()


def test_an_argument_that_cannot_be_pickled(manager: ArrayManager) -> None:
    a = manager.zeros(3)
    for value in (lambda: 0, open(os.devnull), (x for x in ())):  # noqa: SIM115  # closed below
        with pytest.raises(ArgumentEncodingError, match="cannot be"):
            manager.run(np.ones, value)
        if hasattr(value, "close"):
            value.close()
    lock = threading.Lock()
    with pytest.raises(ArgumentEncodingError, match=r"function|lambda"):
        manager.run(lambda: lock.locked())  # by value, but for what it refers to
    assert_same(a.copy(), np.zeros(3))


def test_a_lambda_under_spawn() -> None:
    class Arrays(ArrayManager):
        pass

    Arrays.register("make", lambda n: np.ones(n))
    manager = Arrays(ctx=multiprocessing.get_context("spawn"))
    with pytest.raises(ArgumentEncodingError, match=r"'make'.*'spawn'.*top level"):
        manager.start()


@pytest.mark.parametrize("thing", [5, "ones", np.ones(3)], ids=["int", "str", "ndarray"])
def test_registering_what_cannot_be_called(thing: Any) -> None:
    class Arrays(ArrayManager):
        pass

    with pytest.raises(TypeError, match="cannot be called; pass a function or a class"):
        Arrays.register("thing", thing)
    assert not hasattr(Arrays, "thing")
    with pytest.raises(TypeError, match="typeid"):
        Arrays.register(thing if not isinstance(thing, str) else "", np.ones)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.ones(3, dtype=object),
        lambda m: m.array([1, None, "x"]),
        lambda m: m.array(np.array([object()], object)),
        lambda m: m.empty(2, dtype=[("a", "O")]),
        lambda m: m.full(2, None),
        lambda m: m.zeros(2, dtype=np.dtypes.StringDType()),
    ],
    ids=["ones", "list", "array", "record", "full", "string"],
)
def test_arrays_of_objects_are_refused(manager: ArrayManager, make: Callable[[ArrayManager], Any]) -> None:
    with pytest.raises(UnsupportedDTypeError, match="pointers"):
        make(manager)
    assert manager.statistics().n_arrays == 0


def test_wrong_arguments(manager: ArrayManager) -> None:
    a = manager.ones(3)
    for use in (
        lambda: a.write(timeout=-1),
        lambda: ArrayManager(handle_grace=-1),
        lambda: ArrayManager("tcp://nowhere"),
        lambda: manager.ones(-1),
        lambda: manager.ones(3, order="Q"),
    ):
        with pytest.raises(ValueError):  # each says something else
            use()
    with pytest.raises(TypeError, match="manager"):
        type(a)()
    with pytest.raises(LookupError):
        manager["nobody"]


def test_an_unsupported_platform() -> None:
    done = run_python(
        """
        import sys
        import numpy
        sys.platform = "darwin"
        try:
            import arrayhost
        except OSError as error:
            print(type(error).__name__, error)
        """
    )
    assert done.stdout.startswith("UnsupportedPlatformError")
    assert "needs Linux" in done.stdout
    assert "darwin" in done.stdout


@pytest.mark.parametrize("kind", ["mapped", "on host"])
def test_errors_name_the_public_class(manager: ArrayManager, kind: str) -> None:
    a = manager.ones(3) if kind == "mapped" else manager.ones(3).on_host
    with pytest.raises(AttributeError, match="'HostedArray' object has no attribute 'nothing'"):
        a.nothing  # type: ignore[attr-defined]  # the mistake
    with pytest.raises(TypeError, match="'HostedArray' object is not callable"):
        a()  # type: ignore[operator]  # the mistake
    with pytest.raises(TypeError, match="unhashable type: 'HostedArray'"):
        hash(a)
    assert pickle.loads(pickle.dumps(type(a))) is type(a)
