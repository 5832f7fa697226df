"""Processes that a host's own code starts: they are clients like all others."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostGoneError
from tests.support import is_running, wait_until


def write_in_child(a: Any) -> None:
    a[1:3] = 5
    a += 1
    assert a.sum() == 14


def fork_and_write(a: Any) -> Any:
    """Run in the host: let a forked child write."""
    child = multiprocessing.get_context("fork").Process(target=write_in_child, args=(a,))
    child.start()
    child.join()
    return np.array([child.exitcode])


def sleep_in_child() -> Any:
    """Run in the host: leave a child behind."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    return np.array([pid])


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        yield running


def test_a_child_forked_in_the_host_uses_its_proxies_through_the_host(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    before = manager.statistics()
    assert manager.run(fork_and_write, a)._getvalue() == [0]
    assert a[:].copy().tolist() == [1, 6, 6, 1]
    wait_until(lambda: manager.statistics().n_sessions == before.n_sessions, what="the end of the child's session")
    assert manager.ones(3).sum() == 3
    wait_until(lambda: manager.statistics().n_slots == before.n_slots, what="the rows to be free")


def test_a_hosts_death_is_noticed_though_a_child_of_it_lives() -> None:
    with ArrayManager() as manager:
        a = manager.zeros(4)
        left = int(manager.run(sleep_in_child)[0])
        pid = manager.statistics().pid
        os.kill(pid, signal.SIGKILL)
        try:
            wait_until(lambda: not is_running(pid), what="the host's end")
            with pytest.raises(HostGoneError):
                a[0] = 1
            assert is_running(left)
            address = str(manager.address).removeprefix("unix:")
            wait_until(lambda: address not in Path("/proc/net/unix").read_text(), what="the host's socket to go")
        finally:
            os.kill(left, signal.SIGKILL)
