"""Who is waited for, how long, and who is named; what a dead host leaves in a client."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, HostGoneError, LockTimeoutError, WouldDeadlock, connect
from tests.support import child, run_python, wait_until

HOLDER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["a"]
with getattr(a, sys.argv[2])():
    print("inside", flush=True)
    sys.stdin.readline()
"""


class Arrays(ArrayManager):
    """A host that waits for locks only briefly."""


def set_all(x: Any, value: float) -> None:
    x[...] = value


def total(x: Any) -> float:
    return float(x.sum())


class Tally:
    """Adds to the arrays that it is given."""

    def add(self, x: Any, value: float) -> None:
        x += value


Arrays.register("Tally", Tally)


@pytest.fixture
def manager() -> Iterator[Arrays]:
    with Arrays(lock_timeout=0.5) as running:
        running["a"] = np.zeros(10)
        yield running


@pytest.mark.parametrize("way", ["write", "read"])
def test_a_function_cannot_write_to_what_its_caller_holds(manager: Arrays, way: str) -> None:
    a, tally = manager["a"], manager.Tally()
    with getattr(a, way)():
        with pytest.raises(WouldDeadlock):
            manager.run(set_all, a, 4.0)
        with pytest.raises(WouldDeadlock):
            tally.add(a, 1.0)
        assert manager.run(total, a)._getvalue() == 0
    manager.run(set_all, a, 4.0)
    assert a.sum() == 40


SIBLING_CALLS: list[Callable[[Arrays, HostedArray], Any]] = [
    lambda manager, a: a.__setitem__(0, 1),
    lambda manager, a: a.fill(2),
    lambda manager, a: a.sum(),
    lambda manager, a: a.copy(),
    lambda manager, a: manager.run(set_all, a, 1.0),
]


@pytest.mark.parametrize("call", SIBLING_CALLS)
def test_a_sibling_task_is_told_at_once(manager: Arrays, call: Callable[[Arrays, HostedArray], Any]) -> None:
    a = manager["a"]

    async def sibling() -> None:
        with pytest.raises(WouldDeadlock):
            call(manager, a)

    async def main() -> None:
        async with a.write():
            await asyncio.create_task(sibling())

    asyncio.run(main())
    assert a.sum() == 0


def test_a_loop_inside_a_section_is_told_at_once(manager: Arrays) -> None:
    a = manager["a"]

    async def main() -> None:
        with pytest.raises(WouldDeadlock):
            async with a.write():
                pass
        with pytest.raises(WouldDeadlock):
            a[0] = 2

    with a.write():
        asyncio.run(main())


@pytest.mark.parametrize("way", ["write", "read"])
@pytest.mark.parametrize("ask", ["host", "section"])
def test_a_timeout_names_who_is_in_the_way(manager: Arrays, way: str, ask: str) -> None:
    a = manager["a"]
    a[0] = 1
    with child(HOLDER, manager.address, way) as holder:
        holder.expect("inside")
        with pytest.raises(LockTimeoutError, match=f"process {holder.pid}") as caught:
            if ask == "host":
                a.fill(3)
            else:
                a.write().__enter__()
        assert caught.value.holder_pid == holder.pid
        if way == "write":
            with pytest.raises(LockTimeoutError):
                a.sum()
        holder.send()


def test_a_dead_host_leaves_nothing_in_a_client() -> None:
    done = run_python(
        """
import os, signal
from arrayhost import ArrayManager, HostGoneError, connect

def held():
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [name for name in (os.readlink(path) for path in paths if os.path.lexists(path)) if "arrayhost" in name]

if __name__ == "__main__":
    for _ in range(3):
        host = ArrayManager()
        host.start()
        client = connect(host.address)
        os.kill(client.statistics().pid, signal.SIGKILL)
        host.join()
        try:
            client.ones(3)
        except HostGoneError:
            pass
        else:
            raise SystemExit("the dead host answered")
        del client, host
    assert not held(), held()
    assert "arrayhost:control" not in open("/proc/self/maps").read()
"""
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_path_has_no_host() -> None:
    assert not Path("/nonexistent/host.sock").exists()
    with pytest.raises(HostGoneError, match="start it"):
        connect("unix:/nonexistent/host.sock")


def test_a_killed_host_is_noticed_by_the_next_connect() -> None:
    with Arrays() as other:
        address = str(other.address)
        os.kill(other.statistics().pid, signal.SIGKILL)
        wait_until(lambda: address[5:] not in Path("/proc/net/unix").read_text(), what="the socket to go")
        with pytest.raises(HostGoneError, match="no host at"):
            connect(address)
