"""Sections and locks, between processes, threads and tasks."""

import asyncio
import multiprocessing
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, LockTimeoutError, WouldDeadlock, locked
from arrayhost.client.session import round_trips
from tests.support import child

HOLDER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with a.write():
    print("inside", flush=True)
    sys.stdin.readline()
print("outside", flush=True)
sys.stdin.readline()
"""
N = 300


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        running["a"] = np.zeros(10)
        yield running


def add(a: HostedArray, n: int = N) -> None:
    for _ in range(n):
        with a.write() as x:
            x[0] += 1


def add_in_threads(a: HostedArray) -> None:
    threads = [threading.Thread(target=add, args=(a,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def add_in_tasks(a: HostedArray) -> None:
    async def task() -> None:
        for _ in range(N):
            async with a.write() as x:
                before = x[0]
                await asyncio.sleep(0)
                x[0] = before + 1

    async def both() -> None:
        await asyncio.gather(task(), task())

    asyncio.run(both())


def test_increments_by_processes_threads_and_tasks_are_exact(manager: ArrayManager) -> None:
    a = manager["a"]
    ways = [(add, 1, "fork"), (add, 1, "spawn"), (add_in_threads, 2, "fork"), (add_in_tasks, 2, "spawn")]
    children = [multiprocessing.get_context(method).Process(target=way, args=(a,)) for way, _, method in ways]
    for process in children:
        process.start()
    add_in_threads(a)
    for process in children:
        process.join(60)
        assert process.exitcode == 0
        process.close()
    assert a[0] == N * (2 + sum(count for _, count, _ in ways))


def test_a_timeout_names_the_holder(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(HOLDER, manager.address) as holder:
        holder.expect("inside")
        with pytest.raises(LockTimeoutError, match=str(holder.pid)) as caught, a.write(timeout=0.1):
            pass
        assert caught.value.holder_pid == holder.pid
        holder.send()
        holder.expect("outside")
        with a.write(timeout=5) as x:
            x[0] = 1
        holder.send()


def test_inside_ones_own_section_everything_is_direct(manager: ArrayManager) -> None:
    a = manager["a"]
    before = round_trips()
    with a.write() as x:
        x[:] = 2
        a[1] = 5
        a[2:4] += 1
        a += 1
        with a[5:].write() as y:
            y[0] = 9
        assert a.sum() == x.sum() == 41
    assert round_trips() == before
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


def test_what_would_wait_for_itself_is_refused(manager: ArrayManager) -> None:
    a = manager["a"]
    with a.read() as x:
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1
        with pytest.raises(WouldDeadlock):
            a[0] = 1
        with pytest.raises(WouldDeadlock):
            a.write().__enter__()
    with a.write():
        assert manager.run(np.sum, a)._getvalue() == 0
    a[0] = 4
    assert a[0] == 4


def test_a_sibling_task_is_not_let_in(manager: ArrayManager) -> None:
    a = manager["a"]

    async def sibling() -> None:
        with pytest.raises(WouldDeadlock):
            a.write().__enter__()

    async def main() -> None:
        async with a.write():
            await asyncio.create_task(sibling())

    asyncio.run(main())


def test_several_arrays_at_once(manager: ArrayManager) -> None:
    a, b = manager["a"], manager.ones(3)
    with locked(b, a) as (y, x):
        x[:3] = y
    assert a[:3].tolist() == [1, 1, 1]
    assert a.lock.acquire(blocking=False)
    a.lock.release()


def test_reads_make_no_round_trip(manager: ArrayManager) -> None:
    a = manager.ones((4, 5))
    before = round_trips()
    assert a[1, 2] == 1
    assert a[1:3].shape == (2, 5)
    assert a.T.sum() == (a + a).sum() / 2 == 20
    assert round_trips() == before


def test_no_copy_shows_two_writes(manager: ArrayManager) -> None:
    a = manager.zeros(1_000_000)
    stop = threading.Event()

    def write() -> None:
        for k in range(1, 10_000):
            a.fill(k)
            with a.write() as x:
                x.fill(-k)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            copy = a.copy()
            assert copy.min() == copy.max()
    finally:
        stop.set()
        writer.join()
