"""Workers and schedulers that die, clusters without workers: clear errors, and nothing lost that was committed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import arrayhost
from arrayhost import ArrayManager, ClusterTimeoutError, HostGoneError
from tests.dask.conftest import FULL, KEPT, running_cluster
from tests.support import assert_same, run_python, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.watchdog(180),
    pytest.mark.census_ignore(KEPT, reason="Dask's client keeps threads and connections"),
    pytest.mark.census_ignore("multiprocessing-fork|/dev/shm/sem.mp-", reason="a nanny's next worker"),
]


@pytest.fixture(scope="module")
def manager() -> Iterator[ArrayManager]:
    with running_cluster() as (address, _):
        manager = arrayhost.connect(address)
        manager.ones(1).sum()
        yield manager
        manager.client.close()


def worker_pids(manager: ArrayManager) -> list[int]:
    return list(manager.client.run(os.getpid).values())


def kill_a_worker(manager: ArrayManager) -> None:
    """Kill the worker that has most of the data; its nanny starts another."""
    info = manager.client.scheduler_info()["workers"]
    fullest = max(info, key=lambda address: info[address]["metrics"]["managed_bytes"])
    os.kill(manager.client.run(os.getpid, workers=[fullest])[fullest], signal.SIGKILL)


class Repeating(threading.Thread):
    """Does something again and again until it is told to stop, and keeps the error that ended it."""

    def __init__(self, work: Any) -> None:
        super().__init__(daemon=True)
        self.work, self.times, self.error, self.stopping = work, 0, None, False

    def run(self) -> None:
        try:
            while not self.stopping:
                self.work()
                self.times += 1
        except Exception as error:  # shown by the test
            self.error = error

    def finish(self) -> int:
        self.stopping = True
        self.join(120)
        assert not self.is_alive()
        assert self.error is None, repr(self.error)
        return self.times


def test_a_worker_killed_during_a_sum(manager: ArrayManager) -> None:
    a = manager.ones(4_000_000, chunks=500_000)
    a[:10] = 2

    def work() -> None:
        assert a.sum() == 4_000_010

    summing = Repeating(work)
    summing.start()
    wait_until(lambda: summing.times >= 1 or not summing.is_alive(), timeout=60)
    kill_a_worker(manager)
    done = summing.times
    wait_until(lambda: summing.times >= done + 2 or not summing.is_alive(), timeout=120)
    summing.finish()


def test_a_worker_killed_during_a_write(manager: ArrayManager) -> None:
    a = manager.zeros((400, 1000), chunks=(100, 500))

    def work() -> None:
        a.__iadd__(1)

    writing = Repeating(work)
    writing.start()
    wait_until(lambda: writing.times >= 2 or not writing.is_alive(), timeout=60)
    kill_a_worker(manager)
    done = writing.times
    wait_until(lambda: writing.times >= done + 2 or not writing.is_alive(), timeout=120)
    times = writing.finish()
    assert_same(a.copy(), np.full((400, 1000), float(times)))


def test_what_was_put_outlives_a_worker(manager: ArrayManager) -> None:
    values = np.random.default_rng(3).random((500, 600))
    a = manager.array(values, chunks=(100, 600))
    a[10] = 1
    values[10] = 1
    for _ in range(3 if FULL else 1):
        kill_a_worker(manager)
        assert_same(a.copy(), values)


def test_recovery_is_short_after_many_versions(manager: ArrayManager) -> None:
    def longest_history(dask_scheduler: Any) -> int:
        """How many tasks stand behind the chunk that has most: they would be repeated to make it again."""
        longest = 0
        for task in list(dask_scheduler.tasks.values()):
            seen: set[Any] = set()
            stack = [task] if task.state == "memory" else []
            while stack:
                new = stack.pop().dependencies - seen
                seen |= new
                stack += new
            longest = max(longest, len(seen))
        return longest

    n = 1000 if FULL else 100
    a = manager.zeros(200_000, chunks=100_000)
    begun = time.monotonic()
    for k in range(n):
        a[k] = k + 1
    written = time.monotonic()
    depth = manager.client.run_on_scheduler(longest_history)
    kill_a_worker(manager)
    expected = np.zeros(200_000)
    expected[:n] = np.arange(1, n + 1)
    begun_reading = time.monotonic()
    assert_same(a.copy(), expected)
    seconds = time.monotonic() - begun_reading
    print(f"{n} versions in {written - begun:.1f} s, recovered after a worker's death in {seconds:.2f} s")
    assert depth <= 70
    assert a.version == n + 1
    assert seconds < 60


def test_everything_listens_on_loopback_only(manager: ArrayManager) -> None:
    pids = [manager.client.run_on_scheduler(os.getpid), *worker_pids(manager)]
    listening = [
        connection.laddr
        for pid in pids
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    # Scheduler and its page for browsers, two nannies, two workers and their pages.
    assert len(listening) >= 6
    assert {place.ip for place in listening} == {"127.0.0.1"}


def test_no_workers_is_an_error_and_no_wait_for_ever() -> None:
    with running_cluster("workers=1") as (address, process):
        manager = arrayhost.connect(f"{address}?idle=2")
        a = manager.ones(100, chunks=50)
        assert a.sum() == 100
        process.send("scale 0")
        wait_until(lambda: not manager.client.ncores(), timeout=60)
        begun = time.monotonic()
        for ask in (a.sum, lambda: a.__setitem__(0, 2)):
            with pytest.raises(ClusterTimeoutError, match="no workers") as raised:
                ask()
            assert isinstance(raised.value, TimeoutError)
        assert time.monotonic() - begun < 60
        manager.client.close()


def test_values_that_only_a_dead_worker_had() -> None:
    """A cluster of the user's own that has no directory: what was sent is lost, what was computed is made again."""
    out = run_python(
        """
        import os, signal, numpy as np, arrayhost
        from distributed import LocalCluster

        if __name__ == "__main__":
            with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as own:
                manager = arrayhost.connect("dask://" + own.scheduler_address.partition("://")[2])
                sent = manager.array(np.random.default_rng(1).random((2000, 200)), chunks=(500, 200))
                made = manager.ones((2000, 200), chunks=(500, 200))
                made += 1
                for pid in manager.client.run(os.getpid).values():
                    os.kill(pid, signal.SIGKILL)
                for ask in (sent.sum, lambda: sent.__iadd__(1), lambda: sent.write().__enter__()):
                    try:
                        print(ask())
                    except arrayhost.ChunkLostError:
                        print("lost")
                print(made.sum())
                manager.client.close()
        """,
        timeout=90,
    )  # fmt: skip
    assert out.stdout.split() == ["lost", "lost", "lost", "800000.0"]


def test_a_scheduler_that_dies_and_the_cluster_that_comes_after_it(tmp_path: Path) -> None:
    values = np.arange(600.0).reshape(20, 30)
    with running_cluster(f"workers=1&directory={tmp_path}") as (address, process):
        manager = arrayhost.connect(f"{address}&timeout=5")
        a = manager.put("kept", values, chunks=(8, 30))
        a[3] = -1
        a[10:12] *= 2
        manager.create("empty", (2, 2))
        other = manager.put("taken away", values)
        del manager["taken away"]
        version = a.version
        process.kill()
        begun = time.monotonic()
        for ask in (a.sum, lambda: a.__setitem__(0, 2), lambda: list(manager), lambda: other.copy()):
            with pytest.raises(HostGoneError, match="scheduler"):
                ask()
        assert time.monotonic() - begun < 90
    expected = values.copy()
    expected[3] = -1
    expected[10:12] *= 2
    with running_cluster(f"workers=1&directory={tmp_path}") as (address, _):
        manager = arrayhost.connect(address)
        assert list(manager) == ["empty", "kept"]
        found = manager["kept"]
        assert_same(found.copy(), expected)
        assert found.version == version
        found[0] = 7
        expected[0] = 7
        assert_same(manager["kept"].copy(), expected)
        manager.client.close()
    newest = max((tmp_path / "kept").glob("v*"))
    assert_same(stored(newest), expected)


@pytest.mark.skipif(not FULL, reason="one more cluster: ARRAYHOST_DASK=full")
def test_writers_of_a_stored_array(tmp_path: Path) -> None:
    """Several writers store their versions at once, and what is stored is the last."""
    with running_cluster(f"workers=2&directory={tmp_path}") as (address, _):
        manager = arrayhost.connect(address)
        a = manager.create("counts", (4, 100), chunks=(1, 100))
        threads = [Repeating(lambda row=row: a[row : row + 1].__iadd__(1)) for row in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(thread.times >= 3 for thread in threads) or any(t.error for t in threads), timeout=120)
        times = [thread.finish() for thread in threads]
        expected = np.repeat(np.array(times, float)[:, None], 100, axis=1)
        assert_same(a.copy(), expected)
        manager.client.close()
    folders = sorted((tmp_path / "counts").glob("v*"))
    assert_same(stored(folders[-1]), expected)
    assert len(folders) <= 2


def stored(folder: Path) -> np.ndarray:
    """What anybody reads there with Zarr."""
    copy = folder.parents[1] / "copy.npy"
    run_python(
        "import sys, numpy, zarr; numpy.save(sys.argv[2], zarr.open_array(sys.argv[1], mode='r')[:])", folder, copy
    )
    return np.load(copy)
