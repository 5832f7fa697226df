"""What is left when a process dies: of a client, of a section's owner, of the host, of the process that started it."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arrayhost import ArrayManager, HostGoneError, TornArrayError, TornArrayWarning
from tests.support import child, is_running, wait_until

CLIENT = """
import sys, numpy as np, arrayhost
manager = arrayhost.connect(sys.argv[1])
a = manager["a"]
mine = [manager.ones(1000) for _ in range(20)]
print("ready", flush=True)
sys.stdin.readline()
with a.write() as x:
    x[: x.size // 2] = 5
    print("inside", flush=True)
    sys.stdin.readline()
"""

STARTER = """
import sys, os
from arrayhost import ArrayManager
if __name__ == "__main__":
    manager = ArrayManager()
    manager.start()
    a = manager.ones(1000)
    print("host", manager.statistics().pid, manager.address, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager() as running:
        running["a"] = np.ones(1000)
        yield running


def test_a_killed_section_owner_tears_and_frees(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(CLIENT, manager.address) as owner:
        owner.expect("ready")
        owner.send()
        owner.expect("inside")
        pid = owner.pid
        owner.kill()
        started = time.monotonic()
        with pytest.warns(TornArrayWarning, match=str(pid)), a.write() as x:
            x[0] = 1
        assert time.monotonic() - started < 1
        with pytest.raises(TornArrayError) as caught:
            a.sum()
        assert caught.value.pid == pid
        a.recover()
        assert a[1] == 5
        wait_until(lambda: manager.statistics().n_arrays == 1, what="the dead client's arrays to be freed")


def test_a_whole_write_mends_a_torn_array(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(CLIENT, manager.address) as owner:
        owner.expect("ready")
        owner.send()
        owner.expect("inside")
        owner.kill()
    with pytest.raises(TornArrayError):
        a.copy()
    a[...] = 3
    assert a.sum() == 3000


def test_a_stopped_reader_stops_no_writer(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(CLIENT, manager.address) as reader:
        reader.expect("ready")
        reader.send_signal(signal.SIGSTOP)
        a[...] = 2
        with a.write(timeout=5) as x:
            x += 1
        reader.send_signal(signal.SIGCONT)
        assert a[0] == 3


def test_a_killed_host_leaves_reads_and_refuses_writes() -> None:
    with ArrayManager() as manager:
        a = manager.ones(1000)
        address = str(manager.address).removeprefix("unix:")
        os.kill(manager.statistics().pid, signal.SIGKILL)
        wait_until(lambda: address not in Path("/proc/net/unix").read_text(), what="the host's socket to go")
        assert a.sum() == 1000
        with pytest.raises(HostGoneError):
            a[0] = 2
        with pytest.raises(HostGoneError):
            manager.ones(3)


def test_a_host_ends_with_the_process_that_started_it() -> None:
    with child(STARTER) as starter:
        pid, address = starter.expect("host").split()
        starter.kill()
        wait_until(lambda: not is_running(int(pid)), what="the host to end")
        assert address.removeprefix("unix:") not in Path("/proc/net/unix").read_text()
    assert not [name for name in os.listdir("/dev/shm") if "arrayhost" in name]
