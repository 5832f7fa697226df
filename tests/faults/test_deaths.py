"""What is left when a process dies or stops at a known moment: who is told, who goes on, what is freed."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arrayhost import ArrayManager, HostGoneError, LockTimeoutError, TornArrayError, TornArrayWarning
from tests.support import assert_same, child, is_running, wait_until

N = 1000

HOLDER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with getattr(a, sys.argv[2])() as x:
    if sys.argv[2] == "write":
        x[: x.size // 2] = 5
    print("inside", flush=True)
    sys.stdin.readline()
"""

WAITER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
print("waiting", flush=True)
with a.write():
    print("inside", flush=True)
"""

FORKING_HOLDER = """
import os, sys, time, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with a.write() as x:
    x[0] = 5
    pid = os.fork()
    if not pid:
        sys.stdin.readline()
        os._exit(0)
    print("inside", flush=True)
    time.sleep(60)
"""

LINGERING_HOLDER = """
import subprocess, sys, time, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with a.write() as x:
    x[0] = 5
    lock = a.guard.exclusive.file.fd
    # What the kernel has not closed yet when the host hears of the client's end.
    subprocess.Popen(["sleep", "0.5"], pass_fds=[lock], stdout=subprocess.DEVNULL)
    print("inside", flush=True)
    time.sleep(60)
"""

CLIENT = """
import sys, arrayhost
manager = arrayhost.connect(sys.argv[1])
mine = [manager.ones(1000) for _ in range(20)]
theirs = manager["a"]
print("ready", flush=True)
if sys.argv[2] == "idle":
    sys.stdin.readline()
while True:
    if sys.argv[2] == "writing":
        theirs.fill(3)
    elif sys.argv[2] == "creating":
        mine.append(manager.zeros(100))
        del mine[0]
    else:
        theirs.copy()
"""

STARTER = """
import multiprocessing, sys
from arrayhost import ArrayManager
if __name__ == "__main__":
    manager = ArrayManager(ctx=multiprocessing.get_context(sys.argv[1]))
    manager.start()
    a = manager.ones(1_000_000)
    manager["a"] = a
    print(manager.statistics().pid, flush=True)
    print(manager.address, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def manager() -> Iterator[ArrayManager]:
    with ArrayManager(handle_grace=1.0) as manager:
        manager["a"] = np.zeros(N)
        yield manager


def kill_inside(manager: ArrayManager, kind: str = "write") -> int:
    """Let a process die inside a section; return its pid."""
    with child(HOLDER, manager.address, kind) as holder:
        holder.expect("inside")
        holder.kill()
        return holder.pid


def shared_memory_files() -> set[str]:
    """Files of ours; other programs on the machine make some, too."""
    return {name for name in os.listdir("/dev/shm") if "arrayhost" in name}


def is_socket_left(address: str) -> bool:
    name = address.removeprefix("unix:")
    return any(line.endswith(name) for line in Path("/proc/net/unix").read_text(errors="replace").splitlines())


# -- a section's holder ----------------------------------------------------------------------------------------------


def test_the_next_section_proceeds_and_is_warned(manager: ArrayManager) -> None:
    a = manager["a"]
    pid = kill_inside(manager)
    started = time.monotonic()
    section = a.write()
    with pytest.warns(TornArrayWarning, match=str(pid)):
        x = section.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(section)
        assert time.monotonic() - started < 1
        assert section.was_torn
        assert x[0] == 5
        assert x[-1] == 0
    assert a.statistics().torn


def test_the_host_finds_a_dead_writer_whose_lock_outlives_its_connection(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(LINGERING_HOLDER, manager.address) as holder:
        holder.expect("inside")
        holder.kill()
        wait_until(lambda: manager.statistics().n_sessions == 1)
        assert not a.statistics().torn
        wait_until(lambda: a.statistics().torn)
    assert a.statistics().torn_pid == holder.pid


def test_a_waiting_section_proceeds_within_a_second(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(HOLDER, manager.address, "write") as first:
        first.expect("inside")
        with child(WAITER, manager.address) as second:
            second.expect("waiting")
            time.sleep(0.1)
            first.kill()
            started = time.monotonic()
            second.expect("inside")
            assert time.monotonic() - started < 1
            assert "TornArrayWarning" in second.stderr
            assert str(first.pid) in second.stderr
    assert a.statistics().torn
    assert a.statistics().torn_pid == first.pid


def test_a_reader_is_told_who_died_until_recover(manager: ArrayManager) -> None:
    a = manager["a"]
    pid = kill_inside(manager)
    started = time.monotonic()
    for read in (a.sum, a.copy, lambda: a[0], lambda: a[2:5].copy(), lambda: np.add(a, 1), a.read().__enter__):
        with pytest.raises(TornArrayError, match=str(pid)) as caught:
            read()
        assert caught.value.pid == pid
    assert time.monotonic() - started < 2
    a.recover()
    assert not a.statistics().torn
    assert a[0] == 5
    assert a[-1] == 0
    assert a.sum() == 5 * (N // 2)
    with a.write():
        pass


def test_a_whole_write_clears_the_mark(manager: ArrayManager) -> None:
    a = manager["a"]
    kill_inside(manager)
    a[...] = 7
    assert not a.statistics().torn
    assert_same(a.copy(), np.full(N, 7.0))


def test_a_partial_write_does_not_clear_the_mark(manager: ArrayManager) -> None:
    a = manager["a"]
    kill_inside(manager)
    started = time.monotonic()
    try:
        a[3:5] = 7
    except TornArrayError:
        pass
    assert time.monotonic() - started < 1
    with pytest.raises(TornArrayError):
        a.sum()


def test_a_killed_reader_leaves_no_mark(manager: ArrayManager) -> None:
    a = manager["a"]
    kill_inside(manager, "read")
    with a.write(timeout=1) as x:
        x[...] = 1
    assert a.sum() == N


def test_a_forked_child_does_not_keep_a_dead_parents_lock(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(FORKING_HOLDER, manager.address) as holder:
        holder.expect("inside")
        holder.kill()
        with pytest.warns(TornArrayWarning, match=str(holder.pid)), a.write(timeout=1):
            pass


def test_a_stopped_reader_stops_no_writer(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(CLIENT, manager.address, "reading") as reader:
        reader.expect("ready")
        reader.send_signal(signal.SIGSTOP)
        a[...] = 2
        with a.write(timeout=5) as x:
            x += 1
        assert a[0] == 3
        reader.kill()


def test_a_stopped_section_owner_is_named_and_goes_on(manager: ArrayManager) -> None:
    a = manager["a"]
    with child(HOLDER, manager.address, "write") as holder:
        holder.expect("inside")
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(LockTimeoutError, match=str(holder.pid)), a.write(timeout=0.1):
            pass
        holder.send_signal(signal.SIGCONT)
        holder.send()
        with a.write(timeout=10) as x:
            assert x[0] == 5
    assert not a.statistics().torn


# -- a client --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["idle", "writing", "creating", "reading"])
def test_what_a_killed_client_had_is_freed(manager: ArrayManager, what: str) -> None:
    a = manager["a"]
    before = manager.statistics()
    with child(CLIENT, manager.address, what) as client:
        client.expect("ready")
        during = manager.statistics()
        assert during.n_arrays >= before.n_arrays + 19
        assert during.n_leases > before.n_leases
        if what != "idle":
            time.sleep(0.05)
        client.kill()

    def is_as_before() -> bool:
        now = manager.statistics()
        return (now.n_arrays, now.n_bytes, now.n_leases, now.n_sessions, now.n_connections) == (
            before.n_arrays,
            before.n_bytes,
            before.n_leases,
            before.n_sessions,
            before.n_connections,
        )

    wait_until(is_as_before, what=f"the end of what the client had (before: {before})")
    a.fill(1)
    assert a.sum() == N


# -- the host --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_killed_host() -> None:
    files = shared_memory_files()
    manager = ArrayManager()
    manager.start()
    a = manager.ones(N)
    pid, address = manager.statistics().pid, manager.address
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), what="the host's end")
    assert a.sum() == N
    assert a[3] == 1
    assert a[2:5].sum() == 3
    assert_same(a.copy(), np.ones(N))
    for write in (lambda: a.fill(2), lambda: a.__setitem__(0, 2), lambda: manager.ones(3), manager.statistics):
        started = time.monotonic()
        with pytest.raises(HostGoneError):
            write()
        assert time.monotonic() - started < 2
    assert a.sum() == N
    manager.shutdown()
    # The kernel closes a dead process's sockets a moment after it has become a zombie.
    wait_until(lambda: not is_socket_left(address), timeout=5, what="the end of the host's socket")
    assert shared_memory_files() == files


def test_a_host_killed_while_a_child_waits_for_its_lock(manager: ArrayManager) -> None:
    a = manager["a"]
    pid = manager.statistics().pid

    source = """
        import sys, arrayhost
        a = arrayhost.connect(sys.argv[1])["a"]
        print("ready", flush=True)
        try:
            a.fill(3)
        except arrayhost.HostGoneError:
            print("gone", flush=True)
    """
    with a.write() as x, child(source, manager.address) as waiting:
        waiting.expect("ready")
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        assert waiting.read_line(5) == "gone"
        x[...] = 2
    assert a.sum() == 2 * N


# -- the process that started the host -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_host_ends_with_the_process_that_started_it(method: str) -> None:
    files = shared_memory_files()
    with child(STARTER, method) as starter:
        pid = int(starter.read_line())
        address = starter.read_line()
        assert is_running(pid)
        assert is_socket_left(address)
        starter.kill()
    wait_until(lambda: not is_running(pid), timeout=5, what="the host's end")
    # The kernel closes a dead process's sockets a moment after it has become a zombie.
    wait_until(lambda: not is_socket_left(address), timeout=5, what="the end of the host's socket")
    assert shared_memory_files() == files
