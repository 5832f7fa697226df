"""Sections: who gets in, who waits, who is refused, and what one may do with an array that one has locked oneself."""

import asyncio
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, LockTimeoutError, WouldDeadlock, locked
from tests.support import assert_same, child, run_python

# A call that waited for its own caller's lock would end after this long, with the wrong error.
LOCK_TIMEOUT = 8.0
PROMPT = 4.0

HOLDER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with getattr(a, sys.argv[2])() as x:
    print("inside", flush=True)
    sys.stdin.readline()
"""

INCREMENTS = """
import asyncio, multiprocessing, os, sys, threading, time, arrayhost

a = arrayhost.connect(sys.argv[1])["a"]
n = int(sys.argv[2])

def synchronous():
    for _ in range(n):
        with a.write() as x:
            x[0] += 1

async def one():
    for _ in range(n):
        async with a.write() as x:
            value = x[0]
            await asyncio.sleep(0)
            x[0] = value + 1

async def both():
    await asyncio.gather(one(), one())

def asynchronous():
    asyncio.run(both())

def everything():
    threads = [threading.Thread(target=work) for work in (synchronous, synchronous, asynchronous)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

print("ready", flush=True)
sys.stdin.readline()
forked = multiprocessing.get_context("fork").Process(target=everything)
forked.start()
everything()
forked.join()
assert forked.exitcode == 0
print("done", flush=True)
"""


class Tally:
    """A hosted class that works on an array given to it, as a user's own would."""

    def add(self, array: Any, value: float) -> None:
        array[...] = array + value

    def total(self, array: Any) -> float:
        return float(array.sum())


class Arrays(ArrayManager):
    pass


Arrays.register("tally", Tally)


def double(array: Any) -> Any:
    return array * 2


def set_all(array: Any, value: float) -> None:
    array[...] = value


@pytest.fixture
def manager() -> Iterator[Arrays]:
    with Arrays(lock_timeout=LOCK_TIMEOUT) as manager:
        # Not a fixture for its proxy: pytest would keep that until after the census, and with it the mapping.
        manager["a"] = np.arange(10.0)
        yield manager


def refused_or_done(action: Callable[[], object]) -> bool:
    """Whether `action` ended well rather than with WouldDeadlock; in either case it must do so at once."""
    started = time.monotonic()
    try:
        action()
    except WouldDeadlock:
        return False
    finally:
        assert time.monotonic() - started < PROMPT
    return True


def test_a_write_section_writes_the_memory_itself(manager: Arrays) -> None:
    a = manager["a"]
    version = a.version
    with a.write() as x:
        assert type(x) is np.ndarray
        x[2:4] = -1
    assert_same(a.copy(), np.array([0, 1, -1, -1, 4, 5, 6, 7, 8, 9.0]))
    assert a.version > version
    assert a.version % 2 == 0


def test_an_ndarray_of_a_section_is_read_only_after_it(manager: Arrays) -> None:
    a = manager["a"]
    with a.write() as x:
        pass
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="boom"), a.write() as x:
        raise RuntimeError("boom")
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    with a.read() as x, pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    assert a.sum() == 45


def test_sections_of_a_view_lock_the_whole_array(manager: Arrays) -> None:
    a = manager["a"]
    with a[2:4].write() as x:
        x += 10
        with a.write() as whole:
            assert whole[2] == 12
    assert a[2] == 12


def test_sections_nest_and_free_the_lock_only_at_the_last_exit(manager: Arrays) -> None:
    a = manager["a"]

    def elsewhere() -> None:
        got.append(a.lock.acquire(blocking=False))
        if got[-1]:
            a.lock.release()

    def ask() -> bool:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return got[-1]

    got: list[bool] = []
    with a.write() as outer:
        with a.write() as inner:
            inner[0] = 5
        outer[1] = 6
        with a.read() as reading:
            assert reading[0] == 5
            assert not reading.flags.writeable
        with a.lock:
            outer[2] = 7
        assert not ask()
    assert ask()
    assert_same(a[:3].copy(), np.array([5.0, 6, 7]))


def test_readers_share_and_nest(manager: Arrays) -> None:
    a = manager["a"]
    with a.read() as x, child(HOLDER, manager.address, "read") as reader:
        reader.expect("inside")
        with a.read() as y:
            assert x[3] == y[3] == 3


def test_the_lock_by_itself(manager: Arrays) -> None:
    a = manager["a"]
    assert a.lock.acquire()
    assert a.lock.locked()
    a[0] = 3
    a.lock.release()
    assert not a.lock.locked()
    with pytest.raises(RuntimeError, match="does not hold"):
        a.lock.release()
    with a.lock:
        a[0] = a[0] + 1
    assert a[0] == 4
    with child(HOLDER, manager.address, "write") as holder:
        holder.expect("inside")
        assert not a.lock.acquire(blocking=False)
        assert not a.lock.acquire(timeout=0.1)


def test_several_arrays_are_locked_in_one_order(manager: Arrays) -> None:
    a = manager["a"]
    b = manager.zeros(3)

    def work(first: Any, second: Any) -> None:
        for _ in range(200):
            with locked(first, second) as (x, y):
                x[0] += 1
                y[0] += 1

    a[0] = 0
    threads = [threading.Thread(target=work, args=pair) for pair in ((a, b), (b, a), (a, b))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert a[0] == b[0] == 600
    with locked(b, a) as (y, x):
        assert y.shape == (3,)
        assert x.shape == (10,)
    with child(HOLDER, manager.address, "write") as holder:
        holder.expect("inside")
        with pytest.raises(LockTimeoutError), locked(b, a, timeout=0.1):
            pass
        with b.write(timeout=0.1):
            pass


def test_writing_inside_a_read_section_is_refused(manager: Arrays) -> None:
    a = manager["a"]
    with a.read():
        with pytest.raises(WouldDeadlock, match="read"), a.write():
            pass
        with pytest.raises(WouldDeadlock):
            a.lock.acquire()
        with pytest.raises(WouldDeadlock):
            a[0] = 5
        assert a.sum() == 45
    with a.write(timeout=1):
        pass
    assert a[0] == 0


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_timeout_names_the_holder(manager: Arrays, kind: str) -> None:
    a = manager["a"]
    with child(HOLDER, manager.address, "write") as holder:
        holder.expect("inside")
        with pytest.raises(LockTimeoutError, match=str(holder.pid)) as caught, getattr(a, kind)(timeout=0.1):
            pass
        assert caught.value.holder_pid == holder.pid
        assert isinstance(caught.value, TimeoutError)
        holder.send()
        with a.write(timeout=PROMPT):
            pass


def test_a_section_that_failed_to_open_holds_nothing(manager: Arrays) -> None:
    a = manager["a"]
    with child(HOLDER, manager.address, "read") as holder:
        holder.expect("inside")
        with pytest.raises(LockTimeoutError), a.write(timeout=0.05):
            pass
        with a.read(timeout=1) as x:
            assert x[1] == 1
    section = a.write()
    with section, pytest.raises(RuntimeError, match="already open"):
        section.__enter__()


# -- asyncio ---------------------------------------------------------------------------------------------------------


def test_two_tasks_take_turns(manager: Arrays) -> None:
    a = manager["a"]

    async def add(n: int) -> None:
        for _ in range(n):
            async with a.write() as x:
                value = x[0]
                await asyncio.sleep(0)
                x[0] = value + 1

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(add(30), add(30)), 20)

    asyncio.run(main())
    assert a[0] == 60


def test_tasks_that_read_share(manager: Arrays) -> None:
    a = manager["a"]
    inside = 0

    async def read(both: asyncio.Event) -> None:
        nonlocal inside
        async with a.read() as x:
            inside += 1
            if inside == 2:
                both.set()
            await asyncio.wait_for(both.wait(), 5)
            assert x.sum() == 45

    async def main() -> None:
        both = asyncio.Event()
        await asyncio.gather(read(both), read(both))

    asyncio.run(main())


@pytest.mark.parametrize("held", ["write", "read"])
def test_blocking_a_loop_for_its_own_sibling_is_refused(manager: Arrays, held: str) -> None:
    a = manager["a"]

    async def hold(inside: asyncio.Event, done: asyncio.Event) -> None:
        async with getattr(a, held)():
            inside.set()
            await done.wait()

    async def main() -> None:
        inside, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(hold(inside, done))
        await inside.wait()
        try:
            with pytest.raises(WouldDeadlock, match="async with"), a.write():
                pass
        finally:
            done.set()
            await task
        with a.write(timeout=1) as x:
            x[0] = 9

    asyncio.run(main())
    assert a[0] == 9


def test_a_cancelled_waiter_holds_nothing(manager: Arrays) -> None:
    a = manager["a"]

    async def wait() -> None:
        async with a.write():
            raise AssertionError("the sibling has it")

    async def main() -> None:
        async with a.write():
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0.02)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        async with a.write(timeout=1):
            pass

    asyncio.run(main())


# -- forked children -------------------------------------------------------------------------------------------------


def in_fork(work: Callable[[Any], object]) -> Any:
    """Run `work` in a forked child; what it sends comes back."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(writer,))
    process.start()
    writer.close()
    try:
        assert reader.poll(20), "the forked child did not answer"
        return reader.recv()
    finally:
        process.join(10)
        reader.close()
        process.close()


def test_a_child_forked_inside_a_section_has_no_part_in_it(manager: Arrays) -> None:
    a = manager["a"]
    with a.write() as x:
        x[0] = 1

        def work(writer: Any) -> None:
            answers = []
            try:
                x[1] = 99
            except ValueError:
                answers.append("read-only")
            try:
                with a.write(timeout=0.1):
                    answers.append("got in")
            except LockTimeoutError as error:
                answers.append(error.holder_pid == os.getppid())
            writer.send(answers)

        assert in_fork(work) == ["read-only", True]
        # That child has ended: its parent's lock must have survived that.
        assert in_fork(lambda writer: writer.send(a.lock.acquire(blocking=False))) is False
        x[2] = 5
    assert_same(a[:3].copy(), np.array([1.0, 1, 5]))
    assert not a.statistics().torn


def test_leaving_the_section_in_the_child_frees_nothing(manager: Arrays) -> None:
    a = manager["a"]
    section = a.write()
    x = section.__enter__()

    def leave(writer: Any) -> None:
        section.__exit__(None, None, None)
        writer.send("left")

    assert in_fork(leave) == "left"
    assert a.statistics().writing
    assert in_fork(lambda writer: writer.send(a.lock.acquire(blocking=False))) is False
    x[0] = 8
    section.__exit__(None, None, None)
    assert a[0] == 8
    assert not a.statistics().writing
    assert not a.statistics().torn


@pytest.mark.slow
@pytest.mark.watchdog(100)
def test_increments_by_processes_threads_tasks_and_forks_are_exact(manager: Arrays) -> None:
    manager["a"] = np.zeros(1)
    n, n_processes = 50, 3
    with (
        child(INCREMENTS, manager.address, n, timeout=60) as one,
        child(INCREMENTS, manager.address, n, timeout=60) as two,
        child(INCREMENTS, manager.address, n, timeout=60) as three,
    ):
        for helper in (one, two, three):
            helper.expect("ready")
        for helper in (one, two, three):
            helper.send()
        for helper in (one, two, three):
            helper.expect("done")
    # Each process and its forked child: two threads, and two tasks in a third.
    assert manager["a"][0] == n_processes * 2 * 4 * n


CONTENDER = """
import sys, time, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("ready", flush=True)
stop = float(sys.stdin.readline())
count = 0
while time.monotonic() < stop:
    with a.write() as x:
        x[0] += 1
    count += 1
print("done", count, flush=True)
"""


def test_every_process_gets_at_least_a_tenth_of_its_fair_share(manager: Arrays) -> None:
    manager["a"] = np.zeros(1)
    n_processes = 4
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(child(CONTENDER, manager.address, timeout=60)) for _ in range(n_processes)]
        for helper in helpers:
            helper.expect("ready")
        stop = time.monotonic() + 2
        for helper in helpers:
            helper.send(str(stop))
        counts = [int(helper.expect("done")) for helper in helpers]
    print(f"sections of each process: {counts}")
    assert manager["a"][0] == sum(counts)
    assert min(counts) >= sum(counts) / n_processes / 10


# -- inside one's own section ----------------------------------------------------------------------------------------


def test_inside_ones_section_items_and_operators_are_direct(manager: Arrays) -> None:
    a = manager["a"]
    expected = np.arange(10.0)
    with a.write() as x:
        a[0] = 5
        expected[0] = 5
        assert x[0] == 5
        a[2:4] += 1
        expected[2:4] += 1
        proxy = a
        proxy += 1
        expected += 1
        np.multiply(a, 2, out=a)
        expected *= 2
        a.sort()
        expected.sort()
        assert a.sum() == expected.sum() == x.sum()
        assert_same(a.copy(), expected)
        assert_same(np.array(a[::2]), expected[::2])
        a[1:5].fill(3)
        expected[1:5] = 3
        a.reshape(2, 5)[1, 0] = -1
        expected[5] = -1
    assert_same(a.copy(), expected)
    assert not a.statistics().writing
    assert not a.statistics().torn


def test_inside_ones_section_the_host_is_not_waited_for(manager: Arrays) -> None:
    a = manager["a"]
    tally = manager.tally()
    other = manager.ones(10)
    with a.write() as x:
        refused_or_done(lambda: manager.run(double, a))
        refused_or_done(lambda: manager.run(set_all, a, 4.0))
        refused_or_done(lambda: tally.total(a))
        refused_or_done(lambda: tally.add(a, 1.0))
        refused_or_done(lambda: a._callmethod("fill", (3.0,)))
        refused_or_done(lambda: a._callmethod("sum"))
        refused_or_done(lambda: other.__setitem__(slice(None), a))
        refused_or_done(lambda: str(a))
        refused_or_done(lambda: a.recover())
        x[...] = 6
        # Whatever came of those, the lock is still ours.
        with child(HOLDER, manager.address, "write") as waiting:
            time.sleep(0.1)
            assert a.statistics().writer_pid == os.getpid()
            waiting.kill()
    assert a.sum() == 60


def test_inside_ones_section_values_travel_to_other_arrays(manager: Arrays) -> None:
    a = manager["a"]
    b = manager.zeros(10)
    with a.write() as x:
        x[...] = 7
        b[...] = a
        b += a
        assert_same(manager.run(double, a).copy(), np.full(10, 14.0))
    assert_same(b.copy(), np.full(10, 14.0))


def test_inside_a_read_section_reads_go_on_and_writes_are_refused(manager: Arrays) -> None:
    a = manager["a"]
    tally = manager.tally()
    with a.read():
        assert refused_or_done(a.sum)
        assert refused_or_done(a.copy)
        assert refused_or_done(lambda: tally.total(a))
        assert not refused_or_done(lambda: a.fill(3))
        refused_or_done(lambda: manager.run(set_all, a, 4.0))
        refused_or_done(lambda: tally.add(a, 1.0))
    assert a[1] == 1
    assert a.sum() == 45


def test_another_thread_waits_for_a_section(manager: Arrays) -> None:
    a = manager["a"]

    def other() -> None:
        a[0] = 2.0
        order.append("other")

    order: list[str] = []
    thread = threading.Thread(target=other)
    with a.write() as x:
        thread.start()
        thread.join(0.1)
        x[0] = 1.0
        order.append("section")
    thread.join()
    assert order == ["section", "other"]
    assert a[0] == 2


def test_an_interpreter_that_ends_inside_a_section_frees_it(manager: Arrays) -> None:
    a = manager["a"]
    run_python(
        """
        import sys, arrayhost
        a = arrayhost.connect(sys.argv[1])["a"]
        section = a.write()
        x = section.__enter__()
        x[...] = 2
        """,
        manager.address,
    )
    with a.write(timeout=1) as x:
        assert x.sum() == 20
    assert not a.statistics().torn
