"""Proxy classes and special methods of hosted objects: what the standard library documents runs as it is."""

import copy
import multiprocessing
import pickle
import queue
import threading
from collections.abc import Iterator
from multiprocessing import ProcessError
from multiprocessing.managers import (
    AcquirerProxy,
    AutoProxy,
    BarrierProxy,
    BaseProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    MakeProxyType,
    Namespace,
    NamespaceProxy,
    Value,
    ValueProxy,
)
from typing import Any, Self

import numpy as np
import pytest

from arrayhost import ArgumentEncodingError, HostedObject
from arrayhost.managers import BaseManager
from tests.support import run_python

METHODS = ["fork", "spawn", "forkserver"]


class Thing:
    def __init__(self) -> None:
        self.x = 1
        self.pipe: Any = None

    def add(self, n: int) -> int:
        self.x += n
        return self.x

    def _hidden(self) -> str:
        return "hidden"

    def child(self) -> "Thing":
        return Thing()

    def keep(self, pipe: Any) -> None:
        self.pipe = pipe

    def send(self, value: Any) -> None:
        self.pipe.send(value)
        self.pipe.close()

    def make_function(self) -> Any:
        return lambda: self

    def __enter__(self) -> Self:
        self.x = 100
        return self

    def __exit__(self, *error: object) -> None:
        self.x = -1

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2, 3])


def squares() -> Iterator[int]:
    yield from (i * i for i in range(4))


class SquaresProxy(BaseProxy):
    _exposed_ = ("__next__",)

    def __iter__(self) -> "SquaresProxy":
        return self

    def __next__(self) -> Any:
        return self._callmethod("__next__")


class ThingProxy(NamespaceProxy):
    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__", "add")

    def add(self, n: int) -> Any:
        return self._callmethod("add", (n,))


class PlainProxy(BaseProxy):
    _exposed_ = ("add",)

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        self.calls = 0

    def twice(self, n: int) -> Any:
        self.calls += 1
        self._callmethod("add", (n,))
        return super()._callmethod("add", (n,))


class OwnProxy(HostedObject):
    def thrice(self, n: int) -> Any:
        return [self._callmethod("add", (n,)) for _ in range(3)]


Made = MakeProxyType("Made", ("add",))


class Manager(BaseManager):
    pass


Manager.register("Thing", Thing)
Manager.register("Private", Thing, exposed=("add", "_hidden"))
Manager.register("squares", squares, proxytype=SquaresProxy)
Manager.register("plain_squares", squares)
Manager.register("Attributed", Thing, ThingProxy)
Manager.register("Plain", Thing, PlainProxy)
Manager.register("Own", Thing, OwnProxy)
Manager.register("Made", Thing, Made)
Manager.register("Auto", Thing, AutoProxy)
Manager.register("Base", Thing, BaseProxy, exposed=("add",))
Manager.register("Parent", Thing, method_to_typeid={"child": "PlainChild"})
Manager.register("PlainChild", proxytype=PlainProxy, create_method=False)
Manager.register("list", list, ListProxy)
Manager.register("dict", dict, DictProxy)
Manager.register("bare_list", list)
Manager.register("bare_dict", dict)
Manager.register("Iterator", proxytype=IteratorProxy, create_method=False)
Manager.register("Queue", queue.Queue)
Manager.register("Event", threading.Event, EventProxy)
Manager.register("Lock", threading.Lock, AcquirerProxy)
Manager.register("bare_lock", threading.Lock)
Manager.register("Condition", threading.Condition, ConditionProxy)
Manager.register("Barrier", threading.Barrier, BarrierProxy)
Manager.register("Namespace", Namespace, NamespaceProxy)
Manager.register("Value", Value, ValueProxy)


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        manager.ones(1).sum()  # the connection is made now
        yield manager


def test_a_proxy_class_of_the_users_keeps_its_methods(manager: Manager) -> None:
    proxy = manager.Plain()
    assert isinstance(proxy, PlainProxy)
    assert isinstance(proxy, BaseProxy)
    assert proxy.twice(2) == 5
    assert proxy.calls == 1  # its own, and not the hosted object's
    assert proxy._token.typeid == "Plain"
    assert manager.Own().thrice(1) == [2, 3, 4]
    assert manager.Made().add(1) == manager.Auto().add(1) == manager.Base()._callmethod("add", (1,)) == 2


def test_a_namespace_proxy_reads_and_sets_attributes(manager: Manager) -> None:
    proxy = manager.Attributed()
    assert (proxy.x, proxy.add(3), proxy.x) == (1, 4, 4)
    proxy.x = 10
    assert proxy.add(1) == 11
    del proxy.x
    with pytest.raises(AttributeError):
        _ = proxy.x
    namespace = manager.Namespace(a=1)
    namespace.b = "two"
    namespace._local = 3
    assert str(namespace) == "Namespace(a=1, b='two')"


def test_exposed_private_methods_can_be_called(manager: Manager) -> None:
    proxy = manager.Private()
    assert proxy._hidden() == "hidden"
    assert not hasattr(manager.Thing(), "_hidden")


def test_what_a_method_returns_has_the_proxy_class_of_its_type(manager: Manager) -> None:
    child = manager.Parent().child()
    assert isinstance(child, PlainProxy)
    assert child.twice(1) == 3


def test_generators_are_iterated_in_the_host(manager: Manager) -> None:
    assert list(manager.squares()) == [0, 1, 4, 9]
    assert list(manager.plain_squares()) == [0, 1, 4, 9]


@pytest.mark.parametrize("name", ["list", "bare_list"])
def test_lists(manager: Manager, name: str) -> None:
    proxy = getattr(manager, name)([5])
    proxy.append(3)
    proxy.extend([1, 2])
    proxy.sort()
    assert (list(proxy), proxy[1:3], len(proxy), 3 in proxy, proxy.pop()) == ([1, 2, 3, 5], [2, 3], 4, True, 5)
    assert copy.deepcopy(proxy) == [1, 2, 3]
    if name == "list":
        before = proxy
        proxy += [7]
        proxy *= 2
        assert proxy is before
        assert proxy + [0] == [1, 2, 3, 7, 1, 2, 3, 7, 0]  # noqa: RUF005  # the proxy's own +


@pytest.mark.parametrize("name", ["dict", "bare_dict"])
def test_dicts(manager: Manager, name: str) -> None:
    proxy = getattr(manager, name)({"a": 1})
    proxy["b"] = 2
    assert (list(proxy), dict(proxy), "b" in proxy, len(proxy)) == (["a", "b"], {"a": 1, "b": 2}, True, 2)
    assert (proxy.keys(), proxy.values(), proxy.items()) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])


def test_primitives(manager: Manager) -> None:
    event, condition, value = manager.Event(), manager.Condition(), manager.Value("i", 1)
    assert not event.wait(0.01)
    event.set()
    assert event.is_set()
    with condition:
        assert condition.wait_for(event.is_set, 1)
    value.value += 1
    assert value.get() == 2
    assert manager.Barrier(1).wait() == 0
    for lock in (manager.Lock(), manager.bare_lock()):
        with lock:
            assert not lock.acquire(False)
        assert lock.acquire(False)
        lock.release()
    with pytest.raises(queue.Empty):
        manager.Queue().get_nowait()


def test_a_block_of_a_hosted_context_manager_gets_the_hosted_object(manager: Manager) -> None:
    proxy = manager.Thing()
    with proxy as entered:
        assert isinstance(entered, HostedObject)
        assert entered.add(1) == 101
        assert proxy.x == 101
    assert proxy.x == -1
    assert list(proxy) == [1, 2, 3]


def test_connections_travel_as_connections(manager: Manager) -> None:
    # A pickled descriptor number would stand for some other file of the host's.
    proxy = manager.Thing()
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader:
        proxy.keep(writer)
        writer.close()
        proxy.send("from the host")
        assert reader.recv() == "from the host"
    from multiprocessing import resource_sharer

    resource_sharer.stop(timeout=5)  # the thread that hands descriptors over


def test_what_cannot_be_pickled_is_told(manager: Manager) -> None:
    with pytest.raises(ArgumentEncodingError, match="through inheritance"):
        manager.Thing().keep(multiprocessing.Lock())
    with pytest.raises(ArgumentEncodingError, match="cannot be sent to another process"):
        manager.Thing().make_function()


def test_proxies_with_a_class_of_their_own_pickle(manager: Manager) -> None:
    proxy = manager.Plain()
    again = pickle.loads(pickle.dumps(proxy))
    assert isinstance(again, PlainProxy)
    assert again.twice(1) == 3
    assert proxy.twice(1) == 5


def test_a_proxytype_that_is_no_class_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a class"):
        Manager.register("wrong", Thing, proxytype=len)


def test_a_manager_that_was_shut_down_says_so() -> None:
    manager = Manager()
    with manager:
        pass
    assert "ended" in repr(manager)
    with pytest.raises(ProcessError, match="shut down"):
        manager.start()
    with pytest.raises(ProcessError, match="shut down"), manager:
        pass


@pytest.mark.parametrize("method", METHODS)
def test_proxy_classes_reach_children_of_each_start_method(method: str) -> None:
    run_python(
        """
        import multiprocessing, sys
        from multiprocessing.managers import ListProxy, NamespaceProxy, Namespace
        from arrayhost.managers import BaseManager

        class Manager(BaseManager):
            pass

        Manager.register("list", list, ListProxy)
        Manager.register("Namespace", Namespace, NamespaceProxy)

        def work(values, space):
            values.append(2)
            space.x += 1

        if __name__ == "__main__":
            ctx = multiprocessing.get_context(sys.argv[1])
            with Manager(ctx=ctx) as manager:
                values, space = manager.list([1]), manager.Namespace(x=1)
                child = ctx.Process(target=work, args=(values, space))
                child.start()
                child.join()
                assert child.exitcode == 0
                assert (list(values), space.x) == ([1, 2], 2), (list(values), space.x)
        """,
        method,
    )


def test_arrays_may_be_registered_with_a_proxy_class(manager: Manager) -> None:
    class Arrays(BaseManager):
        pass

    Arrays.register("ones", np.ones, NamespaceProxy)
    with Arrays() as arrays:
        assert arrays.ones(3).sum() == 3
