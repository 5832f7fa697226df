"""A host over TCP: the same operations with the same results, evaluated in the host."""

import asyncio
import multiprocessing
import os
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, LockTimeoutError, WouldDeadlock, locked
from arrayhost.client.session import round_trips
from arrayhost.client.unmapped import UnmappedArray
from arrayhost.errors import ArgumentEncodingError, RemoteError, TornArrayError, UnsupportedError
from tests.process.test_array_surface import INDICES, METHODS, SAMPLES, check
from tests.remote.conftest import KEY, connected
from tests.support import assert_same, wait_until


def test_proxies_have_no_memory_here(host: ArrayManager, remote: ArrayManager) -> None:
    a = remote.array(np.arange(12.0).reshape(3, 4))
    assert type(a) is UnmappedArray
    assert type(a[1:]) is UnmappedArray
    assert_same(a[1:, ::2].copy(), np.arange(12.0).reshape(3, 4)[1:, ::2])


@pytest.mark.parametrize("name", METHODS)
def test_methods(remote: ArrayManager, name: str) -> None:
    sample = SAMPLES["float64"].copy()
    check(METHODS[name], remote.array(sample), sample)


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i)[:30].replace("\n", ""))
def test_indexing(remote: ArrayManager, index: Any) -> None:
    sample = SAMPLES["fortran"].copy("K")
    a = remote.array(sample)
    check(lambda x: x[index], a, sample)
    check(lambda x: x.__setitem__(index, 1), a, sample)


@pytest.mark.parametrize("shape", [(300_000,), (600, 500), (500, 600, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_both_ways(
    host: ArrayManager, remote: ArrayManager, shape: tuple[int, ...], order: str, rng: np.random.Generator
) -> None:
    values = np.asarray(rng.normal(size=shape), order=order)  # type: ignore[call-overload]  # the stubs know literals only
    a = remote.array(values)
    assert_same(a.copy("K"), values.copy("K"))
    assert_same(a[::2].copy(), values[::2].copy())
    assert_same(a.T + 1, values.T + 1)
    a[...] = values * 2
    a[1::3] = values[::-1][1::3]
    expected = values * 2
    expected[1::3] = values[::-1][1::3]
    assert_same(a.copy(), np.ascontiguousarray(expected))
    name = f"large {shape} {order}"
    host[name] = a
    assert_same(host[name].copy("K"), a.copy("K"))


def test_a_copy_is_never_torn(host: ArrayManager, remote: ArrayManager) -> None:
    """Memory that is written to while it is streamed is sent again."""
    host["whole"] = np.zeros(1_000_000)
    a, there = host["whole"], remote["whole"]
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            a.fill(n)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [there.copy() for _ in range(12)]
    finally:
        stop.set()
        writer.join()
    assert all(np.ptp(copy) == 0 for copy in copies)
    assert len({copy[0] for copy in copies}) > 1


def test_names_attributes_and_objects(host: ArrayManager, remote: ArrayManager) -> None:
    remote["day"] = np.arange(5)
    remote["day"].attrs["unit"] = "EUR"
    assert dict(host["day"].attrs) == {"unit": "EUR"}
    assert "day" in list(remote)
    counter = remote.Counter(3)
    assert counter.add(4) == 7
    assert counter.value == 7
    assert counter.take(np.arange(3)) == "ndarray"
    del remote["day"]
    assert "day" not in host


def test_proxies_of_both_links_mix(host: ArrayManager, remote: ArrayManager) -> None:
    a, b = host.array([1.0, 2, 3]), remote.array([10.0, 20, 30])
    assert_same(b + a, np.array([11.0, 22, 33]))
    b += a
    assert_same(b.copy(), np.array([11.0, 22, 33]))


def test_no_functions_and_no_pickles(remote: ArrayManager) -> None:
    a = remote.ones(3)
    with pytest.raises(UnsupportedError, match="functions do not travel"):
        remote.run(np.ones, 3)
    with pytest.raises(UnsupportedError, match="functions do not travel"):
        a.apply(np.sort)
    counter = remote.Counter()
    with pytest.raises(ArgumentEncodingError, match="cannot travel over the network"):
        counter.take(object())
    with pytest.raises((ArgumentEncodingError, RemoteError), match="cannot travel"):
        counter.give()
    assert counter.add() == 1


# -- sections --------------------------------------------------------------------------------------------------------


def test_a_section_is_written_back_whole(host: ArrayManager, remote: ArrayManager) -> None:
    host["section"] = np.zeros((4, 3))
    here, there = host["section"], remote["section"]
    with there.write() as x:
        x[1] = 7
        there[2] = 8  # works on the same copy
        assert_same(x[2], np.full(3, 8.0))
        assert there[1, 0] == 7
        assert here.copy().sum() == 0  # nobody else sees it yet
        with there[3:].write() as y:
            y[...] = x[2] + 1
        assert x[3, 0] == 9
    assert not x.flags.writeable
    assert_same(here.copy(), np.array([[0.0] * 3, [7] * 3, [8] * 3, [9] * 3]))


def test_a_section_costs_three_round_trips(remote: ArrayManager) -> None:
    a = remote.ones(1000)
    before = round_trips()
    with a.write() as x:
        x *= 2
    assert round_trips() - before == 3
    before = round_trips()
    with a.read() as x:
        assert x.sum() == a.sum() == 2000
    assert round_trips() - before == 3


def test_sections_exclude_everybody(host: ArrayManager, remote: ArrayManager) -> None:
    host["exclusive"] = np.zeros(3)
    here, there = host["exclusive"], remote["exclusive"]
    with there.write():
        with pytest.raises(LockTimeoutError), here.write(timeout=0):
            pass
        assert not here.lock.acquire(blocking=False)
    with here.write(), pytest.raises(LockTimeoutError) as raised, there.write(timeout=0.05):
        pass
    assert raised.value.holder_pid == os.getpid()
    with there.read(), here.read():
        assert not there[0]
    with there.read(), pytest.raises(WouldDeadlock), there.write():
        pass
    assert there.lock.acquire(timeout=0.1)
    there[0] = 4
    there.lock.release()
    assert here[0] == 4


def test_threads_and_tasks_of_one_process_exclude_each_other(remote: ArrayManager) -> None:
    a = remote.zeros(1, int)

    def work() -> None:
        for _ in range(20):
            with a.write() as x:
                x[0] += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def task() -> None:
        for _ in range(5):
            async with a.write() as x:
                before = int(x[0])
                await asyncio.sleep(0)
                x[0] = before + 1

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(3)))

    asyncio.run(tasks())
    assert a[0] == 75


def test_locked_over_two_links(host: ArrayManager, remote: ArrayManager) -> None:
    a, b = remote.zeros(2), host.zeros(2)
    with locked(a, b) as (x, y):
        x[...] = 1
        y[...] = 2
    assert_same(a + b, np.full(2, 3.0))


def test_a_hosted_object_cannot_wait_for_its_caller(remote: ArrayManager) -> None:
    a = remote.zeros(2)
    with a.write() as x:
        x[0] = 1
        assert np.add(a, remote.ones(2))[0] == 2


def test_a_torn_array_is_told(host: ArrayManager, remote: ArrayManager) -> None:
    host["torn"] = np.zeros(4)
    pid = os.fork()
    if pid == 0:
        section = host["torn"].write()
        section.__enter__()
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    there = remote["torn"]
    wait_until(lambda: there.statistics().torn or _locked_once(there))
    with pytest.raises(TornArrayError):
        there.copy()
    with pytest.raises(TornArrayError), there.read():
        pass
    section = there.write()
    with pytest.warns(match="half-finished"):
        x = section.__enter__()
    x[...] = 5
    there.recover()
    section.__exit__(None, None, None)
    assert_same(host["torn"].copy(), np.full(4, 5.0))


def _locked_once(a: HostedArray) -> bool:
    with a.lock:
        return a.statistics().torn


# -- leases and handles ------------------------------------------------------------------------------------------------


def test_an_array_ends_with_its_last_proxy(remote: ArrayManager) -> None:
    before = remote.statistics().n_arrays
    a = remote.ones(10)
    assert remote.statistics().n_arrays == before + 1
    del a
    wait_until(lambda: remote.statistics().n_arrays == before)


def test_a_pickle_names_the_tcp_address(host: ArrayManager, remote: ArrayManager) -> None:
    a = remote.array([1, 2, 3])
    data = pickle.dumps(a[1:])
    assert host.network_addresses[0].encode() in data
    assert KEY not in data
    copy = pickle.loads(data)
    assert type(copy) is UnmappedArray
    copy[0] = 9
    assert a[1] == 9


def _child_adds(a: HostedArray, n: int) -> None:
    for _ in range(n):
        with a.write() as x:
            x[0] += 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_use_the_key_of_multiprocessing(method: str) -> None:
    """The key of a program's processes is passed on by every start method."""
    with ArrayManager(listen="tcp://127.0.0.1:0") as manager:
        a = connected(manager.network_addresses[0], None).zeros(1)
        context: Any = multiprocessing.get_context(method)
        processes = [context.Process(target=_child_adds, args=(a, 5)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        assert a[0] == 10
        for process in processes:
            process.close()
