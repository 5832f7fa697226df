"""Proxies go wherever objects go between processes, and still mean the same array there."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray
from tests.support import assert_same, run_python

METHODS = ["fork", "spawn", "forkserver"]
N = 1000


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


def add(a: Any, index: int, value: float) -> None:
    with a.write() as x:
        x[index] += value


def total(a: Any) -> float:
    return float(a.sum())


def part_total(a: Any, start: int, stop: int) -> float:
    return float(a[start:stop].sum())


def nested_total(parcel: Any) -> float:
    return float(parcel["pair"][0].sum() + parcel["pair"][1][0].sum())


def first_half(a: Any) -> Any:
    return a[: len(a) // 2]


def same(a: Any) -> Any:
    return a


_given: Any = None


def set_given(a: Any) -> None:
    global _given
    _given = a


def given_at(index: int) -> tuple[int, float]:
    return os.getpid(), float(_given[index])


def answer_totals(inbox: Any, outbox: Any) -> None:
    while (a := inbox.get()) is not None:
        outbox.put(float(a.sum()))


def echo(connection: Any) -> None:
    a = connection.recv()
    a[0] = 42
    connection.send(a[:2])
    connection.close()


def finished(process: Any) -> None:
    process.join()
    assert process.exitcode == 0
    process.close()


def test_argument_of_a_process(manager: ArrayManager, context: Any) -> None:
    a = manager.zeros(N)
    process = context.Process(target=add, args=(a, 3), kwargs={"value": 5.0})
    process.start()
    finished(process)
    assert a[3] == 5
    assert a.sum() == 5


def test_pool_map_imap_starmap(manager: ArrayManager, context: Any) -> None:
    a = manager.arange(N)
    with context.Pool(2) as pool:
        assert pool.map(total, [a, a[:10], a[::2]]) == [499500.0, 45.0, 249500.0]
        assert list(pool.imap(total, [a, a[1:3]])) == [499500.0, 3.0]
        assert sorted(pool.imap_unordered(total, [a, a[1:3]])) == [3.0, 499500.0]
        assert pool.starmap(part_total, [(a, 0, 10), (a, 10, 20)]) == [45.0, 145.0]
        assert pool.apply(total, (a,)) == 499500.0
        pool.close()
        pool.join()


def test_pool_initargs(manager: ArrayManager, context: Any) -> None:
    a = manager.arange(N)
    with context.Pool(2, initializer=set_given, initargs=(a,)) as pool:
        answers = pool.map(given_at, range(20))
        pool.close()
        pool.join()
    assert [value for _, value in answers] == [float(i) for i in range(20)]
    assert os.getpid() not in {pid for pid, _ in answers}


def test_process_pool_executor(manager: ArrayManager, context: Any) -> None:
    a = manager.arange(N)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(total, [a, a[:10]])) == [499500.0, 45.0]
        half = pool.submit(first_half, a).result()
        assert isinstance(half, HostedArray)
        half[0] = 7
    assert a[0] == 7


def test_nested_in_containers(manager: ArrayManager, context: Any) -> None:
    a, b = manager.ones(N), manager.full(N, 2.0)
    with context.Pool(1) as pool:
        assert pool.apply(nested_total, ({"pair": (a, [b[:10]])},)) == N + 20
        pool.close()
        pool.join()


def test_returned_from_workers_is_the_same_array(manager: ArrayManager, context: Any) -> None:
    a = manager.zeros(N)
    with context.Pool(1) as pool:
        back, view = pool.map(same, [a, a[5:7]])
        pool.close()
        pool.join()
    view[:] = 3
    assert_same(np.array(back[4:8]), np.array([0.0, 3.0, 3.0, 0.0]))
    assert_same(np.array(a), np.array(back))


def test_queue(manager: ArrayManager, context: Any) -> None:
    inbox, outbox = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=answer_totals, args=(inbox, outbox))
    process.start()
    # The sender keeps nothing: these proxies end here as soon as they are sent.
    for value in range(5):
        inbox.put(manager.full(N, float(value)))
    inbox.put(manager.arange(10)[2:4])
    inbox.put(None)
    assert [outbox.get() for _ in range(6)] == [0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5.0]
    finished(process)
    inbox.close()
    outbox.close()


def test_queue_with_a_feeder_thread(manager: ArrayManager, context: Any) -> None:
    inbox, outbox = context.Queue(), context.SimpleQueue()
    process = context.Process(target=answer_totals, args=(inbox, outbox))
    process.start()
    inbox.put(manager.ones(N))
    inbox.put(None)
    assert outbox.get() == N
    finished(process)
    inbox.close()
    inbox.join_thread()
    outbox.close()


def test_pipe(manager: ArrayManager, context: Any) -> None:
    a = manager.zeros(N)
    ours, theirs = context.Pipe()
    with ours:
        process = context.Process(target=echo, args=(theirs,))
        process.start()
        theirs.close()
        ours.send(a)
        view = ours.recv()
        finished(process)
    assert_same(np.array(view), np.array([42.0, 0.0]))
    view[1] = 1
    assert a[1] == 1


@pytest.mark.parametrize("take", ["a[::-1]", "a.reshape(10, 100).T", "a.reshape(10, 100)[2:5, ::7]", "a.view('i4')"])
def test_views(manager: ArrayManager, take: str) -> None:
    a = manager.arange(N)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        back = pool.apply(same, (eval(take, {"a": a}),))
        pool.close()
        pool.join()
    expected = eval(take, {"a": np.arange(N)})
    assert_same(np.array(back), expected.copy())
    back[...] = 0
    expected[...] = 0
    assert_same(np.array(a), np.arange(N) if expected.base is None else expected.base)


def test_the_sender_may_drop_its_proxy_at_once(manager: ArrayManager, context: Any) -> None:
    process = context.Process(target=part_total, args=(manager.ones(N), 0, 10))
    process.start()
    finished(process)


def test_a_forked_child_goes_on(manager: ArrayManager) -> None:
    a = manager.zeros(N)
    a[0] = 1
    if (pid := os.fork()) == 0:
        status = 1
        try:
            with a.write() as x:
                x[1] = x[0] + 1
            a[2] = manager.ones(3).sum()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert_same(np.array(a[:4]), np.array([1.0, 2.0, 3.0, 0.0]))


@pytest.mark.slow
def test_joblib() -> None:
    # In a process of its own: loky keeps helpers for as long as the process lives.
    done = run_python(
        """
        import joblib
        import numpy as np
        from arrayhost import ArrayManager

        def work(a, i):
            with a.write() as x:
                x[i] += i
            return a[i : i + 1]

        if __name__ == "__main__":
            with ArrayManager() as manager:
                a = manager.zeros(1000)
                views = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(work)(a, i) for i in range(20))
                assert [float(view[0]) for view in views] == list(range(20))
                assert np.array_equal(np.array(a[:20]), np.arange(20))
                from joblib.externals.loky import get_reusable_executor
                get_reusable_executor().shutdown(wait=True)
            print("done")
        """
    )
    assert done.stdout == "done\n"
