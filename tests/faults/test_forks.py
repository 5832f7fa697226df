"""Fork from a client with threads that holds a lock: the child uses, exits, executes; the parent's is left alone."""

import contextlib
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, LockTimeoutError, TornArrayWarning, connect
from tests.faults.harness import Run, Victim, count, nothing_left, report, scaled, shared_words, victims
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(120)]

PER_CHILD = 5


def _use(total: Any, section: Any) -> None:
    """In the child: its own way to the host, its own sections, and no part in its parent's."""
    assert not total.lock.locked()
    with contextlib.suppress(LockTimeoutError):
        with total.write(timeout=0.0):
            raise AssertionError("the child got in while its parent was inside")
    os.write(_READY, b".")
    for _ in range(PER_CHILD):
        with total.write(timeout=30.0) as x:
            x[0] += 1
    total.copy()
    for _ in range(PER_CHILD):
        total[2:3] += 1


def _execute(total: Any, section: Any) -> None:
    os.write(_READY, b".")
    os.execv(sys.executable, [sys.executable, "-c", "import os; os.getpid()"])


def _leave(total: Any, section: Any) -> None:
    """End as an exception would, through the section that the parent is in."""
    section.__exit__(None, None, None)
    os.write(_READY, b".")


def _increment(address: str, words: np.ndarray) -> None:
    """Be another process, which gets in as soon as the lock is free."""
    total = connect(address)["total"]
    while not words[_STOP]:
        with total.write(timeout=60.0) as x:
            x[0] += 1
        words[_OTHERS] += 1


_STOP, _OTHERS = 3, 4
_READY = -1
WAYS = [_use, _execute, _leave]


def fork_from_threads(run: Run) -> None:
    """Fork, in one thread, inside a section, while other threads and another process increment and make requests."""
    global _READY
    reader, _READY = os.pipe()
    words = shared_words(5)
    with ArrayManager(lock_timeout=30.0) as manager:
        manager["total"] = np.zeros(3)
        total = manager["total"]
        stop = threading.Event()

        def increment(k: int) -> None:
            while not stop.is_set():
                with total.write() as x:
                    x[0] += 1
                words[k] += 1
                total[1] = manager.statistics().pid

        threads = [threading.Thread(target=increment, args=(k,)) for k in (0, 1)]
        with nothing_left(manager), victims() as alive:
            alive.append(Victim(_increment, str(manager.address), words))
            for thread in threads:
                thread.start()
            try:
                n_used = 0
                wait_until(lambda: words[_OTHERS], what="another process's first increment")
                for k in run.rounds():
                    way = WAYS[k % 3]
                    with (section := total.write(timeout=30.0)) as x:
                        before = x[0]
                        alive.append(Victim(way, total, section))
                        # The child has met the lock, or has gone, and it is still ours.
                        assert os.read(reader, 1) == b"."
                        if way is not _use:
                            assert alive.pop().wait(30.0) == 0
                        assert x[0] == before
                        x[0] += 1
                        words[2] += 1
                    if way is _use:
                        # While the child makes requests, this thread makes some: each gets its own answers.
                        for number in range(20):
                            assert manager.full(3, number)[0] == number
                        assert alive.pop().wait(30.0) == 0
                        n_used += 1
                    assert manager.ones(3).sum() == 3
            finally:
                stop.set()
                words[_STOP] = 1
                for thread in threads:
                    thread.join()
            assert alive.pop().wait(30.0) == 0
        words[_STOP] = 0
        assert total[0] == words.sum() + PER_CHILD * n_used
        assert total[2] == PER_CHILD * n_used
    os.close(reader)
    os.close(_READY)
    report(
        f"  {run.n:,} forks inside a section, with threads at work: lock and connections intact, "
        f"{int(words.sum()) + PER_CHILD * n_used:,} increments exact"
    )


def test_forks_of_a_threaded_client_that_holds_a_lock(run: Run) -> None:
    fork_from_threads(scaled(run, count(18, 300)))


def _hold_fork_and_sleep(total: Any, words: np.ndarray) -> None:
    with total.write():
        child = os.fork()
        if child:
            words[1] = child
        else:
            words[0] = 1
        signal.pause()


def outlive_a_holder(run: Run) -> None:
    """Kill a process inside a section whose forked child lives: the child must not keep its parent's lock."""
    with ArrayManager() as manager:
        manager["total"] = np.zeros(3)
        total = manager["total"]
        for _ in run.rounds():
            words = shared_words(2)
            holder = Victim(_hold_fork_and_sleep, total, words)
            wait_until(words.all, what="the fork")
            pid = holder.pid
            holder.kill()
            holder.wait()
            try:
                with pytest.warns(TornArrayWarning, match=f"process {pid}"), total.write(timeout=5.0):
                    pass
                total.recover()
            finally:
                os.kill(int(words[1]), signal.SIGKILL)


def test_a_dead_holders_child_does_not_keep_its_lock(run: Run) -> None:
    outlive_a_holder(scaled(run, count(3, 50)))
