"""Arrays by name: a mapping that all processes share, what is told of an array, and attributes."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arrayhost
from arrayhost import ArrayManager, ArrayRecord, HostedArray, ReferentExistsError, ReferentNotFoundError
from arrayhost.client.session import round_trips
from arrayhost.errors import ArrayHostError
from arrayhost.wire.frames import Kind
from tests.support import assert_same, child, run_python, wait_until
from tests.unit.test_names import BAD

# The module's host is one session, and its pool of descriptors to lock with grows when a row is first locked.
pytestmark = pytest.mark.census_ignore("memfd:arrayhost:locks", reason="the pool of a session that all tests share")


@pytest.fixture(scope="module")
def host() -> Iterator[ArrayManager]:
    with ArrayManager() as manager:
        manager.ones(1).sum()  # the connection is made now
        yield manager


@pytest.fixture
def manager(host: ArrayManager) -> Iterator[ArrayManager]:
    yield host
    for name in host:
        del host[name]


def test_a_mapping(manager: ArrayManager) -> None:
    manager["b"] = np.arange(3)
    manager["a"] = [[1.5, 2]]
    assert list(manager) == ["a", "b"] == list(manager.keys())
    assert len(manager) == 2 == len(manager.items())
    assert [name in manager for name in ("a", "c", 3)] == [True, False, False]
    assert_same(manager["b"].copy(), np.arange(3))
    assert {name: array.copy().tolist() for name, array in manager.items()} == {"a": [[1.5, 2.0]], "b": [0, 1, 2]}
    assert [array.shape for array in manager.values()] == [(1, 2), (3,)]
    assert manager.get("c") is None
    assert manager.get("c", 7) == 7
    assert manager.get("b").sum() == 3
    popped = manager.pop("b")
    assert_same(popped.copy(), np.arange(3))
    assert manager.pop("b", None) is None
    with pytest.raises(KeyError):
        manager.pop("b")
    manager.update({"c": [1]}, d=[2])
    assert manager.setdefault("c", [9]).copy().tolist() == [1]
    assert manager.setdefault("e", [9]).copy().tolist() == [9]
    assert list(manager) == ["a", "c", "d", "e"]
    assert bool(manager)


def test_errors_name_what_is_there(manager: ArrayManager) -> None:
    manager["prices"] = np.ones(2)
    for error in (KeyError, LookupError, ReferentNotFoundError):
        with pytest.raises(error, match=r"^no array named 'price'; names here: prices$"):
            manager["price"]
    with pytest.raises(KeyError):
        del manager["price"]
    with pytest.raises(ReferentNotFoundError):
        manager.inspect_array("price")
    for i in range(15):
        manager[f"n{i:02}"] = [i]
    with pytest.raises(KeyError, match="n09 and 6 others"):
        manager["price"]


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_bad_names_are_refused_here_and_by_the_host(manager: ArrayManager, name: str) -> None:
    before = round_trips()
    for attempt in (
        lambda: manager[name],
        lambda: manager.__setitem__(name, [1]),
        lambda: manager.__delitem__(name),
        lambda: manager.create(name, 3),
        lambda: manager.put(name, [1]),
        lambda: manager.inspect_array(name),
    ):
        with pytest.raises(ValueError, match="array name"):
            attempt()
    assert round_trips() == before
    # A client that does not check: the host does.
    for kind, value in [
        (Kind.PUT_NAME, [name, np.ones(2), True, False]),
        (Kind.CREATE_NAME, [name, (3,), np.dtype("f8"), "C", 0, False, None]),
        (Kind.GET_NAME, name),
        (Kind.DELETE_NAME, name),
        (Kind.RECORDS, name),
    ]:
        with pytest.raises(ValueError, match="array name"):
            manager._engine.session.request(kind, value)
    assert list(manager) == []


def test_names_are_seen_by_other_processes_and_outlive_their_maker(manager: ArrayManager) -> None:
    out = run_python(
        """
        import sys, numpy as np, arrayhost
        manager = arrayhost.connect(sys.argv[1])
        manager["from-elsewhere"] = np.arange(4)
        a = manager.create("köln", (2, 2), "i4", fill_value=3)
        a.attrs["unit"] = "EUR"
        print(*manager)
        """,
        manager.address,
    ).stdout
    assert out == "from-elsewhere köln\n"
    wait_until(lambda: manager.statistics().n_sessions == 1)
    assert_same(manager["from-elsewhere"].copy(), np.arange(4))
    assert_same(manager["ko\u0308ln"].copy(), np.full((2, 2), 3, "i4"))
    assert dict(manager["köln"].attrs) == {"unit": "EUR"}


def test_create(manager: ArrayManager) -> None:
    a = manager.create("a", (2, 3), "f4", "F", fill_value=1.5)
    assert_same(a.copy("K"), np.full((2, 3), 1.5, "f4", "F"))
    assert manager.create("b", 4).copy().tolist() == [0.0] * 4
    with pytest.raises(ReferentExistsError, match=r"'a' already, float32 of shape \(2, 3\)"):
        manager.create("a", (2, 3), "f4")
    a[0, 0] = 9
    again = manager.create("a", (2, 3), "f4", exist_ok=True)
    assert again[0, 0] == 9
    for shape, dtype in [((3, 2), "f4"), ((2, 3), "f8")]:
        with pytest.raises(ValueError, match="already"):
            manager.create("a", shape, dtype, exist_ok=True)
    with pytest.raises(TypeError):
        manager.create("o", 3, object)
    with pytest.raises(ValueError, match="negative"):
        manager.create("n", (-1,))
    assert list(manager) == ["a", "b"]


def test_of_many_who_create_at_once_one_does(manager: ArrayManager) -> None:
    before = manager.statistics().n_arrays
    start = threading.Barrier(8)

    def create(number: int) -> int:
        start.wait()
        a = manager.create("one", (8,), "i8", exist_ok=True)
        a[number] = 1
        return a.statistics().generation

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1
    assert manager["one"].sum() == 8
    wait_until(lambda: manager.statistics().n_arrays == before + 1, what="the others' arrays to be freed")


def test_put_swaps_in_one_step_and_readers_of_the_old_keep_it(manager: ArrayManager) -> None:
    old = manager.put("a", np.zeros(1000))
    with pytest.raises(ReferentExistsError):
        manager.put("a", np.ones(3))
    assert_same(manager["a"].copy(), np.zeros(1000))
    new = manager.put("a", np.ones(3), overwrite=True)
    assert_same(old.copy(), np.zeros(1000))
    old[0] = 5
    assert_same(manager["a"].copy(), np.ones(3))
    new[0] = 2
    assert manager["a"][0] == 2

    new.fill(7)
    # Whoever asks in the middle of many swaps finds one array or the other, whole, and never none.
    stop = threading.Event()

    def swap() -> None:
        for number in range(60):
            manager.put("a", np.full(number % 2 * 1000 + 1, number), overwrite=True)
        stop.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    while not stop.is_set():
        values = manager["a"].copy()
        assert (values == values[0]).all()
        assert values.size in (1, 3, 1001)
    swapper.join()


def test_a_proxy_or_a_view_is_named_without_a_copy(manager: ArrayManager) -> None:
    a = manager.arange(10)
    manager["whole"] = a
    part = manager.put("part", a[2:4])
    part[...] = 0
    assert manager["whole"][2:5].tolist() == [0, 0, 4]
    record = manager.inspect_array("part")
    assert record.names == ("part", "whole")
    assert record.shape == (2,)
    with ArrayManager() as other:
        other["copy"] = a  # of another host: by value
        other["copy"][...] = -1
        assert other["copy"].sum() == -10
        assert_same(other.array(a[2:6]).copy(), a[2:6].copy())
    assert a[9] == 9


def test_registered_types_win_over_the_mappings_methods() -> None:
    class Own(ArrayManager):
        pass

    Own.register("get", np.ones)
    Own.register("put", np.zeros)
    with Own() as manager:
        assert manager.get(3).sum() == 3
        assert manager.put(2).shape == (2,)
        manager["x"] = [1]
        assert [name for name, _ in manager.items()] == ["x"]
        assert manager.pop("x").sum() == 1


def test_record_of_an_array(manager: ArrayManager) -> None:
    before = time.time()
    manager["a"] = a = manager.ones((4, 3))
    a.attrs["unit"] = "EUR"
    a[0, 0] = 2
    record = manager.inspect_array("a")
    assert isinstance(record, ArrayRecord)
    assert (record.names, record.shape, record.dtype, record.order) == (("a",), (4, 3), "float64", "C")
    assert record.nbytes == 96
    assert record.segment_bytes >= 96
    assert record.statistics == a.statistics()
    assert record.attrs == {"unit": "EUR"}
    assert before - 1 <= record.created <= time.time()
    assert record.creator.pid == os.getpid()
    assert record.creator.program == Path("/proc/self/cmdline").read_text().strip("\0").replace("\0", " ")
    assert [holder.pid for holder in record.holders] == [os.getpid()]
    assert (record.lock.mode, record.lock.owner_pid, record.lock.waiters) == ("free", 0, ())
    with a.read():
        assert manager.inspect_array("a").lock.mode == "shared"
    with a.write():
        lock = manager.inspect_array("a").lock
        assert (lock.mode, lock.owner_pid) == ("exclusive", os.getpid())
        assert a.attrs["unit"] == "EUR"  # also by the one that the host would otherwise wait for


def test_waiters_are_told(manager: ArrayManager) -> None:
    manager["a"] = a = manager.zeros(3)
    source = """
        import sys, arrayhost
        a = arrayhost.connect(sys.argv[1])["a"]
        print("ready"); input()
        if sys.argv[2] == "section":
            with a.write() as x:
                x[0] += 1
        else:
            a[1] = 5
        print("done")
        """
    with child(source, manager.address, "section") as section, child(source, manager.address, "item") as item:
        helpers = (section, item)
        for helper in helpers:
            helper.expect("ready")
        with a.write():
            told: set[int] = set()
            # One after the other: of those who wait in their own processes only the first is known.
            for helper in helpers:
                helper.send()
                told.add(helper.pid)
                wait_until(lambda: {one.pid for one in manager.inspect_array("a").lock.waiters} == told, what="waiters")
            assert all(one.seconds >= 0 for one in manager.inspect_array("a").lock.waiters)
        for helper in helpers:
            helper.expect("done")
    assert a.copy().tolist() == [1.0, 5.0, 0.0]
    assert manager.inspect_array("a").lock.waiters == ()


def test_record_of_a_host(manager: ArrayManager) -> None:
    manager["a"] = np.ones(3)
    unnamed = manager.zeros((2, 2), "i2")
    with child("import sys, arrayhost; a = arrayhost.connect(sys.argv[1])['a']; print('ready'); input(); a.sum()",
               manager.address) as helper:  # fmt: skip
        helper.expect("ready")
        record = manager.inspect()
        assert record.host == manager.statistics() or record.host.n_requests < manager.statistics().n_requests
        assert record.host.n_arrays == len(record.arrays)
        found = {one.names: one for one in record.arrays}
        assert found[("a",)].shape == (3,)
        assert {holder.pid for holder in found[("a",)].holders} == {helper.pid}
        assert any(one.names == () and one.shape == unnamed.shape for one in record.arrays)
        clients = {client.pid: client for client in record.clients}
        assert set(clients) == {os.getpid(), helper.pid}
        assert clients[helper.pid].n_requests == 1
        assert clients[helper.pid].n_arrays == 1
        assert clients[os.getpid()].n_requests > 1
        helper.send()
    wait_until(lambda: [client.pid for client in manager.inspect().clients] == [os.getpid()])


def test_a_killed_writer_is_told_without_a_next_holder(manager: ArrayManager) -> None:
    manager["a"] = a = manager.zeros(3)
    source = """
        import sys, arrayhost
        with arrayhost.connect(sys.argv[1])["a"].write() as x:
            print("inside"); input()
        """
    with child(source, manager.address) as helper:
        helper.expect("inside")
        helper.kill()
        statistics = wait_until(lambda: (row := a.statistics()).torn and row, what="the host to notice")
        assert statistics.torn_pid == helper.pid
        assert not statistics.writing
    a.recover()


def test_attributes(manager: ArrayManager) -> None:
    a = manager.create("a", 3)
    attrs = a.attrs
    assert (dict(attrs), len(attrs)) == ({}, 0)
    attrs["unit"] = "EUR"
    attrs.update({"n": np.int16(3)}, days=(1, 2))
    assert manager["a"].attrs.copy() == {"unit": "EUR", "n": 3, "days": [1, 2]}
    assert a[1:].attrs["unit"] == "EUR"
    assert "unit" in attrs
    assert sorted(attrs) == ["days", "n", "unit"]
    assert attrs.setdefault("unit", "USD") == "EUR"
    assert attrs.setdefault("new", (1,)) == [1]
    assert attrs.pop("new") == [1]
    assert attrs.pop("new", 0) == 0
    with pytest.raises(KeyError):
        attrs.pop("new")
    with pytest.raises(KeyError):
        attrs["new"]
    del attrs["n"]
    with pytest.raises(KeyError):
        del attrs["n"]
    a.attrs = {"only": 1}
    assert dict(attrs) == {"only": 1}
    assert repr(attrs) == "Attributes({'only': 1})"
    for wrong in ({"x": object()}, {"x": float("nan")}, {"x": "y" * 100_000}, {3: 4}):
        with pytest.raises((TypeError, ValueError)):
            attrs.update({"fine": 1} | wrong)
        assert dict(attrs) == {"only": 1}
    for _ in range(2):
        attrs[f"big{_}"] = "y" * 30_000
    with pytest.raises(ValueError, match="bytes of JSON"):
        attrs["big2"] = "y" * 30_000  # small enough by itself
    assert set(attrs) == {"only", "big0", "big1"}
    attrs.clear()
    assert dict(attrs) == {}


def test_attribute_changes_are_atomic(manager: ArrayManager) -> None:
    a = manager.create("a", 3)
    a.attrs.update(x=0, y=0)
    before = round_trips()
    a.attrs.copy()
    assert round_trips() == before + 1

    def writer(number: int) -> list[Any]:
        for _ in range(50):
            a.attrs.update(x=number, y=number)
        return []

    def reader(_: int) -> list[Any]:
        return [values for values in (a.attrs.copy() for _ in range(50)) if values["x"] != values["y"]]

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(function, number) for number, function in enumerate((writer, writer, reader, reader))]
        assert [job.result() for job in jobs] == [[], [], [], []]
        a.attrs["token"] = 1
        taken = list(pool.map(lambda _: a.attrs.pop("token", None), range(4)))
    assert sorted(taken, key=str) == [1, None, None, None]


class Keeper:
    """A class whose instances make arrays in the host and note what they are."""

    def __init__(self) -> None:
        self.a = arrayhost.ones(3)
        self.a.attrs["made"] = "here"

    def get(self) -> Any:
        return self.a


def test_attributes_inside_the_host() -> None:
    class Own(ArrayManager):
        pass

    Own.register("Keeper", Keeper)
    with Own() as manager:
        keeper = manager.Keeper()
        a = keeper.get()
        assert isinstance(a, HostedArray)
        assert dict(a.attrs) == {"made": "here"}
        (record,) = manager.inspect().arrays
        assert record.creator.pid == os.getpid()  # in whose request it was made
        assert manager.statistics().pid in {holder.pid for holder in record.holders}


def test_errors_are_arrayhosts(manager: ArrayManager) -> None:
    assert issubclass(ReferentExistsError, ArrayHostError)
    assert str(ReferentNotFoundError("no such")) == "no such"


def test_attributes_of_a_read_only_attachment(manager: ArrayManager) -> None:
    manager["a"] = np.ones(3)
    manager["a"].attrs["unit"] = "EUR"
    out = run_python(
        """
        import sys, arrayhost
        attrs = arrayhost.connect(sys.argv[1], mode="r")["a"].attrs
        print(attrs.copy())
        for change in (attrs.clear, lambda: attrs.update(x=1), lambda: attrs.pop("unit"), lambda: attrs.replace({})):
            try:
                change()
            except arrayhost.ReadOnlyError:
                print("refused")
        """,
        manager.address,
    ).stdout
    assert out == "{'unit': 'EUR'}\n" + "refused\n" * 4
    assert manager["a"].attrs.copy() == {"unit": "EUR"}
