"""Waiting for an array to change: woken by the writer, whoever that is and however it writes."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray, StaleProxyError
from arrayhost.client.session import round_trips
from arrayhost.memory.control import WATCHED
from arrayhost.sync import watching
from tests.support import child, wait_until

# Far more than a wake-up takes on a loaded machine, and less than the slices of `long_slices`.
PROMPT = 20.0


@pytest.fixture
def long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the writer can wake a watcher of this process in time."""
    monkeypatch.setattr(watching, "SLICE", 120.0)


class Watcher(threading.Thread):
    """Waits for one change; what came of it is in `outcome`."""

    def __init__(self, array: HostedArray, since: int | None = None, timeout: float | None = None) -> None:
        super().__init__()
        self.array, self.since, self.timeout = array, array.version if since is None else since, timeout
        self.outcome: int | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.array.wait_changed(self.since, self.timeout)
        except Exception as error:
            self.outcome = error

    def asleep(self) -> bool:
        return watches(self, self.array)


def watches(thread: threading.Thread, array: HostedArray) -> bool:
    """Whether a thread sleeps in the kernel on the array's version; on another word it may wait for the interpreter."""
    with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
        fields = file.read().split()  # number and arguments; one word while it runs
    return len(fields) > 1 and int(fields[1], 16) == array.guard.version_address


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "arrayhost-wait"]


def in_section(a: HostedArray) -> None:
    with a.write() as x:
        x[0] += 1


WRITES: dict[str, Callable[[HostedArray], object]] = {
    "item in the host": lambda a: a.__setitem__(0, 5),
    "operator in the host": lambda a: a.__iadd__(1),
    "another view": lambda a: a[1:].fill(3),
    "atomic": lambda a: a.atomic.add(0, 1),
    "section": in_section,
    "apply": lambda a: a.apply(np.ndarray.sort),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_wakes(manager: ArrayManager, long_slices: None, name: str) -> None:
    a = manager.zeros(4)
    watcher = Watcher(a)
    wait_until(watcher.asleep)
    before = a.version
    WRITES[name](a)
    watcher.join(PROMPT)
    assert watcher.outcome == a.version == before + 2


SECTION_WRITER = """
import sys, arrayhost
a = arrayhost.connect(sys.argv[1])["watched"]
print("ready", flush=True)
while sys.stdin.readline():
    with a.write() as x:
        x += 1
"""

WATCHER = """
import sys, arrayhost
from arrayhost.sync import watching
watching.SLICE = 120.0
a = arrayhost.connect(sys.argv[1])["watched"]
version = a.version
print("ready", flush=True)
for _, version in zip(range(3), a.changes()):
    print("seen", version, flush=True)
"""


def test_writers_and_watchers_in_other_processes(manager: ArrayManager, long_slices: None) -> None:
    manager["watched"] = np.zeros(4)
    a = manager["watched"]
    with child(SECTION_WRITER, manager.address) as writer, child(WATCHER, manager.address) as other:
        writer.expect("ready")
        other.expect("ready")
        wait_until(lambda: a.guard.row[WATCHED] != 0)
        changes = a.changes()
        for _ in range(3):
            writer.send()
            version = next(changes)
            assert int(other.expect("seen")) == version
    assert a[0] == 3


def test_timeouts_and_what_is_known_already(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    for kind in (a, a.on_host):
        version = kind.version
        assert kind.wait_changed(version, 0) == version
        assert kind.wait_changed(timeout=0.01) == version
        assert kind.wait_changed(version - 2) == version
        assert list(kind.changes(timeout=0.01)) == []
        assert list(kind.changes(since=version - 2, timeout=0.01)) == [version]
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                kind.wait_changed(version, bad)


def test_a_write_that_is_not_complete_is_no_change(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    with a.write() as x:
        x[0] = 1
        watcher = Watcher(a, timeout=PROMPT)
        wait_until(watcher.asleep)
        assert watcher.outcome is None
    watcher.join(PROMPT)
    assert watcher.outcome == a.version


def test_nobody_watching_costs_no_wake_up(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    assert a.guard.row[WATCHED] == 0
    a.wait_changed(timeout=0)
    assert a.guard.row[WATCHED] == 0
    a.wait_changed(timeout=0.01)
    assert a.guard.row[WATCHED] != 0
    a.guard.row[WATCHED] = 1  # long ago
    in_section(a)
    assert a.guard.row[WATCHED] == 0


def test_a_freed_array_ends_the_waiting(manager: ArrayManager, long_slices: None) -> None:
    a = manager.zeros(4)
    watcher = Watcher(a)
    wait_until(watcher.asleep)
    # As the host frees a row; it would not while this process has a lease.
    row = a.guard.row
    generation, row[0] = row[0], 0
    row[1] += 2
    a.guard.wake()
    watcher.join(PROMPT)
    assert isinstance(watcher.outcome, StaleProxyError)
    row[0] = generation


def test_the_host_waits_for_proxies_that_are_not_mapped(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    watcher = Watcher(a.on_host)
    wait_until(lambda: a.guard.row[WATCHED] != 0)
    before = round_trips()
    a.sum(), a.on_host.sum()  # meanwhile others are served
    assert round_trips() <= before + 3
    in_section(a)
    watcher.join(PROMPT)
    assert watcher.outcome == a.version


def test_a_signal_interrupts_the_waiting(manager: ArrayManager, long_slices: None) -> None:
    a = manager.zeros(4)

    def interrupt() -> None:
        wait_until(lambda: a.guard.row[WATCHED] != 0)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        a.wait_changed(timeout=60)
    thread.join()


# -- event loops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["mapped", "on host"])
def test_an_event_loop_goes_on_meanwhile(manager: ArrayManager, where: str) -> None:
    base = manager.zeros(4)
    a = base if where == "mapped" else base.on_host

    async def main() -> list[int]:
        ticks, seen = 0, []
        start = a.version

        async def watch() -> None:
            async for version in a.changes(since=start):
                seen.append(version)
                if len(seen) == 3:
                    return

        task = asyncio.create_task(watch())
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1
            if len(seen) * 2 + start == base.version:
                async with base.write() as x:
                    x += 1
        await task
        assert ticks > 2
        assert await a.wait_changed_async(timeout=0.01) == base.version
        return seen

    seen = asyncio.run(main())
    assert seen == sorted(seen)
    assert len(seen) == 3


def test_a_cancelled_wait_ends_its_thread_at_once(manager: ArrayManager, long_slices: None) -> None:
    a = manager.zeros(4)

    async def main() -> None:
        task = asyncio.create_task(a.wait_changed_async())
        # A waking that comes just before the sleep is missed until the slice ends.
        while not any(watches(thread, a) for thread in waiting_threads()):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: not waiting_threads(), PROMPT)


def test_waits_that_were_cancelled_or_timed_out_leave_no_thread(manager: ArrayManager) -> None:
    a = manager.zeros(4)

    async def main() -> None:
        tasks = [asyncio.create_task(a.wait_changed_async()) for _ in range(20)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.wait_changed_async(), 0.01)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(main())
    wait_until(lambda: not waiting_threads())


def test_errors_reach_who_awaits(manager: ArrayManager) -> None:
    a = manager.zeros(4)
    row = a.guard.row
    version = a.version
    generation, row[0] = row[0], 0
    with pytest.raises(StaleProxyError):
        asyncio.run(a.wait_changed_async(version))
    row[0] = generation
